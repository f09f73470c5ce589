//! What a reader brings: an event as it is stored, and what it says.
//!
//! Shards that read together share each event, so what it says is found once, as places in its bytes: nothing is copied but texts with
//! escapes.

use std::borrow::Cow;
use std::ops::Range;

use async_nats::Subject;
use bytes::Bytes;
use roomcast_chassis::trace::Trail;
use roomcast_proto::event::View;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::parse_placed;

use crate::engine::row::Event;

/// What came.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are events, and they lie one beside the other in batches"
)]
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

/// One stored event.
#[derive(Debug)]
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
    pub said: Option<Said>,
    /// Where its trace goes on, if that is kept.
    pub trail: Option<Box<Trail>>,
}

/// What an event says, as far as metrics may ask: where in its bytes.
#[derive(Debug)]
pub struct Said {
    time_micros: i64,
    kind: Part,
    source: Part,
    id: Part,
    subject: Option<Part>,
    priority: Option<Part>,
    data: Option<Range<usize>>,
}

/// A text of an event.
#[derive(Debug)]
enum Part {
    /// As it stands there.
    Within(Range<usize>),
    /// Without its escapes.
    Own(Box<str>),
}

impl Part {
    fn of(text: Cow<'_, str>, payload: &[u8]) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Within(place(text, payload)),
            Cow::Owned(text) => Self::Own(text.into_boxed_str()),
        }
    }

    fn text<'a>(&'a self, whole: &'a str) -> Option<&'a str> {
        match self {
            Self::Within(range) => whole.get(range.clone()),
            Self::Own(text) => Some(text),
        }
    }
}

/// Where a part of some bytes begins and ends in them.
fn place(part: &str, whole: &[u8]) -> Range<usize> {
    let from = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    from..from + part.len()
}

impl Said {
    /// Reads stored bytes; `None` where they are no event.
    fn of(payload: &[u8]) -> Option<Self> {
        let view = View::parse(payload).ok()?;
        let part = |text: Cow<'_, str>| Part::of(text, payload);
        Some(Self {
            time_micros: view.time_micros()?,
            kind: part(view.kind),
            source: part(view.source),
            id: part(view.id),
            subject: view.subject.map(part),
            priority: view.priority.map(part),
            data: view.data.map(|data| place(data.get(), payload)),
        })
    }
}

impl Delivered {
    /// Reads it now, so that those who share it need not. What is no event stays as it is, and each of them finds out.
    pub fn read_for_all(&mut self) {
        self.said = Said::of(&self.payload);
    }

    /// Reads it as an event of a tenant; `None` where it is none.
    pub fn read<T>(&self, tenant: &Tenant, use_it: impl FnOnce(&Event<'_>) -> T) -> Option<T> {
        let placed = parse_placed(&self.subject).filter(|placed| placed.tenant == tenant.as_str())?;
        let own;
        let said = match &self.said {
            Some(said) => said,
            None => {
                own = Said::of(&self.payload)?;
                &own
            }
        };
        let whole = std::str::from_utf8(&self.payload).ok()?;
        Some(use_it(&Event {
            seq: self.seq,
            stored_micros: self.stored_micros,
            time_micros: said.time_micros,
            room: placed.room,
            audience: placed.audience,
            kind: said.kind.text(whole)?,
            source: said.source.text(whole)?,
            id: said.id.text(whole)?,
            subject: said.subject.as_ref().and_then(|part| part.text(whole)),
            priority: said
                .priority
                .as_ref()
                .and_then(|part| part.text(whole))
                .unwrap_or("medium"),
            data: said.data.clone().and_then(|range| whole.get(range)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(subject: &str, payload: &str) -> Delivered {
        Delivered {
            seq: 7,
            stored_micros: 8,
            pending: 0,
            subject: subject.into(),
            payload: payload.as_bytes().to_vec().into(),
            said: None,
            trail: None,
        }
    }

    /// Read for all or by each, an event says the same.
    #[test]
    fn an_event_says_the_same_to_one_and_to_all() {
        let whole = r#"{"specversion":"1.0","id":"i\u00e9","source":"s","type":"a:b","time":"1970-01-01T00:00:01Z","subject":"x","priority":"high","data":{"n": [1, "é"]}}"#;
        let least = r#"{"id":"","source":"s","type":"t","time":"1970-01-01T00:00:01Z"}"#;
        let subject = "evt.00.main.bookings.42.staff";
        let rows = [
            (
                subject,
                whole,
                Some(
                    r#"bookings.42 staff "a:b" "s" "ié" Some("x") high Some("{\"n\": [1, \"é\"]}") 1000000 7 8"#,
                ),
            ),
            (
                subject,
                least,
                Some(r#"bookings.42 staff "t" "s" "" None medium None 1000000 7 8"#),
            ),
            ("evt.00.acme.bookings.staff", least, None),
            (subject, "{}", None),
            (subject, "", None),
            (
                subject,
                r#"{"id":"","source":"s","type":"t","time":"yesterday"}"#,
                None,
            ),
        ];
        for (subject, payload, expected) in rows {
            let mut event = delivered(subject, payload);
            for _ in 0..2 {
                let said = event.read(&Tenant::default(), |event| {
                    format!(
                        "{} {} {:?} {:?} {:?} {:?} {} {:?} {} {} {}",
                        event.room,
                        event.audience,
                        event.kind,
                        event.source,
                        event.id,
                        event.subject,
                        event.priority,
                        event.data,
                        event.time_micros,
                        event.seq,
                        event.stored_micros
                    )
                });
                assert_eq!(said.as_deref(), expected, "{payload}");
                event.read_for_all();
            }
        }
    }
}
