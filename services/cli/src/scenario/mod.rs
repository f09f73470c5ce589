//! What the simulator publishes: `scenario.yaml`, checked and ready to be told.
//!
//! A scenario has stories (a booking, an order), each with steps (new, then confirmed or cancelled). A story draws one row of every
//! table it names, so that what belongs together stays together, and all its steps carry the same data. [`Generator`] tells stories
//! one after the other, for ever, the same for the same seed and start.

mod file;
mod generator;
mod pace;
mod recorded;
mod story;
mod written;

use std::collections::BTreeMap;
use std::path::Path;

use roomcast_chassis::process::Failure;
use roomcast_proto::ids::{Audience, Room};

pub(crate) use generator::{Generator, Told};
use pace::Pace;
pub(crate) use recorded::{Again, Recorded};
use story::{Story, Table};

/// A scenario that can be told.
#[derive(Debug)]
pub(crate) struct Scenario {
    room: Room,
    audience: Audience,
    claims: BTreeMap<String, Vec<String>>,
    pace: Pace,
    tables: Vec<Table>,
    stories: Vec<Story>,
}

/// A mistake in a scenario's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub(crate) struct Mistake {
    pub(crate) file: String,
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) message: String,
}

impl Scenario {
    /// Reads `scenario.yaml` in a scenario's folder.
    ///
    /// # Errors
    /// Exit 65 with `file:line:column` and what is wrong there.
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("scenario.yaml");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
        Self::parse(&text, &path.to_string_lossy()).map_err(Failure::file)
    }

    /// A room, a type and an audience of it, to show how one publishes.
    pub(crate) fn example(&self) -> (&str, &str, &str) {
        let step = self.stories.first().and_then(|story| story.steps.first());
        (
            self.room.as_str(),
            step.map_or("", |step| step.kind.as_str()),
            self.audience.as_str(),
        )
    }

    /// What the tokens of development users say beside their roles.
    pub(crate) fn claims(&self) -> &BTreeMap<String, Vec<String>> {
        &self.claims
    }

    /// Reads the text of a scenario's file.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub(crate) fn parse(text: &str, file_name: &str) -> Result<Self, Mistake> {
        file::parse(text).map_err(|wrong| Mistake {
            file: file_name.to_owned(),
            line: wrong.at.line(),
            column: wrong.at.column(),
            message: wrong.message,
        })
    }
}

/// Text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SMALL: &str = r#"
version: 1
room: desk
audience: staff
timezone: Europe/Istanbul
pace: { seconds: [8, 15], hours: [1,1,1,1,1,1,2,3,4,5,5,5,5,5,5,5,5,5,5,4,3,2,1,1], growth_percent_per_day: 7 }
tables:
  thing:
    - { weight: 3, name: [a, b], count: { from: 1, to: 3, step: 1 }, unit: day, price: { from: 10, to: 20, step: 0.25 } }
    - { name: "c \"quoted\"", count: 1, unit: hour, price: 7.5 }
stories:
  - data:
      id: "x-{number:4}"
      name: "{thing.name}"
      span: { quantity: thing.count, unit: thing.unit }
      amount: { multiply: [thing.count, thing.price] }
    steps:
      - { type: "made:new" }
      - { type: "made:good", chance: 0.8, else: "made:bad", after_seconds: [5, 10] }
"#;

    #[track_caller]
    fn check(change: (&str, &str), expected: Result<(), &str>) {
        assert!(
            change.0.is_empty() || SMALL.contains(change.0),
            "{change:?} changes nothing"
        );
        let text = SMALL.replacen(change.0, change.1, 1);
        match (
            Scenario::parse(&text, "s.yaml").map_err(|mistake| mistake.to_string()),
            expected,
        ) {
            (Ok(_), Ok(())) => {}
            (Err(found), Err(part)) => assert!(found.contains(part), "{found:?} does not say {part:?}"),
            (found, expected) => panic!("{change:?}: {:?}, expected {expected:?}", found.err()),
        }
    }

    #[test]
    fn mistakes_are_said_with_their_place() {
        check(("", ""), Ok(()));
        check(
            ("version: 1", "version: 2"),
            Err("s.yaml:2:10: version 2 is not known"),
        );
        check(("room: desk", "room: a b"), Err("s.yaml:3:7:"));
        check(("audience: staff", "audience: \"*\""), Err("s.yaml:4:11:"));
        check(("Europe/Istanbul", "Europe/Istambul"), Err("s.yaml:5:11:"));
        check(("[8, 15]", "[15, 8]"), Err("s.yaml:6:"));
        check(("[8, 15]", "[0, 8]"), Err("s.yaml:6:"));
        check(("hours: [1,1,", "hours: [1,"), Err("24"));
        check(("growth_percent_per_day: 7", "growth: 7"), Err("growth"));
        check(
            ("{thing.name}", "{thing.nome}"),
            Err("s.yaml:14:13: no row cell thing.nome"),
        );
        check(("{thing.name}", "{thin.name}"), Err("no table \"thin\""));
        check(("{thing.name}", "{thing.name"), Err("\"{\" without \"}\""));
        check(("number:4", "number:0"), Err("number"));
        check(
            (
                "multiply: [thing.count, thing.price]",
                "multiply: [thing.count, thing.name]",
            ),
            Err("is not a number"),
        );
        check(("unit: thing.unit", "unit: thing.price"), Err("is not text"));
        check(("from: 1, to: 3", "from: 3, to: 1"), Err("s.yaml:9:"));
        check(("step: 1 }", "step: 0 }"), Err("s.yaml:9:"));
        check(("weight: 3", "weight: 0"), Err("weight"));
        check(("chance: 0.8", "chance: 1.8"), Err("chance"));
        check(
            ("\"made:new\" }", "\"made:new\", chance: 0 }"),
            Err("the first step"),
        );
        check((", else: \"made:bad\"", ""), Ok(()));
        check(("[5, 10]", "[10, 5]"), Err("after_seconds"));
        check(("made:new", ""), Err("type"));
        check(("    steps:\n", "    step:\n"), Err("step"));
        check(("version: 1", "version: ["), Err("s.yaml:"));
    }

    /// What the simulator says of each business is what its own policy and schemas allow.
    #[test]
    fn the_scenarios_of_the_repository_are_good() {
        const NOW: i64 = 1_790_000_000_000_000;
        for name in ["bookings", "deliveries", "property", "repair", "restaurant"] {
            let folder = crate::find::scenario(name).unwrap();
            let scenario = std::sync::Arc::new(Scenario::load(&folder).unwrap());
            let schemas = roomcast_schemas::folder::load(&folder.join("schemas")).unwrap();
            let text = std::fs::read_to_string(folder.join("policy.yaml")).unwrap();
            let policy = roomcast_access::Policy::parse(&text, "policy.yaml").unwrap();
            let told =
                Generator::new(scenario, 1, NOW - 2 * 3_600_000_000, NOW).take_while(|told| told.at < NOW);
            let mut kinds = std::collections::BTreeSet::new();
            for told in told {
                let json = Generator::event(&told, "id", told.at);
                let event: serde_json::Value = serde_json::from_str(&json).unwrap();
                roomcast_proto::event::Draft::parse(json.as_bytes())
                    .unwrap_or_else(|refusal| panic!("{json}: {refusal:?}"));
                let data = roomcast_schemas::Data::Json(&told.data);
                schemas
                    .check(&told.kind, None, data)
                    .unwrap_or_else(|breach| panic!("{json}: {breach:?}"));
                let room = Room::parse(event["room"].as_str().unwrap()).unwrap();
                assert!(policy.knows_room(&room), "{json}");
                assert!(
                    policy.audience(event["audience"].as_str().unwrap()).is_some(),
                    "{json}"
                );
                kinds.insert(told.kind);
            }
            let checked = |kind: &&String| schemas.kinds().any(|(known, _)| known == kind.as_str());
            let others: Vec<_> = kinds.iter().filter(|kind| !checked(kind)).collect();
            assert!(
                others.iter().all(|kind| kind.starts_with("notification.")),
                "{name}: {others:?}"
            );
        }
    }
}
