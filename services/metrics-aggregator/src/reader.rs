//! Reads a shard's events: a raw ephemeral pull consumer that is made anew on any oddity.
//!
//! The library's ordered consumers stall for tens of seconds when their node dies and may begin at the wrong place after it; this one
//! names its start, counts what it gets, hears a heartbeat twice a second, and gives up at the first gap. Nothing is acknowledged: the
//! position is part of the state.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request, Subscriber};
use futures_util::{FutureExt, StreamExt};
use roomcast_chassis::trace::Trail;
use roomcast_proto::subject::stream::EVENTS;
use serde::Deserialize;
use serde_json::json;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::delivered::{Delivered, Frame};

/// Events asked for at once, and how many of them may be left when more are asked for, so that the server never waits for the next
/// request, and while something is behind writes many at a time: at most 6,000 are on their way, of usual size 2 MB.
const BATCH: u64 = 4_000;
const LEFT: u64 = 2_000;
/// Bytes of one request; the server counts subjects and headers as well. Two requests of the largest events are 16 MiB.
const BATCH_BYTES: u64 = 8 << 20;
/// How long one request for events stands.
const EXPIRES: Duration = Duration::from_secs(10);
/// The server says at least this often that it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Without any word for this long it is asked anew: a request whose last byte was used up may have ended without a word.
const DOUBT: Duration = Duration::from_secs(1);
/// Without any word for this long the consumer is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// The server forgets a consumer that nobody asks for this long.
const INACTIVE: Duration = Duration::from_secs(10);
/// Words of a request's end that is none of the consumer: it has given out what was asked for, or its bytes are used up.
const OVER: [&str; 3] = ["Completed", "Exceeded", "Exceeds"];
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// It was asked anew because nothing was heard.
    doubted: bool,
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
            doubted: false,
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
            // What is there needs no timer.
            let there = tokio::task::unconstrained(self.subscription.next()).now_or_never();
            let message = match there {
                Some(message) => message,
                None => {
                    let until = self.heard + if self.doubted { SILENCE } else { DOUBT };
                    match tokio::time::timeout_at(until, self.subscription.next()).await {
                        Ok(message) => message,
                        Err(_) if self.doubted => {
                            return Err(Broken(format!("no word for {} s", SILENCE.as_secs())));
                        }
                        Err(_) => {
                            (self.doubted, self.remaining) = (true, 0);
                            continue;
                        }
                    }
                }
            };
            let message = message.ok_or_else(|| Broken("the connection was closed".to_owned()))?;
            (self.heard, self.doubted) = (Instant::now(), false);
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
        let body = json!({
            "batch": BATCH, "max_bytes": BATCH_BYTES, "expires": nanos(EXPIRES), "idle_heartbeat": nanos(HEARTBEAT),
        });
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
            408 | 409 if status == 408 || OVER.iter().any(|word| words.contains(word)) => {
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
