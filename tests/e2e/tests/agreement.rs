//! Two gateways and two aggregators: whoever is asked, the answer is the same.

use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::traffic::Traffic;

use crate::oracle::{by_key, names};
use crate::world::{bookings, calm, follower, numbers_are_exact, state, ways};

#[test]
fn two_gateways_and_two_aggregators_agree_to_the_last_digit() {
    calm(|stack| async move {
        let live = [
            follower(stack, 0, "admin", &["bookings", "os_dashboard"]).await,
            follower(stack, 1, "admin", &["bookings", "os_dashboard"]).await,
        ];
        let traffic = Traffic::start("agree", ways(stack).await, Duration::from_millis(15), &bookings());
        eventually("events flow", Duration::from_secs(20), || async {
            traffic.acknowledged() >= 300
        })
        .await;
        let told = traffic.finish().await;
        numbers_are_exact(stack, Duration::from_secs(20)).await?;

        // What was pushed to sockets is what is answered over HTTP. Numbers that move with time alone are left out.
        let gateways = stack.gateways();
        let still = |key: &str| !key.starts_with("lately") && !key.starts_with("status/");
        eventually(
            "both gateways answer the same, and both sockets were told it",
            Duration::from_secs(15),
            || async {
                let (Ok(a), Ok(b)) = (
                    state(stack, &gateways[0], "os_dashboard", "admin").await,
                    state(stack, &gateways[1], "os_dashboard", "admin").await,
                ) else {
                    return false;
                };
                let (a, b) = (by_key(&a), by_key(&b));
                let pushed = live.iter().all(|follower| {
                    let sighting = follower.look();
                    a.iter().filter(|(key, _)| still(key)).all(|(key, text)| {
                        let seen = sighting.state.get(&("os_dashboard".to_owned(), key.clone()));
                        seen.map(ToString::to_string).as_ref() == Some(text)
                    })
                });
                names().all(|name| a.keys().any(|key| key.starts_with(name))) && a == b && pushed
            },
        )
        .await;
        for follower in &live {
            let sighting = follower.look();
            assert_eq!(sighting.went_back, Vec::<String>::new());
            let seen = sighting.seen["bookings"].only(|id| id.starts_with("agree-"));
            assert_eq!(seen.len(), told.acknowledged.len());
        }
        assert_eq!(
            live[0].look().seen["bookings"]
                .only(|id| id.starts_with("agree-"))
                .ids(),
            live[1].look().seen["bookings"]
                .only(|id| id.starts_with("agree-"))
                .ids(),
            "one order for all"
        );
        Ok(())
    });
}

#[test]
fn a_first_paint_and_the_stream_after_it_leave_no_hole_and_no_double() {
    calm(|stack| async move {
        let traffic = Traffic::start("paint", ways(stack).await, Duration::from_millis(15), &bookings());
        eventually("events flow", Duration::from_secs(20), || async {
            traffic.acknowledged() >= 60
        })
        .await;
        // The snapshot is one cut; a subscription with its cursor goes on where it ends. Each gateway takes the other's cursor.
        let gateways = stack.gateways();
        let token = stack.signer.token("painter", &["staff"]);
        let mut painted = Vec::new();
        for index in [0_usize, 1] {
            let url = format!("{}/v1/rooms/bookings/snapshot?events=50", gateways[index]);
            let snapshot = stack.http.get(&url, Some(&token)).await?;
            assert_eq!(snapshot.status, 200, "{}", snapshot.text());
            let snapshot = snapshot.json();
            let events = snapshot["events"].as_array().cloned().unwrap_or_default();
            assert_eq!(events.len(), 50, "as many as were asked for");
            let cursor = snapshot["cursor"].as_str().unwrap_or_default().to_owned();
            let cursors = [("bookings".to_owned(), cursor)].into();
            let live = crate::world::follower_from(
                stack,
                vec![gateways[1 - index].clone()],
                index,
                "staff",
                &["bookings"],
                cursors,
            )
            .await;
            painted.push((events, live));
        }
        let before = traffic.acknowledged();
        eventually("more events flow", Duration::from_secs(20), || async {
            traffic.acknowledged() >= before + 60
        })
        .await;
        let told = traffic.finish().await;
        let last = told
            .acknowledged
            .last()
            .map(|(_, id)| id.clone())
            .unwrap_or_default();
        for (events, live) in &painted {
            eventually("the last event is seen", Duration::from_secs(10), || async {
                live.look()
                    .seen
                    .get("bookings")
                    .is_some_and(|seen| seen.has(&last))
            })
            .await;
            let first: Vec<String> = events
                .iter()
                .filter_map(|event| event["id"].as_str().map(str::to_owned))
                .collect();
            let all = stack.stored("bookings").await?;
            let ids: Vec<String> = all
                .iter()
                .filter_map(|(_, event)| event["id"].as_str().map(str::to_owned))
                .collect();
            let from = ids.iter().position(|id| *id == first[0]).unwrap_or_default();
            let sighting = live.look();
            let shown: Vec<String> = first
                .iter()
                .chain(sighting.seen["bookings"].ids())
                .cloned()
                .collect();
            let to = ids
                .iter()
                .position(|id| shown.last() == Some(id))
                .unwrap_or_default();
            assert_eq!(shown, ids[from..=to], "exactly the stream");
        }
        Ok(())
    });
}
