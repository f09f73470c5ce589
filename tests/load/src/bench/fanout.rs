//! P1: what a delivery costs.

use std::time::Duration;

use futures_util::future::join_all;
use roomcast_load::swarm::{Plan, Swarm, now_micros};
use serde_json::json;

use super::Effort;
use super::report::Report;
use super::system::{Floor, System, watch};

/// An event of 300 bytes that carries when it was sent.
#[must_use]
pub fn event(room: usize) -> String {
    let head = json!({ "type": "load", "room": format!("load.{room}"), "data": { "sent": now_micros(), "amount": "12.50", "group": "g1", "fill": "" } });
    let text = head.to_string();
    // What ingest fills in (id, source, time, …) is about 190 bytes of the 300.
    let fill = 110_usize.saturating_sub(text.len());
    text.replace("\"fill\":\"\"", &format!("\"fill\":\"{}\"", "x".repeat(fill)))
}

/// Publishes `rate` events a second for `seconds`, spread over `rooms`, over `lanes` NATS requests at a time.
///
/// # Errors
/// When a request is refused.
pub async fn publish(system: &System, rate: u32, seconds: u64, rooms: usize) -> anyhow::Result<u64> {
    let nats = system.stack.nats("publisher").await;
    let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
    let total = u64::from(rate) * seconds;
    let mut running = Vec::new();
    for i in 0..total {
        every.tick().await;
        let room = usize::try_from(i)? % rooms;
        let nats = nats.clone();
        running.push(tokio::spawn(async move {
            let answer = nats
                .request(format!("in.load.{room}.all"), event(room).into())
                .await;
            answer.is_ok_and(|a| a.payload.starts_with(b"{\"status\":\"stored\""))
        }));
    }
    let stored = join_all(running)
        .await
        .into_iter()
        .filter(|r| matches!(r, Ok(true)))
        .count();
    anyhow::ensure!(stored as u64 == total, "{stored} of {total} events were stored");
    Ok(total)
}

/// Gateway and floor in turn, with the same connections, rate and size of frame.
///
/// # Errors
/// When a part cannot be started.
pub async fn run(report: &mut Report, effort: Effort, say: &impl Fn(&str)) -> anyhow::Result<()> {
    for (connections, rate) in [(1_000_usize, 20_u32), (5_000, 10)] {
        let (mut ours, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let system = System::start(false)?;
        let pid = system.stack.pid("gateway-1");
        for round in 1..=effort.rounds {
            let swarm = system.swarm(connections, |_| vec![0])?;
            let publishing = publish(&system, rate, effort.seconds + 2, 1);
            let watching = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                watch(pid, &swarm, effort.seconds).await
            };
            let (published, spent) = tokio::join!(publishing, watching);
            published?;
            drop(swarm);
            let floor = Floor::start(rate, spent.frame_bytes.saturating_sub(4))?;
            let swarm = Swarm::start(Plan {
                address: floor.address,
                connections,
                rate: 1_500,
                hello: Box::new(|_| None),
            });
            swarm.ready(connections as u64, false, Duration::from_secs(60))?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let least = watch(floor.pid(), &swarm, effort.seconds).await;
            let ratio = spent.micros_per_frame / least.micros_per_frame;
            say(&format!(
                "  {connections} × {rate}/s, round {round}: {:.2} µs ({} frames of {} B), floor {:.2} µs ({} frames), ratio {ratio:.2}",
                spent.micros_per_frame, spent.frames, spent.frame_bytes, least.micros_per_frame, least.frames
            ));
            ours.push(spent.micros_per_frame);
            floors.push(least.micros_per_frame);
            ratios.push(ratio);
        }
        report.note(
            "P1",
            format!("gateway CPU per delivery, {connections} × {rate}/s"),
            ours,
            "µs",
        );
        report.note("P1", format!("floor, {connections} × {rate}/s"), floors, "µs");
        report.at_most(
            "P1",
            format!("ratio to the floor, {connections} × {rate}/s"),
            ratios,
            "×",
            1.25,
        );
    }
    Ok(())
}
