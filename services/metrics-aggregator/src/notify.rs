//! Hands what rules say to ingest, one after the other, until each is stored.
//!
//! A notice comes here only after the state that made it is written, under an id that whoever works the shard next makes again. Ingest
//! finds a repeat within its window; what was taken over from another's state, or is older than half of it, is looked up first.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Request};
use roomcast_chassis::jetstream::{At, JetStream};
use roomcast_chassis::trace::{self, KeyValue, SpanKind, Step, Trail};
use roomcast_proto::event::{View, rfc3339};
use roomcast_proto::ids::Tenant;
use roomcast_proto::notification::{DEDUP_ATTRIBUTE, KEY_PREFIX};
use roomcast_proto::subject::{inbound_for_tenant, state, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::counters::Counters;
use crate::engine::alert::{ALERT, Notice};
use crate::publish::now_micros;

/// How long ingest may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a notice is tried again; doubles up to the maximum.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// An older notice is looked up before every ask: whoever asks may have slept, and ingest finds a repeat for twice as long.
const OLD_MICROS: i64 = 60_000_000;
/// Notices on their way here; the rest waits in the shard.
const QUEUE_MAX: usize = 64;

/// A notice on its way.
#[derive(Debug)]
struct Handed {
    notice: Notice,
    /// It may have been said by whoever wrote it.
    taken_over: bool,
    /// The events that made it were traced.
    trail: Option<Trail>,
}

/// Says the notices of one shard. Dropped, it stops.
#[derive(Debug)]
pub struct Speaker {
    queue: mpsc::Sender<Handed>,
    said: mpsc::Receiver<String>,
    /// Handed over and not yet stored.
    under_way: HashSet<String>,
    task: JoinHandle<()>,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Speaker {
    /// Begins with nothing to say.
    #[must_use]
    pub fn start(jetstream: JetStream, tenant: Tenant, counters: Counters) -> Self {
        let (queue, mut notices) = mpsc::channel::<Handed>(QUEUE_MAX);
        let (tell, said) = mpsc::channel(QUEUE_MAX);
        let mouth = Mouth {
            client: jetstream.client().clone(),
            jetstream,
            tenant,
            counters,
        };
        let task = tokio::spawn(async move {
            while let Some(handed) = notices.recv().await {
                let step = Step::begin("notify", SpanKind::Producer, handed.trail.as_ref());
                step.set(|| [KeyValue::new("cloudevents.event_id", handed.notice.id.clone())]);
                step.run(mouth.say(&handed.notice, handed.taken_over, &step))
                    .await;
                drop(step);
                if tell.send(handed.notice.id).await.is_err() {
                    return;
                }
            }
        });
        Self {
            queue,
            said,
            under_way: HashSet::new(),
            task,
        }
    }

    /// Hands over what is not under way yet, as far as there is room. `taken_over`: it may have been said by whoever wrote it. `trail`:
    /// of an event that they follow from.
    pub fn hand<'n>(
        &mut self,
        notices: impl Iterator<Item = &'n Notice>,
        taken_over: &HashSet<String>,
        trail: Option<&Trail>,
    ) {
        for notice in notices {
            if self.under_way.contains(&notice.id) {
                continue;
            }
            let handed = Handed {
                notice: notice.clone(),
                taken_over: taken_over.contains(&notice.id),
                trail: trail.cloned(),
            };
            if self.queue.try_send(handed).is_err() {
                return;
            }
            self.under_way.insert(notice.id.clone());
        }
    }

    /// The id of the next notice that is stored, or refused for good; never, while nothing is under way.
    ///
    /// # Cancel safety
    /// Safe: what is not taken comes again.
    pub async fn said(&mut self) -> String {
        match self.said.recv().await {
            Some(id) => {
                self.under_way.remove(&id);
                id
            }
            // The task ends with this alone.
            None => std::future::pending().await,
        }
    }
}

struct Mouth {
    client: Client,
    jetstream: JetStream,
    tenant: Tenant,
    counters: Counters,
}

/// What ingest answers: `status` where it took the event, else a refusal.
#[derive(Deserialize)]
struct Answer {
    status: Option<String>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

impl Mouth {
    /// Says one until it is stored, or refused for good, which is counted and logged: nobody can mend it but the file's author.
    async fn say(&self, notice: &Notice, taken_over: bool, step: &Step) {
        let mut pause = AGAIN.0;
        loop {
            let old = now_micros().saturating_sub(notice.time_micros) > OLD_MICROS;
            if (taken_over || old) && self.is_stored(notice).await {
                self.counters.notified("before");
                return;
            }
            match self.ask(notice).await {
                Ok(answer) if answer.status.is_some() => {
                    self.counters.notified("stored");
                    return;
                }
                Ok(answer) if !answer.temporary => {
                    self.counters.notified("refused");
                    step.failed("refused");
                    tracing::error!(
                        room = %notice.room,
                        "a rule's notification is refused with {}: {}; mend `notify`, or the policy",
                        answer.code,
                        answer.message
                    );
                    return;
                }
                Ok(answer) => tracing::debug!("a notification is not taken yet: {}", answer.code),
                Err(reason) => tracing::debug!("a notification is not taken yet: {reason}"),
            }
            self.counters.notified("again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    async fn ask(&self, notice: &Notice) -> Result<Answer, String> {
        let subject = inbound_for_tenant(&self.tenant, &notice.room, &notice.audience);
        let body = self.body(notice).ok_or("it is no JSON")?;
        let mut request = Request::new().payload(body.into()).timeout(Some(ANSWER_TIMEOUT));
        if let Some(trail) = trace::current() {
            let mut headers = HeaderMap::new();
            trail.write(&mut headers);
            request = request.headers(headers);
        }
        let answer = self.client.send_request(subject, request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
    }

    fn body(&self, notice: &Notice) -> Option<String> {
        let data: serde_json::Value = serde_json::from_str(&notice.data).ok()?;
        let event = serde_json::json!({
            "id": notice.id, "source": self.source(), "type": ALERT,
            "time": rfc3339(notice.time_micros), "priority": notice.priority.as_str(), DEDUP_ATTRIBUTE: notice.dedup,
            "data": data,
        });
        Some(event.to_string())
    }

    fn source(&self) -> String {
        format!("roomcast://{}/rules", self.tenant)
    }

    /// Whether this, or what rules said later, is the newest that is stored of its line.
    async fn is_stored(&self, notice: &Notice) -> bool {
        let key = format!("{KEY_PREFIX}{}", notice.dedup);
        let subject = state(&self.tenant, &notice.room, &notice.audience, &key);
        let stored = self.jetstream.message(stream::STATE, At::Last(&subject)).await;
        let Ok(Some(message)) = stored else { return false };
        View::parse(&message.payload).is_ok_and(|view| {
            let later = view.time_micros().is_some_and(|time| time > notice.time_micros);
            view.id == notice.id || (later && view.source == self.source())
        })
    }
}
