//! How a user wants to be told of notifications: what is muted, sounds, quiet hours, the desktop. Kept beside the marks, the same on all
//! devices.
//!
//! Preferences say what is announced. What is muted is in the feed all the same, and counted: nobody is kept from what is theirs.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::Room;
use crate::refusal::{Code, Refusal};

/// Types and rooms that may be muted, each.
pub const MUTED_MAX: usize = 64;
/// Longest type, bytes.
pub const TYPE_BYTES_MAX: usize = 256;
/// Longest name of a zone, bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// What is kept; an absent member is as the page likes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// What is not announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mute: Option<Mute>,
    /// Whether notifications may sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sounds: Option<bool>,
    /// When nothing is announced, however urgent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// Whether notifications are shown outside of the page, by the browser or by a push to the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desktop: Option<bool>,
}

/// What is not announced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mute {
    /// Notifications of these types.
    pub types: Vec<String>,
    /// Notifications in these rooms.
    pub rooms: Vec<String>,
}

/// Hours of each day, by the clock of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// The first minute, `HH:MM`.
    pub from: String,
    /// The first minute after it, `HH:MM`; before `from`: of the next day.
    pub to: String,
    /// IANA name.
    pub zone: String,
}

impl Preferences {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts in force what a client sets: its members take the place of those kept, `null` takes one away, the others stay.
    ///
    /// # Errors
    /// `bad_request` with a pointer; then nothing is changed.
    pub fn set(&mut self, change: &Map<String, Value>) -> Result<(), Refusal> {
        let mut changed = self.clone();
        for (name, value) in change {
            match name.as_str() {
                "mute" => changed.mute = member(name, value)?,
                "sounds" => changed.sounds = member(name, value)?,
                "quiet" => changed.quiet = member(name, value)?,
                "desktop" => changed.desktop = member(name, value)?,
                _ => {
                    return Err(bad(
                        "",
                        &format!(
                            "{:?} is none of mute, sounds, quiet, desktop",
                            name.chars().take(40).collect::<String>()
                        ),
                    ));
                }
            }
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        if let Some(mute) = &self.mute {
            let types = mute.types.len() <= MUTED_MAX
                && mute
                    .types
                    .iter()
                    .all(|kind| (1..=TYPE_BYTES_MAX).contains(&kind.len()));
            if !types {
                let rule = format!("at most {MUTED_MAX} types of 1 to {TYPE_BYTES_MAX} bytes");
                return Err(bad("/mute/types", &rule));
            }
            if mute.rooms.len() > MUTED_MAX || mute.rooms.iter().any(|room| Room::parse(room).is_err()) {
                return Err(bad("/mute/rooms", &format!("at most {MUTED_MAX} names of rooms")));
            }
        }
        if let Some(quiet) = &self.quiet {
            let (from, to) = (minute(&quiet.from), minute(&quiet.to));
            if from.is_none() || to.is_none() || from == to {
                return Err(bad("/quiet", "from and to are two different times like 22:00"));
            }
            // Anything else could be a path where zones are files.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte);
            let named = (1..=ZONE_BYTES_MAX).contains(&quiet.zone.len()) && quiet.zone.bytes().all(plain);
            if !named || quiet.zone.starts_with('/') || TimeZone::get(&quiet.zone).is_err() {
                return Err(bad("/quiet/zone", "is the name of a zone, like Europe/Istanbul"));
            }
        }
        Ok(())
    }

    /// Whether a notification of this type in this room may be announced at this moment.
    #[must_use]
    pub fn announces(&self, kind: &str, room: &str, now: Timestamp) -> bool {
        let muted = self.mute.as_ref().is_some_and(|mute| {
            mute.types.iter().any(|muted| muted == kind) || mute.rooms.iter().any(|muted| muted == room)
        });
        !muted && !self.quiet.as_ref().is_some_and(|quiet| quiet.holds(now))
    }
}

impl Quiet {
    /// Whether the moment lies within. A zone that is not known any more is never quiet: better once too often than never.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        let (Some(from), Some(to), Ok(zone)) =
            (minute(&self.from), minute(&self.to), TimeZone::get(&self.zone))
        else {
            return false;
        };
        let time = now.to_zoned(zone).time();
        match from < to {
            true => from <= time && time < to,
            false => from <= time || time < to,
        }
    }
}

/// `HH:MM`, from `00:00` to `23:59`.
fn minute(text: &str) -> Option<Time> {
    let digit = |at: usize| {
        let byte = *text.as_bytes().get(at)?;
        byte.is_ascii_digit()
            .then(|| i8::try_from(byte - b'0').unwrap_or(0))
    };
    if text.len() != 5 || text.as_bytes().get(2) != Some(&b':') {
        return None;
    }
    Time::new(digit(0)? * 10 + digit(1)?, digit(3)? * 10 + digit(4)?, 0, 0).ok()
}

fn member<T: serde::de::DeserializeOwned>(name: &str, value: &Value) -> Result<Option<T>, Refusal> {
    serde_json::from_value(value.clone()).map_err(|error| bad(&format!("/{name}"), &error.to_string()))
}

fn bad(place: &str, rule: &str) -> Refusal {
    Refusal::new(Code::BadRequest, format!("preferences{place}: {rule}"))
        .at(format!("/preferences/set{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(held: &str, change: &str) -> Result<String, String> {
        let mut preferences: Preferences = serde_json::from_str(held).unwrap();
        let before = preferences.clone();
        let change: Value = serde_json::from_str(change).unwrap();
        match preferences.set(change.as_object().unwrap()) {
            Ok(()) => Ok(serde_json::to_string(&preferences).unwrap()),
            Err(refusal) => {
                assert_eq!(preferences, before);
                Err(refusal.pointer.unwrap())
            }
        }
    }

    #[test]
    fn members_are_set_by_name_and_the_others_stay() {
        let quiet = r#"{"quiet":{"from":"22:00","to":"07:00","zone":"Europe/Istanbul"}}"#;
        let many: Vec<String> = (0..65).map(|n| format!("notification.{n}")).collect();
        let many = format!(
            r#"{{"mute":{{"types":{}}}}}"#,
            serde_json::to_string(&many).unwrap()
        );
        let rows = [
            ("{}", "{}", Ok("{}")),
            ("{}", r#"{"sounds":false}"#, Ok(r#"{"sounds":false}"#)),
            (
                r#"{"sounds":false}"#,
                r#"{"desktop":true}"#,
                Ok(r#"{"sounds":false,"desktop":true}"#),
            ),
            (r#"{"sounds":false}"#, r#"{"sounds":null}"#, Ok("{}")),
            (
                "{}",
                r#"{"mute":{"rooms":["bookings"]}}"#,
                Ok(r#"{"mute":{"types":[],"rooms":["bookings"]}}"#),
            ),
            ("{}", quiet, Ok(quiet)),
            ("{}", r#"{"sound":false}"#, Err("/preferences/set")),
            ("{}", r#"{"sounds":1}"#, Err("/preferences/set/sounds")),
            ("{}", r#"{"mute":[]}"#, Ok(r#"{"mute":{"types":[],"rooms":[]}}"#)),
            (
                "{}",
                r#"{"mute":{"types":[""]}}"#,
                Err("/preferences/set/mute/types"),
            ),
            ("{}", &many, Err("/preferences/set/mute/types")),
            (
                "{}",
                r#"{"mute":{"rooms":["a b"]}}"#,
                Err("/preferences/set/mute/rooms"),
            ),
            ("{}", r#"{"mute":{"users":[]}}"#, Err("/preferences/set/mute")),
            (
                "{}",
                r#"{"quiet":{"from":"22:00","to":"22:00","zone":"UTC"}}"#,
                Err("/preferences/set/quiet"),
            ),
            (
                "{}",
                r#"{"quiet":{"from":"24:00","to":"07:00","zone":"UTC"}}"#,
                Err("/preferences/set/quiet"),
            ),
            (
                "{}",
                r#"{"quiet":{"from":"22:00","to":"7:00","zone":"UTC"}}"#,
                Err("/preferences/set/quiet"),
            ),
            (
                "{}",
                r#"{"quiet":{"from":"22:00","to":"07:00","zone":"Europe/Nowhere"}}"#,
                Err("/preferences/set/quiet/zone"),
            ),
            (
                "{}",
                r#"{"quiet":{"from":"22:00","to":"07:00","zone":"../../etc/passwd"}}"#,
                Err("/preferences/set/quiet/zone"),
            ),
            (
                "{}",
                r#"{"sounds":true,"quiet":{"from":"22:00"}}"#,
                Err("/preferences/set/quiet"),
            ),
        ];
        for (held, change, expected) in rows {
            let found = set(held, change);
            assert_eq!(
                found.as_deref().map_err(String::as_str),
                expected,
                "{held} {change}"
            );
        }
    }

    #[test]
    fn what_is_muted_or_in_quiet_hours_is_not_announced() {
        let preferences: Preferences = serde_json::from_str(
            r#"{"mute":{"types":["notification.a"],"rooms":["bookings"]},
                "quiet":{"from":"22:00","to":"07:00","zone":"Europe/Istanbul"}}"#,
        )
        .unwrap();
        // Istanbul is three hours ahead all year.
        let rows = [
            ("notification.b", "desk", "2026-01-31T12:00:00Z", true),
            ("notification.a", "desk", "2026-01-31T12:00:00Z", false),
            ("notification.b", "bookings", "2026-01-31T12:00:00Z", false),
            ("notification.b", "desk", "2026-01-31T18:59:59Z", true),
            ("notification.b", "desk", "2026-01-31T19:00:00Z", false),
            ("notification.b", "desk", "2026-02-01T03:59:59Z", false),
            ("notification.b", "desk", "2026-02-01T04:00:00Z", true),
        ];
        for (kind, room, now, expected) in rows {
            let now: Timestamp = now.parse().unwrap();
            assert_eq!(
                preferences.announces(kind, room, now),
                expected,
                "{kind} {room} {now}"
            );
        }
        let by_day = Quiet {
            from: "09:00".into(),
            to: "17:30".into(),
            zone: "America/New_York".into(),
        };
        for (now, expected) in [
            // Before and after the clocks move: nine o'clock is nine o'clock.
            ("2026-03-06T14:00:00Z", true),
            ("2026-03-06T13:59:00Z", false),
            ("2026-03-09T13:00:00Z", true),
            ("2026-03-09T21:30:00Z", false),
        ] {
            assert_eq!(by_day.holds(now.parse().unwrap()), expected, "{now}");
        }
    }
}
