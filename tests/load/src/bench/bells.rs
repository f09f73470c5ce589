//! Notifications: all come back at once with their own rooms and a bell; a mark reaches the other tabs; what a user with many holds.

use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_load::cpu;
use roomcast_load::dashboard::Dashboard;
use roomcast_load::histogram::Histogram;
use roomcast_load::tokens::Algorithm;
use serde_json::json;

use super::Bench;
use super::load::Load;
use super::system::{Floor, READY_WITHIN, System};
use super::watch::all_well;

/// Users that come back at once.
const USERS: usize = 5_000;
/// Notifications of each of them.
const NOTIFICATIONS: usize = 20;
/// Users whose memory is measured, and their notifications: as many as a user sees.
const HOLDERS: usize = 500;
const HELD: usize = 200;
/// Users a second whose bells no gateway has in memory: each is 200 messages for the stream to look up, about 14 ms. More would be told to
/// ask again, which these clients do not.
const COLD_RATE: usize = 40;
/// Users that one event may be for.
const AT_ONCE: usize = 1_000;
/// What was not stored yet is published again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Time between two marks that are timed: a little slower than a user may mark for long.
const MARK_EVERY: Duration = Duration::from_millis(110);
/// Twice the time of P6, which is 2.5 times the floor's.
const TIME_TO_FLOOR: f64 = 5.0;
/// How long a gateway rests before memory counts as settled; in this time it empties rooms that are users' own.
const SETTLE: Duration = Duration::from_secs(25);

fn user(n: usize) -> String {
    format!("belled{n}")
}

/// Gives each of these users so many notifications.
async fn notify(system: &System, users: std::ops::Range<usize>, each: usize) -> anyhow::Result<()> {
    let token = system
        .issuer
        .token(Algorithm::Eddsa, "loader", "loader", &["0".to_owned()])?;
    let ingests = system.stack.ingests();
    let url = format!(
        "{}/v1/events",
        ingests.first().ok_or_else(|| anyhow::anyhow!("no ingest"))?
    );
    let all: Vec<usize> = users.collect();
    for n in 0..each {
        for some in all.chunks(AT_ONCE) {
            let names: Vec<String> = some.iter().map(|n| user(*n)).collect();
            let first = some.first().copied().unwrap_or_default();
            let priority = ["critical", "high", "medium", "low"][n % 4];
            let event = json!({
                "id": format!("n{n}-{first}"), "type": "notification.load", "users": names.join(","),
                "priority": priority, "expirytime": "2100-01-01T00:00:00Z",
                "data": { "title": "A booking is late", "body": "The guide has not arrived; the guests have.", "group": "late" },
            });
            let event = event.to_string();
            let begun = Instant::now();
            loop {
                let post = system
                    .stack
                    .http
                    .post(&url, &token, "application/json", event.clone());
                let answer = post.await?;
                // A busy machine: the same again, under the same id.
                if matches!(answer.status, 503 | 504) && begun.elapsed() < READY_WITHIN {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
                anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
                break;
            }
        }
    }
    Ok(())
}

fn token(system: &System, n: usize) -> anyhow::Result<String> {
    system
        .issuer
        .token(Algorithm::Eddsa, &user(n), "viewer", &["0".to_owned()])
}

/// Clients in one room and in their own, perhaps with a bell.
fn clients(system: &System, users: std::ops::Range<usize>, belled: bool) -> anyhow::Result<Vec<Dashboard>> {
    let client = |n: usize| {
        let rooms = ["load.0".to_owned(), format!("user.{}", user(n))];
        let client = Dashboard::new(token(system, n)?, rooms);
        Ok(if belled { client.counted() } else { client })
    };
    users.map(client).collect()
}

/// All lose their sockets and are back, caught up in their own rooms and told their counters; beside the floor's own storm.
async fn storm(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let system = System::start(None, &[])?;
    let users = load.connections.unwrap_or(USERS);
    notify(&system, 0..users, NOTIFICATIONS).await?;
    let swarm = system.swarm(load, clients(&system, 0..users, true)?)?;
    swarm.give_way()?;
    let (mut cpu_each, mut times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=load.rounds {
        let least = {
            let floor = Floor::start(0, 420)?;
            let swarm = floor.swarm(users)?;
            swarm.give_way()?;
            swarm.reset()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            swarm.come_back()?;
            swarm.ready(READY_WITHIN)?
        };
        swarm.reset()?;
        system.nobody().await?;
        tokio::time::sleep(super::storm::REST).await;
        let pid = system.gateway_pid();
        let before = cpu::read(pid).cpu_ns;
        swarm.come_back()?;
        let took = swarm.ready(READY_WITHIN)?;
        let micros = (cpu::read(pid).cpu_ns - before) as f64 / 1000.0 / users as f64;
        all_well(&swarm)?;
        let unread = swarm.tally.unread.load(std::sync::atomic::Ordering::Relaxed);
        anyhow::ensure!(
            unread == NOTIFICATIONS as u64,
            "{unread} unread of {NOTIFICATIONS}"
        );
        bench.say(&format!(
            "  round {round}: {users} back with bells in {:.2} s, {micros:.1} µs each; the floor's storm {:.2} s",
            took.as_secs_f64(),
            least.as_secs_f64()
        ));
        cpu_each.push(micros);
        times.push(took.as_secs_f64());
        ratios.push(took.as_secs_f64() / least.as_secs_f64());
    }
    let of = format!(
        "{users} users back at once, {NOTIFICATIONS} notifications each, own rooms and counters there"
    );
    bench
        .report
        .note("bells", format!("gateway CPU each, {of}"), cpu_each, "µs");
    bench.report.note("bells", format!("all there, {of}"), times, "s");
    bench.report.at_most(
        "bells",
        format!("time to the floor's, {of}"),
        ratios,
        "×",
        TIME_TO_FLOOR,
    );
    Ok(())
}

/// From a mark on one tab to the counters on another one.
async fn marks(bench: &mut Bench) -> anyhow::Result<()> {
    let system = System::start(None, &[])?;
    notify(&system, 0..1, HELD).await?;
    let gateways = system.stack.gateways();
    let gateway = gateways.first().ok_or_else(|| anyhow::anyhow!("no gateway"))?;
    let token = token(&system, 0)?;
    let connect = json!({ "token": token, "client": "bench", "rooms": [], "counters": true });
    let mut tabs = Vec::new();
    for _ in 0..2 {
        let mut client = Client::open(gateway).await?;
        client.request("connect", connect.clone()).await?;
        client
            .until("counters", READY_WITHIN, |frame| {
                frame["counters"]["unread"] == HELD
            })
            .await?;
        tabs.push(client);
    }
    let (Some(mut other), Some(mut marking)) = (tabs.pop(), tabs.pop()) else {
        anyhow::bail!("two tabs");
    };
    let mut taken = Histogram::default();
    let mut pace = tokio::time::interval(MARK_EVERY);
    // What took longer is not made up for: that would be more than a user may.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..HELD {
        pace.tick().await;
        let id = format!("n{n}-0/{}", user(0));
        let begun = Instant::now();
        let mark = marking.request("mark", json!({ "ids": [id], "as": "read" }));
        let left = HELD - n - 1;
        let heard = other.until("fewer", READY_WITHIN, |frame| frame["counters"]["unread"] == left);
        let (answer, heard) = tokio::join!(mark, async {
            let heard = heard.await;
            (heard, begun.elapsed())
        });
        anyhow::ensure!(answer?["feed"]["counters"]["unread"] == left, "not marked");
        heard.0?;
        taken.record(heard.1.as_micros() as u64);
    }
    bench.say(&format!("  a mark reaches the other tab: {taken}"));
    bench.report.at_most(
        "bells",
        "from a mark to the counters of another tab, p99",
        vec![taken.millis(0.99)],
        "ms",
        300.0,
    );
    Ok(())
}

/// What a connected user with a bell and many notifications holds, above one who has neither: groups of users, one after the other at the
/// same gateway. The first who have many also bring what is kept to read them with, which grows with how many come together and not with
/// users; so two such groups come, the second half as fast, and that one is held against the budget.
///
/// # Errors
/// When a part cannot be started, or a client does not get in.
pub async fn memory(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let users = load.connections.map_or(HOLDERS, |most| most.min(HOLDERS));
    let system = System::start(None, &[])?;
    let group = |n: usize| n * users..(n + 1) * users;
    notify(&system, 2 * users..4 * users, HELD).await?;
    tokio::time::sleep(SETTLE).await;
    let rss = || cpu::read(system.gateway_pid()).rss_bytes;
    let (mut added, mut swarms, mut before) = (Vec::new(), Vec::new(), rss());
    let groups = [
        (false, COLD_RATE),
        (true, COLD_RATE),
        (true, COLD_RATE),
        (true, COLD_RATE / 2),
    ];
    for (n, (belled, rate)) in groups.into_iter().enumerate() {
        let swarm = system.swarm_at(rate, load, clients(&system, group(n), belled)?)?;
        tokio::time::sleep(SETTLE).await;
        all_well(&swarm)?;
        swarms.push(swarm);
        let after = rss();
        added.push(after.saturating_sub(before) as f64);
        before = after;
    }
    let each = |n: usize| added[n] / users as f64;
    let once = (added[2] - added[3]).max(0.0) / 1_048_576.0;
    bench.say(&format!(
        "  {users} users: {:.0} B each, {:.0} B with a bell, {:.0} B with {HELD} notifications and {once:.1} MiB once",
        each(0),
        each(1),
        each(3)
    ));
    for (what, value) in [
        ("without a bell", each(0)),
        ("with a bell and no notifications", each(1)),
    ] {
        bench.report.note(
            "bells",
            format!("RSS per connected user {what}, {users} users"),
            vec![value],
            "B",
        );
    }
    bench.report.at_most(
        "bells",
        format!("RSS per connected user with a bell and {HELD} notifications above one without both, {users} users more"),
        vec![each(3) - each(0)],
        "B",
        8_192.0,
    );
    bench.report.note(
        "bells",
        format!(
            "RSS that the first {users} users with {HELD} notifications add besides, {COLD_RATE} a second"
        ),
        vec![once],
        "MiB",
    );
    Ok(())
}

/// The storm and the marks.
///
/// # Errors
/// When a part cannot be started, or a client is not told what is true.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    storm(bench, load).await?;
    marks(bench).await
}
