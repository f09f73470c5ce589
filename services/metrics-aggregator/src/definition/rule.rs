//! `rules`: a condition on a metric, how long it must hold, and the notification it makes.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Audience, Room};

use crate::engine::decimal::Decimal;

/// Most rules in one file.
pub const RULES_MAX: usize = 1_024;

/// One rule. It is worked in the shard of its metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name: one token.
    pub alert: String,
    /// The metric it looks at.
    pub metric: String,
    /// That metric's shard.
    pub shard: u32,
    /// What makes it fire.
    pub when: Condition,
    /// Where it is not to end as soon as `when` no longer holds: what ends it. Of tests only.
    pub until: Option<Test>,
    /// How long `when` must hold before it fires, microseconds.
    pub for_micros: i64,
    /// How long it goes on after its end has come, microseconds.
    pub keep_micros: i64,
    /// What is done where there is no number.
    pub no_data: NoData,
    /// When it is watched; empty: always.
    pub hours: Hours,
    /// What it says.
    pub notify: Notify,
    /// When it says nothing.
    pub silences: Vec<Silence>,
}

/// What makes a rule fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A number of the metric, compared with one.
    Test(Measured, Test),
    /// No matching event for so many microseconds, counted within the hours.
    Absent(i64),
}

/// The number a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Which of the metric's numbers.
    pub of: Measure,
    /// What became of it in so many microseconds; `None`: the number itself.
    pub over: Option<(Change, i64)>,
}

/// A number of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// `value`
    Value,
    /// `previous`
    Previous,
    /// `change`
    Change,
    /// `change_percent`
    ChangePercent,
    /// `events`
    Events,
}

impl Measure {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("value", Self::Value),
        ("previous", Self::Previous),
        ("change", Self::Change),
        ("change_percent", Self::ChangePercent),
        ("events", Self::Events),
    ];
}

/// How a rate of change is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The difference.
    By,
    /// The difference in percent of what was.
    Percent,
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// How.
    pub sign: Sign,
    /// With what.
    pub bound: Decimal,
}

impl Test {
    /// Whether a number passes.
    #[must_use]
    pub fn holds(self, number: Decimal) -> bool {
        match self.sign {
            Sign::Less => number < self.bound,
            Sign::AtMost => number <= self.bound,
            Sign::More => number > self.bound,
            Sign::AtLeast => number >= self.bound,
            Sign::Equal => number == self.bound,
            Sign::Unequal => number != self.bound,
        }
    }
}

/// `< <= > >= == !=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

/// What a rule does while there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoData {
    /// The condition does not hold.
    Ok,
    /// The condition holds.
    Alert,
    /// Everything stays as it is.
    Keep,
}

/// When a rule is watched, in the zone of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Hours {
    /// The zone.
    pub zone: TimeZone,
    /// Parts of a week; none: always.
    pub parts: Vec<HoursOfDays>,
}

/// The same hours of some days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoursOfDays {
    /// Which days, from Monday.
    pub days: [bool; 7],
    /// From when.
    pub from: Time,
    /// Until when; `None`: the end of the day.
    pub to: Option<Time>,
}

impl Hours {
    /// Since when it is open at an instant: `None` while it is not, `i64::MIN` where it always is. Days that follow each other
    /// without a gap are one.
    #[must_use]
    pub fn open_since(&self, at: i64) -> Option<i64> {
        if self.parts.is_empty() {
            return Some(i64::MIN);
        }
        let mut since = None;
        let mut instant = at;
        // A week of whole days has no beginning.
        for _ in 0..8 {
            match self.part_begun(instant) {
                Some(begun) => {
                    since = Some(begun);
                    instant = begun.saturating_sub(1);
                }
                None => return since,
            }
        }
        Some(i64::MIN)
    }

    /// When the part began that an instant lies in, of several the earliest.
    fn part_begun(&self, at: i64) -> Option<i64> {
        let local = Timestamp::from_microsecond(at).ok()?.to_zoned(self.zone.clone());
        let day = usize::try_from(local.weekday().to_monday_zero_offset()).ok()?;
        let date = local.date();
        let instant = |time: Time, date: jiff::civil::Date| {
            let zoned = date.to_datetime(time).to_zoned(self.zone.clone()).ok()?;
            Some(zoned.timestamp().as_microsecond())
        };
        let open = |part: &HoursOfDays| {
            let from = instant(part.from, date)?;
            let to = match part.to {
                Some(to) => instant(to, date)?,
                None => instant(Time::midnight(), date.tomorrow().ok()?)?,
            };
            (from <= at && at < to).then_some(from)
        };
        let parts = self.parts.iter().filter(|part| part.days[day]);
        parts.filter_map(open).min()
    }
}

/// When rules say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// From this instant, microseconds.
    pub from: i64,
    /// Until this one.
    pub until: i64,
}

/// What a rule says, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// Where.
    pub room: Room,
    /// For whom.
    pub audience: Audience,
    /// How urgent it is.
    pub priority: Priority,
    /// The title.
    pub title: Template,
    /// More words.
    pub body: Option<Template>,
    /// Where it leads.
    pub link: Option<String>,
    /// What it is shown as; `alert` where nothing is said.
    pub category: String,
    /// What it sounds like.
    pub sound: Option<String>,
    /// Whether all groups of the metric are one notification.
    pub together: bool,
}

/// A text with places for numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// A number of the metric.
    Measure(Measure),
    /// The number that the condition looks at.
    Measured,
    /// The groups it is about.
    Group,
    /// How many groups it is about.
    Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_when_the_clocks_of_the_zone_say_so() {
        let part = |days: &[usize], from: i8, to: Option<i8>| HoursOfDays {
            days: std::array::from_fn(|day| days.contains(&day)),
            from: Time::constant(from, 0, 0, 0),
            to: to.map(|to| Time::constant(to, 0, 0, 0)),
        };
        let desk = vec![part(&[0, 1, 2, 3, 4], 9, Some(18)), part(&[5], 10, Some(14))];
        let nights = vec![part(&[4, 5], 20, None), part(&[5, 6], 0, Some(4))];
        let always = vec![part(&[0, 1, 2, 3, 4, 5, 6], 0, None)];
        let check = |parts: &[HoursOfDays], at: &str, since: Option<&str>| {
            let hours = Hours {
                zone: TimeZone::get("Europe/Berlin").unwrap(),
                parts: parts.to_vec(),
            };
            let micros = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
            let expected = since.map(|since| {
                if since == "always" {
                    i64::MIN
                } else {
                    micros(since)
                }
            });
            assert_eq!(hours.open_since(micros(at)), expected, "{at}");
        };
        check(&[], "2026-06-01T00:00:00Z", Some("always"));
        check(&always, "2026-06-01T00:00:00Z", Some("always"));
        // A Monday in summer: nine o'clock is seven in London's winter time.
        check(&desk, "2026-06-01T06:59:59Z", None);
        check(&desk, "2026-06-01T07:00:00Z", Some("2026-06-01T07:00:00Z"));
        check(&desk, "2026-06-01T15:59:59Z", Some("2026-06-01T07:00:00Z"));
        check(&desk, "2026-06-01T16:00:00Z", None);
        check(&desk, "2026-12-05T09:00:00Z", Some("2026-12-05T09:00:00Z"));
        check(&desk, "2026-12-06T09:00:00Z", None);
        // Friday night goes on into Saturday; Saturday's into Sunday.
        check(&nights, "2026-06-06T01:00:00Z", Some("2026-06-05T18:00:00Z"));
        check(&nights, "2026-06-06T02:00:00Z", None);
        check(&nights, "2026-06-07T01:00:00Z", Some("2026-06-06T18:00:00Z"));
        // The night in which the clocks are set forward has three hours until four.
        check(&nights, "2026-03-29T01:59:59Z", Some("2026-03-28T19:00:00Z"));
        check(&nights, "2026-03-29T02:00:00Z", None);
    }
}
