//! Sends steps to the collector: bounded, in portions, never in anybody's way.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use crate::fetch::{FetchError, Fetcher, Limits, Url};
use crate::metrics::Metrics;

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
    collector: Url,
    resource: ResourceAttributesWithSchema,
    fetcher: Fetcher,
    counters: Counters,
    failing: bool,
}

/// Makes both ends.
pub(super) fn queue(
    collector: Url,
    resource: &Resource,
    counters: Counters,
) -> Result<(Queue, Exporter), FetchError> {
    let limits = Limits {
        within: WITHIN,
        bytes_max: ANSWER_BYTES_MAX,
    };
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    let queue = Queue {
        waiting: sender,
        dropped: counters.dropped.clone(),
    };
    let exporter = Exporter {
        waiting,
        fetcher: Fetcher::new(limits, collector.is_tls())?,
        collector,
        resource: resource.into(),
        counters,
        failing: false,
    };
    Ok((queue, exporter))
}

impl Exporter {
    /// Sends until `ending`, then what is left.
    ///
    /// # Cancel safety
    /// Dropped, the steps that wait are lost.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        loop {
            let last = tokio::select! {
                () = ending.cancelled() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            loop {
                let portion = self.portion();
                if portion.is_empty() {
                    break;
                }
                self.send(portion).await;
            }
            if last {
                return;
            }
        }
    }

    fn portion(&mut self) -> Vec<SpanData> {
        let mut portion = Vec::new();
        while portion.len() < PORTION_MAX {
            match self.waiting.try_recv() {
                Ok(span) => portion.push(span),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        portion
    }

    async fn send(&mut self, portion: Vec<SpanData>) {
        let count = portion.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(portion, &self.resource),
        };
        let body = Bytes::from(request.encode_to_vec());
        let answer = self
            .fetcher
            .post(&self.collector, "application/x-protobuf", body)
            .await;
        match answer {
            Ok(answer) => {
                // What is no such answer says nothing of any step that was refused.
                let refused = ExportTraceServiceResponse::decode(answer).ok();
                let refused = refused.and_then(|answer| answer.partial_success);
                let refused = refused.and_then(|partly| u64::try_from(partly.rejected_spans).ok());
                let refused = refused.unwrap_or(0).min(count);
                self.counters.exported.inc_by(count - refused);
                self.counters.failed.inc_by(refused);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the collector takes traces again");
                }
            }
            Err(error) => {
                self.counters.failed.inc_by(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the collector takes no traces, and they are lost: it {error}");
                }
            }
        }
    }
}
