//! A newer token for a stream, by `POST`: its rooms are those of the newer one from then on, and nobody else's stream is touched.

use std::time::Duration;

use roomcast_harness::http::{Answer, Http};
use roomcast_harness::stream::Stream;
use roomcast_harness::token::now;
use serde_json::{Value, json};

use super::Gateway;

const SOON: Duration = Duration::from_secs(20);

async fn refresh(gateway: &Gateway, token: &str, body: &Value) -> Answer {
    let url = format!("{}/v1/refresh", gateway.url);
    let http = Http::default();
    http.post(&url, token, "application/json", body.to_string())
        .await
        .unwrap()
}

/// The stream is still there, and this is what it says until then.
async fn goes_on(gateway: &Gateway, stream: &mut Stream, id: &str) -> Vec<Value> {
    gateway.event("notifications", "all", id, json!({})).await;
    stream
        .until(id, SOON, |frame| frame["event"]["event"]["id"] == *id)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_under_a_newer_token() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_OPERATION_RATES", "refresh=1000/1000")]).await else {
        return;
    };
    let short = gateway.signer.token_with("u1", &["staff"], 30, &json!({}));
    let mut stream = Stream::follow(&gateway.url, &short, &["bookings", "money"], None)
        .await
        .unwrap();
    let first = stream.caught_up(&["bookings"]).await.unwrap();
    let name = first[0]["connected"]["connection"].clone();
    let body = json!({ "connection": name });

    // What was refused changes nothing.
    let stranger = gateway.signer.token("u2", &["admin"]);
    let stream_of_another = refresh(&gateway, &stranger, &body).await;
    assert_eq!(stream_of_another.status, 403, "{}", stream_of_another.text());
    let own = gateway.signer.token("u1", &["staff"]);
    for none in ["c0123456789abcdef", "c", "", "*", "C0123456789ABCDEF"] {
        let absent = refresh(&gateway, &own, &json!({ "connection": none })).await;
        assert_eq!(
            (absent.status, absent.text()),
            (403, stream_of_another.text()),
            "{none}"
        );
    }
    let old = gateway
        .signer
        .token_with("u1", &["admin"], -60, &json!({ "iat": now() - 100 }));
    for (token, body, status, code) in [
        (&*old, body.clone(), 401, "expired"),
        ("nonsense", body.clone(), 401, "unauthenticated"),
        (&own, json!({}), 400, "bad_json"),
        (&own, json!([name]), 400, "bad_json"),
        (&own, json!({ "connection": 1 }), 400, "bad_json"),
        (&own, json!({ "connection": name, "token": own }), 400, "bad_json"),
        (
            &own,
            json!({ "connection": "x".repeat(70_000) }),
            413,
            "too_large",
        ),
    ] {
        let refused = refresh(&gateway, token, &body).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            refused.text()
        );
    }
    let told = goes_on(&gateway, &mut stream, "before").await;
    assert!(
        told.iter().all(|frame| frame["unsubscribed"].is_null()),
        "{told:?}"
    );

    // A later end, and the roles of now.
    let longer = refresh(&gateway, &own, &body).await;
    let answer = longer.json();
    assert_eq!(
        (longer.status, &answer["roles"]),
        (200, &first[0]["connected"]["roles"]),
        "{}",
        longer.text()
    );
    assert!(
        answer["expiresAt"].as_str() > first[0]["connected"]["expiresAt"].as_str(),
        "{answer}"
    );

    // Less: the room is closed, and not a byte of it comes any more.
    let user = gateway.signer.token("u1", &["user"]);
    let less = refresh(&gateway, &user, &body).await;
    assert_eq!((less.status, &less.json()["roles"]), (200, &json!(["user"])));
    gateway.event("bookings", "all", "canary", json!({})).await;
    let told = goes_on(&gateway, &mut stream, "less").await;
    let closed: Vec<&Value> = told
        .iter()
        .filter_map(|frame| frame.get("unsubscribed"))
        .collect();
    assert_eq!(
        (closed.len(), &closed[0]["room"], &closed[0]["code"]),
        (1, &json!("bookings"), &json!("forbidden")),
        "{told:?}"
    );
    assert!(!stream.raw.contains("canary"), "{}", stream.raw);

    // A token that ends at once ends the stream.
    let ending = gateway
        .signer
        .token_with("u1", &["user"], -27, &json!({ "iat": now() - 100 }));
    assert_eq!(refresh(&gateway, &ending, &body).await.status, 200);
    let last = stream
        .until("its end", SOON, |frame| frame["disconnect"].is_object())
        .await
        .unwrap();
    assert_eq!(last.last().unwrap()["disconnect"]["code"], 4003);
    assert_eq!(refresh(&gateway, &own, &body).await.status, 403, "it has ended");
}
