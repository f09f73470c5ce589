//! One group of a rule: quiet, pending, or firing, and since when.

use super::Reading;
use crate::definition::rule::{Change, Rule};
use crate::engine::decimal::Decimal;

/// Samples over the span of a rate of change; a change is told as exactly as the span divided by this.
const SAMPLES: i64 = 12;

/// What the condition says.
pub(super) struct Heard {
    /// Whether it holds; `None`: nobody knows, so nothing changes.
    pub(super) holds: Option<bool>,
    /// Whether what fires has come to its end, before `keep_firing_for`.
    pub(super) ended: bool,
    /// The number it looked at.
    pub(super) measured: Option<Decimal>,
    /// All numbers.
    pub(super) reading: Reading,
}

/// Where a group is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The condition does not hold.
    #[default]
    Quiet,
    /// It holds since then, and not yet long enough.
    Pending(i64),
    /// It fires.
    Firing {
        /// Since when: the name of the episode.
        since: i64,
        /// Since when its end has come, while it goes on.
        ended: Option<i64>,
        /// Whether that was said.
        said: bool,
    },
}

/// What a look has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is to be said.
    Nothing,
    /// It fires since then, and that is not said yet.
    Fires(i64),
    /// What fired since then, and was said, is over.
    Ends(i64),
}

/// One group of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) phase: Phase,
    /// Numbers of the past, for a rate of change: the oldest first.
    pub(super) samples: Vec<(i64, Option<Decimal>)>,
}

impl Instance {
    pub(super) fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing { .. })
    }

    pub(super) fn fires_since(&self) -> Option<i64> {
        match self.phase {
            Phase::Firing { since, .. } => Some(since),
            Phase::Quiet | Phase::Pending(_) => None,
        }
    }

    /// Whether there is anything to remember. Of a group that the metric no longer has, `there`, counts and sums are 0 for ever, which
    /// is nothing: else those that are gone take the places of those that come.
    pub(super) fn is_kept(&self, there: bool) -> bool {
        let zero = Decimal::from_count(0);
        let tells = |number: Decimal| there || number != zero;
        self.phase != Phase::Quiet || self.samples.iter().any(|(_, number)| number.is_some_and(tells))
    }

    /// Says that the notice of its firing was made.
    pub(super) fn say(&mut self) {
        if let Phase::Firing { said, .. } = &mut self.phase {
            *said = true;
        }
    }

    /// Ends the episode of something that goes on, where it was said; answers since when it fired. What goes on is another one.
    pub(super) fn unsay(&mut self, now: i64) -> Option<i64> {
        match self.phase {
            Phase::Firing {
                since, said: true, ..
            } => {
                self.begin_again(now);
                Some(since)
            }
            _ => None,
        }
    }

    /// What fires does so as another episode, of which nothing is said yet.
    pub(super) fn begin_again(&mut self, now: i64) {
        if let Phase::Firing { since, said, .. } = &mut self.phase {
            (*since, *said) = (now.max(*since + 1), false);
        }
    }

    /// What became of a number in a span: of the newest sample that is as old. Keeps samples for later looks.
    pub(super) fn changed(
        &mut self,
        change: Change,
        span: i64,
        number: Option<Decimal>,
        now: i64,
    ) -> Option<Decimal> {
        let due = |last: &(i64, _)| now - last.0 >= span / SAMPLES;
        if self.samples.last().is_none_or(due) {
            self.samples.push((now, number));
        }
        // The newest that is old enough, and all that are younger.
        let old = self.samples.partition_point(|(at, _)| now - at >= span);
        self.samples.drain(..old.saturating_sub(1));
        let base = self.samples.first().filter(|_| old > 0)?.1?;
        let by = number?.checked_sub(base)?;
        match change {
            Change::By => Some(by),
            Change::Percent => by.percent_of(base),
        }
    }

    /// Moves on. `room`: whether an end can be said; without it, it waits.
    pub(super) fn step(
        &mut self,
        rule: &Rule,
        holds: Option<bool>,
        over: bool,
        now: i64,
        room: bool,
    ) -> Outcome {
        match (self.phase, holds) {
            (_, None) | (Phase::Quiet, Some(false)) => {}
            (Phase::Quiet, Some(true)) => self.phase = Phase::Pending(now),
            (Phase::Pending(_), Some(false)) => self.phase = Phase::Quiet,
            (Phase::Pending(_), Some(true)) => {}
            (Phase::Firing { since, said, .. }, _) if !over => {
                let ended = None;
                self.phase = Phase::Firing { since, ended, said };
            }
            (Phase::Firing { since, ended, said }, _) => {
                let from = ended.unwrap_or(now);
                if now - from < rule.keep_micros || (said && !room) {
                    let ended = Some(from);
                    self.phase = Phase::Firing { since, ended, said };
                } else {
                    self.phase = Phase::Quiet;
                    return if said {
                        Outcome::Ends(since)
                    } else {
                        Outcome::Nothing
                    };
                }
            }
        }
        if let Phase::Pending(since) = self.phase
            && now - since >= rule.for_micros
            && holds == Some(true)
        {
            self.phase = Phase::Firing {
                since: now,
                ended: None,
                said: false,
            };
        }
        match self.phase {
            Phase::Firing {
                since, said: false, ..
            } => Outcome::Fires(since),
            _ => Outcome::Nothing,
        }
    }
}
