//! One client that never reads: it is closed, it comes back complete, and nobody else notices.

use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use serde_json::json;

use crate::world::{calm, desk, follower, follower_from, say};

/// Bytes of one event's filling, and events: together more than the gateway keeps for one client and what sockets hold.
const FILLING: usize = 48 * 1024;
const EVENTS: usize = 400;

#[test]
fn a_client_that_never_reads_is_closed_and_the_others_do_not_notice() {
    calm(|stack| async move {
        let gateways = stack.gateways();
        let here = vec![gateways[0].clone()];
        let healthy = follower_from(
            stack,
            here.clone(),
            0,
            "user",
            &["flood", "lobby"],
            Default::default(),
        )
        .await;
        let token = stack.signer.token("sleeper", &["user"]);
        let mut slow = Client::open_narrow(&gateways[0]).await?;
        slow.begin(&token, &["flood"], &Default::default()).await?;
        slow.caught_up("flood").await?;
        let cursors = slow.cursors.clone();

        // It wakes up when it is given up, and reads: what the sockets still held, then why, then the end.
        let waking = tokio::spawn(async move {
            loop {
                let metrics = stack.admin_metrics("gateway", 0).await.unwrap();
                let counted = |line: &str| line.contains("too_slow") && !line.ends_with(" 0");
                if metrics.lines().any(counted) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (mut read, mut said) = (0, None);
            while let Some(frame) = slow.next(Duration::from_secs(20)).await.unwrap() {
                read += usize::from(frame["event"]["room"] == "flood");
                said = frame.get("disconnect").cloned().or(said);
            }
            (read, said, slow.closed)
        });

        // A lone event every few milliseconds in another room, beside the flood.
        let publisher = desk(stack);
        let filling = "x".repeat(FILLING);
        let mut sent = Vec::new();
        for n in 0..EVENTS {
            let event = json!({ "id": format!("flood-{n}"), "room": "flood", "type": "t", "data": { "filling": filling } });
            crate::world::publish(stack, &event).await?;
            if n % 4 == 0 {
                let id = format!("tick-{n}");
                sent.push((id.clone(), Instant::now()));
                let answer = stack
                    .publish(
                        0,
                        &publisher,
                        &json!({ "id": id, "room": "lobby", "type": "t", "data": {} }),
                    )
                    .await?;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
        eventually(
            "the healthy client has it all",
            Duration::from_secs(20),
            || async { healthy.count("flood") == EVENTS && healthy.count("lobby") >= sent.len() },
        )
        .await;
        let mut millis: Vec<u128> = {
            let sighting = healthy.look();
            assert_eq!(sighting.connections, 1, "{:?}", sighting.closes);
            sent.iter()
                .map(|(id, at)| sighting.arrivals[id].duration_since(*at).as_millis())
                .collect()
        };
        millis.sort_unstable();
        let p99 = millis[millis.len() * 99 / 100];
        assert!(
            p99 < 500,
            "publish to frame, p99 of the healthy client beside a flood: {p99} ms"
        );

        let (read, said, closed) = waking.await?;
        assert_eq!(closed.map(|(code, _)| code), Some(4002), "{said:?}");
        let said = said.expect("it is told why");
        assert!(said["code"] == 4002 && said["reconnect"] == true, "{said}");
        assert!(read < EVENTS, "it was closed before it had everything");

        // Its first cursor brings it back complete, in order, from either gateway.
        for (index, gateway) in gateways.iter().enumerate() {
            let back = follower_from(
                stack,
                vec![gateway.clone()],
                index,
                "user",
                &["flood"],
                cursors.clone(),
            )
            .await;
            eventually("the slow one has everything", Duration::from_secs(20), || async {
                back.count("flood") >= EVENTS
            })
            .await;
            let sighting = back.look();
            assert!(sighting.incomplete.is_empty(), "{:?}", sighting.incomplete);
            let expected: Vec<String> = (0..EVENTS).map(|n| format!("flood-{n}")).collect();
            assert_eq!(sighting.seen["flood"].ids(), expected);
        }
        say(&format!(
            "    slow client: closed after {read} of {EVENTS} events; the other's p50 {} p99 {p99} max {} ms",
            millis[millis.len() / 2],
            millis[millis.len() - 1]
        ));
        drop(follower(stack, 0, "user", &["lobby"]).await);
        Ok(())
    });
}
