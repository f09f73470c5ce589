//! Two issuers: one whose keys are in a file, one that publishes them and is away at first.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::http::Http;
use roomcast_harness::jwks::{Jwks, Says};
use roomcast_harness::token::{ISSUER, Signer};
use serde_json::json;

use super::Gateway;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_issuer_has_keys_of_its_own() {
    let jwks = Jwks::start(Says::Status(503)).await;
    let (in_file, published) = (Signer::named("k1"), Signer::named("k2"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.json"), in_file.jwks()).unwrap();
    let list = folder.path().join("issuers.yaml");
    let text = format!(
        "- {{ issuer: {ISSUER}, keys_file: one.json }}\n- {{ issuer: other, jwks_url: '{}' }}\n",
        jwks.url
    );
    std::fs::write(&list, text).unwrap();
    let list = list.display().to_string();
    let settings = [
        ("ROOMCAST_JWT_KEYS_FILE", ""),
        ("ROOMCAST_JWT_ISSUER", ""),
        ("ROOMCAST_JWT_ISSUERS_FILE", list.as_str()),
        ("ROOMCAST_JWKS_INTERVAL_SECONDS", "1"),
        ("ROOMCAST_JWKS_REFRESH_SECONDS", "1"),
    ];
    let Some(gateway) = Gateway::start(&settings).await else {
        return;
    };
    let of_other = |signer: &Signer| signer.token_with("u2", &["staff"], 600, &json!({ "iss": "other" }));
    let http = Http::default();
    let url = format!("{}/v1/state?room=bookings", gateway.url);
    let get = |token: String| {
        let (http, url) = (http.clone(), url.clone());
        async move { http.get(&url, Some(&token)).await.unwrap() }
    };
    let connect = |token: String| {
        let url = gateway.url.clone();
        async move { Client::connect(&url, &token, &["bookings"], &HashMap::new()).await }
    };

    // The file's key works while the other issuer is away, whose tokens are told to come back.
    let mine = in_file.token("u1", &["staff"]);
    connect(mine.clone()).await.unwrap();
    let answer = get(of_other(&published)).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (503, &json!("unavailable"))
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut client = Client::open(&gateway.url).await.unwrap();
    let begun = client
        .begin(&of_other(&published), &["bookings"], &HashMap::new())
        .await;
    assert!(begun.unwrap_err().to_string().contains("unavailable"));
    while client.next(SOON).await.unwrap().is_some() {}
    assert_eq!(client.closed.map(|closed| closed.0), Some(4005));

    jwks.say(Says::Body(published.jwks()));
    eventually("the other issuer's tokens count", SOON, || async {
        get(of_other(&published)).await.status == 200
    })
    .await;
    connect(of_other(&published)).await.unwrap();

    // Neither speaks for the other.
    for token in [of_other(&in_file), published.token("u1", &["staff"])] {
        assert_eq!(get(token).await.status, 401);
    }

    // Taken back: no longer within the time that the settings say.
    let taken_back = of_other(&published);
    jwks.say(Says::Body(Signer::named("k3").jwks()));
    eventually("the key is gone", SOON, || async {
        get(taken_back.clone()).await.status == 401
    })
    .await;
    assert_eq!(get(mine).await.status, 200);
}
