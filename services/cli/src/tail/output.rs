//! Events as lines, for people and for programs.

use roomcast_proto::frame::EventPush;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::terminal::{Colour, Stream, escaped, harmless, one_line, print};

/// Prints events.
pub(super) struct Output {
    pub(super) json: bool,
    /// Events still to be shown; `None`: no end.
    pub(super) left: Option<u64>,
}

impl Output {
    /// Prints one; `false` when that was the last, or nobody reads.
    pub(super) fn show(&mut self, push: &EventPush) -> bool {
        let line = if self.json {
            json_line(push)
        } else {
            Some(readable(push))
        };
        let Some(line) = line else { return true };
        if !print(&line) {
            return false;
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.left != Some(0)
    }
}

/// `{"room","cursor","event"}`, the event as it is stored, but on one line and with nothing that could steer a terminal.
fn json_line(push: &EventPush) -> Option<String> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        room: &'a str,
        cursor: Option<&'a str>,
        event: &'a RawValue,
    }
    let event = one_line(&push.event);
    let event: &RawValue = serde_json::from_slice(&event).ok()?;
    let line = serde_json::to_string(&Line {
        room: &push.room,
        cursor: push.cursor.as_deref(),
        event,
    });
    line.ok().map(|line| escaped(&line))
}

fn readable(push: &EventPush) -> String {
    let event: Value = serde_json::from_slice(&push.event).unwrap_or_default();
    let text = |name: &str| harmless(event[name].as_str().unwrap_or_default());
    let time = text("time");
    let clock = time
        .split('T')
        .nth(1)
        .map_or(time.as_str(), |clock| clock.get(..12).unwrap_or(clock));
    let kind = match event["statekey"].as_str() {
        Some(key) => format!("{} {}", text("type"), harmless(key)),
        None => text("type"),
    };
    let data = if event["withdrawn"] == true {
        "withdrawn".to_owned()
    } else {
        harmless(&event["data"].to_string())
    };
    let paint = |colour, text: &str| Stream::Out.paint(colour, text);
    format!(
        "{} {} {} {data}",
        paint(Colour::Dim, clock),
        paint(Colour::Cyan, &push.room),
        paint(Colour::Bold, &kind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_readable_and_harmless() {
        let push = EventPush {
            room: "bookings".into(),
            cursor: Some("c".into()),
            event: r#"{"type":"booking:new","time":"2026-11-21T08:00:01.123456Z","data":{"a":"\u001b[2J"}}"#
                .into(),
        };
        assert_eq!(
            readable(&push),
            r#"08:00:01.123 bookings booking:new {"a":"\u001b[2J"}"#
        );
        assert!(
            json_line(&push)
                .unwrap()
                .starts_with(r#"{"room":"bookings","cursor":"c","event":{"type":"#)
        );
    }

    #[test]
    fn an_event_is_one_line_however_it_was_sent() {
        for (event, expected) in [
            (
                r#"{"type":"t","data":{"n":1.50}}"#,
                r#"{"type":"t","data":{"n":1.50}}"#,
            ),
            (
                "{\n  \"type\": \"t\",\r\n  \"data\": [\n\t1.50\n]\n}\n",
                "{   \"type\": \"t\",    \"data\": [ \t1.50 ] }",
            ),
            ("{\"type\":\"\u{9b}2J\u{7f}\"}", r#"{"type":"\u009b2J\u007f"}"#),
        ] {
            let push = EventPush {
                room: "r".into(),
                cursor: None,
                event: event.into(),
            };
            let line = format!(r#"{{"room":"r","cursor":null,"event":{expected}}}"#);
            assert_eq!(json_line(&push), Some(line), "{event}");
        }
    }
}
