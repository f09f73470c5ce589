//! SIGTERM of a gateway: its clients are told when to go where, and miss nothing.

use std::collections::HashSet;
use std::time::Duration;

use roomcast_harness::account::judge;
use roomcast_harness::eventually;
use roomcast_harness::traffic::Traffic;

use crate::world::{bookings, faulty, follower, say, stored, ways};

/// Enough that equal hints would not be an accident.
const CLIENTS: usize = 24;

#[test]
fn clients_of_a_gateway_that_ends_move_on_and_miss_nothing() {
    faulty(|stack| async move {
        let mut followers = Vec::new();
        for _ in 0..CLIENTS {
            followers.push(follower(stack, 0, "staff", &["bookings"]).await);
        }
        let traffic = Traffic::start("drain", ways(stack).await, Duration::from_millis(20), &bookings());
        eventually("traffic flows", Duration::from_secs(10), || async {
            traffic.acknowledged() > 40
        })
        .await;
        let before = stack.pid("gateway-1");
        stack.signal("gateway-1", "TERM");
        eventually("everybody has moved", Duration::from_secs(35), || async {
            followers.iter().all(|follower| follower.look().connections >= 2)
        })
        .await;
        eventually(
            "the gateway ended and is started again",
            Duration::from_secs(40),
            || async { stack.pid("gateway-1") != before },
        )
        .await;
        let after = traffic.acknowledged();
        eventually("traffic flows", Duration::from_secs(10), || async {
            traffic.acknowledged() > after + 40
        })
        .await;
        let told = traffic.finish().await;
        assert_eq!(told.repeats, 0, "publishers notice nothing");

        let ids: Vec<String> = stored(stack, "bookings")
            .await?
            .iter()
            .filter_map(|event| event["id"].as_str())
            .filter(|id| id.starts_with("drain-"))
            .map(str::to_owned)
            .collect();
        let mut hints = HashSet::new();
        for follower in &followers {
            eventually("the last event is seen", Duration::from_secs(15), || async {
                follower.count("bookings") >= ids.len()
            })
            .await;
            let sighting = follower.look();
            let verdict = judge(&ids, &sighting.seen["bookings"]);
            assert!(verdict.is_clean(), "{verdict:?}");
            assert!(sighting.incomplete.is_empty(), "{:?}", sighting.incomplete);
            assert_eq!(
                sighting.connections, 2,
                "one reconnect per client: {:?}",
                sighting.closes
            );
            assert_eq!(sighting.closes[0].0, 4001, "{:?}", sighting.closes);
            let told = &sighting.disconnects[0];
            assert_eq!(
                (&told["code"], &told["reconnect"]),
                (&4001.into(), &true.into()),
                "{told}"
            );
            assert_eq!(told["reason"], "drain", "{told}");
            hints.insert(told["retryAfterMs"].as_u64().unwrap_or_default());
        }
        assert!(hints.len() > CLIENTS / 3, "hints are spread: {hints:?}");
        say(&format!(
            "    SIGTERM of a gateway: {CLIENTS} clients told 4001, hints {} to {} ms, {} events, none missed",
            hints.iter().min().unwrap_or(&0),
            hints.iter().max().unwrap_or(&0),
            ids.len()
        ));
        Ok(())
    });
}
