//! A recorded day, told again: the events of a file at the pace at which they happened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;

use roomcast_chassis::process::Failure;
use roomcast_proto::event::{micros_of_rfc3339, rfc3339};
use roomcast_proto::limits::EVENT_BYTES_MAX;
use serde_json::value::RawValue;

use super::quoted;
use crate::terminal::one_line;

/// An event as it was recorded: its members, untouched.
type Members = BTreeMap<String, Box<RawValue>>;

/// The events of a file, one after the other; only one is in memory.
#[derive(Debug)]
pub(crate) struct Recorded {
    name: String,
    lines: Lines<BufReader<File>>,
    line: u64,
    /// When the first event happened, Unix microseconds.
    first: Option<i64>,
    /// The latest offset told: what stands later in the file is told later.
    latest: u64,
}

/// One event of it.
#[derive(Debug)]
pub(crate) struct Again {
    /// When it happened, microseconds after the first one.
    pub(crate) after_micros: u64,
    /// Where it begins in the file.
    pub(crate) line: u64,
    members: Members,
}

impl Recorded {
    /// Opens a file that `roomcast record` wrote, or any with one CloudEvent after the other, each on lines of its own.
    ///
    /// # Errors
    /// 69: it cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::unavailable(format!("{name}: {error}")))?;
        Ok(Self {
            name,
            lines: BufReader::new(file).lines(),
            line: 0,
            first: None,
            latest: 0,
        })
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// 65 with the line where something begins that is no event; 69: it cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Again>, Failure> {
        let mut text = String::new();
        while text.trim().is_empty() {
            let Some(line) = self.read_line()? else {
                return Ok(None);
            };
            text = line;
        }
        let begins = self.line;
        while is_cut(&text)
            && let Some(more) = self.read_line()?
        {
            text.push('\n');
            text.push_str(&more);
        }
        let read = self.read(&text, begins).map(Some);
        read.map_err(|why| self.wrong(begins, &why))
    }

    fn read_line(&mut self) -> Result<Option<String>, Failure> {
        let line = self.lines.next().transpose();
        let line = line.map_err(|error| Failure::unavailable(format!("{}: {error}", self.name)))?;
        self.line += u64::from(line.is_some());
        Ok(line)
    }

    /// A failure that names a line.
    pub(crate) fn wrong(&self, line: u64, why: &str) -> Failure {
        Failure::file(format!("{}:{line}:1: {why}", self.name))
    }

    fn read(&mut self, text: &str, line: u64) -> Result<Again, String> {
        if text.len() > EVENT_BYTES_MAX {
            return Err(format!("an event has at most {EVENT_BYTES_MAX} bytes"));
        }
        let members: Members =
            serde_json::from_str(text).map_err(|error| format!("not an event: {error} of it"))?;
        if !members.contains_key("type") {
            return Err("not an event: it has no type".to_owned());
        }
        let at = time_of(&members, "time").ok_or("an event that is told again has a time")?;
        let first = *self.first.get_or_insert(at);
        self.latest = self
            .latest
            .max(u64::try_from(at.saturating_sub(first)).unwrap_or(0));
        Ok(Again {
            after_micros: self.latest,
            line,
            members,
        })
    }
}

impl Again {
    /// The event as it is published now (Unix microseconds), on one line, under a new id: everything else is as it was, and it holds as
    /// long as it did.
    pub(crate) fn event(mut self, id: &str, now: i64) -> String {
        let lasted = time_of(&self.members, "expirytime")
            .zip(time_of(&self.members, "time"))
            .map(|(end, time)| end.saturating_sub(time));
        self.set("id", &quoted(id));
        self.set("time", &quoted(&rfc3339(now)));
        if let Some(lasted) = lasted {
            self.set(
                "expirytime",
                &quoted(&rfc3339(now.saturating_add(lasted.max(1_000_000)))),
            );
        }
        let text = serde_json::to_vec(&self.members).unwrap_or_default();
        String::from_utf8(one_line(&text)).unwrap_or_default()
    }

    fn set(&mut self, name: &str, json: &str) {
        if let Ok(value) = RawValue::from_string(json.to_owned()) {
            self.members.insert(name.to_owned(), value);
        }
    }
}

/// Whether JSON ends before its end, and may go on with the next line.
fn is_cut(text: &str) -> bool {
    let read = || serde_json::from_str::<&RawValue>(text);
    text.len() <= EVENT_BYTES_MAX && read().is_err_and(|error| error.is_eof())
}

fn time_of(members: &Members, name: &str) -> Option<i64> {
    let text: String = serde_json::from_str(members.get(name)?.get()).ok()?;
    micros_of_rfc3339(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> Recorded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.ndjson");
        std::fs::write(&path, text).unwrap();
        Recorded::open(&path).unwrap()
    }

    #[test]
    fn events_are_told_at_their_pace_and_as_they_were() {
        let mut day = recorded(concat!(
            r#"{"specversion":"1.0","id":"a","source":"shop","type":"t","time":"2026-01-01T00:00:00Z","room":"r","audience":"staff","data":{"n":1.50}}"#,
            "\n\n",
            r#"{"id":"b","type":"t","time":"2026-01-01T00:00:02.5Z","expirytime":"2026-01-01T00:01:02.5Z","room":"r"}"#,
            "\n",
            r#"{"id":"c","type":"t","time":"2025-12-31T23:59:59Z","room":"r"}"#,
        ));
        let first = day.next().unwrap().unwrap();
        assert_eq!((first.after_micros, first.line), (0, 1));
        assert_eq!(
            first.event("new", 1_767_312_000_000_000),
            r#"{"audience":"staff","data":{"n":1.50},"id":"new","room":"r","source":"shop","specversion":"1.0","time":"2026-01-02T00:00:00Z","type":"t"}"#
        );
        let second = day.next().unwrap().unwrap();
        assert_eq!((second.after_micros, second.line), (2_500_000, 3));
        let text = second.event("new", 1_767_312_000_000_000);
        assert!(text.contains(r#""expirytime":"2026-01-02T00:01:00Z""#), "{text}");
        // One that is out of order is told where it stands.
        assert_eq!(day.next().unwrap().unwrap().after_micros, 2_500_000);
        assert!(day.next().unwrap().is_none());
    }

    #[test]
    fn an_event_may_have_several_lines() {
        let mut day = recorded(concat!(
            "\n{\n  \"type\": \"a\",\r\n  \"time\": \"2026-01-01T00:00:00Z\",\n\n  \"data\": {\n    \"n\": 1.50\n  }\n}\n",
            "{\"type\":\"b\",\"time\":\"2026-01-01T00:00:01Z\"}\n{\n",
        ));
        let first = day.next().unwrap().unwrap();
        assert_eq!(first.line, 2);
        assert_eq!(
            first.event("new", 1_767_312_000_000_000),
            r#"{"data":{     "n": 1.50   },"id":"new","time":"2026-01-02T00:00:00Z","type":"a"}"#
        );
        let second = day.next().unwrap().unwrap();
        assert_eq!((second.after_micros, second.line), (1_000_000, 10));
        let failure = day.next().unwrap_err();
        assert!(
            failure.message.contains("day.ndjson:11:1: not an event"),
            "{failure}"
        );
    }

    #[test]
    fn what_is_no_event_is_named_by_its_line() {
        for (text, part) in [
            ("\n{", "day.ndjson:2:1: not an event"),
            ("[]", ":1:1: not an event"),
            ("\n{\"a\":\n\n\n", ":2:1: not an event"),
            (
                "{\"a\":1\n{\"type\":\"t\"}\n",
                ":1:1: not an event: expected `,` or `}` at line 2 column 1 of it",
            ),
            ("{}", "it has no type"),
            (r#"{"type":"t"}"#, "has a time"),
            (r#"{"type":"t","time":"yesterday"}"#, "has a time"),
        ] {
            let failure = recorded(text).next().unwrap_err();
            assert!(failure.message.contains(part), "{failure}");
            assert_eq!(failure.exit as u8, 65);
        }
    }
}
