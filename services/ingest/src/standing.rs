//! Whether anything may be acknowledged at the moment: asked by the store, told by those who watch NATS.
//!
//! Closed, the store publishes nothing and its callers answer `unavailable` at once, instead of letting each publisher wait for its
//! time-outs. What is not stored in a stream is not affected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{JetStream, PublishError};
use roomcast_chassis::nats::{ServerAnswer, ask_servers};
use roomcast_chassis::readiness::Latch;
use roomcast_proto::event::Delivery;
use roomcast_proto::subject::{self, SERVERS_HEALTH, stream as names};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::hang::Hang;
use crate::metrics::IngestMetrics;

/// How often a stream that hangs is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time for the answer to a publish that is to be refused; half of what a real one has.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);
/// Where the servers do not say how they are, a stream that hangs is tried again after this.
const TRY_AFTER: Duration = Duration::from_secs(30);

/// Shared by the store and the watches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    unsynced: AtomicBool,
    /// Whether any stream's [`Hang`] is closed: asked for every request.
    closed: AtomicBool,
    /// Whether any of them has anything to forget: asked for every stored event.
    uneasy: AtomicBool,
    hangs: Mutex<[Hang; 2]>,
    metrics: IngestMetrics,
}

/// The streams of [`Inner::hangs`], with a subject of each that nothing is ever stored on.
const STREAMS: [(&str, &str); 2] = [
    (names::EVENTS, subject::EVENTS_PROBE),
    (names::STATE, subject::STATE_PROBE),
];

fn index(class: Delivery) -> Option<usize> {
    match class {
        Delivery::Event => Some(0),
        Delivery::State => Some(1),
        Delivery::Ephemeral => None,
    }
}

impl Standing {
    /// Open. `hang_within`: how long publishes must have gone without an answer.
    #[must_use]
    pub fn new(hang_within: Duration, metrics: IngestMetrics) -> Self {
        for (stream, _) in STREAMS {
            metrics.hanging(stream, false);
        }
        Self(Arc::new(Inner {
            unsynced: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            uneasy: AtomicBool::new(false),
            hangs: Mutex::new([Hang::new(hang_within), Hang::new(hang_within)]),
            metrics,
        }))
    }

    /// Why nothing may be stored now, in words for publishers; `None`: it may.
    #[must_use]
    pub fn closed(&self) -> Option<&'static str> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Some("the stream takes nothing at the moment");
        }
        self.0
            .unsynced
            .load(Ordering::Relaxed)
            .then_some("what is stored now would not survive a power cut")
    }

    /// Whether NATS writes later than it acknowledges although that is not wanted.
    pub fn set_unsynced(&self, unsynced: bool) {
        self.0.unsynced.store(unsynced, Ordering::Relaxed);
    }

    /// A publish of this class was stored.
    pub fn stored(&self, class: Delivery) {
        let Some(index) = index(class).filter(|_| self.0.uneasy.load(Ordering::Relaxed)) else {
            return;
        };
        let mut hangs = self.hangs();
        if hangs[index].stored() {
            let stream = STREAMS[index].0;
            self.0.metrics.hanging(stream, false);
            tracing::info!(stream, "stream {stream} stores again");
        }
        self.settle(&hangs);
    }

    /// A publish of this class had no answer.
    pub fn timed_out(&self, class: Delivery, now: Instant) {
        let Some(index) = index(class) else { return };
        let mut hangs = self.hangs();
        let hangs_now = hangs[index].timed_out(now);
        self.0.uneasy.store(true, Ordering::Relaxed);
        if hangs_now {
            let stream = STREAMS[index].0;
            let (timeouts, since) = hangs[index].unanswered(now);
            self.0.metrics.hanging(stream, true);
            tracing::error!(
                stream,
                timeouts,
                "stream {stream} takes nothing: {timeouts} publishes in {} s had no answer",
                since.as_secs()
            );
        }
        self.settle(&hangs);
    }

    fn hangs(&self) -> MutexGuard<'_, [Hang; 2]> {
        self.0.hangs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is asked without the lock equal to what is under it.
    fn settle(&self, hangs: &[Hang; 2]) {
        let uneasy = |hang: &Hang| hang.is_hanging() || hang.unanswered(Instant::now()).0 > 0;
        self.0
            .closed
            .store(hangs.iter().any(Hang::is_closed), Ordering::Relaxed);
        self.0.uneasy.store(hangs.iter().any(uneasy), Ordering::Relaxed);
    }

    /// What hangs now, with the words for `/readyz`.
    fn hanging(&self) -> Vec<(usize, String)> {
        let hangs = self.hangs();
        let closed = hangs.iter().enumerate().filter(|(_, hang)| hang.is_closed());
        let words = closed.map(|(index, hang)| {
            let (timeouts, since) = hang.unanswered(Instant::now());
            let stream = STREAMS[index].0;
            (
                index,
                format!("stream {stream} takes nothing: {timeouts} publishes without an answer, the first {} s ago", since.as_secs()),
            )
        });
        words.collect()
    }

    /// Looks at streams that hang until they look fit, then lets publishes through again. Ends with `ending`.
    pub async fn watch(self, jetstream: JetStream, latch: Latch, ending: CancellationToken) {
        latch.ready();
        let mut since = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = ending.cancelled() => return,
            }
            let hanging = self.hanging();
            if hanging.is_empty() {
                since = None;
                latch.ready();
                continue;
            }
            let since = *since.get_or_insert_with(Instant::now);
            let mut reasons = Vec::new();
            for (index, words) in hanging {
                match unfit(&jetstream, STREAMS[index], since).await {
                    Some(why) => reasons.push(format!("{words}; {why}")),
                    None => {
                        self.look_fit(index);
                    }
                }
            }
            if reasons.is_empty() {
                latch.ready();
            } else {
                latch.not_ready(reasons.join("; "));
            }
        }
    }

    fn look_fit(&self, index: usize) {
        let mut hangs = self.hangs();
        if hangs[index].looks_fit() {
            let stream = STREAMS[index].0;
            tracing::info!(stream, "stream {stream} looks fit; publishes go out again");
        }
        self.settle(&hangs);
    }
}

/// What is wrong with a stream, as far as can be told without writing to it; `None`: nothing.
async fn unfit(jetstream: &JetStream, (stream, probe): (&str, &str), since: Instant) -> Option<String> {
    // Asks for another stream than this one, so it is refused, and only by a leader that works.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", "-");
    let refused = jetstream
        .publish(probe, headers, Bytes::new(), REFUSED_WITHIN)
        .await;
    if !matches!(refused, Err(PublishError::Refused(_))) {
        return Some(format!("the leader of {stream} does not answer"));
    }
    let details = json!({ "details": true });
    match ask_servers(jetstream.client(), SERVERS_HEALTH, &details, |_| false).await {
        Ok(answers) => write_errors(&answers, stream),
        Err(_) if since.elapsed() < TRY_AFTER => Some("the servers do not say how they are".to_owned()),
        Err(_) => None,
    }
}

/// The servers with a write error on this stream and their words, where too few are left without one. It never goes away by itself.
fn write_errors(answers: &[ServerAnswer], stream: &str) -> Option<String> {
    let error = |answer: &ServerAnswer| {
        let errors = answer.data["errors"].as_array()?;
        let here = |error: &&Value| error["stream"] == stream;
        let words = errors
            .iter()
            .filter(here)
            .filter_map(|error| error["error"].as_str());
        let words = words.into_iter().find(|words| words.contains("write error"))?;
        Some(format!("server {} must be started again: {words}", answer.name))
    };
    let errors: Vec<String> = answers.iter().filter_map(error).collect();
    (2 * errors.len() >= answers.len() && !errors.is_empty()).then(|| errors.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server of 2.15 says it.
    fn server(name: &str, stream: Option<&str>) -> ServerAnswer {
        let failed = |stream: &str| {
            let error = format!(
                "JetStream stream 'CORE > {stream}' write error: write 1.blk: no space left on device"
            );
            json!({ "status": "error", "errors": [{ "type": "STREAM", "account": "CORE", "stream": stream, "error": error }] })
        };
        ServerAnswer {
            name: name.to_owned(),
            data: stream.map_or_else(|| json!({ "status": "ok" }), failed),
        }
    }

    #[test]
    fn a_write_error_counts_where_no_majority_is_without_one() {
        let events = Some("EVENTS");
        let rows: [(&[Option<&str>], bool); 7] = [
            (&[None], false),
            (&[events], true),
            (&[Some("STATE")], false),
            (&[events, None, None], false),
            (&[events, None, events], true),
            (&[events, Some("STATE"), None], false),
            (&[], false),
        ];
        for (servers, expected) in rows {
            let answers: Vec<ServerAnswer> = servers.iter().map(|stream| server("n1", *stream)).collect();
            let found = write_errors(&answers, "EVENTS");
            assert_eq!(found.is_some(), expected, "{servers:?}: {found:?}");
            if let Some(words) = found {
                assert!(
                    words.contains("server n1 must be started again") && words.contains("no space"),
                    "{words}"
                );
            }
        }
    }

    #[test]
    fn closed_for_as_long_as_one_stream_hangs_or_writes_late() {
        let standing = Standing::new(Duration::from_secs(10), IngestMetrics::for_tests());
        let start = Instant::now();
        let time_outs = |class, count: u64| {
            (0..count).for_each(|n| standing.timed_out(class, start + Duration::from_secs(2 * n)));
        };
        assert_eq!(standing.closed(), None);
        time_outs(Delivery::Event, 5);
        standing.stored(Delivery::Event);
        time_outs(Delivery::Event, 7);
        assert_eq!(standing.closed(), None, "it was stored in between");
        time_outs(Delivery::Ephemeral, 20);
        assert_eq!(standing.closed(), None, "nobody acknowledges those");
        standing.stored(Delivery::State);
        time_outs(Delivery::Event, 9);
        assert!(
            standing.closed().is_some(),
            "the other stream says nothing about this one"
        );
        standing.look_fit(0);
        assert_eq!(standing.closed(), None);
        assert_eq!(
            standing.0.metrics.hanging_now("EVENTS"),
            1,
            "until something is stored"
        );
        standing.stored(Delivery::Event);
        assert_eq!(standing.0.metrics.hanging_now("EVENTS"), 0);
        standing.set_unsynced(true);
        assert!(standing.closed().unwrap().contains("power cut"));
        standing.set_unsynced(false);
        assert_eq!(standing.closed(), None);
    }
}
