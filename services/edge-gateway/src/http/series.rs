//! Metrics of a room: which there are, and the windows of one.
//!
//! Both are read from the room's state, one cut with the cursor they carry: whoever subscribes with it goes on without a hole. What a
//! window says is its update as the aggregator wrote it, redacted as everything else. Of a metric with many groups only the largest are
//! state; one group that is asked for by name is also asked of the aggregator that works the metric.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Uri};
use roomcast_access::{Subscribe, redact};
use roomcast_proto::event::{View, micros_of_rfc3339};
use roomcast_proto::ids::Room;
use roomcast_proto::metric::{Group, STATUS, Span, UPDATED};
use roomcast_proto::refusal::Refusal;
use roomcast_proto::series::{Answer, Question};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answered::{close, finish, open, unavailable};
use super::asked::{admit, allow_one, bad, parameter, subscribe, unchanged};
use super::{Desk, unix_millis};
use crate::allowance::Operation;
use crate::gate::Admitted;
use crate::hub::Snapshot;

/// Most instants of one question.
const POINTS_MAX: i64 = 1_500;

/// The name of a metric, from a path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) async fn list(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let (mut admitted, permit, found) = room_state(&desk, &uri, &headers).await?;
        unchanged(&desk, &mut admitted)?;
        let bodies = bodies(&found, &permit);
        let mut body = open(&desk, &permit, found.cursor);
        put(&mut body, "metrics", &statuses(&bodies));
        Ok(close(body))
    })
    .await
}

pub(super) async fn series(State(desk): State<Desk>, name: Name, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let name = name.map_or_else(|_| String::new(), |Path(name)| name);
        let wanted = Wanted::read(&name, &uri)?;
        let (mut admitted, permit, found) = room_state(&desk, &uri, &headers).await?;
        let mut bodies = bodies(&found, &permit);
        if let Some(group) = wanted.group.as_deref().filter(|group| !group.is_empty()) {
            let told = beyond(&desk, &permit, &bodies, &name, group).await?;
            bodies.extend(told);
        }
        unchanged(&desk, &mut admitted)?;
        let mut body = open(&desk, &permit, found.cursor);
        let metric = serde_json::to_string(&name).unwrap_or_default();
        body.put_slice(format!(",\"metric\":{metric}").as_bytes());
        put(&mut body, "windows", &windows(&bodies, &wanted));
        Ok(close(body))
    })
    .await
}

/// The state of the room that the query names, for whoever may see it; who that is, to be decided about again before anything is told.
async fn room_state(
    desk: &Desk,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Admitted, Subscribe, Snapshot), Refusal> {
    let admitted = admit(desk, headers)?;
    allow_one(desk, &admitted, Operation::Read)?;
    let room = parameter(uri, "room")?.ok_or_else(|| bad("expected ?room=<room>"))?;
    let permit = subscribe(
        desk,
        &admitted,
        Room::parse(&room).map_err(|_| Refusal::forbidden())?,
    )?;
    let found = desk.hub.state_async(&permit, unix_millis).await;
    Ok((admitted, permit, found.map_err(|_| unavailable())?))
}

/// The windows of a group as its aggregator has them, whether or not they are state, for whoever sees them. Asked is only about a metric
/// that the user sees in the room: one that is hidden from them is answered like one that is not there.
///
/// # Errors
/// `unavailable` where nobody knows and nothing of the group is state.
async fn beyond(
    desk: &Desk,
    permit: &Subscribe,
    bodies: &[Bytes],
    metric: &str,
    group: &str,
) -> Result<Vec<Bytes>, Refusal> {
    let of_metric = |data: &RawValue| named(data).is_some_and(|name| name == metric);
    if !of_kind(bodies, STATUS).any(of_metric) {
        return Ok(Vec::new());
    }
    let question = Question {
        metric: metric.to_owned(),
        room: permit.room().clone(),
        group: group.to_owned(),
    };
    match desk.asking.series(permit.tenant(), &question).await {
        Some(Answer::Windows { audience, events }) => {
            let audience = desk.hub.audience(audience.as_str());
            if !audience.is_some_and(|audience| permit.audiences().contains(audience)) {
                return Ok(Vec::new());
            }
            // What is state holds: it belongs to the cursor.
            let known: HashSet<String> = bodies.iter().filter_map(|body| key_of(body)).collect();
            let events = events.iter().map(|event| event.get().as_bytes());
            let new = events.filter(|event| key_of(event).is_some_and(|key| !known.contains(&key)));
            Ok(new.filter_map(|event| redacted(event, permit)).collect())
        }
        Some(Answer::Absent {}) => Ok(Vec::new()),
        Some(Answer::Behind {}) | None => {
            let is_it = |data: &RawValue| {
                let update = serde_json::from_str::<Update>(data.get());
                update.is_ok_and(|update| update.metric == metric && update.group.key() == group)
            };
            match of_kind(bodies, UPDATED).any(is_it) {
                true => Ok(Vec::new()),
                false => Err(unavailable()),
            }
        }
    }
}

/// An event as the holder of a permit sees it; `None` where it cannot be read.
fn redacted(event: &[u8], permit: &Subscribe) -> Option<Bytes> {
    let seen = redact::apply(event, permit.redaction()).ok()?;
    Some(seen.into_owned().into())
}

/// The key of a state event.
fn key_of(event: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed {
        statekey: String,
    }
    Some(serde_json::from_slice::<Keyed>(event).ok()?.statekey)
}

/// The metric that a status or an update is about.
fn named(data: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        metric: String,
    }
    Some(serde_json::from_str::<Named>(data.get()).ok()?.metric)
}

/// The room's values as this user sees them.
fn bodies(found: &Snapshot, permit: &Subscribe) -> Vec<Bytes> {
    let seen = found
        .state
        .iter()
        .filter_map(|delivery| delivery.for_class(permit));
    seen.map(|delivery| delivery.body_bytes()).collect()
}

fn put(body: &mut BytesMut, name: &str, list: &[&RawValue]) {
    body.put_slice(format!(",\"{name}\":[").as_bytes());
    for (n, raw) in list.iter().enumerate() {
        if n > 0 {
            body.put_u8(b',');
        }
        body.put_slice(raw.get().as_bytes());
    }
    body.put_u8(b']');
}

/// Which windows of a metric are asked for: those that share an instant with `[from, to)`, of those one a step.
struct Wanted<'a> {
    metric: &'a str,
    from: i64,
    to: i64,
    /// A group as keys name it; none: all of them.
    group: Option<String>,
    /// Only those that contain one of the instants `from`, `from` and a step, and so on, microseconds.
    step: Option<i64>,
}

impl<'a> Wanted<'a> {
    fn read(metric: &'a str, uri: &Uri) -> Result<Self, Refusal> {
        let step = match parameter(uri, "step")? {
            None => None,
            Some(text) => {
                Some(span_of(&text).ok_or_else(|| bad("step is a span such as 30s, 5m, 1h or 1d"))?)
            }
        };
        let (from, to) = (instant(uri, "from")?, instant(uri, "to")?);
        match (from, to, step) {
            (Some(from), Some(to), _) if from > to => return Err(bad("from is after to")),
            (Some(from), Some(to), Some(step)) if to.saturating_sub(from) / step >= POINTS_MAX => {
                return Err(bad(format!("more than {POINTS_MAX} steps from from to to")));
            }
            (Some(_), Some(_), _) | (_, _, None) => {}
            _ => return Err(bad("step needs from and to")),
        }
        Ok(Self {
            metric,
            from: from.unwrap_or(i64::MIN),
            to: to.unwrap_or(i64::MAX),
            group: parameter(uri, "group")?,
            step,
        })
    }

    /// Whether a window is one of those.
    fn has(&self, window: &Range<i64>) -> bool {
        if window.end <= self.from || window.start >= self.to {
            return false;
        }
        self.step.is_none_or(|step| {
            // The first of the instants that is not before the window.
            let steps = window.start.saturating_sub(self.from).max(0);
            let at = self
                .from
                .saturating_add((steps / step + i64::from(steps % step > 0)).saturating_mul(step));
            at < window.end && at < self.to
        })
    }
}

/// An instant that may be asked for.
pub(super) fn instant(uri: &Uri, what: &str) -> Result<Option<i64>, Refusal> {
    match parameter(uri, what)? {
        None => Ok(None),
        Some(text) => match micros_of_rfc3339(&text) {
            Some(at) => Ok(Some(at)),
            None => Err(bad(format!("{what} is an instant such as 2026-01-31T14:05:00Z"))),
        },
    }
}

/// A span of time such as `5m`, in microseconds.
fn span_of(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let count: i64 = text[..digits].parse().ok()?;
    count.checked_mul(unit).filter(|span| *span > 0)
}

/// Whether a value is the update of a metric whose window contains an instant, as its holder sees it.
pub(super) fn contains(body: &[u8], at: i64) -> bool {
    let view = View::parse(body).ok().filter(|view| view.kind == UPDATED);
    let data = view.and_then(|view| view.data);
    let update = data.and_then(|data| serde_json::from_str::<Update>(data.get()).ok());
    update.is_some_and(|update| update.window().contains(&at))
}

/// What has to be known of an update to choose it; redaction may have taken some of it.
#[derive(Deserialize)]
struct Update {
    metric: String,
    group: Group,
    window: Span,
}

impl Update {
    /// Its instants; all there are where it says none.
    fn window(&self) -> Range<i64> {
        let instant = |text: &Option<String>| text.as_deref().and_then(micros_of_rfc3339);
        instant(&self.window.start).unwrap_or(i64::MIN)..instant(&self.window.end).unwrap_or(i64::MAX)
    }
}

/// The statuses of the room's metrics, by name: one for each that is published there.
fn statuses(bodies: &[Bytes]) -> Vec<&RawValue> {
    let found: BTreeMap<String, &RawValue> = of_kind(bodies, STATUS)
        .filter_map(|data| Some((named(data)?, data)))
        .collect();
    found.into_values().collect()
}

/// The windows asked for, the oldest first, then by group.
fn windows<'a>(bodies: &'a [Bytes], wanted: &Wanted<'_>) -> Vec<&'a RawValue> {
    let mut found = BTreeMap::new();
    for data in of_kind(bodies, UPDATED) {
        let Ok(update) = serde_json::from_str::<Update>(data.get()) else {
            continue;
        };
        let window = update.window();
        let group = update.group.key();
        let named = wanted.group.as_ref().is_none_or(|wanted| *wanted == group);
        if update.metric == wanted.metric && wanted.has(&window) && named {
            // A window that is current and closed at once is there twice for a moment: the later of the two holds.
            found.insert((window.start, group, window.end), data);
        }
    }
    found.into_values().collect()
}

fn of_kind<'a>(bodies: &'a [Bytes], kind: &str) -> impl Iterator<Item = &'a RawValue> {
    bodies.iter().filter_map(move |body| {
        let view = View::parse(body).ok()?;
        view.data.filter(|_| view.kind == kind)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn update(metric: &str, group: &Value, day: u32, value: u32) -> Value {
        let window = json!({ "start": format!("2026-06-0{day}T00:00:00Z"), "end": format!("2026-06-0{}T00:00:00Z", day + 1) });
        json!({ "metric": metric, "group": group, "window": window, "value": value.to_string() })
    }

    fn event(kind: &str, data: &Value) -> Bytes {
        let event =
            json!({ "id": "i", "source": "s", "type": kind, "time": "2026-06-01T00:00:00Z", "data": data });
        event.to_string().into()
    }

    #[test]
    fn windows_are_chosen_by_metric_time_and_group() {
        let all = json!([]);
        let mut bodies: Vec<Bytes> = (1..=4)
            .rev()
            .map(|day| event(UPDATED, &update("m", &all, day, day)))
            .collect();
        bodies.extend([
            event(UPDATED, &update("by", &json!(["car"]), 2, 5)),
            event(UPDATED, &update("by", &json!(["a/b", 1]), 2, 6)),
            event(UPDATED, &update("by", &json!("~other"), 2, 7)),
            event(UPDATED, &json!({ "metric": "t", "group": [], "window": { "start": null, "end": null }, "value": "8" })),
            event("another", &update("m", &all, 1, 9)),
            // Redaction left nothing to choose by.
            event(UPDATED, &json!({ "value": "9" })),
            event(UPDATED, &Value::Null),
        ]);
        let day = |day: i64| micros_of_rfc3339("2026-06-01T00:00:00Z").unwrap() + (day - 1) * 86_400_000_000;
        let rows = [
            ("m", i64::MIN, i64::MAX, None, "1 2 3 4"),
            ("m", day(2), day(4), None, "2 3"),
            ("m", day(2) + 1, day(3) + 1, None, "2 3"),
            ("m", day(9), i64::MAX, None, ""),
            ("m", i64::MIN, i64::MAX, Some(""), "1 2 3 4"),
            ("m", i64::MIN, i64::MAX, Some("car"), ""),
            ("by", i64::MIN, i64::MAX, None, "6 5 7"),
            ("by", i64::MIN, i64::MAX, Some("car"), "5"),
            ("by", i64::MIN, i64::MAX, Some("a=2Fb/1"), "6"),
            ("by", i64::MIN, i64::MAX, Some("~other"), "7"),
            ("t", day(9), day(9), None, "8"),
            ("n", i64::MIN, i64::MAX, None, ""),
        ];
        for (metric, from, to, group, expected) in rows {
            let group = group.map(str::to_owned);
            let wanted = Wanted {
                metric,
                from,
                to,
                group,
                step: None,
            };
            let values: Vec<String> = windows(&bodies, &wanted)
                .into_iter()
                .map(|raw| {
                    serde_json::from_str::<Value>(raw.get()).unwrap()["value"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect();
            assert_eq!(
                values.join(" "),
                expected,
                "{metric} {from} {to} {:?}",
                wanted.group
            );
        }
    }

    /// A chart of few points: of windows shorter than the step one for each, of longer ones each once.
    #[test]
    fn a_step_chooses_the_windows_that_contain_its_instants() {
        let hour = |at: i64| at * 3_600_000_000;
        let windows = |length: i64| -> Vec<Bytes> {
            let instant = |at: i64| roomcast_proto::event::rfc3339(hour(at));
            (0..24 / length)
                .map(|n| {
                    let window = json!({ "start": instant(n * length), "end": instant((n + 1) * length) });
                    event(UPDATED, &json!({ "metric": "m", "group": [], "window": window, "value": (n * length).to_string() }))
                })
                .collect()
        };
        for (length, from, to, step, expected) in [
            (1, hour(0), hour(24), hour(6), "0 6 12 18"),
            (1, hour(1), hour(13), hour(6), "1 7"),
            (1, hour(1), hour(13) + 1, hour(6), "1 7 13"),
            (1, hour(1) + 1, hour(14), hour(6), "1 7 13"),
            (6, hour(0), hour(24), hour(1), "0 6 12 18"),
            (6, hour(5), hour(8), hour(1), "0 6"),
            (6, hour(5), hour(8), hour(2), "0 6"),
            (4, hour(-9), hour(24), hour(11), "0 12"),
            (4, hour(3), hour(3), hour(11), ""),
        ] {
            let bodies = windows(length);
            let wanted = Wanted {
                metric: "m",
                from,
                to,
                group: None,
                step: Some(step),
            };
            let found = super::windows(&bodies, &wanted);
            let values: Vec<Value> = found
                .iter()
                .map(|raw| serde_json::from_str(raw.get()).unwrap())
                .collect();
            let values: Vec<&str> = values
                .iter()
                .map(|value| value["value"].as_str().unwrap())
                .collect();
            assert_eq!(values.join(" "), expected, "{length} {from} {to} {step}");
        }
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let all = "from=2026-06-01T00:00:00Z&to=2026-06-02T00:00:00Z";
        for (query, expected) in [
            (String::new(), Some(None)),
            (all.to_owned(), Some(None)),
            (format!("{all}&step=1h"), Some(Some(3_600_000_000))),
            (format!("{all}&step=1500s"), Some(Some(1_500_000_000))),
            (format!("{all}&step=57s"), None),
            (format!("{all}&step=0m"), None),
            (format!("{all}&step=1w"), None),
            (format!("{all}&step=h"), None),
            (format!("{all}&step=99999999999999d"), None),
            ("step=1h".to_owned(), None),
            ("step=1h&from=2026-06-01T00:00:00Z".to_owned(), None),
            (
                "from=2026-06-02T00:00:00Z&to=2026-06-01T00:00:00Z".to_owned(),
                None,
            ),
            ("from=yesterday".to_owned(), None),
        ] {
            let uri: Uri = format!("/v1/metrics/m?{query}").parse().unwrap();
            let read = Wanted::read("m", &uri).ok().map(|wanted| wanted.step);
            assert_eq!(read, expected, "{query}");
        }
    }

    #[test]
    fn the_window_that_contains_an_instant_is_found() {
        let day = |day: i64| micros_of_rfc3339("2026-06-01T00:00:00Z").unwrap() + (day - 1) * 86_400_000_000;
        let second = event(UPDATED, &update("m", &json!([]), 2, 1));
        let all = event(
            UPDATED,
            &json!({ "metric": "t", "group": [], "window": { "start": null, "end": null }, "value": "8" }),
        );
        let another = event("another", &update("m", &json!([]), 2, 1));
        for (body, at, expected) in [
            (&second, day(2) - 1, false),
            (&second, day(2), true),
            (&second, day(3) - 1, true),
            (&second, day(3), false),
            (&all, day(9), true),
            (&another, day(2), false),
            (&event(UPDATED, &Value::Null), day(2), false),
        ] {
            assert_eq!(contains(body, at), expected, "{at}");
        }
    }

    #[test]
    fn metrics_are_listed_by_their_statuses() {
        let status = |metric: &str, lag: u32| event(STATUS, &json!({ "metric": metric, "lag": lag }));
        let bodies = [
            status("b", 1),
            event(UPDATED, &update("c", &json!([]), 1, 1)),
            status("a", 2),
        ];
        let names: Vec<&str> = statuses(&bodies).into_iter().map(RawValue::get).collect();
        assert_eq!(names, [r#"{"lag":2,"metric":"a"}"#, r#"{"lag":1,"metric":"b"}"#]);
    }
}
