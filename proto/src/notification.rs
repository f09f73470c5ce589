//! What makes an event a notification: its type begins with `notification.`. Then it is state, under a key of its own, and has a life.
//!
//! A newer one with the same de-duplication key takes the place of the older, so an alert that is over says so in its own line, and a
//! page that opens gets all that still hold.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::event::{Priority, bad};
use crate::json;
use crate::refusal::Refusal;

/// How the types of notifications begin.
pub const PREFIX: &str = "notification.";
/// How their state keys begin; the de-duplication key follows, or the event's id.
pub const KEY_PREFIX: &str = "notification/";
/// The extension attribute with the de-duplication key.
pub const DEDUP_ATTRIBUTE: &str = "dedupkey";
/// How long one of low priority holds that does not say.
pub const LIFE_LOW: Duration = Duration::from_secs(24 * 3600);
/// How long any other holds that does not say.
pub const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest `title`, `link`, `category`, `group` and `sound`, bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Longest `body`, bytes.
pub const BODY_BYTES_MAX: usize = 8 * 1_024;

/// Whether events of this type are notifications.
#[must_use]
pub fn is_notification(kind: &str) -> bool {
    kind.starts_with(PREFIX)
}

/// How long a notification holds that does not say.
#[must_use]
pub fn life(priority: Priority) -> Duration {
    match priority {
        Priority::Low => LIFE_LOW,
        Priority::Critical | Priority::High | Priority::Medium => LIFE,
    }
}

/// What a page shows; members beside these pass through.
const TEXTS: [&str; 6] = ["title", "body", "link", "category", "group", "sound"];

/// Checks the data of a notification: an object with a `title`; `body`, `link`, `category`, `group` and `sound` are texts where they are
/// there. A link is a path or leads to a web page: whoever shows it must not have to wonder what `javascript:` would do.
///
/// # Errors
/// `bad_event` with a pointer into the data.
pub fn check_data(data: Option<&str>) -> Result<(), Refusal> {
    let Texts(texts) = data
        .and_then(|data| serde_json::from_str(data).ok())
        .ok_or_else(|| bad("data", "of a notification is an object with a title"))?;
    for (name, text) in TEXTS.iter().zip(&texts) {
        let within = |rule: &str| bad(&format!("data/{name}"), rule).at(format!("/data/{name}"));
        match text {
            Member::Absent if *name == "title" => return Err(within("is required")),
            Member::Absent => {}
            Member::Strange => return Err(within("is a text, given once")),
            Member::Text(text) => check_text(name, text).map_err(within)?,
        }
    }
    Ok(())
}

fn check_text(name: &str, text: &str) -> Result<(), &'static str> {
    match name {
        "body" if text.len() > BODY_BYTES_MAX => Err("has more than 8 KiB"),
        "body" => Ok(()),
        _ if text.len() > TEXT_BYTES_MAX => Err("has more than 1,024 bytes"),
        "title" if text.trim().is_empty() => Err("is empty"),
        "link" if !is_link(text) => {
            Err("is a path that begins with one /, or begins with https:// or http://")
        }
        _ => Ok(()),
    }
}

fn is_link(text: &str) -> bool {
    let path = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
    let clean = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    clean && (path || text.starts_with("https://") || text.starts_with("http://"))
}

#[derive(Default)]
enum Member {
    #[default]
    Absent,
    Text(String),
    /// Something else, or given twice: readers would not agree about it.
    Strange,
}

struct Texts([Member; TEXTS.len()]);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Texts;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Texts(Default::default());
                while let Some(json::Text(name)) = map.next_key::<json::Text<'de>>()? {
                    let place = TEXTS.iter().position(|known| *known == name);
                    let Some(place) = place.and_then(|place| texts.0.get_mut(place)) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value: serde_json::Value = map.next_value()?;
                    *place = match (&place, value) {
                        (Member::Absent, serde_json::Value::String(text)) => Member::Text(text),
                        (_, _) => Member::Strange,
                    };
                }
                Ok(texts)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_a_title_and_texts_that_a_page_can_show() {
        let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
        let long_body = format!(r#"{{"title":"t","body":"{}"}}"#, "x".repeat(BODY_BYTES_MAX + 1));
        let rows: [(Option<&str>, Option<&str>); 21] = [
            (Some(r#"{"title":"Late"}"#), None),
            (
                Some(r#"{"title":"Late","body":"","link":"/desk?a=1","group":"g","more":[1]}"#),
                None,
            ),
            (
                Some(r#"{"title":"Late","link":"https://desk.example/x","sound":"bell","category":"c"}"#),
                None,
            ),
            (None, Some("/data")),
            (Some("null"), Some("/data")),
            (Some("[]"), Some("/data")),
            (Some("\"title\""), Some("/data")),
            (Some("{}"), Some("/data/title")),
            (Some(r#"{"title":null}"#), Some("/data/title")),
            (Some(r#"{"title":" "}"#), Some("/data/title")),
            (Some(r#"{"title":"a","title":"b"}"#), Some("/data/title")),
            (Some(&long), Some("/data/title")),
            (Some(&long_body), Some("/data/body")),
            (Some(r#"{"title":"a","body":1}"#), Some("/data/body")),
            (
                Some(r#"{"title":"a","link":"javascript:alert(1)"}"#),
                Some("/data/link"),
            ),
            (
                Some(r#"{"title":"a","link":"//evil.example"}"#),
                Some("/data/link"),
            ),
            (
                Some(r#"{"title":"a","link":"/\\evil.example"}"#),
                Some("/data/link"),
            ),
            (Some(r#"{"title":"a","link":"/a b"}"#), Some("/data/link")),
            (Some(r#"{"title":"a","link":""}"#), Some("/data/link")),
            (Some(r#"{"title":"a","link":"desk"}"#), Some("/data/link")),
            (Some(r#"{"title":"a","sound":true}"#), Some("/data/sound")),
        ];
        for (data, pointer) in rows {
            let refused = check_data(data).err();
            let found = refused.as_ref().and_then(|refusal| refusal.pointer.as_deref());
            assert_eq!(found, pointer, "{data:?}: {refused:?}");
        }
    }
}
