//! The way of one request, whichever door it came by: read, decide, store, keep what was refused, count.

mod refused;

use std::ops::Range;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use refused::{Kept, together};
use roomcast_admin::Audit;
use roomcast_chassis::nats::Status;
use roomcast_chassis::trace::Trail;
use roomcast_proto::event::Draft;
use roomcast_proto::ids::{Audience, Room, new_event_id};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_rights::Current;
use tokio::sync::watch;

use crate::accept::{Accepted, Arrival, Sender, decide};
use crate::answer::{Answer, NotTaken, Taken};
use crate::capacity::{Capacity, Full, Place};
use crate::dead_letter::{DeadLetter, DeadLetters, is_kept, letter_bytes};
use crate::error::unavailable;
use crate::hex;
use crate::lines::Line;
use crate::metrics::{Door, IngestMetrics, Outcome};
use crate::quota::Quotas;
use crate::schemas::Schemas;
use crate::store::Store;

/// So long after NATS last said that no right has changed, nothing is taken in anybody's name: as gateways end their connections then.
const UNSURE_AFTER: Duration = Duration::from_secs(10);

/// How the events stand in a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One event, structured or in short form.
    One,
    /// A JSON array of them.
    Batch,
    /// Either; the first character decides.
    OneOrBatch,
    /// A JSON array of events that are one to who sent them: when one is refused, none is taken.
    Together,
}

impl Shape {
    /// Whether this body is an array of events.
    #[must_use]
    pub fn is_batch(self, body: &[u8]) -> bool {
        let first = || body.iter().find(|byte| !byte.is_ascii_whitespace());
        matches!(self, Shape::Batch | Shape::Together) || self == Shape::OneOrBatch && first() == Some(&b'[')
    }
}

/// A request that has a known sender.
#[derive(Debug)]
pub struct Request<'a> {
    /// Which way it came.
    pub door: Door,
    /// Who publishes.
    pub sender: &'a Sender,
    /// The room of the subject it came by.
    pub room: Option<&'a Room>,
    /// The audience of the subject it came by.
    pub audience: Option<&'a Audience>,
    /// `Roomcast-Backfill: 1` was given.
    pub backfill: bool,
    /// The subject, or the HTTP path: for dead letters.
    pub origin: &'a str,
    /// How the events stand in the body.
    pub shape: Shape,
    /// The body.
    pub body: Bytes,
    /// What a dead letter keeps, where that is not the body or a part of it: binary mode.
    pub original: Option<Bytes>,
}

impl<'a> Request<'a> {
    /// What came over HTTP, or a portion of it. `origin`: the path.
    pub(crate) fn posted(
        sender: &'a Sender,
        backfill: bool,
        origin: &'a str,
        shape: Shape,
        body: Bytes,
    ) -> Self {
        Self {
            door: Door::Http,
            sender,
            room: None,
            audience: None,
            backfill,
            origin,
            shape,
            body,
            original: None,
        }
    }
}

/// What both doors lead to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The policy, grants and revocations in force.
    pub rights: Current,
    /// What the data of an event of each type looks like.
    pub schemas: Schemas,
    /// Where accepted events go.
    pub store: Store,
    /// Where refused ones go.
    pub dead_letters: DeadLetters,
    /// The bound on work in flight.
    pub capacity: Capacity,
    /// The bounds on each publisher and tenant.
    pub quotas: Quotas,
    /// Where it is put on record whom a right was missing.
    pub audit: Audit,
    /// The metrics.
    pub metrics: IngestMetrics,
    /// Whether NATS is connected.
    pub nats: watch::Receiver<Status>,
}

/// One event's line or element in the body and what was decided about it.
type Decided = (Line, Result<Accepted, NotTaken>);

impl Intake {
    /// Takes a request's events as far as they go. `now_micros`: Unix microseconds.
    ///
    /// # Cancel safety
    /// Dropped, what was sent may be stored and dead letters may be missing: a door lets it run to its end.
    pub async fn take(&self, request: Request<'_>, now_micros: i64) -> Answer {
        if let Err(refusal) = self.open_to(&request) {
            return self.refused_whole(&request, refusal).await;
        }
        let batch = request.shape.is_batch(&request.body);
        let decided = match self.decide_all(&request, batch, now_micros) {
            Ok(decided) => decided,
            Err(refusal) => return self.refused_whole(&request, refusal).await,
        };
        if request.shape == Shape::Together
            && let Some(not_taken) = decided.iter().find_map(|(_, decided)| decided.as_ref().err())
        {
            return self.refused_whole(&request, not_taken.refusal.clone()).await;
        }
        let taken = self.carry_out(&request, decided).await;
        if request.shape == Shape::Together {
            return Answer::One(together(&taken));
        }
        if batch {
            return Answer::Batch(taken);
        }
        match taken.into_iter().next() {
            Some(one) => Answer::One(one),
            None => Answer::Refused(unavailable("nothing was done")),
        }
    }

    /// Takes one portion of a request with an event a line: one result per line, in order.
    ///
    /// # Cancel safety
    /// As [`Intake::take`].
    pub async fn take_lines(&self, request: &Request<'_>, lines: &[Line], now_micros: i64) -> Vec<Taken> {
        let open = self.open_to(request);
        let arrival = arrival(request, now_micros);
        let decide = |line: &Line| {
            let decided = match &open {
                Ok(()) => self.decide(line.draft(&request.body), &arrival),
                Err(refusal) => Err(NotTaken::new(refusal.clone(), None)),
            };
            (line.clone(), decided)
        };
        self.carry_out(request, lines.iter().map(decide).collect()).await
    }

    /// Whether anything of a request could be taken now.
    ///
    /// # Errors
    /// `unavailable`; `forbidden` for a back-fill that the sender may not do.
    pub fn open_to(&self, request: &Request<'_>) -> Result<(), Refusal> {
        if !self.nats.borrow().connected {
            return Err(unavailable("NATS cannot be reached"));
        }
        self.sure()?;
        if request.backfill && !request.sender.may_backfill() {
            return Err(Refusal::forbidden());
        }
        Ok(())
    }

    /// Whether it is known who may do what: a sender may have been revoked by now.
    ///
    /// # Errors
    /// `unavailable`.
    pub fn sure(&self) -> Result<(), Refusal> {
        match self.rights.unsure_for() > UNSURE_AFTER {
            true => Err(unavailable("it cannot be told whether rights have changed")),
            false => Ok(()),
        }
    }

    /// Refuses a request of which nothing was read as an event: counts it and keeps the bytes.
    pub async fn refused_whole(&self, request: &Request<'_>, refusal: Refusal) -> Answer {
        let bytes = request.original.as_ref().unwrap_or(&request.body);
        self.refuse(
            request.door,
            request.sender,
            request.origin,
            bytes.clone(),
            bytes.len(),
            refusal,
        )
        .await
    }

    /// The same for a request whose sender may not publish at all, or of which only the first bytes were read. It costs what an event
    /// costs and what its letter takes; whoever has no more of either is told so, and nothing is kept.
    pub async fn refuse(
        &self,
        door: Door,
        sender: &Sender,
        origin: &str,
        bytes: Bytes,
        original_bytes: usize,
        refusal: Refusal,
    ) -> Answer {
        // What is a letter already stays one.
        let keeps = |refusal: &Refusal| is_kept(refusal.code) && door != Door::Replay;
        self.record(sender, refusal.code);
        let refusal = match keeps(&refusal) {
            true => self
                .quotas
                .take(sender, 1)
                .and_then(|()| self.quotas.keep(sender, letter_bytes(bytes.len())))
                .err()
                .unwrap_or(refusal),
            false => refusal,
        };
        self.metrics.event(door, Outcome::Refused);
        self.metrics.refused(refusal.code);
        if keeps(&refusal) {
            let letter = DeadLetter {
                tenant: &sender.tenant,
                publisher: &sender.publisher,
                origin,
                refusal: &refusal,
                bytes,
                original_bytes,
            };
            self.dead_letters.keep(vec![letter]).await;
        }
        Answer::Refused(refusal)
    }

    /// Refuses for want of room; nothing was kept.
    #[must_use]
    pub fn full(&self, door: Door, full: Full) -> Refusal {
        self.turned_away(door, unavailable(&full.to_string()))
    }

    /// Takes a share of the work in flight for a sender; it is held with its place.
    ///
    /// # Errors
    /// `quota`, `rate`; counted, and nothing is to be kept.
    pub fn share(&self, door: Door, sender: &Sender, place: &mut Place) -> Result<(), Refusal> {
        match self.quotas.enter(sender) {
            Ok(share) => {
                place.hold(share);
                Ok(())
            }
            Err(refusal) => Err(self.turned_away(door, refusal)),
        }
    }

    fn turned_away(&self, door: Door, refusal: Refusal) -> Refusal {
        self.metrics.event(door, Outcome::Refused);
        self.metrics.refused(refusal.code);
        refusal
    }

    fn decide_all(
        &self,
        request: &Request<'_>,
        batch: bool,
        now_micros: i64,
    ) -> Result<Vec<Decided>, Refusal> {
        let drafts = if batch {
            Draft::parse_batch(&request.body)?
        } else {
            vec![(0..request.body.len(), Draft::parse(&request.body))]
        };
        let arrival = arrival(request, now_micros);
        let decide = |(place, draft): (Range<usize>, _)| {
            let original_bytes = place.len();
            let line = Line {
                place,
                original_bytes,
            };
            (line, self.decide(draft, &arrival))
        };
        Ok(drafts.into_iter().map(decide).collect())
    }

    /// Decides about one draft by the policy in force.
    ///
    /// # Errors
    /// As [`decide`], with the id where it was given; what made the draft unreadable.
    pub fn decide(
        &self,
        draft: Result<Draft<'_>, Refusal>,
        arrival: &Arrival<'_>,
    ) -> Result<Accepted, NotTaken> {
        let draft = draft.map_err(|refusal| NotTaken::new(refusal, None))?;
        let id = draft.id().map(str::to_owned);
        let trail = Trail::read(|name| draft.extension_text(name));
        let mut accepted = decide(draft, arrival, &self.rights.now().policy, &self.schemas.now())
            .map_err(|refusal| NotTaken::new(refusal, id))?;
        if let Some(trail) = trail {
            accepted.follows(&trail);
        }
        if let Some(breach) = &accepted.breach {
            self.schemas.warn(&accepted.kind, breach);
        }
        Ok(accepted)
    }

    /// Stores what was accepted, keeps what was refused, counts both: as what their publisher hears.
    async fn carry_out(&self, request: &Request<'_>, decided: Vec<Decided>) -> Vec<Taken> {
        // Whom a right is missing is on record also where they hear that they send too fast.
        for not_taken in decided.iter().filter_map(|(_, decided)| decided.as_ref().err()) {
            self.record(request.sender, not_taken.refusal.code);
        }
        let decided = self.within_rate(request.sender, decided);
        let (lines, mut taken) = self.store_all(decided).await;
        let stored = lines.iter().zip(&taken).filter(|(_, taken)| taken_now(taken));
        let bytes = stored.clone().map(|(line, _)| line.original_bytes as u64).sum();
        let events = stored.count() as u64;
        self.metrics.usage(&request.sender.tenant, events, bytes);
        let refused = taken.iter().filter(|taken| taken.is_err()).count();
        tracing::debug!(
            door = request.door.as_str(),
            publisher = request.sender.publisher.as_ref(),
            events = taken.len(),
            refused,
            "took {} of {} events",
            taken.len() - refused,
            taken.len()
        );
        let kept = self.kept(request, &lines, &mut taken);
        self.count(request.door, &taken);
        self.keep_refused(request, &kept, &mut taken).await;
        taken
    }

    /// Nothing of a request is done, and nothing kept, when its sender sends too fast: it has the events still, and a flood of bad ones
    /// must not become a flood of dead letters.
    fn within_rate(&self, sender: &Sender, decided: Vec<Decided>) -> Vec<Decided> {
        let cost = |decided: &Decided| decided.1.as_ref().map_or(1, |event| event.placements.len());
        let Err(refusal) = self.quotas.take(sender, decided.iter().map(cost).sum()) else {
            return decided;
        };
        let refuse = |(line, decided): Decided| {
            let id = decided.map_or_else(|not_taken| not_taken.id, |event| Some(event.id));
            let refusal = refusal.clone();
            (line, Err(NotTaken::new(refusal, id)))
        };
        decided.into_iter().map(refuse).collect()
    }

    /// Stores what was accepted and puts the results back among the refusals, in order.
    async fn store_all(&self, decided: Vec<Decided>) -> (Vec<Line>, Vec<Taken>) {
        let mut accepted = Vec::with_capacity(decided.len());
        let mut places = Vec::with_capacity(decided.len());
        let refused: Vec<Option<NotTaken>> = decided
            .into_iter()
            .map(|(place, decided)| {
                places.push(place);
                decided.map(|event| accepted.push(event)).err()
            })
            .collect();
        let mut stored = if accepted.is_empty() {
            Vec::new()
        } else {
            self.store.take(accepted).await
        }
        .into_iter();
        let lost = || NotTaken::new(unavailable("nothing was done"), None);
        let taken = refused.into_iter().map(|refused| match refused {
            Some(refused) => Err(refused),
            None => stored.next().unwrap_or_else(|| Err(lost())),
        });
        let taken = taken.collect();
        (places, taken)
    }

    fn record(&self, sender: &Sender, code: Code) {
        if code == Code::Forbidden {
            let who = (sender.tenant.as_str(), &*sender.publisher);
            self.audit.refused("publish", code.as_str(), Some(who));
        }
    }

    fn count(&self, door: Door, taken: &[Taken]) {
        for one in taken {
            match one {
                Ok(receipt) => self.metrics.event(door, receipt.outcome),
                Err(not_taken) => {
                    self.metrics.event(door, Outcome::Refused);
                    self.metrics.refused(not_taken.refusal.code);
                }
            }
        }
    }

    /// What of the refused is to be kept, as far as there is room for it.
    fn kept(&self, request: &Request<'_>, lines: &[Line], taken: &mut [Taken]) -> Vec<Kept> {
        let mut kept = refused::letters(request, lines, taken);
        let bytes = kept.iter().map(|kept| letter_bytes(kept.bytes.len())).sum();
        if let Err(refusal) = self.quotas.keep(request.sender, bytes) {
            refused::over(&mut kept, taken, &refusal);
        }
        kept
    }

    /// Keeps what was refused. A door that has nobody to tell hears of what could not be kept: a database's change is then refused for
    /// now only, and of a letter that was taken again it is said.
    async fn keep_refused(&self, request: &Request<'_>, kept: &[Kept], taken: &mut [Taken]) {
        if kept.is_empty() {
            return;
        }
        let letters: Vec<_> = kept.iter().map(|kept| letter(request, kept)).collect();
        if !matches!(request.door, Door::Capture | Door::Replay) {
            return self.dead_letters.keep(letters).await;
        }
        let names = letters.iter().map(|letter| name(request.door, letter));
        let names: Vec<String> = names.collect();
        let keep = letters.iter().zip(&names);
        let keep = keep.map(|(letter, name)| self.dead_letters.keep_named(letter, name));
        let is_kept = futures_util::future::join_all(keep).await;
        for ((kept, letter), is_kept) in kept.iter().zip(&letters).zip(is_kept) {
            if request.door == Door::Replay && !is_kept {
                self.dead_letters
                    .lost(letter, "the stream did not take it in time");
            }
            for not_taken in taken[kept.of.clone()]
                .iter_mut()
                .filter_map(|one| one.as_mut().err())
            {
                tell(not_taken, request.door, is_kept);
            }
        }
    }
}

fn letter<'a>(request: &'a Request<'_>, kept: &'a Kept) -> DeadLetter<'a> {
    DeadLetter {
        tenant: &request.sender.tenant,
        publisher: &request.sender.publisher,
        origin: request.origin,
        refusal: &kept.refusal,
        bytes: kept.bytes.clone(),
        original_bytes: kept.original_bytes,
    }
}

/// Under what name it is kept: of a database's change, which has an id of its own and comes again, always the same.
fn name(door: Door, letter: &DeadLetter<'_>) -> String {
    if door != Door::Capture {
        return new_event_id();
    }
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(letter.origin.as_bytes());
    context.update(b"\n");
    context.update(&letter.bytes);
    hex(context.finish().as_ref())
}

fn tell(not_taken: &mut NotTaken, door: Door, is_kept: bool) {
    let refusal = &mut not_taken.refusal;
    match (door, is_kept) {
        (Door::Replay, true) => refusal
            .detail
            .push_str("; what is left is a letter of its own now"),
        (Door::Replay, false) => refusal
            .detail
            .push_str("; what is left could not be kept as a letter of its own"),
        (_, true) => {}
        // It comes again, and is refused again, until it is kept.
        (_, false) => *refusal = unavailable("it was refused, and is not yet kept as a dead letter"),
    }
}

/// Whether an event was taken, and not before.
fn taken_now(taken: &Taken) -> bool {
    taken
        .as_ref()
        .is_ok_and(|receipt| receipt.outcome != Outcome::Duplicate)
}

fn arrival<'a>(request: &Request<'a>, now_micros: i64) -> Arrival<'a> {
    Arrival {
        sender: request.sender,
        room: request.room,
        audience: request.audience,
        backfill: request.backfill,
        now_micros,
        queued: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_character_tells_a_batch() {
        assert!(Shape::OneOrBatch.is_batch(b" \n[{}]"));
        assert!(!Shape::OneOrBatch.is_batch(b"{}"));
        assert!(!Shape::OneOrBatch.is_batch(b""));
        assert!(!Shape::One.is_batch(b"[]"), "an array is no event");
        assert!(Shape::Batch.is_batch(b"{}"), "and an event no batch");
    }
}
