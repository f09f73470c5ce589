//! When state is written, and what is said then.

use std::time::Duration;

use roomcast_chassis::trace::Trail;
use tokio::time::Instant;

use super::{Ended, PROBE_EVERY, Session};
use crate::counters::shard_label;
use crate::engine::shard::{DIRTY_MAX, Unsaved};
use crate::publish::now_micros;
use crate::store;

/// Least time between two flushes of a shard that is current; the first after a rest is made at once.
pub(super) const FLUSH_EVERY: Duration = Duration::from_millis(150);
/// The same of one that is behind: nobody waits for its numbers, and reading a second again after a crash costs less than a second.
const FLUSH_BEHIND_EVERY: Duration = Duration::from_secs(1);
/// A position that alone has moved is written this often.
const POSITION_EVERY: Duration = Duration::from_secs(60);

impl Session<'_> {
    fn flush_every(&self) -> Duration {
        if self.live {
            FLUSH_EVERY
        } else {
            FLUSH_BEHIND_EVERY
        }
    }

    pub(super) fn must_flush(&mut self) -> bool {
        if self.shard.dirty() >= DIRTY_MAX {
            return true;
        }
        let since = self.flushed.elapsed();
        if since < self.flush_every() {
            return false;
        }
        self.advance();
        match self.shard.unsaved() {
            Unsaved::Content => true,
            Unsaved::Position if since >= POSITION_EVERY => true,
            _ => self.shard.is_due() || self.may_sweep(),
        }
    }

    /// Moves time, under the silences there are.
    pub(super) fn advance(&mut self) {
        self.shard.silence(self.shared.silences.now());
        self.shard.advance(now_micros());
    }

    /// Whether what nothing produces any more may be taken back: while something is being filled nobody knows yet.
    fn may_sweep(&self) -> bool {
        self.live && self.known.is_some() && !self.shard.is_filling()
    }

    /// Writes the state, then publishes what was rendered from it.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let counters = &self.shared.counters;
        let label = shard_label(self.number);
        self.advance();
        self.shard.set_lag(self.pending);
        counters
            .filling
            .with_label_values(&[&label])
            .set(i64::try_from(self.filling).unwrap_or(i64::MAX));
        counters
            .rooms_untracked
            .with_label_values(&[&label])
            .set(i64::try_from(self.shard.rooms_untracked()).unwrap_or(i64::MAX));
        let mut values = if self.live {
            self.shard.render()
        } else {
            Vec::new()
        };
        let may_sweep = self.may_sweep();
        let sweeping = self.known.take_if(|_| may_sweep);
        if let Some(known) = &sweeping {
            values.extend(self.shard.orphans(self.number, &self.shared.tenant, known));
        }
        let flush = self.shard.flush();
        let bytes = flush.head.len() + flush.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let begun = Instant::now();
        self.head_seq = store::write(&self.shared.jetstream, self.number, flush, self.head_seq).await?;
        self.flushed = Instant::now();
        // Not before: what is read and cannot be written still waits.
        self.say_lag();
        counters.flushes.inc();
        counters.flush_bytes.inc_by(bytes as u64);
        counters.flush_seconds.observe(begun.elapsed().as_secs_f64());
        let step = self.traced.written(self.number, values.len());
        let trail = step.trail().or_else(|| self.traced.newest());
        self.speak(&label, trail.as_ref());
        if !values.is_empty() {
            step.run(self.values.publish(values)).await?;
            self.shard.settled();
        }
        if sweeping.is_some() {
            self.shard.swept();
        }
        Ok(())
    }

    /// Hands over what rules have to say, now that it is written. `trail`: of an event that it follows from.
    fn speak(&mut self, label: &str, trail: Option<&Trail>) {
        self.speaker.hand(self.shard.notices(), &self.taken_over, trail);
        let (firing, unwatched) = self.shard.firing();
        let counters = &self.shared.counters;
        let firing = i64::try_from(firing).unwrap_or(i64::MAX);
        counters.firing.with_label_values(&[label]).set(firing);
        counters.unwatched.inc_by(unwatched - self.unwatched);
        self.unwatched = unwatched;
    }

    /// When to look again although nothing came.
    pub(super) fn wake(&self) -> Instant {
        let now = Instant::now();
        let after_flush = self.flushed + self.flush_every();
        let probe = self.probed + PROBE_EVERY;
        let mut wake = probe
            .min(self.flushed + POSITION_EVERY)
            .max(now + Duration::from_millis(1));
        if self.shard.unsaved() == Unsaved::Content {
            wake = wake.min(after_flush);
        }
        if let Some(at) = self.shard.next_wake() {
            let wait = u64::try_from(at.saturating_sub(now_micros())).unwrap_or(0);
            wake = wake.min((now + Duration::from_micros(wait)).max(after_flush));
        }
        wake
    }
}
