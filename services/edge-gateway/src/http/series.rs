//! Metrics of a room: which there are, and the windows of one.
//!
//! Both are read from the room's state, one cut with the cursor they carry: whoever subscribes with it goes on without a hole. What a
//! window says is its update as the aggregator wrote it, redacted as everything else.

use std::collections::BTreeMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Uri};
use roomcast_access::Subscribe;
use roomcast_proto::event::{View, micros_of_rfc3339};
use roomcast_proto::ids::Room;
use roomcast_proto::metric::{Group, STATUS, Span, UPDATED};
use roomcast_proto::refusal::Refusal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answered::{close, finish, open, unavailable};
use super::asked::{admit, allow_one, bad, parameter, subscribe};
use super::{Desk, unix_millis};
use crate::allowance::Operation;
use crate::hub::Snapshot;

/// The name of a metric, from a path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) async fn list(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let (permit, found) = room_state(&desk, &uri, &headers).await?;
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
        let instant = |what: &str| match parameter(&uri, what)? {
            None => Ok(None),
            Some(text) => match micros_of_rfc3339(&text) {
                Some(at) => Ok(Some(at)),
                None => Err(bad(format!("{what} is an instant such as 2026-01-31T14:05:00Z"))),
            },
        };
        let wanted = Wanted {
            metric: &name,
            from: instant("from")?.unwrap_or(i64::MIN),
            to: instant("to")?.unwrap_or(i64::MAX),
            group: parameter(&uri, "group")?,
        };
        if wanted.from > wanted.to {
            return Err(bad("from is after to"));
        }
        let (permit, found) = room_state(&desk, &uri, &headers).await?;
        let bodies = bodies(&found, &permit);
        let mut body = open(&desk, &permit, found.cursor);
        let metric = serde_json::to_string(&name).unwrap_or_default();
        body.put_slice(format!(",\"metric\":{metric}").as_bytes());
        put(&mut body, "windows", &windows(&bodies, &wanted));
        Ok(close(body))
    })
    .await
}

/// The state of the room that the query names, for whoever may see it.
async fn room_state(desk: &Desk, uri: &Uri, headers: &HeaderMap) -> Result<(Subscribe, Snapshot), Refusal> {
    let admitted = admit(desk, headers)?;
    allow_one(desk, &admitted, Operation::Read)?;
    let room = parameter(uri, "room")?.ok_or_else(|| bad("expected ?room=<room>"))?;
    let permit = subscribe(&admitted, Room::parse(&room).map_err(|_| Refusal::forbidden())?)?;
    let found = desk.hub.state_async(&permit, unix_millis).await;
    Ok((permit, found.map_err(|_| unavailable())?))
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

/// Which windows of a metric are asked for: those that share an instant with `[from, to)`.
struct Wanted<'a> {
    metric: &'a str,
    from: i64,
    to: i64,
    /// A group as keys name it; none: all of them.
    group: Option<String>,
}

/// What has to be known of an update to choose it; redaction may have taken some of it.
#[derive(Deserialize)]
struct Update {
    metric: String,
    group: Group,
    window: Span,
}

/// The statuses of the room's metrics, by name: one for each that is published there.
fn statuses(bodies: &[Bytes]) -> Vec<&RawValue> {
    #[derive(Deserialize)]
    struct Status {
        metric: String,
    }
    let found: BTreeMap<String, &RawValue> = of_kind(bodies, STATUS)
        .filter_map(|data| Some((serde_json::from_str::<Status>(data.get()).ok()?.metric, data)))
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
        let instant = |text: &Option<String>| text.as_deref().and_then(micros_of_rfc3339);
        let start = instant(&update.window.start);
        let within = instant(&update.window.end).is_none_or(|end| end > wanted.from)
            && start.is_none_or(|start| start < wanted.to);
        let group = update.group.key();
        let named = wanted.group.as_ref().is_none_or(|wanted| *wanted == group);
        if update.metric == wanted.metric && within && named {
            // A window that is current and closed at once is there twice for a moment: the later of the two holds.
            found.insert((start, group, update.window.end), data);
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
