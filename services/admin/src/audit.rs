//! The record: who did what, and what came of it, on `audit.<service>.<instance>` into the stream `AUDIT`.
//!
//! Recording never waits: entries go through a bounded queue to one task, which publishes them one after the other. Each entry has a
//! number and the digest of the one before, so what was dropped, or taken out later, shows as a hole (`roomcast audit verify`). Where
//! the chain stands is logged every hour, and at the end with what could not be stored any more, so that an end that is missing shows
//! too. Refusals are counted and one entry a minute. Never tokens, never query strings, never contents of events.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use prometheus::IntCounterVec;
use roomcast_chassis::bucket::{Bucket, Rate};
use roomcast_chassis::jetstream::{PublishError, Publisher};
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::refusal::Code;
use roomcast_proto::subject;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::refused::Refused;

/// Entries that may wait for NATS; at a call a second that is a quarter of an hour.
pub const QUEUE_MAX: usize = 1_024;
/// Longest path in an entry, characters.
const PATH_CHARS_MAX: usize = 256;
/// Largest note in an entry, bytes of JSON; a larger one is left out.
pub(crate) const NOTE_BYTES_MAX: usize = 16 * 1024;
/// How often those who were refused are put on record.
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// How often the log says where the record stands.
const HEAD_EVERY: Duration = Duration::from_secs(3_600);
/// Calls without an administrator that have an entry each: sixty at once, then one a minute; the others are counted like all who are
/// refused. The stream keeps 400 days of that beside what administrators do.
const STRANGERS_RATE: Rate = Rate {
    per_second: 1,
    burst: 60 * STRANGER_COST,
};
/// What one of them takes of it: seconds until there is room for another.
const STRANGER_COST: u64 = 60;
/// Pause before an entry that was not stored is sent again, with the same id.
const AGAIN: Duration = Duration::from_secs(1);
/// The same at the end of the process, where the answer that nobody is there comes at once.
const LAST_AGAIN: Duration = Duration::from_millis(100);
/// So long, from the first of these answers at the end, all entries that wait are sent again: a connection that broke is back by then.
const LAST_WITHIN: Duration = Duration::from_secs(3);

/// What was called.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) from: Option<SocketAddr>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) code: Option<Code>,
}

/// One entry as it is stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    life: &'a str,
    number: u64,
    previous: &'a str,
    at: Timestamp,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<Who<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<Called<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Who<'a> {
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Called<'a> {
    method: &'a str,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
}

/// Records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    subject: String,
    chain: Mutex<Chain>,
    refused: Mutex<Refused>,
    strangers: Mutex<Bucket>,
    began: Instant,
    queue: Sender<Queued>,
    /// Until the task takes it.
    waiting: Mutex<Option<Receiver<Queued>>>,
    entries: IntCounterVec,
}

/// Where the chain of entries stands. Ordered with the queue: entries are stored in the order of their numbers.
#[derive(Debug)]
struct Chain {
    life: String,
    number: u64,
    previous: String,
}

#[derive(Debug)]
struct Queued {
    id: String,
    /// What the next entry holds of this one.
    digest: String,
    body: Bytes,
}

impl Audit {
    /// Makes it; entries wait until [`Audit::keep`]. `service`: the token of the subject (`gateway`, `ingest`, `aggregator`).
    ///
    /// # Errors
    /// A metric that is declared already (70).
    pub fn new(context: &Context, service: &str) -> Result<Self, Failure> {
        let entries = context.metrics.counter_vec(
            "roomcast_audit_entries_total",
            "Entries of the audit record, by outcome: stored, dropped (the queue was full), failed (NATS would not take it).",
            &["outcome"],
        )?;
        for outcome in ["stored", "dropped", "failed"] {
            entries.with_label_values(&[outcome]);
        }
        let (queue, waiting) = channel(QUEUE_MAX);
        Ok(Self {
            shared: Arc::new(Shared {
                subject: subject::audit(service, context.instance()),
                chain: Mutex::new(Chain {
                    life: uuid::Uuid::new_v4().simple().to_string(),
                    number: 0,
                    previous: String::new(),
                }),
                refused: Mutex::default(),
                strangers: Mutex::default(),
                began: Instant::now(),
                queue,
                waiting: Mutex::new(Some(waiting)),
                entries,
            }),
        })
    }

    /// Starts publishing; a second call does nothing. At the end of the process, what is queued is published within the time of
    /// [`Stage::Finish`].
    pub fn keep(&self, publisher: Publisher, context: &Context) {
        let waiting = self
            .shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            let finish = context.shutdown.stage(Stage::Finish);
            let keeper = Keeper {
                audit: self.clone(),
                publisher,
            };
            finish.spawn(keeper.run(waiting, finish.token()));
        }
    }

    /// Records something that is no admin call: `kind` names it, `note` says what. `who` is the administrator behind it, if any.
    pub fn record(&self, kind: &str, who: Option<&Caller>, note: &Value) {
        self.enter(kind, who, who.and_then(|who| who.from), None, Some(note));
    }

    /// Counts that somebody was refused, for the entry of this minute: what (a connection, a publish), why, and tenant and user where
    /// a token or the server vouches for them. As often as it likes to happen: a minute is one entry.
    pub fn refused(&self, what: &'static str, reason: &'static str, who: Option<(&str, &str)>) {
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.add(what, reason, who);
    }

    /// Puts on record who was refused since the last time.
    pub(crate) fn say_refused(&self) {
        let said = self
            .shared
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(said) = said {
            self.record("refused", None, &said);
        }
    }

    /// Records a call. Of those without an administrator, who may be anybody and come in any number, the first alone have an entry each.
    pub(crate) fn call(&self, who: Option<&Caller>, call: &Call, outcome: &Outcome, note: Option<Value>) {
        if who.is_none() && !self.has_room_for_a_stranger() {
            let reason = outcome.code.map_or("unknown", Code::as_str);
            return self.refused("admin", reason, None);
        }
        let path: String = call.path.chars().take(PATH_CHARS_MAX).collect();
        let called = Called {
            method: call.method.as_str(),
            path: &path,
            status: outcome.status,
            code: outcome.code,
        };
        self.enter("admin", who, call.from, Some(called), note.as_ref());
    }

    fn has_room_for_a_stranger(&self) -> bool {
        let now_millis = u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut strangers = self
            .shared
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.take(now_millis, STRANGER_COST, STRANGERS_RATE)
    }

    fn enter(
        &self,
        kind: &str,
        who: Option<&Caller>,
        from: Option<SocketAddr>,
        call: Option<Called<'_>>,
        note: Option<&Value>,
    ) {
        let mut chain = self.shared.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.number += 1;
        let entry = Entry {
            life: &chain.life,
            number: chain.number,
            previous: &chain.previous,
            at: Timestamp::now(),
            kind,
            who: who.map(|who| Who {
                subject: &who.subject,
                token_id: who.token_id.as_deref(),
            }),
            from,
            call,
            note: note.filter(|note| note.to_string().len() <= NOTE_BYTES_MAX),
        };
        // Nothing in it can fail to be written.
        let body = serde_json::to_vec(&entry).unwrap_or_default();
        let id = format!("{}.{}", chain.life, chain.number);
        chain.previous = hex(digest(&SHA256, &body).as_ref());
        let queued = Queued {
            id,
            digest: chain.previous.clone(),
            body: body.into(),
        };
        if self.shared.queue.try_send(queued).is_err() {
            self.shared.entries.with_label_values(&["dropped"]).inc();
        }
    }

    /// Where the chain ends: at the last entry that was stored, or at one that was recorded after it and is lost.
    pub(crate) fn end(&self, stored: Option<String>) -> Option<String> {
        let chain = self.shared.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let Chain {
            life,
            number,
            previous: digest,
        } = &*chain;
        let last = format!("{life}.{number}.{digest}");
        match stored.filter(|stored| stored.starts_with(&last)) {
            Some(stored) => Some(stored),
            None => (*number > 0).then_some(last),
        }
    }

    /// The entries recorded so far and not yet taken; for tests without NATS.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<Value> {
        let mut waiting = self.shared.waiting.lock().unwrap();
        let waiting = waiting.as_mut().unwrap();
        std::iter::from_fn(|| waiting.try_recv().ok())
            .map(|queued| serde_json::from_slice(&queued.body).unwrap())
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Logs where the record stands, `<life>.<number>.<digest>.<position>`: what `roomcast audit verify --heads` looks for. Without a position
/// it is what was recorded last, and could not be stored.
fn say(head: Option<&str>) {
    if let Some(head) = head {
        tracing::info!(head, "the audit record stands at {head}");
    }
}

/// Publishes entries in their order.
struct Keeper {
    audit: Audit,
    publisher: Publisher,
}

impl Keeper {
    async fn run(self, mut waiting: Receiver<Queued>, ending: CancellationToken) {
        let mut minute = tokio::time::interval(REFUSED_EVERY);
        let mut hour = tokio::time::interval(HEAD_EVERY);
        // The first tick is now, and nothing is stored yet.
        hour.tick().await;
        let (mut head, mut missed) = (None, None);
        loop {
            let queued = tokio::select! {
                biased;
                queued = waiting.recv() => queued,
                () = ending.cancelled() => {
                    self.audit.say_refused();
                    waiting.try_recv().ok()
                }
                _ = minute.tick() => {
                    self.audit.say_refused();
                    continue;
                }
                _ = hour.tick() => {
                    say(head.as_deref());
                    continue;
                }
            };
            let Some(queued) = queued else {
                // What comes now has no entry any more, and counts as dropped.
                waiting.close();
                return say(self.audit.end(head).as_deref());
            };
            let stands = format!("{}.{}", queued.id, queued.digest);
            if let Some(position) = self.store(queued, &ending, &mut missed).await {
                head = Some(format!("{stands}.{position}"));
            }
        }
    }

    /// Stores one entry, however long NATS is away; at the end of the process it is tried once more only, and where nobody answers for
    /// [`LAST_WITHIN`] after `missed`, when an entry found that first. At which position it is stored.
    async fn store(
        &self,
        queued: Queued,
        ending: &CancellationToken,
        missed: &mut Option<Instant>,
    ) -> Option<u64> {
        loop {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", queued.id.as_str());
            let last = ending.is_cancelled();
            let stored =
                self.publisher
                    .publish(self.audit.shared.subject.clone(), headers, queued.body.clone());
            let error = match stored.await {
                Ok(stored) => {
                    self.audit.shared.entries.with_label_values(&["stored"]).inc();
                    return Some(stored.seq);
                }
                Err(error) => error,
            };
            if last
                && error == PublishError::NoResponders
                && missed.get_or_insert_with(Instant::now).elapsed() < LAST_WITHIN
            {
                tokio::time::sleep(LAST_AGAIN).await;
                continue;
            }
            if last || !error.retryable() {
                self.audit.shared.entries.with_label_values(&["failed"]).inc();
                tracing::error!(%error, "an entry of the audit record could not be stored: {error}");
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = ending.cancelled() => {}
            }
        }
    }
}
