//! The HTTP routes: the same rights and the same words as the sockets.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::Full;
use roomcast_harness::http::Http;
use roomcast_proto::subject::SERIES_ALL;
use serde_json::{Value, json};

use super::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_read_at_one_cut_and_gone_on_with_live() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    for n in 0..5 {
        gateway
            .event("bookings", "all", &format!("e{n}"), json!({}))
            .await;
    }
    gateway
        .event("bookings", "admin", "canary-event", json!({}))
        .await;
    gateway.state("bookings", "all", "k", json!(1)).await;
    gateway.state("bookings", "admin", "canary-key", json!(1)).await;
    let get = |path: String| {
        let (http, url, token) = (http.clone(), format!("{}{path}", gateway.url), token.clone());
        async move { http.get(&url, Some(&token)).await.unwrap() }
    };
    // The spine hands over what was stored within moments.
    let mut snapshot = Value::Null;
    for _ in 0..100 {
        snapshot = get("/v1/rooms/bookings/snapshot?events=3".into()).await.json();
        if snapshot["events"]
            .as_array()
            .is_some_and(|events| events.len() == 3)
            && snapshot["state"] != json!([])
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let seen: Vec<&str> = snapshot["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(seen, ["e2", "e3", "e4"], "{snapshot}");
    assert_eq!(
        (&snapshot["room"], &snapshot["state"][0]["statekey"]),
        (&json!("bookings"), &json!("k"))
    );
    let state = get("/v1/state?room=bookings".into()).await.json();
    assert_eq!(state["state"].as_array().unwrap().len(), 1);
    let page = get("/v1/rooms/bookings/events?limit=2".into()).await.json();
    assert_eq!(
        (&page["events"][1]["event"]["id"], &page["complete"]),
        (&json!("e4"), &json!(false))
    );
    let before = page["cursor"].as_str().unwrap();
    let older = get(format!("/v1/rooms/bookings/events?limit=50&before={before}"))
        .await
        .json();
    assert_eq!(older["events"].as_array().unwrap().len(), 3, "{older}");
    let cursors = [(
        "bookings".to_owned(),
        snapshot["cursor"].as_str().unwrap().to_owned(),
    )]
    .into();
    let (mut client, connected) =
        roomcast_harness::client::Client::connect(&gateway.url, &token, &["bookings"], &cursors)
            .await
            .unwrap();
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    let frames = client.caught_up("bookings").await.unwrap();
    assert_eq!(
        frames.iter().filter(|frame| frame["event"].is_object()).count(),
        0,
        "{frames:?}"
    );
    let all = format!("{snapshot}{state}{page}{older}");
    assert!(!all.contains("canary"), "{all}");
}

/// A group that is not state is asked of the aggregator, which is played here: shown is what the user may see, and nothing is asked about a
/// metric that the user does not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_not_state_is_asked_of_the_aggregator() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let status = "metric.status";
    for (room, audience, name) in [
        ("desk", "all", "m"),
        ("bookings", "admin", "secret"),
        ("bookings", "all", "m"),
    ] {
        let key = format!("status/{name}");
        let data = json!({ "metric": name, "lag": 0 });
        gateway.metric_value(room, audience, &key, status, data).await;
    }
    let window = |group: &str, value: &str| {
        let span = json!({ "start": "2026-06-01T10:00:00Z", "end": "2026-06-01T11:00:00Z" });
        json!({ "metric": "m", "group": [group], "window": span, "value": value })
    };
    gateway
        .metric_value("bookings", "all", "m/car", "metric.updated", window("car", "1"))
        .await;
    let answer = |path: &str| {
        let (http, url, token) = (http.clone(), format!("{}{path}", gateway.url), token.clone());
        async move { http.get(&url, Some(&token)).await.unwrap() }
    };
    let mut listed = Value::Null;
    for _ in 0..1_000 {
        listed = answer("/v1/metrics/m?room=bookings").await.json();
        if listed["windows"] == json!([window("car", "1")]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(listed["windows"], json!([window("car", "1")]));

    // Nobody is there: what is state is answered, and else that nobody knows.
    let of = |group: &str| format!("/v1/metrics/m?room=bookings&group={group}");
    let car = answer(&of("car")).await;
    assert_eq!(car.json()["windows"], json!([window("car", "1")]));
    let tour = answer(&of("tour")).await;
    assert_eq!(
        (tour.status, tour.json()["code"].clone()),
        (503, json!("unavailable"))
    );

    let asked = Arc::new(Mutex::new(Vec::<Value>::new()));
    let aggregator = gateway.nats.connect("agg").await;
    let mut questions = aggregator.subscribe(SERIES_ALL).await.unwrap();
    aggregator.flush().await.unwrap();
    let heard = Arc::clone(&asked);
    let event = move |group: &str, value: &str| {
        let mut data = window(group, value);
        data["amount"] = json!("9");
        json!({ "specversion": "1.0", "id": "i", "source": "s", "type": "metric.updated", "time": "2026-06-01T10:00:00Z", "statekey": format!("m/{group}"), "data": data })
    };
    let playing = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let said: Value = serde_json::from_slice(&question.payload).unwrap();
            let group = said["group"].as_str().unwrap().to_owned();
            heard.lock().unwrap().push(said);
            let audience = if group == "hidden" { "admin" } else { "all" };
            let answer = match group.as_str() {
                "gone" => json!({ "absent": {} }),
                "late" => json!({ "behind": {} }),
                // Older than what is state.
                "car" => json!({ "windows": { "audience": audience, "events": [event("car", "0")] } }),
                _ => json!({ "windows": { "audience": audience, "events": [event(&group, "2")] } }),
            };
            let reply = question.reply.unwrap();
            aggregator
                .publish(reply, answer.to_string().into())
                .await
                .unwrap();
        }
    });
    let tour = json!([{ "metric": "m", "group": ["tour"], "window": { "start": "2026-06-01T10:00:00Z", "end": "2026-06-01T11:00:00Z" }, "value": "2", "amount": "9" }]);
    let mut found = Value::Null;
    // The server needs a moment until it sends questions there.
    for _ in 0..1_000 {
        found = answer(&of("tour")).await.json();
        if found["windows"] == tour {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(found["windows"], tour);
    for (path, expected) in [
        (of("car"), json!("1")),
        (of("hidden"), Value::Null),
        (of("gone"), Value::Null),
        (format!("{}&to=2026-06-01T10:00:00Z", of("tour")), Value::Null),
        (format!("{}&from=2026-06-01T10:30:00Z", of("tour")), json!("2")),
        (
            "/v1/metrics/secret?room=bookings&group=tour".to_owned(),
            Value::Null,
        ),
        (
            "/v1/metrics/absent?room=bookings&group=tour".to_owned(),
            Value::Null,
        ),
    ] {
        let answer = answer(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["windows"][0]["value"], expected, "{path}");
    }
    assert_eq!(answer(&of("late")).await.status, 503);
    // Taken out as from everything in that room.
    let desk = answer("/v1/metrics/m?room=desk&group=tour").await.json();
    assert_eq!(
        (&desk["windows"][0]["value"], &desk["windows"][0]["amount"]),
        (&json!("2"), &Value::Null)
    );
    playing.abort();
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|question| question["metric"] == "m"),
        "{asked:?}"
    );
}

/// A chart loads its past and goes on live: the windows that are read and those that follow are all there are, none of them hidden.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_is_read_at_one_cut_and_gone_on_with_live() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let window = |hour: u32, value: &str| {
        let span = json!({ "start": format!("2026-06-01T{hour:02}:00:00Z"), "end": format!("2026-06-01T{:02}:00:00Z", hour + 1) });
        json!({ "metric": "m", "group": [], "window": span, "value": value })
    };
    let (updated, status) = ("metric.updated", "metric.status");
    gateway
        .metric_value(
            "bookings",
            "all",
            "m@2026-06-01T10:00:00Z",
            updated,
            window(10, "1"),
        )
        .await;
    gateway
        .metric_value(
            "bookings",
            "all",
            "m@2026-06-01T11:00:00Z",
            updated,
            window(11, "2"),
        )
        .await;
    gateway
        .metric_value("bookings", "admin", "canary", updated, window(11, "canary"))
        .await;
    gateway
        .metric_value(
            "bookings",
            "admin",
            "status/secret",
            status,
            json!({ "metric": "canary" }),
        )
        .await;
    gateway
        .metric_value(
            "bookings",
            "all",
            "status/m",
            status,
            json!({ "metric": "m", "lag": 0 }),
        )
        .await;
    gateway
        .metric_value("bookings", "all", "m", updated, window(12, "3"))
        .await;
    let get = |path: &str| {
        let (http, url, token) = (http.clone(), format!("{}{path}", gateway.url), token.clone());
        async move { http.get(&url, Some(&token)).await.unwrap().json() }
    };
    let values = |answer: &Value| -> Vec<String> {
        let windows = answer["windows"].as_array().unwrap();
        windows
            .iter()
            .map(|window| window["value"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut series = Value::Null;
    // The spine hands over what was stored within moments.
    for _ in 0..1_000 {
        series = get("/v1/metrics/m?room=bookings").await;
        if values(&series).len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(values(&series), ["1", "2", "3"], "{series}");
    let later = get("/v1/metrics/m?room=bookings&from=2026-06-01T12:00:00Z&group=").await;
    assert_eq!(values(&later), ["3"]);
    let span = "from=2026-06-01T10:00:00Z&to=2026-06-01T13:00:00Z";
    let sampled = get(&format!("/v1/metrics/m?room=bookings&step=2h&{span}")).await;
    assert_eq!(values(&sampled), ["1", "3"]);
    let then = get("/v1/state?room=bookings&at=2026-06-01T11:30:00Z").await;
    assert_eq!(then["state"].as_array().unwrap().len(), 1, "{then}");
    assert_eq!(then["state"][0]["data"]["value"], "2", "{then}");
    let list = get("/v1/metrics?room=bookings").await;
    assert_eq!(list["metrics"], json!([{ "metric": "m", "lag": 0 }]));
    let absent = get("/v1/metrics/absent?room=bookings").await;
    assert_eq!(absent["windows"], json!([]));
    let cursors = [(
        "bookings".to_owned(),
        series["cursor"].as_str().unwrap().to_owned(),
    )]
    .into();
    gateway
        .metric_value("bookings", "all", "m", updated, window(12, "4"))
        .await;
    let (mut client, _) =
        roomcast_harness::client::Client::connect(&gateway.url, &token, &["bookings"], &cursors)
            .await
            .unwrap();
    let mut frames = client.caught_up("bookings").await.unwrap();
    while frames.iter().all(|frame| !frame["event"].is_object()) {
        frames.push(
            client
                .next(std::time::Duration::from_secs(20))
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let values: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame["event"].is_object())
        .map(|frame| &frame["event"]["event"]["data"]["value"])
        .collect();
    assert_eq!(values, ["4"], "what was read does not come again");
    let all = format!("{series}{later}{sampled}{then}{list}{absent}{frames:?}");
    assert!(!all.contains("canary"), "{all}");
}

/// While windows close one after the other, a chart loads its past and goes on live: it has each of them once, wherever the cut was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_that_loads_while_numbers_move_has_each_window_once() {
    const WINDOWS: i64 = 120;
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let start = |n: i64| roomcast_proto::event::rfc3339(1_780_272_000_000_000 + n * 60_000_000);
    let publishing = async {
        for n in 0..WINDOWS {
            let window = json!({ "start": start(n), "end": start(n + 1) });
            let data = json!({ "metric": "m", "group": [], "window": window, "value": n.to_string() });
            let key = format!("m@{}", start(n));
            gateway
                .metric_value("bookings", "all", &key, "metric.updated", data)
                .await;
        }
    };
    let number = |data: &Value| data["value"].as_str().unwrap().parse::<i64>().unwrap();
    let chart = |after: usize| {
        let (http, token, url) = (http.clone(), token.clone(), gateway.url.clone());
        async move {
            let mut have: Vec<i64>;
            let series = loop {
                let series = http
                    .get(&format!("{url}/v1/metrics/m?room=bookings"), Some(&token))
                    .await
                    .unwrap()
                    .json();
                // Who asks too often is told so, and asks again.
                assert!(
                    series["windows"].is_array() || series["code"] == "rate",
                    "{series}"
                );
                if let Some(windows) = series["windows"].as_array() {
                    have = windows.iter().map(number).collect();
                    if have.len() >= after {
                        break series;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            };
            let cursors = [(
                "bookings".to_owned(),
                series["cursor"].as_str().unwrap().to_owned(),
            )]
            .into();
            let (mut client, _) =
                roomcast_harness::client::Client::connect(&url, &token, &["bookings"], &cursors)
                    .await
                    .unwrap();
            let mut frames = client.caught_up("bookings").await.unwrap();
            loop {
                let values = frames.iter().map(|frame| &frame["event"]["event"]["data"]);
                have.extend(values.filter(|data| data["metric"] == "m").map(number));
                if have.contains(&(WINDOWS - 1)) {
                    break;
                }
                let next = client.next(std::time::Duration::from_secs(20)).await;
                frames = vec![next.unwrap().unwrap()];
            }
            have.sort_unstable();
            assert_eq!(have, (0..WINDOWS).collect::<Vec<_>>(), "loaded after {after}");
        }
    };
    tokio::join!(publishing, chart(0), chart(1), chart(30), chart(100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_problems_and_forbidden_is_one_answer() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let rows = [
        ("/v1/rooms/bookings/snapshot", None, 401, "unauthenticated"),
        (
            "/v1/rooms/bookings/snapshot",
            Some("nonsense"),
            401,
            "unauthenticated",
        ),
        ("/v1/state", Some(&*token), 400, "bad_request"),
        (
            "/v1/rooms/bookings/snapshot?events=301",
            Some(&*token),
            400,
            "bad_request",
        ),
        (
            "/v1/rooms/bookings/snapshot?events=x",
            Some(&*token),
            400,
            "bad_request",
        ),
        (
            "/v1/rooms/bookings/events?limit=0",
            Some(&*token),
            400,
            "bad_request",
        ),
        (
            "/v1/rooms/bookings/events?before=x",
            Some(&*token),
            400,
            "bad_request",
        ),
        (
            "/v1/rooms/bookings/snapshot?token=x",
            Some(&*token),
            400,
            "bad_request",
        ),
        ("/v1/metrics", Some(&*token), 400, "bad_request"),
        (
            "/v1/metrics/m?room=bookings&from=today",
            Some(&*token),
            400,
            "bad_request",
        ),
        ("/v1/metrics?room=bookings", None, 401, "unauthenticated"),
        ("/v1/metrics/m?room=bookings", None, 401, "unauthenticated"),
        ("/v1/nothing", Some(&*token), 404, "not_found"),
        ("/nothing", None, 404, "not_found"),
        ("/page.json", None, 404, "not_found"),
    ];
    for (path, token, status, code) in rows {
        let answer = http.get(&format!("{}{path}", gateway.url), token).await.unwrap();
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
    }
    let mut forbidden = Vec::new();
    for room in [
        "money",
        "absent",
        "user.u2",
        "%2A",
        "%3E",
        "a%2Eb%00",
        "a%20b",
        "%ff",
        "..%2f..",
        "bookings.%2A",
    ] {
        for path in [
            format!("/v1/rooms/{room}/snapshot"),
            format!("/v1/rooms/{room}/events"),
            format!("/v1/state?room={room}"),
            format!("/v1/metrics?room={room}"),
            format!("/v1/metrics/m?room={room}"),
        ] {
            let answer = http
                .get(&format!("{}{path}", gateway.url), Some(&token))
                .await
                .unwrap();
            // A state request whose room is not even text is a bad request; that says nothing about rooms.
            if !(room == "%ff" && path.contains("?room=")) {
                forbidden.push((answer.status, answer.text()));
            }
        }
    }
    forbidden.dedup();
    assert_eq!(forbidden.len(), 1, "{forbidden:?}");
    assert_eq!(forbidden[0].0, 403);
    // Percent-encoding is undone once.
    let encoded = http
        .get(
            &format!("{}/v1/rooms/%62ookings/snapshot", gateway.url),
            Some(&token),
        )
        .await
        .unwrap();
    assert_eq!(encoded.json()["room"], "bookings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_and_methods_are_checked_and_the_page_is_there() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let ask = |method: &str, path: &str, origin: Option<&str>, preflight: bool| {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", gateway.url));
        request = request.header("authorization", format!("Bearer {token}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if preflight {
            request = request.header("access-control-request-method", "GET");
        }
        let (http, request) = (http.clone(), request.body(Full::<Bytes>::default()).unwrap());
        async move { http.send(request).await.unwrap() }
    };
    let path = "/v1/state?room=bookings";
    let good = ask("GET", path, Some("https://desk.example"), false).await;
    assert_eq!(
        (good.status, good.header("access-control-allow-origin")),
        (200, Some("https://desk.example"))
    );
    assert_eq!(
        (
            good.header("cache-control"),
            good.header("x-content-type-options")
        ),
        (Some("no-store"), Some("nosniff"))
    );
    let preflight = ask("OPTIONS", path, Some("https://desk.example"), true).await;
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-headers")),
        (
            204,
            Some("authorization, content-type, if-none-match, last-event-id")
        )
    );
    for origin in ["null", "https://evil.example"] {
        for (method, preflight) in [("GET", false), ("OPTIONS", true)] {
            let bad = ask(method, path, Some(origin), preflight).await;
            assert_eq!(
                (bad.status, bad.header("access-control-allow-origin")),
                (403, None),
                "{method} {origin}"
            );
        }
    }
    // What GET would say of a length: of a stream, nothing.
    for (path, length) in [(path, true), ("/v1/sse?room=bookings", false)] {
        let head = ask("HEAD", path, None, false).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length").is_some(), length, "{path}");
    }
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(ask(method, path, None, false).await.status, 405, "{method}");
        assert_eq!(ask(method, "/", None, false).await.status, 405, "{method}");
    }
    let page = http.get(&gateway.url, None).await.unwrap();
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.contains("frame-ancestors 'none'"))
    );
}
