//! kill -9 of each part, several times, while events flow: nothing lost, doubled, reordered or made up, and exact numbers after it.

use roomcast_harness::eventually;

use crate::trial::{BACK_WITHIN, BETWEEN, Trial};
use crate::world::faulty;

/// Kills parts during traffic and judges what is left. `rounds`: what is killed at once, one round after the other.
fn scenario(name: &'static str, fault: &'static str, rounds: &'static [&'static [&'static str]]) {
    faulty(|stack| async move {
        let trial = Trial::begin(stack, name, fault).await;
        for round in rounds {
            trial.more(BETWEEN).await;
            let before: Vec<u32> = round.iter().map(|part| stack.pid(part)).collect();
            round.iter().for_each(|part| stack.signal(part, "KILL"));
            for (part, before) in round.iter().zip(before) {
                eventually(&format!("{part} is started again"), BACK_WITHIN, || async {
                    stack.pid(part) != before
                })
                .await;
            }
            trial.more(BETWEEN / 2).await;
        }
        trial.more(BETWEEN).await;
        trial.end().await
    });
}

#[test]
fn nothing_is_lost_when_ingest_is_killed() {
    scenario("ingest", "kill -9 ingest × 6", &[&["ingest-1"] as &[&str]; 6]);
}

#[test]
fn nothing_is_lost_when_gateways_are_killed() {
    const ROUNDS: &[&[&str]] = &[
        &["gateway-1"],
        &["gateway-2"],
        &["gateway-1"],
        &["gateway-1", "gateway-2"],
        &["gateway-2"],
        &["gateway-2", "gateway-1"],
    ];
    scenario("gateway", "kill -9 gateways × 8", ROUNDS);
}

#[test]
fn nothing_is_lost_when_aggregators_are_killed() {
    const ROUNDS: &[&[&str]] = &[
        &["aggregator-1"],
        &["aggregator-2"],
        &["aggregator-1", "aggregator-2"],
        &["aggregator-2"],
        &["aggregator-1"],
        &["aggregator-2", "aggregator-1"],
    ];
    scenario("aggregator", "kill -9 aggregators × 8", ROUNDS);
}

#[test]
fn nothing_is_lost_when_nats_is_killed() {
    scenario("nats", "kill -9 nats-server × 6", &[&["nats-1"] as &[&str]; 6]);
}

#[test]
fn nothing_is_lost_when_everything_is_killed_at_once() {
    const ROUNDS: &[&[&str]] = &[
        &[
            "nats-1",
            "ingest-1",
            "aggregator-1",
            "aggregator-2",
            "gateway-1",
            "gateway-2",
        ],
        &[
            "gateway-2",
            "gateway-1",
            "aggregator-2",
            "aggregator-1",
            "ingest-1",
            "nats-1",
        ],
        &["ingest-1", "gateway-1", "nats-1"],
        &["aggregator-1", "nats-1", "gateway-2"],
    ];
    scenario("all", "kill -9 of everything × 4", ROUNDS);
}
