//! One client that goes from socket to stream to poll and from gateway to gateway, in the middle of anything: nothing is lost, doubled
//! or out of order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use roomcast_harness::account::{Row, judge};
use roomcast_harness::rover::{Rover, Way};
use serde_json::{Value, json};

use crate::world::{calm, desk, say};

const ROOMS: [&str; 3] = ["crossing", "crossing.side", "crossing.other"];
const EVENTS: usize = 10_000;
const BATCH: usize = 50;
const WAYS: [Way; 7] = [
    Way::Stream,
    Way::Poll,
    Way::Socket,
    Way::Poll,
    Way::Stream,
    Way::Stream,
    Way::Socket,
];

#[test]
fn one_client_changes_its_transport_and_its_gateway_over_ten_thousand_events() {
    calm(|stack| async move {
        let (gateways, token) = (stack.gateways(), stack.signer.token("rover", &["user"]));
        let mut rover = Rover::new(token, &ROOMS);
        // From here on everything counts.
        rover
            .visit(&gateways[0], Way::Stream, 1, Duration::from_millis(500))
            .await?;
        let publishing = async {
            let desk = desk(stack);
            for batch in 0..EVENTS / BATCH {
                let events: Vec<Value> = (0..BATCH).map(|n| event(batch * BATCH + n)).collect();
                let answer = stack.publish(0, &desk, &json!(events)).await?;
                anyhow::ensure!(answer.json()["stored"] == BATCH, "{}", answer.text());
                // Now in a rush, now slowly: live, behind, and in between.
                let pause = if batch / 20 % 2 == 0 { 5 } else { 40 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            anyhow::Ok(())
        };
        let roving = async {
            let (begun, mut transcript) = (Instant::now(), Vec::new());
            while rover.count() < EVENTS {
                anyhow::ensure!(
                    begun.elapsed() < Duration::from_secs(120),
                    "saw {} events",
                    rover.count()
                );
                let visit = transcript.len();
                // From one event to 126: it breaks off in pages, between rooms, before anything came.
                let (way, events) = (WAYS[visit % WAYS.len()], 1 + visit * 25 % 126);
                let gateway = visit / 2 % gateways.len();
                let before = rover.count();
                rover
                    .visit(&gateways[gateway], way, events, Duration::from_secs(2))
                    .await
                    .with_context(|| format!("visit {visit}, {way:?}"))?;
                let at = begun.elapsed().as_millis();
                let saw = rover.count() - before;
                transcript.push(format!(
                    "{at:>6} ms  gateway {gateway}  {way:<6?}  {saw:>4} events, {:>5} in all",
                    rover.count()
                ));
            }
            anyhow::Ok(transcript)
        };
        let (published, visits) = tokio::join!(publishing, roving);
        published?;
        let visits = visits?;

        let mut row = Row {
            fault: "socket, stream, poll; two gateways".into(),
            acknowledged: EVENTS,
            ..Row::default()
        };
        let mut places: HashMap<String, u64> = HashMap::new();
        for room in ROOMS {
            let stored = stack.stored(room).await?;
            let id = |(seq, event): &(u64, Value)| Some((event["id"].as_str()?.to_owned(), *seq));
            let stored: Vec<(String, u64)> = stored.iter().filter_map(id).collect();
            let ids: Vec<String> = stored.iter().map(|(id, _)| id.clone()).collect();
            places.extend(stored);
            let seen = rover.seen.get(room).cloned().unwrap_or_default();
            row.stored += ids.len();
            row.client(seen.len(), 0, &judge(&ids, &seen));
        }
        // The three rooms are one client's.
        (row.clients, row.returns) = (1, visits.len());
        let shown = visits.iter().take(6).chain(visits.iter().rev().take(3).rev());
        let shown: Vec<&str> = shown.map(String::as_str).collect();
        say(&format!("{}\n{}\n{row}", shown.join("\n"), Row::HEAD));
        assert!(row.is_clean() && row.stored == EVENTS, "{row}");
        assert!(rover.incomplete.is_empty(), "{:?}", rover.incomplete);
        // Streams and polls have one order over all rooms.
        let order: Vec<u64> = rover
            .merged
            .iter()
            .filter_map(|id| places.get(id).copied())
            .collect();
        assert!(
            order.is_sorted() && order.len() > EVENTS / 4,
            "{} events",
            order.len()
        );
        assert!(
            visits.len() > 100 && rover.with_one_cursor > 20,
            "{} visits, {} with one cursor",
            visits.len(),
            rover.with_one_cursor
        );
        Ok(())
    });
}

fn event(n: usize) -> Value {
    json!({ "id": format!("crossing-{n}"), "room": ROOMS[n * 7 % 3], "type": "t", "data": { "n": n } })
}
