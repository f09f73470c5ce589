//! `metrics.yaml`: what is counted, over which windows, for whom. A file with any mistake is no file; all are told at once.
//!
//! Read at start, after each change, and by `roomcast check`; the engine sees only [`Definition`]s, which are consistent in themselves.

mod fields;
mod parts;
mod read;
pub mod rule;
mod rules;
mod shapes;
mod value;
mod warnings;

use std::sync::Arc;

use jiff::tz::TimeZone;
use roomcast_access::{Mistake, Policy};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_schemas::Catalog;

use crate::engine::decimal::Decimal;
use crate::engine::predicate::Expr;
use crate::engine::row::Path;

/// Most metrics in one file.
pub const METRICS_MAX: usize = 4_096;
/// Most steps of a sliding window.
pub const STEPS_MAX: i64 = 1_500;
/// Parts of the sparkline, and closed windows it shows.
pub const SPARK: i64 = 24;
/// The same as a length.
pub const SPARK_PARTS: usize = 24;

/// A metrics file without mistakes.
#[derive(Debug, Clone)]
pub struct Definitions {
    /// The metrics, in the order of the file.
    pub metrics: Vec<Arc<Definition>>,
    /// The rules, in the order of the file.
    pub rules: Vec<Arc<rule::Rule>>,
    /// What is no mistake and may be one: numbers that show some what is hidden from them.
    pub warnings: Vec<Mistake>,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name: one token.
    pub name: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// Which shard works it: `fnv1a32(tenant "." name) mod 16`.
    pub shard: u32,
    /// What is folded: one leg, or two for what is made of two metrics.
    pub legs: Vec<Leg>,
    /// How two legs become one number; `None` where there is one.
    pub join: Option<Join>,
    /// How many values `group_by` names.
    pub group_values: usize,
    /// The windows.
    pub window: Window,
    /// Whether the current window of the calendar ends now: period to date.
    pub to_date: bool,
    /// The zone of calendar windows.
    pub zone: TimeZone,
    /// What moves the current window.
    pub clock: Clock,
    /// How much older than the newest an event may be, microseconds.
    pub lateness_micros: i64,
    /// Without a matching event for this long the metric says `stalled`, microseconds.
    pub stalled_after_micros: Option<i64>,
    /// What a window is compared with.
    pub compare: Option<Compare>,
    /// A change of so many percent at most is `flat`, as the percent is shown.
    pub flat_within_percent: Decimal,
    /// Groups per window; the rest is `~other`.
    pub groups_max: usize,
    /// Groups kept as state.
    pub groups_published_max: usize,
    /// Where updates go; a metric that is only named by others has none.
    pub publish: Option<Publish>,
    /// Changes when what is folded changes: state of another fingerprint is not this metric's.
    pub fingerprint: u64,
}

/// One folded definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg {
    /// The rooms: tokens, `*` for any one.
    pub rooms: RoomPattern,
    /// The types; empty: any.
    pub types: Vec<String>,
    /// The condition.
    pub condition: Option<Expr>,
    /// What is grouped by: places in [`Leg::paths`].
    pub group_by: Vec<usize>,
    /// What is computed.
    pub aggregate: Aggregate,
    /// The condition of a gauge.
    pub holds: Option<Expr>,
    /// The fields this leg needs.
    pub paths: Vec<Path>,
}

/// What is computed from the events of a window. Fields are places in [`Leg::paths`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// How many.
    Count,
    /// The sum of a field.
    Sum(usize),
    /// The mean of a field.
    Avg(usize),
    /// The least value of a field.
    Min(usize),
    /// The greatest value of a field.
    Max(usize),
    /// The value of the earliest event.
    First(usize),
    /// The value of the latest event.
    Last(usize),
    /// How many different values a field has.
    Distinct(usize),
    /// Element ⌊percent · (n − 1) / 100⌋ of the ascending values of a field, within 1 %.
    Percentile(usize, u8),
    /// How many in so many microseconds of the part of the window that is over.
    Rate(i64),
    /// How many keys there are of whose events the latest satisfies [`Leg::holds`]; of all time only.
    Gauge(usize),
    /// The values of a field that came most often, and how many of them are shown.
    Top(usize, usize),
}

/// How two metrics make a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// The first over the second, with so many decimals.
    Ratio(u32),
    /// Both added.
    Plus,
    /// The first without the second.
    Minus,
    /// The first times the second, 12 decimals.
    Times,
}

/// How time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// One calendar unit after the other.
    Tumbling(Unit),
    /// A window of `size` that moves by `step`, both microseconds.
    Sliding {
        /// Length.
        size: i64,
        /// Distance from one end to the next.
        step: i64,
    },
    /// Events of a group that follow each other at less than `gap`, microseconds.
    Session {
        /// What ends it.
        gap: i64,
    },
    /// All time.
    Total,
}

/// A unit of the calendar, in the zone of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Floored by the offset in force.
    Minute,
    /// Floored by the offset in force: an hour that the clock shows twice is two windows.
    Hour,
    /// From the first instant of the local date.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// From the first of January, April, July, October.
    Quarter,
    /// From the first of January.
    Year,
}

impl Unit {
    /// The parts in which a window is kept that is compared with as much of the one before, microseconds: 366 in a window at most.
    #[must_use]
    pub fn part_micros(self) -> i64 {
        let minutes = |count: i64| count * 60_000_000;
        match self {
            Self::Minute => 1_000_000,
            Self::Hour => minutes(1),
            Self::Day => minutes(5),
            Self::Week => minutes(60),
            Self::Month => minutes(180),
            Self::Quarter => minutes(720),
            Self::Year => minutes(1_440),
        }
    }

    /// All units with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
        ("quarter", Self::Quarter),
        ("year", Self::Year),
    ];
}

/// What a window is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The whole window before.
    Previous,
    /// As much of the window before as is over of the current one; of the calendar's windows.
    PreviousElapsed,
    /// The day seven local days earlier; days only.
    SameWeekday,
}

/// What moves the current window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The later of now and the highest event time.
    Wall,
    /// The highest event time.
    Event,
}

/// Where updates go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The room.
    pub room: Room,
    /// Who of its members sees them.
    pub audience: Audience,
    /// Least distance between two publications, microseconds.
    pub at_most_every_micros: i64,
}

/// A room, or a pattern in which each `*` stands for one token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomPattern {
    text: String,
    open: bool,
}

impl RoomPattern {
    /// Checks a pattern.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        roomcast_proto::subject::pattern_events_filter(&Tenant::default(), text)?;
        Some(Self {
            text: text.to_owned(),
            open: text.split('.').any(|token| token == "*"),
        })
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a room fits.
    #[must_use]
    pub fn fits(&self, room: &str) -> bool {
        if !self.open {
            return self.text == room;
        }
        let mut tokens = room.split('.');
        self.text
            .split('.')
            .all(|want| tokens.next().is_some_and(|have| want == "*" || want == have))
            && tokens.next().is_none()
    }

    /// The narrowest pattern that covers both, if any room fits both.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Option<Self> {
        let (a, b): (Vec<&str>, Vec<&str>) =
            (self.text.split('.').collect(), other.text.split('.').collect());
        let overlap = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || *a == "*" || *b == "*");
        overlap.then(|| {
            let tokens: Vec<&str> = a
                .iter()
                .zip(&b)
                .map(|(a, b)| if a == b { *a } else { "*" })
                .collect();
            let text = tokens.join(".");
            Self {
                open: text.split('.').any(|token| token == "*"),
                text,
            }
        })
    }
}

impl Definitions {
    /// Reads a metrics file. `file` is only the name that mistakes carry; with a policy, audiences are checked against it.
    ///
    /// # Errors
    /// Every mistake that can be found, in the order of the file.
    pub fn parse(text: &str, file: &str, policy: Option<&Policy>) -> Result<Self, Vec<Mistake>> {
        read::definitions(text, file, policy, None)
    }

    /// As [`Definitions::parse`]; fields, comparisons and aggregates are checked against the schemas of the types a metric names.
    ///
    /// # Errors
    /// As [`Definitions::parse`].
    pub fn parse_with(
        text: &str,
        file: &str,
        policy: Option<&Policy>,
        schemas: Option<&Catalog>,
    ) -> Result<Self, Vec<Mistake>> {
        read::definitions(text, file, policy, schemas)
    }

    /// The rules of one shard.
    #[must_use]
    pub fn rules_of_shard(&self, shard: u32) -> Vec<Arc<rule::Rule>> {
        self.rules
            .iter()
            .filter(|rule| rule.shard == shard)
            .cloned()
            .collect()
    }

    /// The metrics of one shard.
    #[must_use]
    pub fn of_shard(&self, shard: u32) -> Vec<Arc<Definition>> {
        self.metrics
            .iter()
            .filter(|metric| metric.shard == shard)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests;
