//! Metric updates as they travel: the `data` of `metric.updated` and `metric.status`, and the state keys they are kept under.
//!
//! Written by the metrics aggregator alone. Numbers are decimal text without exponent, because a JSON number is a float to most
//! readers; null means that there is no number, `"0"` that it is zero.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ids::{escape, unescape};

/// CloudEvents `type` of an update.
pub const UPDATED: &str = "metric.updated";
/// CloudEvents `type` of a metric's status.
pub const STATUS: &str = "metric.status";
/// First part of the key of a status; no metric may have this name.
pub const STATUS_PREFIX: &str = "status";
/// The group of everything beyond `groups_max`, as its place in a key. No escaped value can look like it.
pub const OTHER_KEY: &str = "~other";

/// The group an update is about, as JSON: `[]` where nothing is grouped, `["car","TR"]` in the order of `group_by`,
/// `"~other"` for what came after `groups_max`. Values keep their JSON type; an absent one is `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group(String);

impl Group {
    /// JSON text of the group where nothing is grouped.
    pub const ALL: &'static str = "[]";
    /// JSON text of the group of everything beyond `groups_max`.
    pub const OTHER: &'static str = "\"~other\"";

    /// Takes JSON text as the aggregator builds it. Text that is not JSON cannot be serialized.
    #[must_use]
    pub fn from_json(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The group that keys name so; `None` where it is none, and where a value is too long to stand in a key as it is.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        match key {
            "" => Some(Self::from_json(Self::ALL)),
            OTHER_KEY => Some(Self::from_json(Self::OTHER)),
            _ => {
                let values: Option<Vec<String>> = key.split('/').map(value_of_key).collect();
                Some(Self(format!("[{}]", values?.join(","))))
            }
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Its place in a state key: the values joined by `/`, each escaped; empty where nothing is grouped.
    #[must_use]
    pub fn key(&self) -> String {
        group_key(&self.0)
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(String::from(Box::<str>::from(raw))))
    }
}

/// The window a value belongs to, `[start, end)`, RFC 3339 in UTC. Both null: all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First instant inside.
    pub start: Option<String>,
    /// First instant after it.
    pub end: Option<String>,
}

/// Where a number went since the window before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It grew.
    Up,
    /// It fell.
    Down,
    /// It is the same.
    Flat,
}

/// A key of `top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// A text as it is, a number in one form, `true` or `false`.
    pub key: String,
    /// How often it came; at most, where the update is `approximate`.
    pub count: u64,
}

/// `data` of a `metric.updated` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The metric's name.
    pub metric: String,
    /// Which group of it.
    pub group: Group,
    /// Which window.
    pub window: Span,
    /// The number; null where there is none. `first` and `last` carry what the event holds as it is: a number as it was written, a text,
    /// `true` or `false`.
    pub value: Option<String>,
    /// The number of the window before; null where nothing was folded there or nothing is compared.
    pub previous: Option<String>,
    /// `value − previous`.
    pub change: Option<String>,
    /// `change / |previous| · 100`, at most two decimals, half even; null where `previous` is null or 0.
    pub change_percent: Option<String>,
    /// Sign of `change`; null where `previous` is null.
    pub direction: Option<Direction>,
    /// The last 24 windows, oldest first, this one last; of a sliding window its 24 equal parts. Null: nothing was folded there.
    pub sparkline: Vec<Option<String>>,
    /// Of `top`: the keys that came most often, counts descending, then by their bytes; `value` is the first one's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<Counted>>,
    /// Events folded into this window and group.
    pub events: u64,
    /// The instant the value is true for, RFC 3339 in UTC.
    pub as_of: String,
    /// Stream position of the last event that changed the content. Never goes back for one key.
    pub revision: u64,
    /// The number is not exact (a distinct count beyond its bound).
    #[serde(default, skip_serializing_if = "is_false")]
    pub approximate: bool,
    /// Why there is no number although events were folded: `overflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// No matching event came for `stalled_after`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stalled: bool,
    /// No matching event ever came.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_data: bool,
    /// Since when events are missing because the stream no longer held them when they were to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_since: Option<String>,
}

/// Matching events that were not folded, by reason; cumulative. The set is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Skipped {
    /// Older than the watermark less the lateness.
    pub late: u64,
    /// More than five minutes after the time it was stored.
    pub future: u64,
    /// `where` could not be decided.
    pub where_error: u64,
    /// The value is null or absent.
    pub missing: u64,
    /// The value is no number.
    pub not_a_number: u64,
    /// An object or array where a single value belongs.
    pub not_a_scalar: u64,
    /// A number of 10^18 or more, or of more than 12 decimals; a group's name that is too long.
    pub out_of_range: u64,
    /// The sum, or the set of distinct values, cannot take it.
    pub overflow: u64,
}

/// `data` of a `metric.status` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The metric's name.
    pub metric: String,
    /// What was not folded, and why.
    pub skipped: Skipped,
    /// Events that are stored and not yet read.
    pub lag: u64,
    /// No matching event came for `stalled_after`.
    pub stalled: bool,
    /// As in [`Update::incomplete_since`], whichever window it touches.
    pub incomplete_since: Option<String>,
    /// The instant this is true for.
    pub as_of: String,
    /// Stream position up to which this is true.
    pub revision: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn group_key(group_json: &str) -> String {
    if group_json == Group::OTHER {
        return OTHER_KEY.to_owned();
    }
    let values: Vec<&RawValue> = serde_json::from_str(group_json).unwrap_or_default();
    let parts: Vec<String> = values.iter().map(|raw| value_key(raw.get())).collect();
    parts.join("/")
}

/// One value in a key. Texts stand bare unless they could be read as another value (`42`, `true`, `null`) or begin with a quote;
/// those keep their quotes. So two different values never share a key.
fn value_key(json: &str) -> String {
    if !json.starts_with('"') {
        return escape(json);
    }
    let text: Cow<'_, str> = serde_json::from_str::<String>(json).map_or(Cow::Borrowed(json), Cow::Owned);
    let ambiguous = text.starts_with('"') || is_literal(&text);
    escape(if ambiguous { json } else { &text })
}

/// The JSON of one value in a key.
fn value_of_key(token: &str) -> Option<String> {
    let text = unescape(token)?;
    let quoted = text.starts_with('"') && serde_json::from_str::<String>(&text).is_ok();
    if quoted || is_literal(&text) {
        return Some(text);
    }
    serde_json::to_string(&text).ok()
}

/// Whether a bare word could be mistaken for something that is not a text.
fn is_literal(text: &str) -> bool {
    matches!(text, "null" | "true" | "false") || serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// Key of the current window: `<metric>` or `<metric>/<group>`. `group_json` as in [`Group`].
#[must_use]
pub fn current_key(metric: &str, group_json: &str) -> String {
    let group = group_key(group_json);
    if group.is_empty() {
        metric.to_owned()
    } else {
        format!("{metric}/{group}")
    }
}

/// Key of a closed window: that of the current one with `@<start>`, RFC 3339 in UTC.
#[must_use]
pub fn closed_key(metric: &str, group_json: &str, start_micros: i64) -> String {
    format!(
        "{}@{}",
        current_key(metric, group_json),
        crate::event::rfc3339(start_micros)
    )
}

/// Key of a metric's status: `status/<metric>`.
#[must_use]
pub fn status_key(metric: &str) -> String {
    format!("{STATUS_PREFIX}/{metric}")
}

/// The metric that a key belongs to.
#[must_use]
pub fn metric_of_key(key: &str) -> &str {
    let key = key.strip_prefix("status/").unwrap_or(key);
    key.split(['/', '@']).next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_different_groups_apart() {
        let rows = [
            ("[]", "revenue"),
            (r#"["car"]"#, "revenue/car"),
            (r#"["car","TR"]"#, "revenue/car/TR"),
            (r#"["a/b c"]"#, "revenue/a=2Fb=20c"),
            ("[42]", "revenue/42"),
            (r#"["42"]"#, "revenue/=2242=22"),
            (r#"["\"42\""]"#, "revenue/=22=5C=2242=5C=22=22"),
            ("[1.5]", "revenue/1=2E5"),
            ("[null]", "revenue/null"),
            (r#"["null"]"#, "revenue/=22null=22"),
            ("[true]", "revenue/true"),
            (r#"["true"]"#, "revenue/=22true=22"),
            (r#"[""]"#, "revenue/="),
            (Group::OTHER, "revenue/~other"),
            (r#"["~other"]"#, "revenue/=7Eother"),
        ];
        for (group, key) in rows {
            assert_eq!(current_key("revenue", group), key, "{group}");
            assert_eq!(metric_of_key(key), "revenue");
            let place = key.strip_prefix("revenue").unwrap().trim_start_matches('/');
            assert_eq!(Group::of_key(place), Some(Group::from_json(group)), "{place}");
        }
        // A digest, and what no key says.
        for place in ["==0123456789abcdef0123456789abcdef", "a=2", "a//=zz"] {
            assert_eq!(Group::of_key(place), None, "{place}");
        }
        assert_eq!(
            closed_key("revenue", "[]", 1_700_000_000_000_000),
            "revenue@2023-11-14T22:13:20Z"
        );
        assert_eq!(metric_of_key(&closed_key("revenue", r#"["a@b"]"#, 0)), "revenue");
        assert_eq!(metric_of_key(&status_key("revenue")), "revenue");
    }

    #[test]
    fn an_update_says_only_what_there_is_to_say() {
        let update = Update {
            metric: "bookings".into(),
            group: Group::from_json("[]"),
            window: Span {
                start: None,
                end: None,
            },
            value: Some("0".into()),
            previous: None,
            change: None,
            change_percent: None,
            direction: None,
            sparkline: vec![None, Some("1.5".into())],
            top: None,
            events: 0,
            as_of: "2026-01-01T00:00:00Z".into(),
            revision: 7,
            approximate: false,
            error: None,
            stalled: false,
            no_data: true,
            incomplete_since: None,
        };
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(
            text,
            r#"{"metric":"bookings","group":[],"window":{"start":null,"end":null},"value":"0","previous":null,"change":null,"change_percent":null,"direction":null,"sparkline":[null,"1.5"],"events":0,"as_of":"2026-01-01T00:00:00Z","revision":7,"no_data":true}"#
        );
        assert_eq!(serde_json::from_str::<Update>(&text).unwrap(), update);
    }
}
