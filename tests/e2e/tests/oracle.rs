//! What every number must be: recomputed from the stored events, by a program that shares nothing with the aggregator.
//!
//! Plain and slow on purpose: all events, one definition after the other, sums of whole numbers of 10⁻¹².

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

/// 10^12: the smallest part of a number that counts.
const ONE: i128 = 1_000_000_000_000;

/// What is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Count,
    Sum,
    Customers,
    /// Confirmed over new, four places, half even.
    Conversion,
}

/// One metric of `metrics.yaml`.
struct Definition {
    name: &'static str,
    fold: Fold,
    types: &'static [&'static str],
    try_only: bool,
    by_category: bool,
    compare: bool,
}

const NEW: &str = "booking:new";
const CONFIRMED: &str = "booking:confirmed";

/// All of them that are published.
const DEFINITIONS: [Definition; 7] = [
    Definition {
        name: "revenue",
        fold: Fold::Sum,
        types: &[CONFIRMED],
        try_only: true,
        by_category: false,
        compare: false,
    },
    Definition {
        name: "bookings",
        fold: Fold::Count,
        types: &[NEW],
        try_only: false,
        by_category: false,
        compare: false,
    },
    Definition {
        name: "customers",
        fold: Fold::Customers,
        types: &[NEW],
        try_only: false,
        by_category: false,
        compare: false,
    },
    Definition {
        name: "by_category",
        fold: Fold::Sum,
        types: &[CONFIRMED],
        try_only: false,
        by_category: true,
        compare: false,
    },
    Definition {
        name: "conversion",
        fold: Fold::Conversion,
        types: &[NEW, CONFIRMED],
        try_only: false,
        by_category: false,
        compare: false,
    },
    Definition {
        name: "today",
        fold: Fold::Count,
        types: &[NEW, CONFIRMED],
        try_only: false,
        by_category: false,
        compare: true,
    },
    Definition {
        name: "lately",
        fold: Fold::Sum,
        types: &[CONFIRMED],
        try_only: false,
        by_category: false,
        compare: true,
    },
];

/// Names of the metrics that must be there.
pub fn names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|definition| definition.name)
}

/// A number's text as a whole number of 10⁻¹²; `None` when it is no plain decimal of at most twelve places.
pub fn decimal(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > 12 || digits.ends_with('.') {
        return None;
    }
    let part: i128 = format!("{part:0<12}").parse().ok()?;
    Some(sign * (whole.parse::<i128>().ok()? * ONE + part))
}

/// Divides and rounds to `places`, half to even; both and the answer in units of 10⁻¹².
fn divide(of: i128, to: i128, places: u32) -> i128 {
    let unit = 10_i128.pow(places);
    let (scaled, half) = (of * unit * 2, to * 2);
    let floor = scaled.div_euclid(half);
    let twice = (scaled - floor * half) * 2;
    let up = twice > half || (twice == half && floor % 2 != 0);
    (floor + i128::from(up)) * (ONE / unit)
}

fn amount(event: &Value) -> Option<i128> {
    match &event["data"]["amount"] {
        Value::Number(number) => decimal(&number.to_string()),
        Value::String(text) => decimal(text),
        _ => None,
    }
}

/// Value and number of events of one metric over some events; `None` for an empty sum.
fn fold(definition: &Definition, events: &[&Value]) -> (Option<i128>, u64) {
    let count = |n: usize| i128::try_from(n).unwrap_or(0) * ONE;
    match definition.fold {
        Fold::Count => (Some(count(events.len())), events.len() as u64),
        Fold::Sum => {
            let amounts: Vec<i128> = events.iter().filter_map(|event| amount(event)).collect();
            (
                (!amounts.is_empty()).then(|| amounts.iter().sum()),
                amounts.len() as u64,
            )
        }
        Fold::Customers => {
            let known = events.iter().filter(|event| !event["data"]["customer"].is_null());
            let names: Vec<String> = known.map(|event| event["data"]["customer"].to_string()).collect();
            (
                Some(count(names.iter().collect::<BTreeSet<_>>().len())),
                names.len() as u64,
            )
        }
        Fold::Conversion => {
            let of = events.iter().filter(|event| event["type"] == CONFIRMED).count();
            let to = events.len() - of;
            (
                (to > 0).then(|| divide(count(of), count(to), 4)),
                events.len() as u64,
            )
        }
    }
}

/// Compares one update with the events. Answers what differs, in words.
fn check(definition: &Definition, update: &Value, events: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let micros = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(Timestamp::as_microsecond)
    };
    let (start, end) = (
        micros(&update["window"]["start"]),
        micros(&update["window"]["end"]),
    );
    let category = update["group"].as_array().and_then(|group| group.first());
    let inside = |from: Option<i64>, to: Option<i64>| -> Vec<&Value> {
        let of_metric = events.iter().filter(|event| {
            let kind = definition.types.iter().any(|kind| event["type"] == **kind);
            let currency = !definition.try_only || event["data"]["currency"] == "TRY";
            let group = !definition.by_category
                || category.is_some_and(|category| event["data"]["category"] == *category);
            kind && currency && group
        });
        of_metric
            .filter(|event| {
                let at = micros(&event["time"]).unwrap_or(i64::MIN);
                from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to)
            })
            .collect()
    };
    let text = |value: &Value| value.as_str().and_then(decimal);
    let mut expect = |what: &str, got: Option<i128>, want: Option<i128>| {
        if got != want {
            let name = definition.name;
            wrong.push(format!(
                "{name} {}: {what} is {got:?}, must be {want:?} (10⁻¹²): {update}",
                update["group"]
            ));
        }
    };
    let (value, count) = fold(definition, &inside(start, end));
    expect("value", text(&update["value"]), value);
    expect(
        "events",
        update["events"].as_i64().map(i128::from),
        Some(i128::from(count)),
    );
    if let (true, Some(start), Some(end)) = (definition.compare, start, end) {
        let before = inside(Some(previous_start(definition, start, end)), Some(start));
        let (previous, folded) = fold(definition, &before);
        let previous = previous.filter(|_| folded > 0);
        expect("previous", text(&update["previous"]), previous);
        let change = value.zip(previous).map(|(value, previous)| value - previous);
        expect("change", text(&update["change"]), change);
        let percent = change.zip(previous.filter(|previous| *previous != 0));
        let percent = percent.map(|(change, previous)| divide(change * 100, previous.abs(), 2));
        expect("change_percent", text(&update["change_percent"]), percent);
        let direction = change.map(i128::signum);
        let said = update["direction"].as_str().map(|word| match word {
            "up" => 1,
            "down" => -1,
            _ => 0,
        });
        expect("direction", said, direction);
    }
    if let (true, Some(start), Some(end)) = (definition.name == "lately", start, end) {
        // The 24 equal parts of the window, oldest first.
        let part = (end - start) / 24;
        for (index, got) in update["sparkline"].as_array().into_iter().flatten().enumerate() {
            let from = start + part * i64::try_from(index).unwrap_or(0);
            expect(
                &format!("sparkline[{index}]"),
                text(got),
                fold(definition, &inside(Some(from), Some(from + part))).0,
            );
        }
        expect(
            "sparkline",
            update["sparkline"].as_array().map(|all| all.len() as i128),
            Some(24),
        );
    }
    wrong
}

/// Where the window before began. Days of Istanbul have had 24 hours since 2016.
fn previous_start(_: &Definition, start: i64, end: i64) -> i64 {
    start - (end - start)
}

/// Compares every value of the dashboard's room with the events. Answers what differs; empty is the promise.
pub fn differences(state: &[Value], events: &[Value]) -> Vec<String> {
    let updates: Vec<&Value> = state
        .iter()
        .filter(|event| event["type"] == "metric.updated")
        .collect();
    let mut wrong = Vec::new();
    for definition in &DEFINITIONS {
        let of_metric: Vec<&Value> = updates
            .iter()
            .map(|event| &event["data"])
            .filter(|data| data["metric"] == definition.name)
            .collect();
        if of_metric.is_empty() {
            wrong.push(format!("{} is not there", definition.name));
        }
        for update in &of_metric {
            wrong.extend(check(definition, update, events));
        }
        if definition.by_category {
            let said: BTreeSet<String> = of_metric
                .iter()
                .map(|update| update["group"].to_string())
                .collect();
            let confirmed = events
                .iter()
                .filter(|event| event["type"] == CONFIRMED && amount(event).is_some());
            let want: BTreeSet<String> = confirmed
                .map(|event| format!("[{}]", event["data"]["category"]))
                .collect();
            if said != want {
                wrong.push(format!("groups are {said:?}, must be {want:?}"));
            }
        }
    }
    wrong
}

/// The values by key, as text, for comparing two gateways.
pub fn by_key(state: &[Value]) -> BTreeMap<String, String> {
    let updates = state.iter().filter(|event| event["type"] == "metric.updated");
    updates
        .map(|event| {
            (
                event["statekey"].as_str().unwrap_or_default().to_owned(),
                event.to_string(),
            )
        })
        .collect()
}

mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        let rows = [
            ("0", Some(0)),
            ("12.5", Some(12_500_000_000_000)),
            ("-0.000000000001", Some(-1)),
            ("0.1", Some(100_000_000_000)),
            ("0.1234567890123", None),
            ("1e3", None),
            ("1.", None),
            (".5", None),
            ("", None),
            ("abc", None),
        ];
        for (text, expected) in rows {
            assert_eq!(decimal(text), expected, "{text}");
        }
        for (of, to, places, expected) in [
            (1, 3, 4, "0.3333"),
            (2, 3, 4, "0.6667"),
            (1, 8, 2, "0.12"),
            (3, 8, 2, "0.38"),
            (-1, 8, 2, "-0.12"),
        ] {
            assert_eq!(
                divide(of * ONE, to * ONE, places),
                decimal(expected).unwrap(),
                "{of}/{to}"
            );
        }
    }

    /// The checker is checked: a number that is off by the least, a lost group, a missing metric are found.
    #[test]
    fn a_wrong_number_is_found() {
        let event = |kind: &str, amount: Value, category: &str| {
            json!({ "type": kind, "time": "2026-01-01T10:00:00Z",
                "data": { "amount": amount, "currency": "TRY", "category": category, "customer": "a" } })
        };
        let events = [
            event(NEW, json!(1), "car"),
            event(CONFIRMED, json!(10.25), "car"),
            event(CONFIRMED, json!("0.000000000001"), "tour"),
        ];
        let update = |metric: &str, group: Value, value: &str, count: u64| {
            json!({ "type": "metric.updated", "data": { "metric": metric, "group": group, "window": { "start": null, "end": null },
                "value": value, "events": count } })
        };
        let windowed = |metric: &str, start: &str, end: &str, value: &str, count: u64| {
            let mut made = update(metric, json!([]), value, count);
            made["data"]["window"] = json!({ "start": start, "end": end });
            made["data"]["sparkline"] = json!(vec![Value::Null; 24]);
            made["data"]["sparkline"][0] = json!(value);
            made
        };
        let good = vec![
            update("revenue", json!([]), "10.250000000001", 2),
            update("bookings", json!([]), "1", 1),
            update("customers", json!([]), "1", 1),
            update("by_category", json!(["car"]), "10.25", 1),
            update("by_category", json!(["tour"]), "0.000000000001", 1),
            update("conversion", json!([]), "2", 3),
            windowed("today", "2025-12-31T21:00:00Z", "2026-01-01T21:00:00Z", "3", 3),
            windowed(
                "lately",
                "2026-01-01T10:00:00Z",
                "2026-01-01T10:02:00Z",
                "10.250000000001",
                2,
            ),
        ];
        assert_eq!(differences(&good, &events), Vec::<String>::new());
        for spoilt in 0..good.len() {
            let mut state = good.clone();
            state.remove(spoilt);
            assert!(
                !differences(&state, &events).is_empty(),
                "without {}",
                good[spoilt]
            );
            let mut state = good.clone();
            state[spoilt]["data"]["value"] = json!("10.250000000002");
            assert!(!differences(&state, &events).is_empty(), "{}", state[spoilt]);
            let mut state = good.clone();
            state[spoilt]["data"]["events"] = json!(7);
            assert!(!differences(&state, &events).is_empty(), "{}", state[spoilt]);
        }
        assert!(!differences(&good, &events[..2]).is_empty(), "an event less");
    }
}
