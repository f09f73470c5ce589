//! What the drivers hand in: it goes into memory first and to the shards then, always in the same order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use roomcast_chassis::trace::Trail;
use roomcast_proto::cursor::{Epoch, Position, time_bits};
use roomcast_proto::limits::WITHDRAWN_TTL;
use roomcast_proto::subject::parse_placed;

use super::stock::Stock;
use super::{Hub, ToShard, ring_limits};
use crate::delivery::{Address, Delivery, Kind, Mark};
use crate::place::{Place, Places};
use crate::ring::Ring;
use crate::spine::Cause;
use crate::spine_driver::Which;

/// A message of one of the streams, or an ephemeral one, as the drivers read it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// `evt.…`, `live.…`, `st.…`, `slive.…` or `eph.…`.
    pub subject: String,
    /// `Rc-Expires`: Unix milliseconds.
    pub expires_millis: Option<i64>,
    /// `Rc-Withdrawn`.
    pub withdrawn: bool,
    /// The CloudEvent.
    pub payload: bytes::Bytes,
    /// Where its trace goes on, if that is kept.
    pub trail: Option<Box<Trail>>,
}

/// What only the writers touch; whoever holds it hands out.
#[derive(Debug, Default)]
pub(super) struct Order {
    places: Places,
    position: Position,
    time_bits: u16,
    pub(super) epoch: Option<Epoch>,
    events_created: Option<String>,
    /// Its life: when it was made, and from which positions on it has lost what it had since.
    state_created: Option<String>,
}

impl Hub {
    /// Hands out an event. `warm`: it is old, nobody is there to hear it, only the ring takes it.
    pub fn event(&self, seq: u64, time_micros: i64, incoming: &Incoming, warm: bool) {
        let order = &mut *self.order();
        order.position.seq = seq;
        order.time_bits = time_bits(time_micros);
        let made = self.make(order, incoming, |_| Kind::Event);
        let mut stock = self.stock();
        stock.position = order.position;
        stock.time_bits = order.time_bits;
        let mut ahead = stock.take_ahead();
        let Some((place, delivery)) = made else {
            stock.ring.note_time(seq, order.time_bits);
            drop(stock);
            self.metrics.unreadable.with_label_values(&["events"]).inc();
            return self.wake(&ahead);
        };
        let delivery = Arc::new(delivery);
        stock
            .ring
            .push(&place.key, Arc::clone(&delivery), time_micros, order.time_bits);
        ahead.extend(stock.watches.changed(&place.key));
        drop(stock);
        if !warm {
            self.tell(&ToShard::Deliver(delivery));
        }
        self.wake(&ahead);
    }

    /// Hands out a state value.
    pub fn state_value(&self, rev: u64, time_micros: i64, incoming: &Incoming) {
        let order = &mut *self.order();
        order.position.rev = rev;
        let made = self.make(order, incoming, |key| state_kind(key, incoming.withdrawn));
        let mut stock = self.stock();
        stock.position = order.position;
        let mut ahead = stock.take_ahead();
        let Some((place, mut delivery)) = made else {
            drop(stock);
            self.metrics.unreadable.with_label_values(&["state"]).inc();
            return self.wake(&ahead);
        };
        delivery.stored_millis = time_micros.div_euclid(1_000);
        let ends = ends_millis(&delivery, time_micros);
        let delivery = Arc::new(delivery);
        stock.state.apply(&place.key, Arc::clone(&delivery), ends);
        ahead.extend(stock.watches.changed(&place.key));
        drop(stock);
        self.tell(&ToShard::Deliver(delivery));
        self.wake(&ahead);
    }

    /// Hands out an ephemeral event.
    pub fn ephemeral(&self, incoming: &Incoming) {
        let order = &mut *self.order();
        let epoch = order.epoch.take();
        let made = self.make(order, incoming, |_| Kind::Ephemeral);
        order.epoch = epoch;
        match made {
            Some((_, delivery)) => {
                self.metrics.ephemeral.inc();
                self.tell(&ToShard::Deliver(Arc::new(delivery)));
            }
            None => self.metrics.unreadable.with_label_values(&["ephemeral"]).inc(),
        }
    }

    /// `EVENTS` has nothing up to this position any more.
    pub fn skip_events(&self, to: u64) {
        let mut order = self.order();
        order.position.seq = to;
        order.time_bits = 0;
        let mut stock = self.stock();
        stock.position = order.position;
        stock.time_bits = 0;
        stock.ring.note_time(to, 0);
        let ahead = stock.take_ahead();
        drop(stock);
        self.wake(&ahead);
    }

    /// `STATE` has nothing up to this position any more.
    pub fn skip_state(&self, to: u64) {
        let mut order = self.order();
        order.position.rev = to;
        let mut stock = self.stock();
        stock.position = order.position;
        let ahead = stock.take_ahead();
        drop(stock);
        self.wake(&ahead);
    }

    /// `EVENTS` begins anew at `next`; it was created at `created` and keeps what is not before `first_seq`. Clients are told, except at
    /// the start (`cause: None`).
    pub fn reset_events(&self, created: &str, first_seq: u64, next: u64, cause: Option<Cause>) {
        let mut order = self.order();
        order.events_created = Some(created.to_owned());
        order.position.seq = next.saturating_sub(1);
        order.time_bits = 0;
        let mut stock = self.stock();
        self.behind()[Which::Events as usize] = super::behind::Behind::default();
        stock.reset_events(Ring::new(ring_limits(&self.settings), next), first_seq, next);
        self.renew(&mut order, &mut stock);
        let held = stock.watches.all();
        drop(stock);
        self.wake(&held);
        self.tell_reset("events", cause);
    }

    /// `STATE` begins anew at `next`; it was created at `created`.
    pub fn reset_state(&self, created: &str, next: u64, cause: Option<Cause>) {
        let mut order = self.order();
        order.state_created = Some(match (cause, order.state_created.take()) {
            // Positions are given to other values now: a cursor of before is one of another life.
            (Some(Cause::Regressed), Some(life)) => format!("{life}\n{next}"),
            _ => created.to_owned(),
        });
        order.position.rev = next.saturating_sub(1);
        let mut stock = self.stock();
        self.behind()[Which::State as usize] = super::behind::Behind::default();
        stock.reset_state(next, matches!(cause, None | Some(Cause::Recreated)));
        self.renew(&mut order, &mut stock);
        let held = stock.watches.all();
        drop(stock);
        self.wake(&held);
        self.tell_reset("state", cause);
    }

    /// The oldest event the stream keeps, and for how long it keeps them.
    pub fn kept_events(&self, first_seq: u64, max_age: Option<Duration>) {
        let mut stock = self.stock();
        stock.first_seq = stock.first_seq.max(first_seq);
        drop(stock);
        if let Some(max_age) = max_age {
            self.max_age_secs
                .store(max_age.as_secs().max(1), Ordering::Relaxed);
        }
    }

    /// From this position on every state value is younger than withdrawn ones are kept.
    pub fn kept_state(&self, first_rev: u64) {
        let mut stock = self.stock();
        stock.first_rev = stock.first_rev.max(first_rev);
    }

    /// Reads a message's names and encodes it.
    fn make(
        &self,
        order: &mut Order,
        incoming: &Incoming,
        kind: impl Fn(&str) -> Kind,
    ) -> Option<(Place, Delivery)> {
        let names = parse_placed(&incoming.subject)?;
        let place = order.places.find(names.tenant, names.room)?;
        let address = Address {
            tenant: place.tenant.clone(),
            room: place.room.clone(),
            audience: (self.audiences)(names.audience),
            audience_name: order.places.audience(names.audience)?,
            meter: self.meter,
        };
        let kind = kind(names.key.unwrap_or_default());
        let mark = order.epoch.map(|epoch| Mark {
            epoch,
            time_bits: order.time_bits,
            cursors: self.settings.cursors,
        });
        let expires = incoming.expires_millis;
        let mut delivery = Delivery::new(address, kind, order.position, mark, expires, &incoming.payload);
        delivery.trail.clone_from(&incoming.trail);
        Some((place, delivery))
    }

    /// A stored event outside the order, with a cursor that holds the state as it is now; for reads.
    #[must_use]
    pub fn old_event(&self, seq: u64, time_micros: i64, incoming: &Incoming) -> Option<Delivery> {
        let order = &mut *self.order();
        let (position, bits) = (order.position, order.time_bits);
        (order.position.seq, order.time_bits) = (seq, time_bits(time_micros));
        let made = self.make(order, incoming, |_| Kind::Event);
        (order.position, order.time_bits) = (position, bits);
        made.map(|(_, delivery)| delivery)
    }

    /// A stored value outside the order, without a cursor, and when it ends; for reads.
    #[must_use]
    pub fn old_value(
        &self,
        rev: u64,
        time_micros: i64,
        incoming: &Incoming,
    ) -> Option<(Delivery, Option<i64>)> {
        let order = &mut *self.order();
        let (position, epoch) = (order.position, order.epoch.take());
        order.position = Position { seq: 0, rev };
        let made = self.make(order, incoming, |key| state_kind(key, incoming.withdrawn));
        (order.position, order.epoch) = (position, epoch);
        made.map(|(_, mut delivery)| {
            delivery.stored_millis = time_micros.div_euclid(1_000);
            let ends = ends_millis(&delivery, time_micros);
            (delivery, ends)
        })
    }

    fn renew(&self, order: &mut Order, stock: &mut Stock) {
        order.epoch = match (&order.events_created, &order.state_created) {
            (Some(events), Some(state)) => Some(Epoch::of_streams(events, state)),
            _ => None,
        };
        stock.epoch = order.epoch;
        stock.position = order.position;
        stock.time_bits = order.time_bits;
    }

    fn tell_reset(&self, stream: &str, cause: Option<Cause>) {
        let Some(cause) = cause else { return };
        self.metrics
            .resets
            .with_label_values(&[stream, cause.as_str()])
            .inc();
        tracing::error!(
            stream,
            cause = cause.as_str(),
            "stream {stream} cannot be continued: {}",
            cause.as_str()
        );
        self.tell(&ToShard::Reset);
    }
}

fn state_kind(key: &str, withdrawn: bool) -> Kind {
    Kind::State {
        key: key.into(),
        withdrawn,
    }
}

/// When a value ends by itself: at its own time, and a withdrawal when the stream forgets it.
fn ends_millis(delivery: &Delivery, time_micros: i64) -> Option<i64> {
    let ttl_millis = i64::try_from(WITHDRAWN_TTL.as_millis()).unwrap_or(i64::MAX);
    let forgotten = matches!(delivery.kind, Kind::State { withdrawn: true, .. });
    let forgotten = forgotten.then(|| (time_micros / 1000).saturating_add(ttl_millis));
    match (delivery.expires_millis, forgotten) {
        (Some(expires), Some(forgotten)) => Some(expires.min(forgotten)),
        (expires, forgotten) => expires.or(forgotten),
    }
}
