//! Sends steps to the collector, with opentelemetry-otlp over our own HTTP client: bounded, in portions, never in anybody's way.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fetch::{Fetcher, Limits, Url};
use crate::metrics::Metrics;
use crate::process::Failure;

/// Steps that wait for the collector; at about 1 KB each 4 MB. Beyond, they are dropped and counted.
const WAITING_MAX: usize = 4_096;
/// Steps of one request.
const PORTION_MAX: usize = 512;
/// How often what waits is sent.
const EVERY: Duration = Duration::from_millis(500);
/// A request that takes longer is given up, with the steps in it: newer ones matter more.
const WITHIN: Duration = Duration::from_secs(3);
/// Largest answer read, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What became of steps.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    exported: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let spans = metrics.counter_vec(
            "roomcast_trace_spans_total",
            "Steps of traces by what became of them: exported, dropped because too many waited, failed because the collector did not \
             take them.",
            &["outcome"],
        )?;
        Ok(Self {
            exported: spans.with_label_values(&["exported"]),
            dropped: spans.with_label_values(&["dropped"]),
            failed: spans.with_label_values(&["failed"]),
        })
    }
}

/// Where ended steps wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: mpsc::Sender<SpanData>,
    dropped: IntCounter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.waiting.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Takes them from there to the collector.
pub(super) struct Exporter {
    waiting: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    client: Client,
    counters: Counters,
    failing: bool,
}

/// Makes both ends.
pub(super) fn queue(
    collector: Url,
    resource: &Resource,
    counters: Counters,
) -> Result<(Queue, Exporter), Failure> {
    let limits = Limits {
        within: WITHIN,
        bytes_max: ANSWER_BYTES_MAX,
    };
    let fetcher = Fetcher::new(limits, collector.is_tls())
        .map_err(|error| Failure::unavailable(format!("traces cannot be sent to {collector}: {error}")))?;
    let client = Client {
        fetcher,
        collector: Arc::new(collector),
        answered: Arc::default(),
    };
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(client.collector.to_string())
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client.clone())
        // It would put the thread to sleep in between.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| Failure::settings(format!("traces cannot be sent: {error}")))?;
    exporter.set_resource(resource);
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let queue = Queue {
        waiting: sender,
        dropped: counters.dropped.clone(),
    };
    let exporter = Exporter {
        waiting,
        exporter,
        client,
        counters,
        failing: false,
    };
    Ok((queue, exporter))
}

impl Exporter {
    /// Sends until `ending`, then what is left, as far as the collector takes it within the time of one request.
    ///
    /// # Cancel safety
    /// Dropped, the steps that wait are lost.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        while !ending.is_cancelled() {
            tokio::select! {
                () = ending.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
            }
            while !ending.is_cancelled()
                && let Some(portion) = self.portion()
            {
                self.send(portion).await;
            }
        }
        let until = Instant::now() + WITHIN;
        while let Some(portion) = self.portion() {
            let count = portion.len();
            let sent = tokio::time::timeout_at(until, self.send(portion)).await;
            if let Ok(true) = sent {
                continue;
            }
            let cut = sent.map_or(count, |_| 0);
            self.counters.failed.inc_by((cut + self.waiting.len()) as u64);
            return;
        }
    }

    /// What waits; `None`: nothing does.
    fn portion(&mut self) -> Option<Vec<SpanData>> {
        let mut portion = Vec::new();
        while portion.len() < PORTION_MAX {
            match self.waiting.try_recv() {
                Ok(span) => portion.push(span),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        (!portion.is_empty()).then_some(portion)
    }

    /// Whether the collector answered.
    async fn send(&mut self, portion: Vec<SpanData>) -> bool {
        let count = portion.len() as u64;
        let sent = self.exporter.export(portion).await;
        // The exporter's own word is less than what its client heard, and the only one where it did not ask at all.
        let unsent = || Err(sent.err().map(|error| error.to_string()).unwrap_or_default());
        match self.client.answered().unwrap_or_else(unsent) {
            Ok(refused) => {
                let refused = refused.min(count);
                self.counters.exported.inc_by(count - refused);
                self.counters.failed.inc_by(refused);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the collector takes traces again");
                }
                true
            }
            Err(error) => {
                self.counters.failed.inc_by(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the collector takes no traces, and they are lost: it {error}");
                }
                false
            }
        }
    }
}

/// Our HTTP client for the exporter; remembers what the collector said, of which the exporter tells nobody.
#[derive(Clone, Debug)]
struct Client {
    fetcher: Fetcher,
    collector: Arc<Url>,
    /// How many steps of the last portion it refused, or why there is no answer.
    answered: Arc<Mutex<Option<Result<u64, String>>>>,
}

impl Client {
    fn answered(&self) -> Option<Result<u64, String>> {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.take()
    }

    async fn posted(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.fetcher.post(&self.collector, head.headers, body).await;
        let heard = match &answer {
            Ok(answer) => Ok(refused(answer)),
            Err(error) => Err(error.to_string()),
        };
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
        Ok(Response::new(answer?))
    }
}

impl HttpClient for Client {
    // Written out, as the trait's macro would.
    fn send_bytes<'client, 'sent>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'client: 'sent,
    {
        Box::pin(self.clone().posted(request))
    }
}

/// Steps that the collector did not take although it answered; what is no such answer says nothing of any.
fn refused(answer: &Bytes) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer.clone()).ok();
    let partly = answer.and_then(|answer| answer.partial_success);
    let refused = partly.and_then(|partly| u64::try_from(partly.rejected_spans).ok());
    refused.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use tokio::net::TcpListener;

    use super::*;

    fn span() -> SpanData {
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "step".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    /// Each of the portions that wait would have had the time of a request.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_silent_holds_up_the_end_once() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let counters = Counters::new(&Metrics::new("test").unwrap()).unwrap();
        let resource = Resource::builder_empty().build();
        let (queue, exporter) = queue(Url::parse(&url).unwrap(), &resource, counters.clone()).unwrap();
        (0..WAITING_MAX).for_each(|_| queue.on_end(span()));
        let (ending, begun) = (CancellationToken::new(), Instant::now());
        ending.cancel();
        exporter.run(ending).await;
        // The clock of this test stands still but for what is waited for.
        assert!(begun.elapsed() < 2 * WITHIN, "{:?}", begun.elapsed());
        assert_eq!(counters.failed.get(), WAITING_MAX as u64);
    }
}
