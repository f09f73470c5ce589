//! Windows as ranges of slots: how time is cut, which window is current, what it is compared with.
//!
//! A *slot* is the smallest piece of time the engine keeps apart: a unit of the calendar, a part of a step of a sliding window, all
//! time of a total. A window is named by an ordinal, its *place*: that of the calendar's unit, the number of the step at whose end a
//! sliding window ends, 0 for a total. Sessions belong to groups (see `session`): the place of a metric is an instant then, the one
//! up to which they are closed. Everything here is arithmetic; the clock is never read. Times are Unix microseconds.

use std::ops::Range;

use crate::definition::{Definition, SPARK, SPARK_PARTS, Unit, Window};
use crate::engine::calendar::Calendar;
use crate::engine::metric::FUTURE_MICROS;
use crate::engine::session;

const HOUR_MICROS: i64 = 3_600_000_000;
/// Shortest and longest life of a closed window's value.
const CLOSED_LIFE: (i64, i64) = (HOUR_MICROS, 7 * 24 * HOUR_MICROS);
/// Closed windows that may be kept: an hour of minutes, and those that events from the near future have closed ahead of time.
const ALIVE_MAX: usize = 70;
/// Sessions that late events may join, for the room a sum has in each: some days of sessions of a minute.
const SESSIONS_JOINED_MAX: i64 = 1 << 16;

/// The windows of one metric.
#[derive(Debug, Clone)]
pub struct Frames {
    window: Window,
    calendar: Option<Calendar>,
    /// Slots of one step of a sliding window, so that 24 equal parts begin and end at slots.
    step_slots: i64,
    /// Steps of a sliding window.
    steps: i64,
    /// Slots of a block.
    block: i64,
}

impl Frames {
    /// The windows of a definition.
    #[must_use]
    pub fn new(definition: &Definition) -> Self {
        let (step_slots, steps) = match definition.window {
            // With `steps` steps a part has steps / 24 of them; cutting each step into 24 / gcd makes that a whole number of slots.
            Window::Sliding { size, step } => (SPARK / gcd(size / step, SPARK), size / step),
            _ => (1, 1),
        };
        let calendar = match definition.window {
            Window::Tumbling(unit) => Some(Calendar::new(unit, definition.zone.clone())),
            _ => None,
        };
        let block = match definition.window {
            Window::Session { gap } => gap.max(session::BLOCK_MICROS),
            _ => steps * step_slots,
        };
        Self {
            window: definition.window,
            calendar,
            step_slots,
            steps,
            block,
        }
    }

    /// The gap that ends a session; `None` for other windows.
    #[must_use]
    pub fn gap(&self) -> Option<i64> {
        match self.window {
            Window::Session { gap } => Some(gap),
            _ => None,
        }
    }

    /// The slot an instant lies in; of sessions the instant itself.
    pub fn slot(&mut self, at: i64) -> i64 {
        match (self.window, &mut self.calendar) {
            (Window::Sliding { step, .. }, _) => {
                let (whole, rest) = (at.div_euclid(step), at.rem_euclid(step));
                // Slot j of a step begins at ⌊step · j / n⌋; this is the last one that begins at or before `rest`.
                let part = ((rest + 1) * self.step_slots + step - 1) / step - 1;
                whole * self.step_slots + part
            }
            (Window::Session { .. }, _) => at,
            (_, Some(calendar)) => calendar.place(at),
            _ => 0,
        }
    }

    /// The place of the window that contains an instant as its newest.
    pub fn place(&mut self, at: i64) -> i64 {
        match self.window {
            Window::Sliding { step, .. } => at.div_euclid(step) + 1,
            _ => self.slot(at),
        }
    }

    /// First instant inside the window and first one after it; `None` for all time.
    #[must_use]
    pub fn bounds(&self, place: i64) -> Option<Range<i64>> {
        match self.window {
            Window::Sliding { size, step } => Some(place * step - size..place * step),
            _ => self.calendar.as_ref().map(|calendar| calendar.bounds(place)),
        }
    }

    /// The slots of a window.
    #[must_use]
    pub fn slots(&self, place: i64) -> Range<i64> {
        match self.window {
            Window::Sliding { .. } => (place - self.steps) * self.step_slots..place * self.step_slots,
            _ => place..place + 1,
        }
    }

    /// The slots of the whole window before; `None` where there is none.
    #[must_use]
    pub fn previous(&self, place: i64) -> Option<Range<i64>> {
        match self.window {
            Window::Sliding { .. } => Some(self.slots(place - self.steps)),
            _ => self
                .calendar
                .as_ref()
                .map(|calendar| self.slots(calendar.before(place))),
        }
    }

    /// The slots of the day seven local days earlier; of days only.
    #[must_use]
    pub fn same_weekday(&self, place: i64) -> Option<Range<i64>> {
        matches!(self.window, Window::Tumbling(Unit::Day)).then(|| self.slots(place - 7))
    }

    /// First instant in some slots and first one after them, in 24ths of a microsecond, in which parts of a step are whole; not of
    /// sessions and all time.
    #[must_use]
    pub fn span(&self, slots: &Range<i64>) -> Option<Range<i128>> {
        let fine = |micros: i64| i128::from(micros) * i128::from(SPARK);
        if let Window::Sliding { step, .. } = self.window {
            let at = |slot: i64| i128::from(slot) * fine(step) / i128::from(self.step_slots);
            return Some(at(slots.start)..at(slots.end));
        }
        let calendar = self.calendar.as_ref()?;
        Some(fine(calendar.bounds(slots.start).start)..fine(calendar.bounds(slots.end - 1).end))
    }

    /// The slots of the sparkline's parts, oldest first.
    #[must_use]
    pub fn spark(&self, place: i64) -> Vec<Range<i64>> {
        if self.rolls() {
            let slots = self.slots(place);
            let part = (slots.end - slots.start) / SPARK;
            return (0..SPARK)
                .map(|i| slots.start + i * part..slots.start + (i + 1) * part)
                .collect();
        }
        let mut parts: Vec<Range<i64>> = self
            .back(place)
            .take(SPARK_PARTS)
            .map(|place| self.slots(place))
            .collect();
        parts.reverse();
        parts
    }

    /// The part of the sparkline that a slot belongs to; sliding windows only.
    #[must_use]
    pub fn spark_part(&self, place: i64, slot: i64) -> Option<usize> {
        let slots = self.slots(place);
        let part = (slots.end - slots.start) / SPARK;
        slots
            .contains(&slot)
            .then(|| usize::try_from((slot - slots.start) / part).ok())
            .flatten()
    }

    /// Whether windows follow each other without overlap, so that each is published once more when it closes.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.calendar.is_some()
    }

    /// Whether one window is many slots, so that its totals are kept rolling.
    #[must_use]
    pub fn rolls(&self) -> bool {
        matches!(self.window, Window::Sliding { .. })
    }

    /// How many cells may be added up.
    #[must_use]
    pub fn cells_per_window(&self) -> i64 {
        match self.window {
            Window::Session { .. } => SESSIONS_JOINED_MAX,
            _ => self.steps * self.step_slots,
        }
    }

    /// Steps of one window.
    #[must_use]
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// The block of a slot: groups and distinct values are bounded per block. A unit of the calendar or all time is one; a sliding
    /// window's slots are counted off in blocks of its own length, sessions in days, so that what is admitted depends on events alone and
    /// not on when it was looked at.
    #[must_use]
    pub fn block(&self, slot: i64) -> i64 {
        slot.div_euclid(self.block)
    }

    /// The first slot of a block.
    #[must_use]
    pub fn block_start(&self, block: i64) -> i64 {
        block * self.block
    }

    /// The slots in which the different values of a group are bounded together with those of this slot: its block, or its session.
    #[must_use]
    pub fn bounded(&self, slot: i64) -> Range<i64> {
        if self.gap().is_some() {
            return slot..slot + 1;
        }
        let block = self.block(slot);
        self.block_start(block)..self.block_start(block + 1)
    }

    /// The oldest slot that anything published about the window at `place` or a window still open to corrections can show. Whole blocks.
    #[must_use]
    pub fn horizon(&self, place: i64, lateness_micros: i64) -> i64 {
        match &self.calendar {
            None if self.gap().is_some() => {
                let reach = lateness_micros.max(CLOSED_LIFE.0) + FUTURE_MICROS;
                self.block_start(self.block(place.saturating_sub(reach)))
            }
            None if self.rolls() => self.block_start(self.block((place - 2 * self.steps) * self.step_slots)),
            None => i64::MIN,
            // The sparkline of the oldest window that is still kept or that a late event may correct, and the one before it.
            Some(calendar) => {
                let life = match self.window {
                    Window::Tumbling(Unit::Minute) => CLOSED_LIFE.0,
                    Window::Tumbling(Unit::Hour) => SPARK * HOUR_MICROS,
                    _ => CLOSED_LIFE.1,
                };
                let reach = lateness_micros.max(life) + FUTURE_MICROS;
                let oldest = calendar.at(calendar.bounds(place).start - reach);
                self.back(oldest).nth(SPARK_PARTS).unwrap_or(oldest)
            }
        }
    }

    /// The instant at which the window at `place` is over; `None`: never.
    #[must_use]
    pub fn end(&self, place: i64) -> Option<i64> {
        self.bounds(place).map(|bounds| bounds.end)
    }

    /// The places of the closed windows that a change in `slot` alters, its own first; the current window is at `place`.
    pub fn altered(&self, slot: i64, place: i64) -> impl Iterator<Item = i64> {
        let calendar = self.calendar.as_ref().filter(|_| slot < place);
        let first = calendar.map(|_| slot);
        std::iter::successors(first, move |at| calendar.map(|calendar| calendar.after(*at)))
            .take(SPARK_PARTS)
            .take_while(move |at| *at < place)
    }

    /// The closed windows before `place` whose values are still kept at `as_of`, newest first.
    pub fn alive(&self, place: i64, as_of: i64) -> impl Iterator<Item = i64> {
        self.back(place)
            .skip(1)
            .take(ALIVE_MAX)
            // A window that a moving clock has cut short ends its life before an older, whole one does.
            .take_while(move |at| self.end(*at).is_some_and(|end| end + 2 * self.life(*at) > as_of))
            .filter(move |at| self.closed_until(*at).is_some_and(|until| until > as_of))
    }

    /// Until when the value of a closed window is kept: 24 windows, at least an hour, at most a week.
    #[must_use]
    pub fn closed_until(&self, place: i64) -> Option<i64> {
        Some(self.end(place)? + self.life(place))
    }

    fn life(&self, place: i64) -> i64 {
        self.bounds(place)
            .map_or(0, |bounds| closed_life(bounds.end - bounds.start))
    }

    /// A window and those before it.
    fn back(&self, place: i64) -> impl Iterator<Item = i64> {
        std::iter::successors(Some(place), |at| {
            self.calendar.as_ref().map(|calendar| calendar.before(*at))
        })
    }
}

/// How long the value of a closed window of this length is kept.
#[must_use]
pub fn closed_life(length: i64) -> i64 {
    length.saturating_mul(SPARK).clamp(CLOSED_LIFE.0, CLOSED_LIFE.1)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sliding(size: i64, step: i64) -> Frames {
        let window = Window::Sliding { size, step };
        let step_slots = SPARK / gcd(size / step, SPARK);
        Frames {
            window,
            calendar: None,
            step_slots,
            steps: size / step,
            block: step_slots * (size / step),
        }
    }

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn sliding_windows_end_at_the_next_step() {
        let mut frames = sliding(3_600_000_000, 60_000_000);
        let now = at("2026-01-01T12:00:30Z");
        let place = frames.place(now);
        assert_eq!(
            frames.bounds(place),
            Some(at("2026-01-01T11:01:00Z")..at("2026-01-01T12:01:00Z"))
        );
        let on_the_minute = frames.place(at("2026-01-01T12:01:00Z"));
        assert_eq!(on_the_minute, place + 1);
        assert_eq!(frames.previous(place).unwrap().end, frames.slots(place).start);
    }

    proptest! {
        /// A slot lies inside the window exactly when its instants do, for every size and step, and so do the sparkline's parts.
        #[test]
        fn slots_and_instants_agree(steps in 1..STEPS, step in 1_000_000_i64..10_000_000_000, at in -4_000_000_000_000_000_i64..4_000_000_000_000_000, back in 0..3_i64) {
            let mut frames = sliding(steps * step, step);
            let place = frames.place(at) + back;
            let slot = frames.slot(at);
            let bounds = frames.bounds(place).unwrap();
            prop_assert_eq!(frames.slots(place).contains(&slot), bounds.contains(&at));
            let part = frames.spark_part(place, slot);
            let expected = bounds.contains(&at).then(|| {
                (0..24_usize).rev().find(|i| at >= bounds.start + steps * step * i64::try_from(*i).unwrap() / 24).unwrap()
            });
            prop_assert_eq!(part, expected);
            if let Some(part) = part {
                prop_assert!(frames.spark(place)[part].contains(&slot));
            }
            prop_assert!(frames.horizon(place, 0) <= frames.previous(place).unwrap().start);
        }
    }

    const STEPS: i64 = crate::definition::STEPS_MAX + 1;
}
