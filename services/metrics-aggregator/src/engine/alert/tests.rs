//! Rules over histories: what is said when, once, over restarts; and against a recomputation that looks at the whole history.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::definition::Definitions;
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};
use crate::engine::testing::event_of;

const NOON: i64 = 1_780_315_200_000_000; // Monday 2026-06-01T12:00:00Z
const SECOND: i64 = 1_000_000;

/// A shard with the metric `m` and rules on it; what was said so far, by line.
struct Desk {
    definitions: Definitions,
    shard: Shard,
    chunks: HashMap<String, Vec<u8>>,
    seq: u64,
    now: i64,
    /// Everything that was said: (seconds since noon, line, state).
    said: Vec<(i64, String, String)>,
    ids: BTreeSet<String>,
    data: Vec<Value>,
}

fn parse(metric: &str, rules: &[&str]) -> Definitions {
    let rules: String = rules
        .iter()
        .map(|rule| format!("  - {{ notify: {{ room: bell, audience: all, title: 'It is {{{{ measured }}}}' }}, {rule} }}\n"))
        .collect();
    let text = format!(
        "version: 1\ntimezone: Europe/Istanbul\nmetrics:\n  - {{ name: m, from: {{ room: r }}, {metric} }}\nrules:\n{rules}"
    );
    Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

const LAST: &str = "value: last(data.x), window: { total: true }";

impl Desk {
    fn new(metric: &str, rules: &[&str]) -> Self {
        let definitions = parse(metric, rules);
        let shard = Shard::load_with(definitions.metrics.clone(), definitions.rules.clone(), None, NOON);
        let mut shard = shard.unwrap();
        shard.go_live();
        Self {
            definitions,
            shard,
            chunks: HashMap::new(),
            seq: 0,
            now: NOON,
            said: Vec::new(),
            ids: BTreeSet::new(),
            data: Vec::new(),
        }
    }

    fn event(&mut self, data: &str) {
        self.seq += 1;
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        let event = Event {
            seq: self.seq,
            stored_micros: self.now,
            time_micros: self.now,
            ..event_of(&data)
        };
        self.shard.fold(&event, &mut |_| {});
    }

    /// Writes the state, as the worker does before anything is said.
    fn write(&mut self) -> Head {
        let flush = self.shard.flush();
        self.chunks.extend(flush.chunks);
        Head::read(&flush.head).unwrap()
    }

    /// Takes what is to be said; ingest has stored it.
    fn speak(&mut self) {
        let notices: Vec<Notice> = self.shard.notices().cloned().collect();
        for notice in notices {
            assert!(self.ids.insert(notice.id.clone()), "{} is said twice", notice.id);
            let data: Value = serde_json::from_str(&notice.data).unwrap();
            roomcast_proto::notification::check_data(Some(&notice.data)).unwrap();
            let state = data["state"].as_str().unwrap().to_owned();
            let seconds = (notice.time_micros - NOON) / SECOND;
            self.said.push((seconds, notice.dedup.clone(), state));
            self.data.push(data);
            self.shard.said(&notice.id);
        }
    }

    /// Lets seconds pass, each with a look, a write, and what is to be said.
    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.shard.advance(self.now);
            self.write();
            self.speak();
        }
    }

    /// As a process that was killed after its last write, and comes back with these rules.
    fn restart(&mut self, definitions: Definitions) {
        let head = self.write();
        self.definitions = definitions;
        let (metrics, rules) = (self.definitions.metrics.clone(), self.definitions.rules.clone());
        self.shard = Shard::load_with(metrics, rules, Some((head, &self.chunks)), self.now).unwrap();
        self.shard.go_live();
    }

    fn take(&mut self) -> Vec<(i64, String)> {
        let said = std::mem::take(&mut self.said);
        said.into_iter().map(|(at, _, state)| (at, state)).collect()
    }
}

/// Each row: the rule, the history as (x, or null for no event, and how many seconds it stays), what is said when.
#[test]
fn a_rule_says_what_it_saw() {
    type Row<'r> = (&'r str, &'r [(&'r str, i64)], &'r [(i64, &'r str)]);
    let rows: [Row<'_>; 13] = [
        (
            "alert: a, when: m.value > 10",
            &[("5", 2), ("11", 3), ("10", 2), ("12", 1)],
            &[(3, "firing"), (6, "resolved"), (8, "firing")],
        ),
        // Pending: not for a moment.
        (
            "alert: a, when: m > 10, for: 3s",
            &[("11", 3), ("5", 1), ("11", 3)],
            &[],
        ),
        (
            "alert: a, when: m > 10, for: 3s",
            &[("11", 4), ("5", 1)],
            &[(4, "firing"), (5, "resolved")],
        ),
        // It goes on for a while, and what comes back meanwhile is the same episode.
        (
            "alert: a, when: m > 10, keep_firing_for: 3s",
            &[("11", 1), ("5", 3), ("11", 1), ("5", 4)],
            &[(1, "firing"), (9, "resolved")],
        ),
        // Between the bounds nothing changes.
        (
            "alert: a, when: m > 10, until: m < 5",
            &[("7", 2), ("11", 1), ("7", 5), ("4", 1), ("7", 2)],
            &[(3, "firing"), (9, "resolved")],
        ),
        (
            "alert: a, when: m != 5",
            &[("5", 1), ("5.0", 1), ("5.1", 1)],
            &[(3, "firing")],
        ),
        // Nothing is no number, unless it is said otherwise.
        (
            "alert: a, when: m < 10",
            &[("null", 3), ("11", 1), ("9", 1)],
            &[(5, "firing")],
        ),
        (
            "alert: a, when: m < 10, no_data: alert",
            &[("null", 3), ("11", 1)],
            &[(1, "firing"), (4, "resolved")],
        ),
        (
            "alert: a, when: m < 10, no_data: keep",
            &[("null", 3), ("9", 1)],
            &[(4, "firing")],
        ),
        // A rate of change looks back; while there is nothing that old there is no number.
        (
            "alert: a, when: 'change(m.value, 10s) >= 5'",
            &[("1", 10), ("4", 5), ("6", 8), ("6", 10)],
            &[(16, "firing"), (21, "resolved")],
        ),
        (
            "alert: a, when: 'change_percent(m.value, 10s) < -50'",
            &[("100", 11), ("51", 5), ("49", 2), ("25", 12)],
            &[(17, "firing"), (27, "resolved")],
        ),
        // Absent, counted from the start where nothing ever came.
        (
            "alert: a, when: 'absent(m, 5s)'",
            &[("null", 6), ("1", 4), ("1", 6)],
            &[(5, "firing"), (7, "resolved"), (15, "firing")],
        ),
        (
            "alert: a, when: m > 10, silences: [{ from: '2026-06-01T12:00:03Z', until: '2026-06-01T12:00:06Z' }]",
            &[("11", 1), ("5", 1), ("11", 1), ("5", 1), ("11", 5)],
            &[(1, "firing"), (2, "resolved"), (6, "firing")],
        ),
    ];
    for (rule, history, expected) in rows {
        for restarting in [false, true] {
            let mut desk = Desk::new(LAST, &[rule]);
            for (x, seconds) in history {
                if *x != "null" {
                    desk.event(&format!("{{\"x\":{x}}}"));
                }
                for _ in 0..*seconds {
                    desk.pass(1);
                    if restarting {
                        let same = desk.definitions.clone();
                        desk.restart(same);
                    }
                }
            }
            let said = desk.take();
            let said: Vec<(i64, &str)> = said.iter().map(|(at, state)| (*at, state.as_str())).collect();
            assert_eq!(said, expected, "{rule}, restarting: {restarting}");
        }
    }
}

/// What operators silence: a rule, a group of it, or all; what is another's, over, or not begun speaks. What still fires at the end is
/// said then.
#[test]
fn what_operators_silence_is_said_when_it_is_over() {
    let by_group = "value: last(data.x), group_by: [data.g], window: { total: true }";
    let span = |alert: Option<&str>, group: Option<&str>, from: i64, until: i64| Silenced {
        alert: alert.map(str::to_owned),
        group: group.map(str::to_owned),
        from: NOON + from * SECOND,
        until: NOON + until * SECOND,
    };
    let all = [(1, "a/b=2Fc"), (1, "a/d")];
    let rows: [(Silenced, &[(i64, &str)]); 7] = [
        (span(Some("other"), None, 0, 9), &all),
        (span(None, None, 0, 1), &all),
        (span(None, None, 2, 9), &all),
        (span(None, None, 0, 5), &[(5, "a/b=2Fc"), (5, "a/d")]),
        (span(Some("a"), None, 0, 5), &[(5, "a/b=2Fc"), (5, "a/d")]),
        (
            span(Some("a"), Some("b=2Fc"), 0, 5),
            &[(1, "a/d"), (5, "a/b=2Fc")],
        ),
        (span(Some("a"), Some("b=2Fc"), 0, 99), &[(1, "a/d")]),
    ];
    for (silenced, expected) in rows {
        let mut desk = Desk::new(by_group, &["alert: a, when: m > 10"]);
        desk.shard.silence([silenced.clone()].into());
        for group in ["b/c", "d"] {
            desk.event(&format!("{{\"x\":11,\"g\":\"{group}\"}}"));
        }
        desk.pass(8);
        let said: Vec<(i64, &str)> = desk
            .said
            .iter()
            .map(|(at, line, _)| (*at, line.strip_prefix("alert/").unwrap()))
            .collect();
        assert_eq!(said, expected, "{silenced:?}");
    }
}

#[test]
fn absence_counts_within_opening_hours_alone() {
    let rule = "alert: a, when: 'absent(m, 30m)', hours: { days: [mon, tue], from: '09:00', to: '16:00' }";
    // Noon in London is three in Istanbul.
    let mut desk = Desk::new(LAST, &[rule]);
    desk.event("{\"x\":1}");
    let mut hear = |minutes: i64| {
        for _ in 0..minutes {
            desk.now += 60 * SECOND;
            desk.shard.advance(desk.now);
            desk.write();
            desk.speak();
        }
        desk.take()
    };
    let minute = |minute: i64, state: &str| (minute * 60, state.to_owned());
    assert_eq!(hear(29), []);
    assert_eq!(hear(1), [minute(30, "firing")]);
    // The desk closes at four; what is missing then is missing for nobody.
    assert_eq!(hear(30), [minute(60, "resolved")]);
    assert_eq!(hear(17 * 60 + 29), []);
    assert_eq!(hear(1), [minute(18 * 60 + 30, "firing")], "half past nine");
}

#[test]
fn each_group_has_its_line_and_there_is_room_for_some() {
    let mut desk = Desk::new(
        "value: count(), group_by: [data.g], window: { total: true }",
        &["alert: many, when: m >= 2, keep_firing_for: 1s"],
    );
    for group in ["a", "b", "c"] {
        desk.event(&format!("{{\"g\":\"{group}\"}}"));
    }
    desk.pass(2);
    assert!(desk.said.is_empty());
    desk.event("{\"g\":\"b\"}");
    desk.event("{\"g\":\"a\"}");
    desk.pass(1);
    let lines: Vec<&str> = desk.said.iter().map(|(_, line, _)| line.as_str()).collect();
    assert_eq!(lines, ["alert/many/a", "alert/many/b"]);
    assert_eq!(desk.data[0]["title"], "It is 2");
    assert_eq!(desk.data[0]["groups"], serde_json::json!([["a"]]));
    for group in 0..20 {
        desk.event(&format!("{{\"g\":{group}}}"));
        desk.event(&format!("{{\"g\":{group}}}"));
    }
    desk.pass(3);
    let (firing, refused) = desk.shard.firing();
    assert_eq!(firing, GROUPS_MAX);
    assert!(refused > 0);
}

#[test]
fn groups_together_are_one_line_that_is_renewed_seldom() {
    let mut desk = Desk::new(
        "value: last(data.x), group_by: [data.g], window: { total: true }",
        &["alert: many, when: m > 1"],
    );
    let mut text = parse("value: count(), window: { total: true }", &[]);
    text.rules.clear();
    let mut definitions = desk.definitions.clone();
    let mut rule = (*definitions.rules[0]).clone();
    rule.notify.together = true;
    definitions.rules = vec![Arc::new(rule)];
    desk.restart(definitions);
    desk.event("{\"g\":\"a\",\"x\":2}");
    desk.event("{\"g\":\"b\",\"x\":2}");
    desk.pass(1);
    assert_eq!(desk.data[0]["groups"], serde_json::json!([["a"], ["b"]]));
    desk.event("{\"g\":\"b\",\"x\":0}");
    desk.pass(30);
    desk.event("{\"g\":\"c\",\"x\":5}");
    desk.pass(40);
    desk.event("{\"g\":\"a\",\"x\":0}");
    desk.event("{\"g\":\"c\",\"x\":0}");
    desk.pass(2);
    let said = desk.take();
    let expected = [(1, "firing"), (61, "firing"), (72, "resolved")];
    assert_eq!(said, expected.map(|(at, state)| (at, state.to_owned())));
    assert_eq!(desk.data[1]["groups"], serde_json::json!([["a"], ["c"]]));
}

#[test]
fn a_rule_that_changes_goes_on_and_one_that_goes_ends_its_line() {
    let mut desk = Desk::new(LAST, &["alert: a, when: m > 10"]);
    desk.event("{\"x\":11}");
    desk.pass(1);
    desk.take();
    // Another bound: it fires still, and nothing is said.
    desk.restart(parse(LAST, &["alert: a, when: m > 9"]));
    desk.pass(3);
    assert_eq!(desk.take(), []);
    // To others: over for those before, firing for those now.
    let mut moved = parse(LAST, &["alert: a, when: m > 9"]);
    let mut rule = (*moved.rules[0]).clone();
    rule.notify.room = Room::parse("elsewhere").unwrap();
    moved.rules = vec![Arc::new(rule)];
    desk.restart(moved);
    let rooms: Vec<String> = desk
        .shard
        .notices()
        .map(|notice| notice.room.to_string())
        .collect();
    assert_eq!(rooms, ["bell"]);
    desk.pass(1);
    let states: Vec<String> = desk.take().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["resolved", "firing"]);
    desk.restart(parse(LAST, &[]));
    desk.pass(2);
    assert_eq!(desk.take(), [(5, "resolved".to_owned())]);
    let head = desk.write();
    assert!(head.chunk_names(&[]).is_empty(), "nothing of it is left");
}

/// Groups that a metric counted once and has no longer took the places of those that came after them, for ever and over restarts.
#[test]
fn groups_that_are_gone_make_room_for_those_that_come() {
    for (restarting, value) in [(false, "count()"), (true, "count()"), (false, "sum(data.x)")] {
        let metric =
            format!("value: {value}, group_by: [data.g], window: {{ tumbling: minute }}, lateness: 0s");
        let mut desk = Desk::new(&metric, &["alert: a, when: 'change(m.value, 10s) >= 5'"]);
        for round in 0..4 {
            for group in 0..GROUPS_MAX {
                for _ in 0..3 {
                    desk.event(&format!("{{\"g\":\"{round}-{group}\",\"x\":1}}"));
                }
            }
            desk.pass(12);
            for group in 0..GROUPS_MAX {
                desk.event(&format!("{{\"g\":\"{round}-{group}\",\"x\":5}}"));
                (0..4).for_each(|_| desk.event(&format!("{{\"g\":\"{round}-{group}\",\"x\":1}}")));
            }
            desk.pass(12);
            // Longer than any window is kept: nothing of them is left.
            desk.now += 12 * 3_600 * SECOND;
            desk.pass(15);
            if restarting {
                let same = desk.definitions.clone();
                desk.restart(same);
            }
            let states: Vec<String> = desk.take().into_iter().map(|(_, state)| state).collect();
            assert_eq!(states.len(), 2 * GROUPS_MAX, "{value}, round {round}: {states:?}");
        }
        assert_eq!(desk.shard.firing(), (0, 0), "{value}");
        // While a group is there, 0 is a number as any other.
        desk.event("{\"g\":\"z\",\"x\":0}");
        desk.pass(1);
        desk.now += 60 * SECOND;
        desk.pass(12);
        (0..6).for_each(|_| desk.event("{\"g\":\"z\",\"x\":1}"));
        desk.pass(1);
        let states: Vec<String> = desk.take().into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, ["firing"], "{value}");
    }
}

/// Each row: what a metric is grouped by and what a rule on it says, before and after; which lines are over by that, and what is said of
/// lines afterwards. A line that nobody ended said for ever that it fires.
#[test]
fn lines_that_a_rule_has_no_longer_are_over() {
    type Row<'r> = [(&'r str, &'r str, bool); 2];
    let (plain, by_one, by_two) = ("", "group_by: [data.g], ", "group_by: [data.g, data.h], ");
    let (test, absent) = ("when: m > 10", "when: 'absent(m, 1m)'");
    let rows: [(Row<'_>, &[&str], &[&str]); 8] = [
        (
            [(by_one, test, false), (by_one, test, true)],
            &["a/b", "a/c"],
            &["a firing"],
        ),
        (
            [(by_one, test, true), (by_one, test, false)],
            &["a"],
            &["a/b firing", "a/c firing"],
        ),
        ([(plain, test, false), (plain, test, true)], &["a"], &["a firing"]),
        ([(plain, test, true), (plain, test, false)], &["a"], &["a firing"]),
        (
            [(by_one, test, false), (plain, test, false)],
            &["a/b", "a/c"],
            &[],
        ),
        ([(plain, test, false), (by_one, test, false)], &["a"], &[]),
        (
            [(by_one, test, false), (by_two, test, false)],
            &["a/b", "a/c"],
            &[],
        ),
        (
            [(by_one, test, false), (by_one, absent, false)],
            &["a/b", "a/c"],
            &[],
        ),
    ];
    let parsed = |(groups, when, together): (&str, &str, bool)| {
        let metric = format!("value: last(data.x), {groups}window: {{ total: true }}");
        let mut definitions = parse(&metric, &[&format!("alert: a, {when}")]);
        let mut rule = (*definitions.rules[0]).clone();
        rule.notify.together = together;
        definitions.rules = vec![Arc::new(rule)];
        definitions
    };
    for ([before, after], over, said) in rows {
        let mut desk = Desk::new(
            "value: last(data.x), window: { total: true }",
            &["alert: a, when: m > 10"],
        );
        desk.restart(parsed(before));
        for group in ["b", "c"] {
            desk.event(&format!("{{\"g\":\"{group}\",\"h\":1,\"x\":11}}"));
        }
        desk.pass(2);
        desk.said.clear();
        desk.restart(parsed(after));
        let ended: Vec<String> = desk
            .shard
            .notices()
            .map(|notice| {
                assert!(notice.data.contains("resolved"), "{}", notice.data);
                notice.dedup.replace("alert/", "")
            })
            .collect();
        assert_eq!(ended, over, "{before:?} then {after:?}");
        desk.speak();
        desk.said.clear();
        desk.pass(3);
        let now: Vec<String> = desk
            .said
            .iter()
            .map(|(_, line, state)| format!("{} {state}", line.replace("alert/", "")))
            .collect();
        assert_eq!(now, said, "{before:?} then {after:?}");
        // And back: no id is used again, which `speak` looks at, and nothing is over that nobody said.
        desk.restart(parsed(before));
        let ended = desk.shard.notices().count();
        assert_eq!(ended, said.len(), "{after:?} then {before:?}");
        desk.pass(3);
    }
}

/// Samples are of the metric as it was: of another one, which counts anew, nothing is said until there are some.
#[test]
fn a_change_is_told_of_numbers_of_the_same_metric() {
    let rule = "alert: a, when: 'change(m.value, 10s) < -5'";
    let mut desk = Desk::new(LAST, &[rule]);
    desk.event("{\"x\":100}");
    desk.pass(12);
    assert_eq!(desk.take(), []);
    desk.restart(parse("value: count(), window: { total: true }", &[rule]));
    desk.event("{\"x\":100}");
    desk.pass(12);
    assert_eq!(desk.take(), []);
}

#[test]
fn what_is_not_yet_stored_is_said_by_the_next() {
    let mut desk = Desk::new(LAST, &["alert: a, when: m > 10"]);
    desk.event("{\"x\":11}");
    desk.now += SECOND;
    desk.shard.advance(desk.now);
    let before: Vec<Notice> = desk.shard.notices().cloned().collect();
    assert_eq!(before.len(), 1);
    let same = desk.definitions.clone();
    desk.restart(same);
    let after: Vec<Notice> = desk.shard.notices().cloned().collect();
    assert_eq!(after, before, "to the byte");
    desk.speak();
    let same = desk.definitions.clone();
    desk.restart(same);
    assert_eq!(desk.shard.notices().count(), 0);
    desk.pass(5);
    assert_eq!(desk.take().len(), 1);
}

/// When a rule fires and ends, from the whole history: the numbers at each second.
fn recomputed(numbers: &[Option<i64>], wait: i64, keep: i64, until: Option<i64>) -> Vec<(i64, &'static str)> {
    let holds = |at: usize| numbers[at].is_some_and(|number| number > 10);
    let goes_on = |at: usize| match until {
        Some(until) => numbers[at].is_some_and(|number| number >= until),
        None => holds(at),
    };
    let mut said = Vec::new();
    let mut at = 0;
    while at < numbers.len() {
        // The first second from which on it has held for long enough.
        let wait = usize::try_from(wait).unwrap();
        let fires = (at + wait..numbers.len()).find(|end| (end - wait..=*end).all(holds));
        let Some(fires) = fires else { break };
        said.push((i64::try_from(fires).unwrap() + 1, "firing"));
        // The first second behind which it has not gone on for long enough.
        let keep = usize::try_from(keep).unwrap();
        let ends = (fires + 1 + keep..numbers.len()).find(|end| (end - keep..=*end).all(|at| !goes_on(at)));
        let Some(ends) = ends else { break };
        said.push((i64::try_from(ends).unwrap() + 1, "resolved"));
        at = ends + 1;
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_equals_its_recomputation(
        numbers in prop::collection::vec(prop_oneof![1 => Just(None), 4 => (4_i64..14).prop_map(Some)], 1..60),
        wait in 0..4_i64,
        keep in 0..4_i64,
        until in prop::option::of(5_i64..11),
        restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        // A minute of which nothing was folded has no mean; each number is of a minute of its own.
        let minute = 60;
        let until_text = until.map(|until| format!(", until: m < {until}")).unwrap_or_default();
        let rule = format!("alert: a, when: m > 10, for: {}s, keep_firing_for: {}s{until_text}", wait * minute, keep * minute);
        let mut desk = Desk::new("value: avg(data.x), window: { tumbling: minute }", &[&rule]);
        for (number, restart) in numbers.iter().zip(restarts) {
            if let Some(number) = number {
                desk.event(&format!("{{\"x\":{number}}}"));
            }
            desk.now += SECOND;
            desk.shard.advance(desk.now);
            desk.write();
            desk.speak();
            if restart {
                let same = desk.definitions.clone();
                desk.restart(same);
            }
            desk.now += (minute - 1) * SECOND;
        }
        let said: Vec<(i64, String)> = desk.take().into_iter().map(|(at, state)| (at / minute + 1, state)).collect();
        let expected: Vec<(i64, String)> = recomputed(&numbers, wait, keep, until)
            .into_iter()
            .map(|(at, state)| (at, state.to_owned()))
            .collect();
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn damaged_rules_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut bytes = bytes;
        bytes.insert(0, crate::engine::codec::FORMAT);
        let _ = codec::read("a", &bytes);
    }
}

#[test]
fn lines_of_different_groups_differ() {
    let mut lines = BTreeMap::new();
    for group in [
        "[]",
        "[\"a\"]",
        "[1]",
        "[\"1\"]",
        "[null]",
        "\"~other\"",
        "[\"a\",\"b\"]",
        "[\"a/b\"]",
    ] {
        let rule = parse(LAST, &["alert: a, when: m > 1"]).rules[0].clone();
        let words = Words {
            rule: &rule,
            groups: &[group],
            state: State::Firing,
            since: 5,
            number: 0,
            reading: Reading::default(),
            measured: None,
            now: 5,
        };
        let notice = Notice::new(&words);
        assert!(notice.id.len() <= roomcast_proto::limits::EVENT_ID_BYTES_MAX);
        assert_eq!(lines.insert(notice.dedup.clone(), group), None, "{group}");
        assert!(!lines.is_empty());
    }
}
