//! Windows kept in parts, so that as much of the one before can be told as is over of the current one.

use super::Metric;
use crate::definition::{Clock, Compare, Window};

impl Metric {
    /// Whether windows are kept in parts.
    pub(crate) fn in_parts(&self) -> bool {
        self.definition.compare == Some(Compare::PreviousElapsed)
    }

    /// The instant that the current window has reached: the later of now and the highest event time, or that alone.
    pub(crate) fn newest(&self) -> Option<i64> {
        match self.definition.clock {
            Clock::Wall => self.highest.max(Some(self.as_of)),
            Clock::Event => self.highest,
        }
    }

    /// The length of a part; `None` where windows are whole.
    pub(crate) fn part_micros(&self) -> Option<i64> {
        match self.definition.window {
            Window::Tumbling(unit) if self.in_parts() => Some(unit.part_micros()),
            _ => None,
        }
    }

    /// The part of its window that an instant lies in.
    pub(super) fn part_of(&self, slot: i64, at: i64) -> Option<u16> {
        let part = self.part_micros()?;
        let start = self.frames.bounds(slot)?.start;
        u16::try_from((at - start) / part).ok()
    }

    /// How many whole parts of the current window are over.
    pub(crate) fn parts_over(&self) -> Option<u16> {
        self.part_of(self.place?, self.newest()?)
    }

    /// When the next part is over.
    pub(super) fn next_part(&self) -> Option<i64> {
        let part = self.part_micros()?;
        let start = self.frames.bounds(self.place?)?.start;
        Some(start + (i64::from(self.parts_over()?) + 1) * part)
    }
}
