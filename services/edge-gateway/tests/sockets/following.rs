//! Requests that follow rooms: what is wrong with them is said the same way on streams and polls.

use bytes::Bytes;
use http_body_util::Full;
use roomcast_harness::http::{Answer, Http};
use roomcast_harness::stream::Stream;

use serde_json::json;

use super::Gateway;

type Headers<'a> = &'a [(&'a str, &'a str)];

struct Asker {
    http: Http,
    url: String,
    token: String,
}

impl Asker {
    /// `headers` are those beside a good token; an `authorization` among them replaces it.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if headers.iter().all(|(name, _)| *name != "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        self.http
            .send(request.body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_with_problems() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let asker = Asker {
        http: Http::default(),
        url: gateway.url.clone(),
        token: gateway.signer.token("u1", &["staff"]),
    };
    let many = (0..200)
        .map(|n| format!("room=r{n}"))
        .collect::<Vec<_>>()
        .join("&");
    let long = format!("room={}", "a".repeat(5_000));
    let huge = "9".repeat(17_000);
    let rows: [(&str, Headers<'_>, u16, &str); 20] = [
        ("room=bookings", &[("authorization", "")], 401, "unauthenticated"),
        (
            "room=bookings",
            &[("authorization", "Bearer nonsense")],
            401,
            "unauthenticated",
        ),
        (
            "room=bookings",
            &[("authorization", "Basic dTpw")],
            400,
            "bad_request",
        ),
        ("room=bookings&token=x", &[], 400, "bad_request"),
        (
            "room=bookings&access_token=x",
            &[("authorization", "")],
            400,
            "bad_request",
        ),
        ("room=bookings&x=eyJhbGciOi.eyJz.c2ln", &[], 400, "bad_request"),
        ("room=bookings&cursor=1&cursor=2", &[], 400, "bad_request"),
        (
            "room=bookings&room=desk&cursor=1&cursor=2&cursor=3",
            &[],
            400,
            "bad_request",
        ),
        ("room=bookings&room=%ff", &[], 400, "bad_request"),
        (&many, &[], 429, "limit"),
        (&long, &[], 431, "headers_too_large"),
        ("room=money", &[], 403, "forbidden"),
        ("room=absent", &[], 403, "forbidden"),
        ("room=user.u2", &[], 403, "forbidden"),
        ("room=%2A", &[], 403, "forbidden"),
        ("room=", &[], 403, "forbidden"),
        ("room=money&room=absent&room=%3E", &[], 403, "forbidden"),
        (
            "room=bookings",
            &[("origin", "https://evil.example")],
            403,
            "bad_origin",
        ),
        ("room=bookings", &[("origin", "null")], 403, "bad_origin"),
        (
            "room=bookings",
            &[("last-event-id", "a"), ("last-event-id", "b")],
            400,
            "bad_request",
        ),
    ];
    let mut forbidden = Vec::new();
    for (query, headers, status, code) in rows {
        for route in ["sse", "poll"] {
            let answer = asker.ask("GET", &format!("/v1/{route}?{query}"), headers).await;
            let shown: String = query.chars().take(60).collect();
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (status, Some(code)),
                "{route} {shown} {headers:?}: {}",
                answer.text()
            );
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            if code == "forbidden" {
                let mut headers = answer.headers.clone();
                headers.remove("date");
                forbidden.push(format!("{headers:?} {}", answer.text()));
            }
        }
    }
    forbidden.dedup();
    assert_eq!(
        forbidden.len(),
        1,
        "absent and forbidden are one answer: {forbidden:?}"
    );
    for wait in ["x", "-1", "26", "1.5", "", "99999999999999999999"] {
        let answer = asker
            .ask("GET", &format!("/v1/poll?room=bookings&wait={wait}"), &[])
            .await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("bad_request")),
            "{wait}"
        );
    }
    // Beyond the limit of a head nobody reads on.
    let answer = asker
        .ask("GET", "/v1/sse?room=bookings", &[("last-event-id", &huge)])
        .await;
    assert_eq!(answer.status, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_says_what_it_can_do() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let asker = Asker {
        http: Http::default(),
        url: gateway.url.clone(),
        token: gateway.signer.token("u1", &["staff"]),
    };
    let page = ("origin", "https://desk.example");
    gateway.event("bookings", "all", "one", json!({})).await;
    for route in [
        "sse",
        "poll",
        "state",
        "rooms/bookings/events",
        "rooms/bookings/snapshot",
    ] {
        let path = format!("/v1/{route}?room=bookings&wait=0");
        let head = asker.ask("HEAD", &path, &[page]).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{route}");
        assert_eq!(
            head.header("access-control-allow-origin"),
            Some("https://desk.example"),
            "{route}"
        );
        assert_eq!(head.header("vary"), Some("origin"), "{route}");
        let asked = ("access-control-request-method", "GET");
        let preflight = asker
            .ask("OPTIONS", &path, &[page, asked, ("authorization", "")])
            .await;
        let granted = (
            preflight.status,
            preflight.header("access-control-allow-methods"),
            preflight.header("access-control-allow-headers"),
        );
        let headers = "authorization, content-type, if-none-match, last-event-id";
        assert_eq!(granted, (204, Some("GET"), Some(headers)), "{route}");
        let options = asker.ask("OPTIONS", &path, &[("authorization", "")]).await;
        let told = (
            options.status,
            options.header("allow"),
            options.header("access-control-allow-methods"),
        );
        assert_eq!(told, (204, Some("GET, HEAD, OPTIONS"), None), "{route}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let refused = asker.ask(method, &path, &[]).await;
            let told = (refused.status, refused.header("allow"));
            assert_eq!(told, (405, Some("GET, HEAD, OPTIONS")), "{method} {route}");
        }
    }
    assert_eq!(asker.ask("OPTIONS", "/v1/nothing", &[]).await.status, 404);
    assert_eq!(
        gateway.metric("roomcast_gateway_streams"),
        0.0,
        "HEAD follows nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_holds_as_many_requests_open_as_connections() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_CONNECTIONS_PER_USER_MAX", "1")]).await else {
        return;
    };
    let asker = Asker {
        http: Http::default(),
        url: gateway.url.clone(),
        token: gateway.signer.token("u1", &["staff"]),
    };
    let stream = Stream::follow(&gateway.url, &asker.token, &["bookings"], None)
        .await
        .unwrap();
    for path in ["/v1/sse?room=bookings", "/v1/poll?room=bookings"] {
        let one_more = asker.ask("GET", path, &[]).await;
        let told = (one_more.status, one_more.header("retry-after"));
        assert_eq!(told, (429, Some("5")), "{path}: {}", one_more.text());
        assert_eq!(one_more.json()["code"], "limit");
    }
    assert_eq!(
        asker
            .ask("GET", "/v1/poll?room=bookings&wait=0", &[])
            .await
            .status,
        200
    );
    assert_eq!(asker.ask("HEAD", "/v1/sse?room=bookings", &[]).await.status, 200);
    assert_eq!(
        gateway.count("roomcast_gateway_turned_away_total", "\"user\""),
        2.0
    );
    drop(stream);
    for _ in 0..500 {
        if asker
            .ask("GET", "/v1/poll?room=bookings&wait=1", &[])
            .await
            .status
            == 200
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the place was not given back");
}
