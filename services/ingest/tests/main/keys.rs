//! Keys that an issuer publishes: rotated, taken back, away, slow, wrong; and strangers who make up key ids.

use std::time::{Duration, Instant};

use roomcast_harness::eventually;
use roomcast_harness::jwks::{Jwks, Says};
use roomcast_harness::token::Signer;
use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, POLICY, event};

const SOON: Duration = Duration::from_secs(10);

async fn start(jwks: &Jwks, refresh_secs: &str) -> Option<Ingest> {
    let settings = [
        ("ROOMCAST_JWT_KEYS_FILE", ""),
        ("ROOMCAST_JWT_JWKS_URL", jwks.url.as_str()),
        ("ROOMCAST_JWKS_INTERVAL_SECONDS", "1"),
        ("ROOMCAST_JWKS_REFRESH_SECONDS", refresh_secs),
    ];
    Ingest::start_with(POLICY, &settings).await
}

/// The status of a publish with this token.
async fn status(ingest: &Ingest, token: &str) -> u16 {
    let url = format!("{}/v1/events", ingest.url);
    let body = event("the-same").to_string();
    ingest.http.post(&url, token, JSON, body).await.unwrap().status
}

async fn until(ingest: &Ingest, token: &str, expected: &[u16]) {
    eventually("the keys are known", SOON, || async {
        expected.contains(&status(ingest, token).await)
    })
    .await;
}

#[tokio::test]
async fn a_key_counts_while_it_is_published() {
    let (old, new) = (Signer::named("2026-01"), Signer::named("2026-02"));
    let jwks = Jwks::start(Says::Body(old.jwks())).await;
    let Some(ingest) = start(&jwks, "1").await else {
        return;
    };
    let (old_token, new_token) = (old.token("desk", &["desk"]), new.token("desk", &["desk"]));
    until(&ingest, &old_token, &[200]).await;
    assert_eq!(
        status(&ingest, &new_token).await,
        503,
        "its key may be published by now"
    );

    // Rotated. The old token is remembered by now, and forgotten with its key.
    jwks.say(Says::Body(new.jwks()));
    until(&ingest, &new_token, &[200]).await;
    assert_eq!(status(&ingest, &old_token).await, 503, "its key may come back");
    until(&ingest, &old_token, &[401]).await;

    for says in [
        Says::Status(500),
        Says::Status(302),
        Says::Body("<html>".to_owned()),
        Says::Body(r#"{"keys":{}}"#.to_owned()),
        Says::Bytes(10_000_000),
        Says::Silence,
    ] {
        let before = jwks.fetches();
        jwks.say(says.clone());
        eventually("it was asked twice", SOON, || async {
            jwks.fetches() > before + 1
        })
        .await;
        assert_eq!(status(&ingest, &new_token).await, 200, "{says:?}");
        let report = ingest.context.readiness.report();
        assert!(
            report.ready && report.degraded.contains_key("keys 1"),
            "{says:?}: {report:?}"
        );
    }
    jwks.say(Says::Body(new.jwks()));
    eventually("it is well again", SOON, || async {
        ingest.context.readiness.report().degraded.is_empty()
    })
    .await;

    // The last key taken back: the issuer's word, which the operator is told of.
    jwks.say(Says::Body(r#"{"keys":[]}"#.to_owned()));
    until(&ingest, &new_token, &[401]).await;
    let report = ingest.context.readiness.report();
    assert!(
        report.ready && report.degraded["keys 1"].contains("publishes none"),
        "{report:?}"
    );
    jwks.say(Says::Body(new.jwks()));
    until(&ingest, &new_token, &[200]).await;
    for outcome in ["changed", "same", "status", "unusable", "too_large", "slow"] {
        let line = format!("roomcast_issuer_fetches_total{{outcome=\"{outcome}\"}}");
        assert!(ingest.metric(&line) >= 1.0, "{outcome}");
    }
}

#[tokio::test]
async fn strangers_cause_one_fetch_per_interval() {
    let signer = Signer::named("real");
    let jwks = Jwks::start(Says::Body(signer.jwks())).await;
    // Nothing but an unknown key id makes it fetch within the time of this test.
    let Some(ingest) = start(&jwks, "600").await else {
        return;
    };
    let good = signer.token("desk", &["desk"]);
    until(&ingest, &good, &[200]).await;
    let before = jwks.fetches();
    let unknown = Signer::named("unknown").token("desk", &["desk"]);
    assert_eq!(status(&ingest, &unknown).await, 503);
    until(&ingest, &unknown, &[401]).await;
    for _ in 0..20 {
        assert_eq!(status(&ingest, &unknown).await, 401);
    }
    assert_eq!(
        jwks.fetches(),
        before + 1,
        "one fetch for a key that is not there"
    );

    let (began, before) = (Instant::now(), jwks.fetches());
    for n in 0..300 {
        let made_up = Signer::named(&format!("made-up-{n}"));
        // Its own address in the header is no address of ours.
        let header =
            json!({ "alg": "EdDSA", "kid": format!("made-up-{n}"), "jku": format!("{}?{n}", jwks.url) });
        let token = made_up.sign_with(&header, &Value::Null);
        assert_eq!(status(&ingest, &token).await, 503);
    }
    let (took, fetched) = (began.elapsed(), jwks.fetches() - before);
    let most = usize::try_from(took.as_secs()).unwrap() + 2;
    assert!(fetched <= most, "{fetched} fetches in {took:?}");
    assert_eq!(status(&ingest, &good).await, 200);

    // Rotated in the middle of this: who is honest is never told that the token is bad.
    let rotated = Signer::named("rotated");
    jwks.say(Says::Body(rotated.jwks()));
    let honest = rotated.token("desk", &["desk"]);
    eventually("the new key counts", SOON, || async {
        let _ = status(&ingest, &Signer::named("another").token("desk", &["desk"])).await;
        let found = status(&ingest, &honest).await;
        assert!([200, 503].contains(&found), "{found}");
        found == 200
    })
    .await;
}

/// Signed by an issuer that is trusted, or made to look like it, and bad in one way each: nobody learns which.
#[tokio::test]
async fn bad_tokens_are_one_answer_and_each_is_counted() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let mut bodies = Vec::new();
    for bad in ingest.signer.hostile("desk", &["desk"]) {
        let line = format!("roomcast_ingest_unauthenticated_total{{check=\"{}\"}}", bad.check);
        let before = ingest.metric(&line);
        let url = format!("{}/v1/events", ingest.url);
        let body = event("the-same").to_string();
        let answer = ingest.http.post(&url, &bad.token, JSON, body).await.unwrap();
        assert_eq!(answer.status, 401, "{}: {}", bad.what, answer.text());
        assert_eq!(ingest.metric(&line), before + 1.0, "{}", bad.what);
        bodies.push(answer.body);
    }
    assert!(bodies.len() > 20);
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(ingest.stored("EVENTS").await.is_empty() && ingest.stored("DLQ").await.is_empty());
}
