//! A token that ends while its socket is open: a warning, then 4003; a newer token in time, and nothing happens.

use std::time::Duration;

use roomcast_harness::client::Client;
use serde_json::{Value, json};

use crate::world::{calm, publish};

/// Seconds of the server's leeway for clocks: a token is honoured so long after its end.
const LEEWAY: i64 = 30;

#[test]
fn an_open_socket_ends_with_its_token_unless_it_brings_another() {
    calm(|stack| async move {
        // Past its end, inside the leeway: three seconds are left.
        let short = || {
            stack.signer.token_with(
                "brief",
                &["staff"],
                4 - LEEWAY,
                &json!({ "iat": roomcast_harness::token::now() - 120 }),
            )
        };
        let gateway = &stack.gateways()[0];
        let (mut ends, connected) =
            Client::connect(gateway, &short(), &["bookings"], &Default::default()).await?;
        assert!(connected["expiresAt"].is_string(), "{connected}");
        let (mut stays, _) = Client::connect(gateway, &short(), &["bookings"], &Default::default()).await?;
        ends.until("expiring", Duration::from_secs(5), |frame| {
            frame.get("expiring").is_some()
        })
        .await?;
        stays
            .until("expiring", Duration::from_secs(5), |frame| {
                frame.get("expiring").is_some()
            })
            .await?;

        // Another user's token does not do; the socket stays what it was.
        let stranger = stack.signer.token("stranger", &["admin"]);
        let refused = stays.request("refresh", json!({ "token": stranger })).await?;
        assert!(refused.get("error").is_some(), "{refused}");
        let newer = stack.signer.token("brief", &["staff"]);
        let refreshed = stays.request("refresh", json!({ "token": newer })).await?;
        assert!(refreshed["refreshed"]["expiresAt"].is_string(), "{refreshed}");

        let mut said = Value::Null;
        while let Some(frame) = ends.next(Duration::from_secs(10)).await? {
            if frame.get("disconnect").is_some() {
                said = frame["disconnect"].clone();
            }
        }
        assert_eq!(
            (&said["code"], &said["reason"], &said["reconnect"]),
            (&json!(4003), &json!("expired"), &json!(true)),
            "{said}"
        );
        assert_eq!(
            ends.closed.as_ref().map(|(code, _)| *code),
            Some(4003),
            "{:?}",
            ends.closed
        );

        // The other one lives on and hears.
        let event =
            json!({ "id": "after-expiry", "room": "bookings", "audience": "staff", "type": "t", "data": {} });
        publish(stack, &event).await?;
        stays
            .until("an event", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["id"] == "after-expiry"
            })
            .await?;
        assert_eq!(stays.closed, None);

        // A token that is over is over at the door.
        let over = stack.signer.token_with(
            "brief",
            &["staff"],
            -LEEWAY - 5,
            &json!({ "iat": roomcast_harness::token::now() - 120 }),
        );
        let mut late = Client::open(gateway).await?;
        late.send_text(
            &json!({ "id": 1, "connect": { "token": over, "client": "e2e", "rooms": [] } }).to_string(),
        )
        .await?;
        while late.next(Duration::from_secs(5)).await?.is_some() {}
        assert_eq!(
            late.closed.as_ref().map(|(code, _)| *code),
            Some(4003),
            "{:?}",
            late.raw
        );
        let http = stack
            .http
            .get(&format!("{gateway}/v1/state?room=os_dashboard"), Some(&over))
            .await?;
        assert_eq!(
            (http.status, &http.json()["code"]),
            (401, &json!("expired")),
            "{}",
            http.text()
        );
        Ok(())
    });
}
