//! Tokens of several issuers, and whose users they may name.

use std::collections::BTreeSet;

use roomcast_harness::http::Http;
use roomcast_harness::token::Signer;
use serde_json::json;

use super::Gateway;

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
