//! Tokens that are bad in one way each, shown in every way a token can be shown: one answer a way, and each check counted.

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::http::Http;
use roomcast_harness::token::Signer;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::UPGRADE;
use super::{Gateway, POLICY};

const SOON: Duration = Duration::from_secs(20);

/// Status line and body of a refused upgrade.
async fn upgrade(gateway: &Gateway, line: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = format!("{UPGRADE}{line}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(SOON, reading)
        .await
        .expect("an end")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.lines().next().unwrap())
}

/// What a socket is told whose first message shows the token, to its end.
async fn first_message(gateway: &Gateway, token: &str) -> String {
    let mut client = Client::open(&gateway.url).await.unwrap();
    let first = json!({ "id": 1, "connect": { "token": token, "client": "t" } });
    client.send_text(&first.to_string()).await.unwrap();
    while client.next(SOON).await.unwrap().is_some() {}
    format!("{} {:?}", client.raw.join("\n"), client.closed)
}

/// What an open socket is told; it stays open.
async fn refresh(gateway: &Gateway, user: &str, token: &str) -> String {
    let (mut client, _) = gateway.client(user, &["staff"], &[]).await;
    client
        .request("refresh", json!({ "token": token }))
        .await
        .unwrap();
    let said = client.raw.last().cloned().unwrap();
    let again = json!({ "token": gateway.signer.token(user, &["staff"]) });
    let good = client.request("refresh", again).await.unwrap();
    assert!(good["refreshed"].is_object(), "{good}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_are_one_answer_each_way_and_each_is_counted() {
    let limits = [
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "10000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "10000"),
        ("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "1000"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let http = Http::default();
    let get = async |path: &str, token: &str| {
        let url = format!("{}{path}", gateway.url);
        let answer = http.get(&url, Some(token)).await.unwrap();
        format!("{} {}", answer.status, answer.text())
    };
    let mut said: [BTreeSet<String>; 6] = Default::default();
    for (number, bad) in gateway.signer.hostile("u1", &["staff"]).into_iter().enumerate() {
        let label = format!("outcome=\"{}\"", bad.check);
        let count = || gateway.count("roomcast_gateway_tokens_total", &label);
        let (before, token) = (count(), &bad.token);
        let answers = [
            upgrade(&gateway, &format!("Authorization: Bearer {token}")).await,
            upgrade(
                &gateway,
                &format!("Sec-WebSocket-Protocol: roomcast.v1.json, bearer.{token}"),
            )
            .await,
            first_message(&gateway, token).await,
            // Newer tokens are counted by user.
            refresh(&gateway, &format!("v{number}"), token).await,
            get("/v1/sse?room=bookings", token).await,
            get("/v1/poll?room=bookings&wait=0", token).await,
        ];
        for (way, answer) in answers.into_iter().enumerate() {
            assert!(
                answer.contains("unauthenticated") && !answer.contains(token.as_str()),
                "{} {way}: {answer}",
                bad.what
            );
            said[way].insert(answer);
        }
        assert_eq!(count(), before + 6.0, "{}", bad.what);
    }
    for (way, answers) in said.iter().enumerate() {
        assert_eq!(answers.len(), 1, "{way}: {answers:?}");
    }
    for (way, begins) in ["HTTP/1.1 401 ", "HTTP/1.1 401 "]
        .into_iter()
        .chain(["{"; 2])
        .enumerate()
    {
        assert!(said[way].iter().all(|answer| answer.starts_with(begins)), "{way}");
    }
    assert!(
        said[2].iter().all(|answer| answer.contains("Some((4500,")),
        "{said:?}"
    );
    assert!(
        said[4]
            .iter()
            .chain(&said[5])
            .all(|answer| answer.starts_with("401 "))
    );
}

/// One issuer for each tenant: a good signature of one names nobody of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_names_users_of_its_tenants_alone() {
    let (one, two) = (Signer::named("k1"), Signer::named("k2"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.json"), one.jwks()).unwrap();
    std::fs::write(folder.path().join("two.json"), two.jwks()).unwrap();
    let list = folder.path().join("issuers.yaml");
    std::fs::write(
        &list,
        "- { issuer: one, keys_file: one.json, tenants: [main] }\n- { issuer: two, keys_file: two.json, tenants: [acme] }\n",
    )
    .unwrap();
    let (list, key) = (list.display().to_string(), "0a".repeat(32));
    let settings = [
        ("ROOMCAST_JWT_KEYS_FILE", ""),
        ("ROOMCAST_JWT_ISSUER", ""),
        ("ROOMCAST_JWT_ISSUERS_FILE", list.as_str()),
        ("ROOMCAST_CURSOR_KEYS", key.as_str()),
    ];
    let Some(gateway) = Gateway::start(&settings).await else {
        return;
    };
    let token = |signer: &Signer, issuer: &str, tenant: &str| {
        signer.token_with("u1", &["staff"], 600, &json!({ "iss": issuer, "tenant": tenant }))
    };
    let http = Http::default();
    let url = format!("{}/v1/state?room=bookings", gateway.url);
    let mut refused = BTreeSet::new();
    for (signer, issuer, tenant, status) in [
        (&one, "one", "main", 200),
        (&two, "two", "acme", 200),
        (&one, "one", "acme", 401),
        (&two, "two", "main", 401),
        (&two, "two", "other", 401),
        (&one, "two", "acme", 401),
        (&two, "one", "main", 401),
    ] {
        let answer = http
            .get(&url, Some(&token(signer, issuer, tenant)))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{issuer} {tenant}: {}", answer.text());
        if status == 401 {
            refused.insert(answer.text());
        }
    }
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        gateway.count("roomcast_gateway_tokens_total", "\"other_tenant\""),
        3.0
    );
}

/// Issuers have names of their own for roles: a token with such a name has the rights of ours, by every way in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_by_another_name_has_the_rights_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliased.yaml");
    let policy = POLICY.replace("roles:\n", "role_aliases: { FRONT_DESK: staff }\nroles:\n");
    std::fs::write(&path, policy).unwrap();
    let path = path.display().to_string();
    let Some(gateway) = Gateway::start(&[("ROOMCAST_POLICY_FILE", path.as_str())]).await else {
        return;
    };
    let http = Http::default();
    for (role, status, answer) in [
        ("FRONT_DESK", 200, "subscribed"),
        ("staff", 200, "subscribed"),
        ("front_desk", 403, "error"),
        ("FRONT_DESK ", 403, "error"),
    ] {
        let (mut client, connected) = gateway.client("u1", &[role], &[]).await;
        let held = connected["roles"].as_array().unwrap();
        assert_eq!(
            held.contains(&json!("staff")),
            status == 200,
            "{role}: {connected}"
        );
        assert!(!held.contains(&json!("FRONT_DESK")), "{role}: {connected}");
        let said = client
            .request("subscribe", json!({ "room": "bookings" }))
            .await
            .unwrap();
        assert!(said[answer].is_object(), "{role}: {said}");
        let url = format!("{}/v1/state?room=bookings", gateway.url);
        let token = gateway.signer.token("u1", &[role]);
        assert_eq!(
            http.get(&url, Some(&token)).await.unwrap().status,
            status,
            "{role}"
        );
    }
}
