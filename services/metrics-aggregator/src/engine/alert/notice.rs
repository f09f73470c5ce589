//! What a rule says: a notification, whole, with the id under which it is said once.

use roomcast_proto::event::{Priority, rfc3339};
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::metric::Group as GroupName;
use serde_json::{Map, Value, json};

use super::Reading;
use crate::definition::rule::{Piece, Rule, Template};
use crate::engine::decimal::Decimal;
use crate::engine::fnv;

/// CloudEvents `type` of a rule's notification.
pub const ALERT: &str = "notification.alert";
/// Longest title and body that are made, bytes.
const TITLE_BYTES_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 2_048;
/// Longest name of groups in a key; what is longer is a digest.
const KEY_BYTES_MAX: usize = 256;
/// Groups that are named; of more it is said how many.
const NAMED_MAX: usize = 10;

/// Whether it began or is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It fires.
    Firing,
    /// It is over.
    Resolved,
}

/// A notification that is to be stored once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its id, made of rule, group, episode and number: whoever makes it again makes this one.
    pub id: String,
    /// What it replaces: the line of this rule and group.
    pub dedup: String,
    /// Where.
    pub room: Room,
    /// For whom.
    pub audience: Audience,
    /// How urgent it is; low, when it is over.
    pub priority: Priority,
    /// When it came to be.
    pub time_micros: i64,
    /// The data, as JSON text.
    pub data: String,
}

/// What a notice is made of.
pub(super) struct Words<'w> {
    pub(super) rule: &'w Rule,
    /// The groups it is about, as JSON.
    pub(super) groups: &'w [&'w str],
    pub(super) state: State,
    /// The episode.
    pub(super) since: i64,
    /// Which notice of the episode.
    pub(super) number: u64,
    pub(super) reading: Reading,
    pub(super) measured: Option<Decimal>,
    pub(super) now: i64,
}

impl Notice {
    pub(super) fn new(words: &Words<'_>) -> Self {
        let notify = &words.rule.notify;
        let of = if notify.together {
            ""
        } else {
            words.groups.first().copied().unwrap_or_default()
        };
        let title = cut(words.fill(&notify.title), TITLE_BYTES_MAX);
        let text = |number: Option<Decimal>| number.map(|number| number.to_string());
        let resolved = words.state == State::Resolved;
        let mut data = Map::new();
        data.insert(
            "title".into(),
            if resolved { format!("Over: {title}") } else { title }.into(),
        );
        if let Some(body) = &notify.body {
            data.insert("body".into(), cut(words.fill(body), BODY_BYTES_MAX).into());
        }
        if let Some(link) = &notify.link {
            data.insert("link".into(), link.as_str().into());
        }
        data.insert("category".into(), notify.category.as_str().into());
        data.insert("group".into(), words.rule.alert.as_str().into());
        if let (Some(sound), false) = (&notify.sound, resolved) {
            data.insert("sound".into(), sound.as_str().into());
        }
        data.insert("alert".into(), words.rule.alert.as_str().into());
        data.insert("state".into(), state_name(words.state).into());
        data.insert("metric".into(), words.rule.metric.as_str().into());
        let groups: Vec<Value> = words
            .groups
            .iter()
            .take(NAMED_MAX)
            .filter_map(|group| serde_json::from_str(group).ok())
            .collect();
        data.insert("groups".into(), groups.into());
        data.insert("groupCount".into(), words.groups.len().into());
        data.insert(
            "value".into(),
            json!(text(words.measured.or(words.reading.value))),
        );
        data.insert("since".into(), rfc3339(words.since).into());
        if resolved {
            data.insert("until".into(), rfc3339(words.now).into());
        }
        Self {
            id: id(&words.rule.alert, of, words.since, words.number),
            dedup: dedup(&words.rule.alert, of),
            room: notify.room.clone(),
            audience: notify.audience.clone(),
            priority: if resolved { Priority::Low } else { notify.priority },
            time_micros: words.now,
            data: Value::Object(data).to_string(),
        }
    }

    /// What is said where a rule is gone or speaks to others now.
    pub(super) fn ended(
        alert: &str,
        of: &str,
        (since, number): (i64, u64),
        (room, audience): (&Room, &Audience),
        now: i64,
    ) -> Self {
        let data = json!({
            "title": format!("Over: {alert}"), "body": "The rule is not watched here any more.", "category": "alert", "group": alert,
            "alert": alert, "state": state_name(State::Resolved), "since": rfc3339(since), "until": rfc3339(now),
        });
        Self {
            id: id(alert, of, since, number),
            dedup: dedup(alert, of),
            room: room.clone(),
            audience: audience.clone(),
            priority: Priority::Low,
            time_micros: now,
            data: data.to_string(),
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Firing => "firing",
        State::Resolved => "resolved",
    }
}

fn id(alert: &str, of: &str, since: i64, number: u64) -> String {
    format!("alert/{alert}/{:016x}/{since}/{number}", fnv::hash(of.as_bytes()))
}

/// The line of a rule and group.
fn dedup(alert: &str, of: &str) -> String {
    let key = match of {
        "" | GroupName::ALL => return format!("alert/{alert}"),
        of => GroupName::from_json(of).key(),
    };
    if key.len() > KEY_BYTES_MAX {
        format!("alert/{alert}/{:016x}", fnv::hash(of.as_bytes()))
    } else {
        format!("alert/{alert}/{key}")
    }
}

impl Words<'_> {
    fn fill(&self, template: &Template) -> String {
        let number = |number: Option<Decimal>| number.map_or("–".to_owned(), |number| number.to_string());
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Measure(measure) => number(self.reading.measure(*measure)),
            Piece::Measured => number(self.measured),
            Piece::Group => self.names(),
            Piece::Count => self.groups.len().to_string(),
        };
        template.0.iter().map(piece).collect()
    }

    /// The groups as a person reads them.
    fn names(&self) -> String {
        let named = self.groups.iter().take(NAMED_MAX).map(|group| name(group));
        let mut text = named.collect::<Vec<_>>().join(", ");
        if self.groups.len() > NAMED_MAX {
            text += &format!(" and {} more", self.groups.len() - NAMED_MAX);
        }
        text
    }
}

fn name(group: &str) -> String {
    match serde_json::from_str(group) {
        Ok(Value::Array(values)) => {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            values.iter().map(text).collect::<Vec<_>>().join(" / ")
        }
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// At most so many bytes, at the end of a character.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut end = bytes_max - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    if text.trim().is_empty() {
        "–".to_owned()
    } else {
        text
    }
}
