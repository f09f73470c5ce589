//! Reads a shard's events: a raw ephemeral pull consumer that is made anew on any oddity.
//!
//! The library's ordered consumers stall for tens of seconds when their node dies and may begin at the wrong place after it; this one
//! names its start, counts what it gets, hears a heartbeat twice a second, and gives up at the first gap. Nothing is acknowledged: the
//! position is part of the state.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_chassis::trace::Trail;
use roomcast_proto::event::View;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::parse_placed;
use roomcast_proto::subject::stream::EVENTS;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::engine::row::Event;

/// Events asked for at once, and how many of them may be left when more are asked for, so that the server never waits for the next
/// request: at most 1,500 are on their way. That many of the largest are 96 MB; of usual ones 450 KB.
const BATCH: u64 = 1_000;
const LEFT: u64 = 500;
/// How long one request for events stands.
const EXPIRES: Duration = Duration::from_secs(10);
/// The server says at least this often that it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Without any word for this long the consumer is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// The server forgets a consumer that nobody asks for this long.
const INACTIVE: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What came.
#[derive(Debug, Clone)]
pub enum Frame {
    /// An event.
    Event(Delivered),
    /// The consumer's node has given out every matching event up to this position that it has. It may lag behind the node that said
    /// where the stream ends, and give out an older one later.
    Reached(u64),
    /// Nothing is waiting.
    Quiet,
    /// Only of a [`crate::feed::Source`]: it took too long, and goes on alone.
    CastOff,
}

impl Frame {
    /// The event it is.
    #[must_use]
    pub fn event(&self) -> Option<&Delivered> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }

    /// The event it is.
    pub fn event_mut(&mut self) -> Option<&mut Delivered> {
        match self {
            Self::Event(event) => Some(event),
            _ => None,
        }
    }

    /// The position of the event it is.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        Some(self.event()?.seq)
    }
}

/// One stored event. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Its position in the stream.
    pub seq: u64,
    /// When it was stored, Unix microseconds.
    pub stored_micros: i64,
    /// Matching events behind it.
    pub pending: u64,
    /// Where it was stored.
    pub subject: Subject,
    /// The event.
    pub payload: Bytes,
    /// What it says, where it was read for several shards.
    pub said: Option<Arc<Said<'static>>>,
    /// Where its trace goes on, if that is kept.
    pub trail: Option<Box<Trail>>,
}

/// What an event says, as far as metrics may ask.
#[derive(Debug)]
pub struct Said<'a> {
    time_micros: i64,
    kind: Cow<'a, str>,
    source: Cow<'a, str>,
    id: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    priority: Option<Cow<'a, str>>,
    data: Option<Cow<'a, RawValue>>,
}

impl<'a> Said<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        let view = View::parse(payload).ok()?;
        Some(Self {
            time_micros: view.time_micros()?,
            kind: view.kind,
            source: view.source,
            id: view.id,
            subject: view.subject,
            priority: view.priority,
            data: view.data.map(Cow::Borrowed),
        })
    }

    fn into_owned(self) -> Said<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Said {
            time_micros: self.time_micros,
            kind: own(self.kind),
            source: own(self.source),
            id: own(self.id),
            subject: self.subject.map(own),
            priority: self.priority.map(own),
            data: self.data.map(|data| Cow::Owned(data.into_owned())),
        }
    }
}

impl Delivered {
    /// Reads it now, so that those who share it need not. What is no event stays as it is, and each of them finds out.
    pub fn read_for_all(&mut self) {
        self.said = Said::of(&self.payload).map(|said| Arc::new(said.into_owned()));
    }

    /// Reads it as an event of a tenant; `None` where it is none.
    pub fn read<T>(&self, tenant: &Tenant, use_it: impl FnOnce(&Event<'_>) -> T) -> Option<T> {
        let placed = parse_placed(&self.subject).filter(|placed| placed.tenant == tenant.as_str())?;
        let own;
        let said = match self.said.as_deref() {
            Some(said) => said,
            None => {
                own = Said::of(&self.payload)?;
                &own
            }
        };
        Some(use_it(&Event {
            seq: self.seq,
            stored_micros: self.stored_micros,
            time_micros: said.time_micros,
            room: placed.room,
            audience: placed.audience,
            kind: &said.kind,
            source: &said.source,
            id: &said.id,
            subject: said.subject.as_deref(),
            priority: said.priority.as_deref().unwrap_or("medium"),
            data: said.data.as_deref(),
        }))
    }
}

/// Why the reader cannot go on; open another one from the stored position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reader of events ended: {0}")]
pub struct Broken(String);

impl Broken {
    /// With a reason.
    #[must_use]
    pub fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// An open consumer.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    api_prefix: String,
    name: String,
    inbox: String,
    subscription: Subscriber,
    /// Events received; the consumer's own count must be the same.
    received: u64,
    /// Events of the standing requests that are still to come.
    remaining: u64,
    requests: u64,
    probe: Option<(String, u64)>,
    heard: Instant,
    /// Events that were waiting when the consumer was made.
    pub pending_at_start: u64,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    num_pending: u64,
    error: Option<roomcast_chassis::jetstream::Refusal>,
}

impl Reader {
    /// Makes a consumer that begins at `start` (at least 1) and asks for its first events.
    ///
    /// # Errors
    /// [`Broken`], for whatever reason.
    pub async fn open(
        client: &Client,
        api_prefix: &str,
        filters: &[String],
        start: u64,
    ) -> Result<Self, Broken> {
        let name = format!("agg-{}", uuid::Uuid::new_v4().simple());
        let config = json!({
            "stream_name": EVENTS, "action": "create",
            "config": {
                "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": start.max(1), "ack_policy": "none",
                "replay_policy": "instant", "mem_storage": true, "num_replicas": 1, "filter_subjects": filters,
                "inactive_threshold": nanos(INACTIVE),
            },
        });
        let inbox = client.new_inbox();
        let subscription = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| Broken(error.to_string()))?;
        let request = Request::new()
            .payload(config.to_string().into())
            .timeout(Some(CALL_TIMEOUT));
        let subject = format!("{api_prefix}.CONSUMER.CREATE.{EVENTS}.{name}");
        let answer = client
            .send_request(subject, request)
            .await
            .map_err(|error| Broken(error.to_string()))?;
        let created: Created =
            serde_json::from_slice(&answer.payload).map_err(|error| Broken(error.to_string()))?;
        if let Some(refusal) = created.error {
            return Err(Broken(refusal.to_string()));
        }
        let mut reader = Self {
            client: client.clone(),
            api_prefix: api_prefix.to_owned(),
            name,
            inbox,
            subscription,
            received: 0,
            remaining: 0,
            requests: 0,
            probe: None,
            heard: Instant::now(),
            pending_at_start: created.num_pending,
        };
        reader.ask().await?;
        Ok(reader)
    }

    /// The next thing that happens; at the latest after some seconds.
    ///
    /// # Errors
    /// [`Broken`].
    ///
    /// # Cancel safety
    /// Safe: nothing that was received is lost; a request for more that was not sent is sent by the next call.
    pub async fn next(&mut self) -> Result<Frame, Broken> {
        loop {
            if self.remaining <= LEFT {
                self.ask().await?;
            }
            let message = tokio::time::timeout_at(self.heard + SILENCE, self.subscription.next()).await;
            let message = message.map_err(|_| Broken(format!("no word for {} s", SILENCE.as_secs())))?;
            let message = message.ok_or_else(|| Broken("the connection was closed".to_owned()))?;
            self.heard = Instant::now();
            let frame = match message.status {
                Some(status) => self.status(status.as_u16(), &message)?,
                None => Some(self.event(message)?),
            };
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    /// Asks whether anything is waiting. If nothing is, a later [`Frame::Reached`] says so with `last_seq`, which must have been the
    /// stream's last position before this call.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn probe(&mut self, last_seq: u64) -> Result<(), Broken> {
        let reply = self.reply();
        self.probe = Some((reply.clone(), last_seq));
        self.send(reply, json!({ "batch": 1, "no_wait": true }).to_string())
            .await
    }

    /// Lets the server forget the consumer now rather than later.
    pub async fn close(self) {
        let subject = format!("{}.CONSUMER.DELETE.{EVENTS}.{}", self.api_prefix, self.name);
        let request = Request::new().timeout(Some(CALL_TIMEOUT));
        if let Err(error) = self.client.send_request(subject, request).await {
            tracing::debug!(%error, "a consumer was not deleted: {error}; it goes by itself");
        }
    }

    fn reply(&mut self) -> String {
        self.requests += 1;
        format!("{}.{}", self.inbox, self.requests)
    }

    async fn ask(&mut self) -> Result<(), Broken> {
        let reply = self.reply();
        let body = json!({ "batch": BATCH, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT) });
        self.send(reply, body.to_string()).await?;
        self.remaining += BATCH;
        Ok(())
    }

    async fn send(&self, reply: String, body: String) -> Result<(), Broken> {
        let subject = format!("{}.CONSUMER.MSG.NEXT.{EVENTS}.{}", self.api_prefix, self.name);
        let sent = self.client.publish_with_reply(subject, reply, body.into()).await;
        sent.map_err(|error| Broken(error.to_string()))
    }

    fn event(&mut self, message: Message) -> Result<Frame, Broken> {
        let reply = message.reply.as_deref().unwrap_or_default();
        let place =
            Place::parse(reply).ok_or_else(|| Broken(format!("an event without a place: {reply:?}")))?;
        self.received += 1;
        if place.consumer_seq != self.received {
            return Err(Broken(format!(
                "event {} of the consumer came as {}",
                place.consumer_seq, self.received
            )));
        }
        self.remaining = self.remaining.saturating_sub(1);
        Ok(Frame::Event(Delivered {
            seq: place.stream_seq,
            stored_micros: place.stored_micros,
            pending: place.pending,
            trail: message.headers.as_ref().and_then(Trail::kept).map(Box::new),
            subject: message.subject,
            payload: message.payload,
            said: None,
        }))
    }

    fn status(&mut self, status: u16, message: &Message) -> Result<Option<Frame>, Broken> {
        let words = message.description.as_deref().unwrap_or_default();
        let subject = message.subject.as_str();
        match status {
            100 => {
                let sent = header(message.headers.as_ref(), "Nats-Last-Consumer");
                match sent {
                    Some(sent) if sent > self.received => {
                        Err(Broken(format!("{sent} events were sent, {} came", self.received)))
                    }
                    _ => Ok(Some(Frame::Quiet)),
                }
            }
            404 | 408 if self.probe.as_ref().is_some_and(|(probe, _)| probe == subject) => {
                let reached = self.probe.take().map(|(_, seq)| seq).filter(|_| status == 404);
                Ok(reached.map(Frame::Reached))
            }
            // An older probe's.
            404 => Ok(None),
            // A standing request is over, and says how much of it never came; with two standing only it knows.
            408 | 409 if status == 408 || words.contains("Completed") || words.contains("Exceeded") => {
                let left = header(message.headers.as_ref(), "Nats-Pending-Messages");
                self.remaining = left.map_or(0, |left| self.remaining.saturating_sub(left));
                Ok(None)
            }
            _ => Err(Broken(format!("{status} {words}"))),
        }
    }
}

/// What the reply subject of a delivered event says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    stream_seq: u64,
    consumer_seq: u64,
    stored_micros: i64,
    pending: u64,
}

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time ns>.<pending>`; a newer form has a domain and an
    /// account hash after `ACK` and perhaps a random token at the end.
    fn parse(reply: &str) -> Option<Self> {
        let tokens: SmallVec<[&str; 12]> = reply.split('.').collect();
        let first = match tokens.len() {
            9 => 2,
            11.. => 4,
            _ => return None,
        };
        let number = |at: usize| tokens.get(first + at).and_then(|text| text.parse::<u64>().ok());
        Some(Self {
            stream_seq: number(3)?,
            consumer_seq: number(4)?,
            stored_micros: i64::try_from(number(5)? / 1_000).ok()?,
            pending: number(6)?,
        })
    }
}

fn header(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get_last(name)?.as_str().parse().ok()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_in_both_forms() {
        let place = Place {
            stream_seq: 41,
            consumer_seq: 7,
            stored_micros: 1_700_000_000_123_456,
            pending: 3,
        };
        let rows = [
            ("$JS.ACK.EVENTS.agg.1.41.7.1700000000123456789.3", Some(&place)),
            (
                "$JS.ACK._.hash.EVENTS.agg.1.41.7.1700000000123456789.3",
                Some(&place),
            ),
            (
                "$JS.ACK._.hash.EVENTS.agg.1.41.7.1700000000123456789.3.x9",
                Some(&place),
            ),
            ("$JS.ACK.EVENTS.agg.1.41.7.1700000000123456789", None),
            ("$JS.ACK.EVENTS.agg.1.x.7.1700000000123456789.3", None),
            ("", None),
        ];
        for (reply, expected) in rows {
            assert_eq!(Place::parse(reply).as_ref(), expected, "{reply}");
        }
    }
}
