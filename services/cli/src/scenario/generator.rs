//! Tells a scenario's stories one after the other: what happens, when, to whom. No clock, no I/O.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::quoted;
use fastrand::Rng;
use roomcast_proto::event::rfc3339;

use super::Scenario;
use super::pace::{between, micros};
use super::story::{Rows, weighted};

/// Story numbers wrap here; it takes more than 90 days at the pace of a travel desk.
const NUMBERS: u64 = 1_000_000;
/// One number per so many seconds of time: a simulator that starts again goes on above the numbers it has used.
const SECONDS_PER_NUMBER: u64 = 8;

/// One event that happens at an instant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    /// When, Unix microseconds.
    pub(crate) at: i64,
    /// Order among events of one instant.
    order: u64,
    /// CloudEvents `type`.
    pub(crate) kind: String,
    /// Where it goes: members of a JSON object.
    attributes: String,
    /// JSON.
    pub(crate) data: String,
    /// Whether it is the last of its story.
    pub(crate) last: bool,
}

/// An endless iterator over what happens, ascending in time.
///
/// Until `live_from` stories follow the curve of the day, after it the even pace of live; a story that begins before and ends after
/// simply goes on. The same scenario, seed and times give the same events.
#[derive(Debug)]
pub(crate) struct Generator {
    scenario: Arc<Scenario>,
    rng: Rng,
    next_at: i64,
    live_from: i64,
    middle: i64,
    number: u64,
    order: u64,
    /// At most the steps of the stories that are under way: a handful.
    pending: BinaryHeap<Reverse<Told>>,
}

impl Generator {
    /// Begins at `start` with history up to `live_from` (both Unix microseconds; the same: no history).
    pub(crate) fn new(scenario: Arc<Scenario>, seed: u64, start: i64, live_from: i64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let seconds = u64::try_from(start / 1_000_000).unwrap_or_default();
        let number = (seconds / SECONDS_PER_NUMBER).wrapping_add(rng.u64(..)) % NUMBERS;
        let middle = start + (live_from - start) / 2;
        Self {
            scenario,
            rng,
            next_at: start,
            live_from,
            middle,
            number,
            order: 0,
            pending: BinaryHeap::new(),
        }
    }

    /// Begins the next story and plans its steps.
    fn begin(&mut self) {
        let Self { scenario, rng, .. } = self;
        let Some(story) = scenario
            .stories
            .get(weighted(rng, scenario.stories.iter().map(|story| story.weight)))
        else {
            return;
        };
        let rows = Rows::draw(&scenario.tables, rng);
        let number = self.number;
        self.number = (number + 1) % NUMBERS;
        let mut at = self.next_at;
        let mut told: Vec<Told> = Vec::with_capacity(story.steps.len());
        for step in &story.steps {
            at += micros(between(rng, step.after_seconds));
            let kind = if rng.f64() < step.chance {
                Some(&step.kind)
            } else {
                step.otherwise.as_ref()
            };
            let Some(kind) = kind else { break };
            told.push(Told {
                at,
                order: self.order,
                kind: kind.clone(),
                attributes: step.attributes(&rows, number),
                data: step.data(&rows, number),
                last: false,
            });
            self.order += 1;
        }
        if let Some(last) = told.last_mut() {
            last.last = true;
        }
        self.pending.extend(told.into_iter().map(Reverse));
        let pause = if self.next_at < self.live_from {
            scenario.pace.history_pause(rng, self.next_at, self.middle)
        } else {
            scenario.pace.live_pause(rng)
        };
        self.next_at += pause.max(1);
    }

    /// The event as it is published: CloudEvents, at `time` (Unix microseconds), under `id`.
    pub(crate) fn event(told: &Told, id: &str, time: i64) -> String {
        format!(
            r#"{{"specversion":"1.0","id":{},"source":"roomcast-simulate","type":{},"time":{},{},"data":{}}}"#,
            quoted(id),
            quoted(&told.kind),
            quoted(&rfc3339(time)),
            told.attributes,
            told.data
        )
    }
}

impl Iterator for Generator {
    type Item = Told;

    /// Never `None`.
    fn next(&mut self) -> Option<Told> {
        // A story always has a first step at its own beginning or later, so this ends.
        while self
            .pending
            .peek()
            .is_none_or(|Reverse(told)| told.at > self.next_at)
        {
            self.begin();
        }
        self.pending.pop().map(|Reverse(told)| told)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use serde_json::Value;

    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const NOW: i64 = 1_790_000_000_000_000;

    fn bookings() -> Arc<Scenario> {
        Arc::new(Scenario::load(&crate::find::scenario("bookings").unwrap()).unwrap())
    }

    fn history(seed: u64) -> Vec<Told> {
        Generator::new(bookings(), seed, NOW - 48 * HOUR, NOW)
            .take_while(|told| told.at < NOW)
            .collect()
    }

    #[test]
    fn the_same_seed_tells_the_same_and_another_something_else() {
        assert_eq!(history(1), history(1));
        assert_ne!(history(1)[..100], history(2)[..100]);
    }

    #[test]
    fn two_days_have_about_thirty_thousand_events_and_four_of_five_bookings_are_confirmed() {
        let told = history(1);
        assert!((29_000..31_500).contains(&told.len()), "{}", told.len());
        assert!(told.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let mut kinds: BTreeMap<&str, f64> = BTreeMap::new();
        for event in &told {
            *kinds.entry(&event.kind).or_default() += 1.0;
        }
        let confirmed = kinds["booking:confirmed"] / kinds["booking:new"];
        assert!((0.78..0.82).contains(&confirmed), "{kinds:?}");
        let second_day = told.iter().filter(|event| event.at >= NOW - 24 * HOUR).count();
        let change = f64::from(u32::try_from(second_day).unwrap())
            / f64::from(u32::try_from(told.len() - second_day).unwrap());
        assert!(
            (1.03..1.12).contains(&change),
            "the second day has {change} times the first"
        );
    }

    #[test]
    fn evenings_are_busier_than_nights() {
        let mut hours = [0_u32; 24];
        for event in history(1) {
            // Istanbul is three hours ahead of UTC.
            hours[usize::try_from((event.at / HOUR + 3) % 24).unwrap()] += 1;
        }
        assert!(hours[20] > 8 * hours[4], "{hours:?}");
    }

    #[test]
    fn every_event_is_coherent() {
        let categories = ["property", "car", "transfer", "tour"];
        let mut bookings: HashMap<String, (i64, Value)> = HashMap::new();
        let mut of_title: HashMap<String, BTreeSet<String>> = HashMap::new();
        for told in history(3) {
            let data: Value = serde_json::from_str(&told.data).unwrap();
            let id = data["id"].as_str().unwrap().to_owned();
            assert_eq!(id.len(), 9, "{id}");
            assert!(categories.contains(&data["category"].as_str().unwrap()), "{data}");
            assert_eq!(data["currency"], "TRY");
            let amount = data["amount"].as_f64().unwrap();
            assert!((300.0..80_000.0).contains(&amount), "{data}");
            assert!(
                told.data.contains(&format!("\"amount\":{amount:.2}")),
                "{}",
                told.data
            );
            let title = data["title"].as_str().unwrap().to_owned();
            of_title
                .entry(title)
                .or_default()
                .insert(data["category"].as_str().unwrap().to_owned());
            if told.kind == "booking:new" {
                assert!(
                    bookings.insert(id, (told.at, data)).is_none(),
                    "a number was used twice"
                );
            } else {
                let (since, first) = &bookings[&id];
                assert_eq!(first, &data, "a step has the data of its story");
                assert!((5_000_000..=10_000_000).contains(&(told.at - since)));
            }
        }
        assert!(
            of_title.values().all(|categories| categories.len() == 1),
            "{of_title:?}"
        );
    }

    #[test]
    fn live_goes_on_from_history_at_an_even_pace() {
        let live: Vec<Told> = Generator::new(bookings(), 1, NOW - HOUR, NOW)
            .skip_while(|told| told.at < NOW)
            .filter(|told| told.kind == "booking:new")
            .take(200)
            .collect();
        for pair in live.windows(2) {
            let pause = pair[1].at - pair[0].at;
            assert!((8_000_000..=15_000_000).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn the_published_event_is_one_that_ingest_reads() {
        let mut generator = Generator::new(bookings(), 1, NOW, NOW);
        let told = generator.next().unwrap();
        let json = Generator::event(&told, "0190-1", told.at);
        let draft = roomcast_proto::event::Draft::parse(json.as_bytes()).unwrap();
        assert_eq!(draft.kind(), "booking:new");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["room"], &value["audience"]),
            (&"bookings".into(), &"staff".into())
        );
        assert_eq!(value["time"], "2026-09-21T14:13:20Z");
    }

    #[test]
    fn a_step_that_does_not_happen_ends_its_story() {
        let text = super::super::tests::SMALL.replace(", else: \"made:bad\"", "");
        let scenario = Arc::new(Scenario::parse(&text, "s.yaml").unwrap());
        let told: Vec<Told> = Generator::new(scenario, 1, NOW, NOW).take(1_000).collect();
        assert!(told.iter().any(|event| event.kind == "made:new" && event.last));
        assert!(told.iter().all(|event| event.kind != "made:bad"));
    }

    proptest::proptest! {
        /// Whatever the seed: ascending, valid JSON, ids of one story unique.
        #[test]
        fn any_seed_tells_valid_events(seed: u64) {
            let scenario = Arc::new(Scenario::parse(super::super::tests::SMALL, "s.yaml").unwrap());
            let mut before = i64::MIN;
            for told in Generator::new(scenario, seed, NOW, NOW + HOUR).take(300) {
                proptest::prop_assert!(told.at >= before);
                before = told.at;
                proptest::prop_assert!(serde_json::from_str::<Value>(&told.data).is_ok(), "{}", told.data);
            }
        }
    }
}
