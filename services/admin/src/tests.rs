//! The door with a real key and no socket: who comes in, who does not, and what is recorded of both.

mod changes;

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, Request, StatusCode};
use roomcast_chassis::config::Environment;
use roomcast_chassis::jetstream::{JetStream, Publisher};
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::nats::NatsMetrics;
use roomcast_chassis::process::{self, Context, Service};
use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use roomcast_harness::token::{Signer, now};
use roomcast_proto::stream::{Sizing, definitions};
use roomcast_proto::subject::stream;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

static SERVICE: Service = Service {
    name: "roomcast-test",
    about: "A test.",
    admin_port: 9080,
    jetstream_api: "$JS.API",
};

const ISSUER: &str = "https://operators";
/// A page that may ask.
const PAGE: &str = "https://desk.example";

fn read(pairs: &[(&str, &str)]) -> Result<(Context, AdminSettings), String> {
    process::install_crypto();
    let environment = Environment::from_pairs(
        pairs
            .iter()
            .copied()
            .chain([("ROOMCAST_NATS_URL", "nats://127.0.0.1:1")]),
    );
    let (common, settings, _) = process::settings(&environment, &SERVICE, AdminSettings::read)
        .map_err(|mistakes| mistakes.to_string())?;
    Ok((Context::new(&SERVICE, common).unwrap(), settings))
}

/// A service with one route of its own and the keys of `signer`.
struct Rig {
    context: Context,
    audit: Audit,
    signer: Signer,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

impl Rig {
    fn new() -> Self {
        let who = async |Extension(caller): Extension<Caller>| caller.subject.to_string();
        let operation = Operation::new("test", "who", "Says who calls.");
        Self::with(Routes::new().get("/admin/v1/who", operation, who))
    }

    fn with(routes: Routes) -> Self {
        let (folder, signer) = (tempfile::tempdir().unwrap(), Signer::named("ops-1"));
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, signer.jwks()).unwrap();
        let (context, settings) = read(&[
            ("ROOMCAST_ADMIN_JWT_KEYS_FILE", file.to_str().unwrap()),
            ("ROOMCAST_ADMIN_JWT_ISSUER", ISSUER),
            ("ROOMCAST_ADMIN_ORIGINS", PAGE),
        ])
        .unwrap();
        let audit = Audit::new(&context, "test").unwrap();
        open(&settings, routes, &audit, &context).unwrap();
        Self {
            context,
            audit,
            signer,
            _folder: folder,
        }
    }

    fn claims() -> Value {
        json!({ "iss": ISSUER, "aud": roomcast_issuers::ADMIN_AUDIENCE, "sub": "ops", "jti": "t-1", "exp": now() + 600 })
    }

    fn token(&self) -> String {
        self.signer.sign(&Self::claims())
    }

    /// The good claims with one member set, or removed by `null`.
    fn token_with(&self, member: &str, value: Value) -> String {
        let mut claims = Self::claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
            value => claims[member] = value,
        }
        self.signer.sign(&claims)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Self::answer(self.context.admin.router(), request).await
    }

    async fn answer(router: axum::Router, request: Request<Body>) -> Answer {
        let response = router.oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            json: serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into()),
        }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let mut request = Request::get(path).header(HOST, "localhost:9080");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

#[tokio::test]
async fn a_handler_knows_who_calls_and_the_record_too() {
    let rig = Rig::new();
    let answer = rig.get("/admin/v1/who?secret=1", Some(&rig.token())).await;
    assert_eq!((answer.status, answer.json), (200, json!("ops")));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let entries = rig.audit.entries();
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry["who"], json!({ "subject": "ops", "tokenId": "t-1" }));
    assert_eq!(
        entry["call"],
        json!({ "method": "GET", "path": "/admin/v1/who", "status": 200 })
    );
    assert!(!entry.to_string().contains("secret"), "{entry}");
}

#[tokio::test]
async fn without_a_key_there_is_nothing() {
    let (context, settings) = read(&[]).unwrap();
    let audit = Audit::new(&context, "test").unwrap();
    open(&settings, Routes::new(), &audit, &context).unwrap();
    for path in ["/admin/v1/log", "/openapi.json", "/admin/v1/who"] {
        let request = Request::get(path).header(HOST, "localhost");
        let request = request.body(Body::empty()).unwrap();
        let response = context.admin.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

/// Every one of them gets the same answer, on a path that is there and on one that is not.
#[tokio::test]
async fn other_tokens_do_not_open_the_door() {
    let rig = Rig::new();
    let other = Signer::named("ops-1");
    let rows = [
        ("a user's", rig.token_with("aud", json!("roomcast"))),
        ("nobody's", rig.token_with("aud", Value::Null)),
        (
            "a list with something else",
            rig.token_with("aud", json!(["roomcast-admin", 7])),
        ),
        (
            "an audience that only begins so",
            rig.token_with("aud", json!("roomcast-admin2")),
        ),
        ("another issuer's", rig.token_with("iss", json!("https://issuer"))),
        ("no issuer's", rig.token_with("iss", Value::Null)),
        ("a list of issuers", rig.token_with("iss", json!([ISSUER]))),
        ("without a subject", rig.token_with("sub", Value::Null)),
        ("with an empty subject", rig.token_with("sub", json!(""))),
        ("without an end", rig.token_with("exp", Value::Null)),
        (
            "with an end too far away",
            rig.token_with("exp", json!(now() + 90_000)),
        ),
        ("not yet good", rig.token_with("nbf", json!(now() + 600))),
        ("issued in the future", rig.token_with("iat", json!(now() + 600))),
        ("signed by another with the same kid", other.sign(&Rig::claims())),
        ("of an unknown key", Signer::named("x").sign(&Rig::claims())),
        (
            "not signed",
            rig.signer
                .sign_with(&json!({ "alg": "none", "kid": "ops-1" }), &Rig::claims()),
        ),
        (
            "with a public key as secret",
            rig.signer
                .sign_with(&json!({ "alg": "HS256", "kid": "ops-1" }), &Rig::claims()),
        ),
        (
            "with a key of its own",
            rig.signer
                .sign_with(&json!({ "alg": "EdDSA", "jwk": {}, "kid": "x" }), &Rig::claims()),
        ),
        (
            "critical",
            rig.signer.sign_with(
                &json!({ "alg": "EdDSA", "kid": "ops-1", "crit": [] }),
                &Rig::claims(),
            ),
        ),
        ("not a token", "abc".to_owned()),
        ("cut off", rig.token().rsplit_once('.').unwrap().0.to_owned()),
    ];
    let expected = rig.get("/admin/v1/who", None).await;
    assert_eq!(
        (expected.status, &expected.json["code"]),
        (401, &json!("unauthenticated"))
    );
    for (name, token) in rows {
        for path in ["/admin/v1/who", "/admin/v1/log", "/openapi.json", "/nothing"] {
            let answer = rig.get(path, Some(&token)).await;
            assert_eq!(
                (answer.status, &answer.json),
                (401, &expected.json),
                "{name}: {path}"
            );
        }
    }
    let expired = rig
        .get("/admin/v1/who", Some(&rig.token_with("exp", json!(now() - 60))))
        .await;
    assert_eq!((expired.status, &expired.json["code"]), (401, &json!("expired")));
    // Strangers are recorded, the first one by one and the others by number; whoever has a token is, however many there were.
    rig.get("/admin/v1/who", Some(&rig.token())).await;
    rig.audit.say_refused();
    let mut entries = rig.audit.entries();
    let summary = entries.pop().unwrap();
    assert_eq!(entries.pop().unwrap()["who"]["subject"], "ops");
    assert!(entries.iter().all(|entry| entry.get("who").is_none()));
    let counted = summary["note"]["refused"].as_array().unwrap();
    assert!(counted.iter().all(|one| one["what"] == "admin"), "{summary}");
    let counted: u64 = counted.iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert_eq!(entries.len() as u64 + counted, 86, "{summary}");
    assert!((60..80).contains(&entries.len()), "{}", entries.len());
}

/// What was logged at the end names what was recorded, also where that could not be stored any more.
#[test]
fn the_end_of_the_chain_is_its_last_entry_stored_or_not() {
    let rig = Rig::new();
    assert_eq!(rig.audit.end(None), None, "there never was anything");
    let record = || {
        rig.audit.record("test", None, &Value::Null);
        let entry = rig.audit.entries().pop().unwrap();
        format!("{}.{}.", entry["life"].as_str().unwrap(), entry["number"])
    };
    let lost = record();
    let end = rig.audit.end(None).unwrap();
    assert!(end.starts_with(&lost) && end.len() == lost.len() + 64, "{end}");
    let stored = format!("{end}.7");
    assert_eq!(rig.audit.end(Some(stored.clone())), Some(stored.clone()));
    // One more, and NATS did not take it.
    let lost = record();
    assert!(rig.audit.end(Some(stored)).unwrap().starts_with(&lost));
}

/// The record ends before the port does: what would not be on it is not done.
#[tokio::test]
async fn when_the_record_ends_nothing_is_done_any_more() {
    let rig = Rig::new();
    let port = rig.context.admin.router();
    rig.context.shutdown.run(std::time::Duration::from_secs(10)).await;
    let request = Request::get("/admin/v1/who")
        .header(HOST, "localhost")
        .header(AUTHORIZATION, format!("Bearer {}", rig.token()));
    let answer = Rig::answer(port, request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (503, &json!("unavailable"))
    );
    assert_eq!(rig.audit.entries(), Vec::<Value>::new());
}

/// Nobody is there just when the process ends, and says so at once: what waits is stored when somebody is.
#[tokio::test]
async fn at_the_end_what_waits_is_stored_although_nobody_is_there_for_a_moment() {
    let Some(nats) = Nats::start_empty().await else {
        return;
    };
    let rig = Rig::new();
    let client = nats.connect("admin").await;
    let metrics = Metrics::new("test").unwrap();
    let counted = NatsMetrics::new(&metrics).unwrap();
    let publisher = Publisher::start(&client, 1, Some(counted)).await.unwrap();
    for n in 0..50 {
        rig.audit.record("test", None, &json!(n));
    }
    rig.audit.keep(publisher, &rig.context);
    let shutdown = rig.context.shutdown.clone();
    let ended = tokio::spawn(async move { shutdown.run(Duration::from_secs(30)).await });
    let misses = || {
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        let mut lines = text.lines().filter(|line| line.contains("no_responders\""));
        let count = lines.find_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        count.unwrap_or_default()
    };
    eventually("it is tried again", Duration::from_secs(30), || async {
        misses() >= 4.0
    })
    .await;
    let streams = JetStream::new(client, "$JS.API");
    let mut all = definitions(&Sizing::DEVELOPMENT).into_iter();
    let audit = all.find(|definition| definition.name == stream::AUDIT).unwrap();
    streams.create_stream(&audit.config).await.unwrap();
    assert!(ended.await.unwrap());
    let stored = streams
        .stream_info(stream::AUDIT)
        .await
        .unwrap()
        .unwrap()
        .state
        .messages;
    assert_eq!(stored, 50);
}

#[tokio::test]
async fn other_hosts_and_pages_are_refused_before_the_token_is_looked_at() {
    let rig = Rig::new();
    let token = format!("Bearer {}", rig.token());
    type Row<'a> = (&'a [(http::HeaderName, &'a str)], u16, &'a str);
    let rows: [Row<'_>; 6] = [
        (
            &[(HOST, "evil.example"), (AUTHORIZATION, &token)],
            400,
            "bad_request",
        ),
        (&[(AUTHORIZATION, &token)], 400, "bad_request"),
        (
            &[(HOST, "localhost"), (HOST, "localhost"), (AUTHORIZATION, &token)],
            400,
            "bad_request",
        ),
        (
            &[
                (HOST, "localhost"),
                (ORIGIN, "http://localhost:9080"),
                (AUTHORIZATION, &token),
            ],
            403,
            "bad_origin",
        ),
        (
            &[
                (HOST, "localhost"),
                (AUTHORIZATION, &token),
                (AUTHORIZATION, &token),
            ],
            401,
            "unauthenticated",
        ),
        (
            &[(HOST, "localhost"), (http::header::COOKIE, &token)],
            401,
            "unauthenticated",
        ),
    ];
    for (headers, status, code) in rows {
        let mut request = Request::get("/admin/v1/who");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (status, &json!(code)),
            "{headers:?}"
        );
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn a_page_that_is_named_may_ask_and_needs_a_token_all_the_same() {
    let rig = Rig::new();
    let preflight = |origin: &str, host: &str| {
        Request::options("/admin/v1/who")
            .header(HOST, host)
            .header(ORIGIN, origin)
            .header("access-control-request-method", "GET")
            .body(Body::empty())
            .unwrap()
    };
    let granted = rig.send(preflight(PAGE, "localhost")).await;
    assert_eq!(granted.status, 204);
    assert_eq!(granted.headers["access-control-allow-origin"], PAGE);
    assert_eq!(
        granted.headers["access-control-allow-headers"],
        "authorization, content-type"
    );
    assert!(!granted.headers.contains_key("access-control-allow-credentials"));
    for (origin, host, status) in [
        ("https://evil.example", "localhost", 403),
        ("null", "localhost", 403),
        (PAGE, "evil.example", 400),
    ] {
        let refused = rig.send(preflight(origin, host)).await;
        assert_eq!(refused.status, status, "{origin} {host}");
        assert!(
            !refused.headers.contains_key("access-control-allow-methods"),
            "{origin} {host}"
        );
    }
    for (token, status) in [(Some(rig.token()), 200), (None, 401)] {
        let mut request = Request::get("/admin/v1/who")
            .header(HOST, "localhost")
            .header(ORIGIN, PAGE);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status);
        // The page is to read why it was refused, too.
        assert_eq!(answer.headers["access-control-allow-origin"], PAGE);
        assert_eq!(answer.headers["vary"], "origin");
    }
    assert_eq!(
        rig.audit.entries().len(),
        5,
        "what was granted before a call is none"
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_in_problems() {
    let rig = Rig::new();
    let nothing = rig.get("/admin/v1/nothing", Some(&rig.token())).await;
    assert_eq!(
        (nothing.status, &nothing.json["code"]),
        (404, &json!("not_found"))
    );
    let request = Request::delete("/admin/v1/who")
        .header(HOST, "localhost")
        .header(AUTHORIZATION, format!("Bearer {}", rig.token()));
    let refused = rig.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (405, &json!("method_not_allowed"))
    );
    assert_eq!(refused.headers[ALLOW], "GET,HEAD");
}

#[tokio::test]
async fn bodies_are_bounded_and_read_strictly() {
    let rig = Rig::new();
    let too_large = "x".repeat(door::BODY_BYTES_MAX + 1);
    let rows = [
        (
            "application/json",
            r#"{"filter":"info","more":1}"#,
            400,
            "bad_json",
        ),
        ("application/json", "{", 400, "bad_json"),
        ("application/json", "", 400, "bad_json"),
        ("text/plain", r#"{"filter":"info"}"#, 415, "unsupported_type"),
        ("application/json", r#"{"filter":""}"#, 400, "bad_request"),
        ("application/json", &too_large, 413, "too_large"),
        // Nobody has called `telemetry::init` in this process.
        (
            "application/json; charset=utf-8",
            r#"{"filter":"info"}"#,
            503,
            "unavailable",
        ),
    ];
    for (kind, body, status, code) in rows {
        let request = Request::put("/admin/v1/log")
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {}", rig.token()))
            .header(CONTENT_TYPE, kind);
        let answer = rig.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (status, &json!(code)),
            "{kind} {:.40}",
            body
        );
    }
}

#[tokio::test]
async fn entries_form_a_chain_and_more_than_the_queue_holds_are_counted() {
    let rig = Rig::new();
    for number in 0..audit::QUEUE_MAX + 3 {
        rig.audit.record("test", None, &json!(number));
    }
    let entries = rig.audit.entries();
    assert_eq!(entries.len(), audit::QUEUE_MAX);
    for (before, after) in entries.iter().zip(&entries[1..]) {
        assert_eq!(after["number"].as_u64(), before["number"].as_u64().map(|n| n + 1));
        assert_eq!(after["previous"].as_str().unwrap().len(), 64);
    }
    // What was dropped shows: the next entry's number and digest do not follow.
    rig.audit.record("test", None, &Value::Null);
    assert_eq!(rig.audit.entries()[0]["number"], audit::QUEUE_MAX + 4);
    let text = String::from_utf8(rig.context.metrics.encode().unwrap()).unwrap();
    assert!(
        text.contains("roomcast_audit_entries_total{outcome=\"dropped\",service=\"test\"} 3"),
        "{text}"
    );
}

#[tokio::test]
async fn the_document_lists_what_is_there() {
    let rig = Rig::new();
    let document = rig.get("/openapi.json", Some(&rig.token())).await.json;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/admin/v1/log",
            "/admin/v1/who",
            "/livez",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/startupz"
        ]
    );
    assert_eq!(document["paths"]["/livez"]["get"]["security"], json!([]));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.json", &Signer::named("ops-1").jwks());
    let development = write("dev.json", &Signer::new().jwks());
    let secret = write("secret.json", r#"{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}"#);
    let file = "ROOMCAST_ADMIN_JWT_KEYS_FILE";
    let issuer = ("ROOMCAST_ADMIN_JWT_ISSUER", ISSUER);
    // Of the settings alone.
    for (pairs, expected) in [
        (vec![(file, good.as_str())], "ROOMCAST_ADMIN_JWT_ISSUER"),
        (vec![issuer], file),
        (
            vec![("ROOMCAST_ADMIN_HOSTS", "gateway:9080")],
            "ROOMCAST_ADMIN_HOSTS",
        ),
        (
            vec![("ROOMCAST_ADMIN_ORIGINS", "https://desk.example/,*")],
            "ROOMCAST_ADMIN_ORIGINS",
        ),
    ] {
        let mistakes = read(&pairs).map(drop).unwrap_err();
        assert!(mistakes.contains(expected), "{mistakes}");
    }
    // Of the files they name.
    let open = ("ROOMCAST_ADMIN_LISTEN", "0.0.0.0:9080");
    for (pairs, exit) in [
        (vec![(file, good.as_str()), issuer, open], None),
        (vec![(file, development.as_str()), issuer], None),
        (vec![(file, development.as_str()), issuer, open], Some(64)),
        (vec![(file, secret.as_str()), issuer], Some(65)),
        (vec![(file, "/nowhere"), issuer], Some(65)),
    ] {
        let (context, settings) = read(&pairs).unwrap();
        let loaded = settings.load(context.common.admin_listen);
        assert_eq!(loaded.err().map(|failure| failure.exit as u8), exit, "{pairs:?}");
    }
}

#[tokio::test]
async fn who_was_refused_is_one_entry_of_the_chain() {
    let rig = Rig::new();
    rig.audit.say_refused();
    assert_eq!(rig.audit.entries(), Vec::<Value>::new(), "nobody was");
    for _ in 0..3 {
        rig.audit.refused("token", "revoked", Some(("main", "u1")));
    }
    rig.audit.say_refused();
    rig.audit.record("test", None, &Value::Null);
    let entries = rig.audit.entries();
    assert_eq!(
        (&entries[0]["kind"], &entries[0]["number"]),
        (&json!("refused"), &json!(1))
    );
    let said = json!([{ "what": "token", "reason": "revoked", "count": 3, "tenant": "main", "user": "u1" }]);
    assert_eq!(entries[0]["note"], json!({ "refused": said, "others": 0 }));
    assert_eq!(entries[1]["number"], 2);
}
