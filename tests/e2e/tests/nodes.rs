//! Three NATS nodes, three copies of everything: a rolling restart of all there is, leaders that step down, nodes that are ended, killed and frozen, while events flow.
//!
//! At most one node is away at a time, and the next goes only when all copies are current: that is what three nodes promise to
//! survive. All trials share one system, because starting one takes longer than a trial.

use std::time::Duration;

use roomcast_harness::cluster::Cluster;
use roomcast_harness::eventually;
use roomcast_harness::stack::Stack;

use crate::trial::{BACK_WITHIN, BETWEEN, Trial};
use crate::world::three_nodes;

/// A node that was away has caught up within this; a busy machine takes a few seconds.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// How long a node is frozen: longer than the others and the clients need to give it up.
const FROZEN: Duration = Duration::from_secs(9);

#[test]
fn nothing_is_lost_when_leaders_move_and_nodes_end_are_killed_or_freeze() {
    three_nodes(async |stack| {
        let cluster = Cluster::new(stack.nats_admin().await);
        cluster.is_whole(WHOLE_WITHIN).await;
        rolls(stack, &cluster).await?;
        step_downs(stack, &cluster).await?;
        ends(stack, &cluster).await?;
        kills(stack, &cluster).await?;
        freeze(stack, &cluster).await
    });
}

/// The leader of what gateways read and the leader of the numbers, together.
async fn step_downs(stack: &Stack, cluster: &Cluster) -> anyhow::Result<()> {
    let trial = Trial::begin(stack, "step-down", "leader step-down × 5, three nodes").await;
    for _ in 0..5 {
        trial.more(BETWEEN).await;
        for stream in ["EVENTS", "STATE", "KV_agg"] {
            eventually("another node leads", BACK_WITHIN, || cluster.step_down(stream)).await;
        }
        trial.more(BETWEEN / 2).await;
    }
    trial.end().await
}

/// A rollout at noon: each service and each node in turn, the next only when the one before is ready again. A client comes back once for
/// each gateway at most, and for nothing else.
async fn rolls(stack: &Stack, cluster: &Cluster) -> anyhow::Result<()> {
    let trial = Trial::begin(stack, "roll", "rolling restart of each service and node").await;
    let mut gateways = 0;
    for (part, admin) in [
        ("aggregator-1", Some(("aggregator", 0))),
        ("aggregator-2", Some(("aggregator", 1))),
        ("ingest-1", Some(("ingest", 0))),
        ("gateway-1", Some(("gateway", 0))),
        ("gateway-2", Some(("gateway", 1))),
        ("nats-1", None),
        ("nats-2", None),
        ("nats-3", None),
    ] {
        trial.more(BETWEEN / 2).await;
        comes_back(stack, part, "TERM").await;
        match admin {
            Some((service, index)) => is_ready(stack, service, index).await,
            None => cluster.is_whole(WHOLE_WITHIN).await,
        }
        gateways += usize::from(part.starts_with("gateway"));
        let returns = trial.returns();
        anyhow::ensure!(
            returns <= gateways,
            "{returns} returns of a client after {gateways} gateways, the last part being {part}"
        );
    }
    trial.more(BETWEEN / 2).await;
    trial.end().await
}

async fn is_ready(stack: &Stack, service: &str, index: usize) {
    let address = stack.ready["admin"][service][index].as_str().unwrap_or_default();
    let url = format!("{address}/readyz");
    eventually(&format!("{service} {index} is ready"), WHOLE_WITHIN, || async {
        let answer = stack.http.get(&url, None).await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

async fn ends(stack: &Stack, cluster: &Cluster) -> anyhow::Result<()> {
    let trial = Trial::begin(stack, "end", "SIGTERM of each node × 3").await;
    for node in ["nats-1", "nats-2", "nats-3"] {
        trial.more(BETWEEN).await;
        comes_back(stack, node, "TERM").await;
        trial.more(BETWEEN / 2).await;
        cluster.is_whole(WHOLE_WITHIN).await;
    }
    trial.more(BETWEEN).await;
    trial.end().await
}

async fn kills(stack: &Stack, cluster: &Cluster) -> anyhow::Result<()> {
    let trial = Trial::begin(stack, "kill", "kill -9 of the leading node × 2").await;
    for _ in 0..2 {
        trial.more(BETWEEN).await;
        comes_back(stack, &cluster.leader("EVENTS").await, "KILL").await;
        trial.more(BETWEEN / 2).await;
        cluster.is_whole(WHOLE_WITHIN).await;
    }
    trial.more(BETWEEN).await;
    trial.end().await
}

async fn freeze(stack: &Stack, cluster: &Cluster) -> anyhow::Result<()> {
    let trial = Trial::begin(stack, "freeze", "SIGSTOP of the leading node × 1").await;
    trial.more(BETWEEN).await;
    let node = cluster.leader("EVENTS").await;
    stack.signal(&node, "STOP");
    tokio::time::sleep(FROZEN).await;
    // The others go on without it.
    trial.more(BETWEEN).await;
    assert_ne!(cluster.leader("EVENTS").await, node, "another node leads");
    stack.signal(&node, "CONT");
    trial.more(BETWEEN).await;
    cluster.is_whole(WHOLE_WITHIN).await;
    trial.more(BETWEEN).await;
    trial.end().await
}

async fn comes_back(stack: &Stack, node: &str, signal: &str) {
    let before = stack.pid(node);
    stack.signal(node, signal);
    eventually(&format!("{node} is started again"), BACK_WITHIN, || async {
        stack.pid(node) != before
    })
    .await;
}
