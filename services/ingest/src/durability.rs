//! Whether an acknowledged event is on disk: every server must write through (`sync_interval: always`), and each says so itself.
//!
//! A server that does not loses what it acknowledged in the last two minutes when the power goes, and a young stream as a whole.
//! So ingest asks before the doors open and again and again: a node may come back with another configuration.

use std::time::Duration;

use async_nats::Client;
use roomcast_chassis::jetstream::ApiError;
use roomcast_chassis::nats::{ServerAnswer, Status, ask_servers};
use roomcast_chassis::process::Failure;
use roomcast_chassis::readiness::Latch;
use roomcast_proto::subject::SERVERS_JETSTREAM;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::IngestMetrics;
use crate::standing::Standing;

/// How often the servers are asked while ingest runs.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Pause before they are asked again at the start.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Questions without an answer, while connected, after which nobody will answer.
const QUESTIONS_MAX: u32 = 3;
/// Questions in a row that not all servers answered, after which those that are missing are taken to be down: a cluster without one of
/// its nodes must take events, also where that one wrote late. It is asked again once it is back.
const IN_PART_MAX: u32 = 5;
/// The name of the setting, for messages.
pub(crate) const SETTING: &str = "ROOMCAST_DURABILITY";

/// What the operator promises publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged is on disk: without that, nothing is acknowledged.
    Synced,
    /// A power cut may take what was acknowledged; said in `/readyz` and as a metric for as long as it is so.
    MayLose,
}

/// What the servers said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// All of them write through.
    Synced,
    /// Which do not, and when they write.
    MayLose(String),
    /// None of them stores anything.
    Nobody,
}

/// Those that store anything: servers without JetStream do not count.
fn storing(answers: &[ServerAnswer]) -> impl Iterator<Item = &ServerAnswer> {
    answers
        .iter()
        .filter(|answer| answer.data["config"].is_object() && answer.data["disabled"] != true)
}

/// Judges the answers.
fn judge(answers: &[ServerAnswer]) -> Found {
    let mut found = Found::Nobody;
    let mut late = Vec::new();
    for ServerAnswer { name, data } in storing(answers) {
        found = Found::Synced;
        if data["config"]["sync_always"] != true {
            let nanos = data["config"]["sync_interval"].as_u64().unwrap_or_default();
            let seconds = Duration::from_nanos(nanos).as_secs_f64();
            late.push(format!("{name} every {seconds} s"));
        }
    }
    if late.is_empty() {
        found
    } else {
        Found::MayLose(format!(
            "NATS writes to disk later than it acknowledges ({}): a power cut loses acknowledged events",
            late.join(", ")
        ))
    }
}

/// Whether as many servers have answered as the cluster has; a server that knows of no cluster is one by itself.
fn all_there(answers: &[ServerAnswer]) -> bool {
    let size = |answer: &ServerAnswer| answer.data["meta_cluster"]["cluster_size"].as_u64();
    let count = storing(answers).count() as u64;
    let most = storing(answers).map(|answer| size(answer).unwrap_or(1)).max();
    most.is_some_and(|most| count >= most)
}

/// What an answer changes: that something is or is not wrong, or `None`: nothing. Only all servers can say that all is well, the one that
/// writes late may be silent, unless it stays so. `in_part`: answers in a row, this one included, by which a part of them writes through.
fn news(found: Found, is_all: bool, in_part: u32) -> Option<Option<String>> {
    match found {
        Found::MayLose(why) => Some(Some(why)),
        Found::Synced => (is_all || in_part >= IN_PART_MAX).then_some(None),
        Found::Nobody => None,
    }
}

/// What the servers say, and whether all of them have.
async fn ask(client: &Client) -> Result<(Found, bool), ApiError> {
    ask_servers(client, SERVERS_JETSTREAM, &json!({}), all_there)
        .await
        .map(|answers| (judge(&answers), all_there(&answers)))
}

/// What watches, and what it tells.
#[derive(Debug)]
pub struct Watch {
    /// The connection.
    pub client: Client,
    /// Whether it is up.
    pub status: watch::Receiver<Status>,
    /// What the operator wants.
    pub wanted: Durability,
    /// Told for `/readyz`.
    pub latch: Latch,
    /// Told for the store.
    pub standing: Standing,
    /// Told for the board.
    pub metrics: IngestMetrics,
}

impl Watch {
    /// Asks until the servers have answered; the latch says what was found.
    ///
    /// # Errors
    /// Exit code 69 where they do not write through, or do not say, and the operator has not allowed it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn verify(&self) -> Result<(), Failure> {
        let (mut unanswered, mut in_part) = (0, 0);
        let why = loop {
            match ask(&self.client).await {
                Ok((Found::MayLose(why), _)) => break why,
                Ok((Found::Synced, is_all)) if is_all || in_part == IN_PART_MAX => {
                    if !is_all {
                        tracing::warn!(
                            "not every server of the cluster says when it writes to disk; those that do write at once"
                        );
                    }
                    self.tell(None);
                    return Ok(());
                }
                Ok((Found::Synced, _)) => {
                    in_part += 1;
                    self.latch
                        .not_ready("not every server of the cluster has said when it writes to disk");
                }
                Ok((Found::Nobody, _)) => break "no NATS server says that it stores anything".to_owned(),
                Err(error) => {
                    self.latch
                        .not_ready(format!("NATS does not say when it writes to disk: {error}"));
                    let connected = self.status.borrow().connected;
                    unanswered += u32::from(connected);
                    if unanswered == QUESTIONS_MAX {
                        break format!(
                            "it cannot be told whether acknowledged events survive a power cut, because NATS does not answer {SERVERS_JETSTREAM} \
                             ({error}): account CORE must import it from the system account, as deploy/nats/node.conf.example does"
                        );
                    }
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        if self.wanted == Durability::Synced {
            return Err(Failure::unavailable(format!(
                "{why}\nset `sync_interval: always` in the `jetstream` block of every server and restart it, or, where losing events is \
                 acceptable, {SETTING}=may_lose"
            )));
        }
        tracing::warn!("{why}; {SETTING} allows it");
        self.tell(Some(why));
        Ok(())
    }

    /// Asks again and again; ends with `ending`. No answer changes nothing: the connection's latch speaks for that.
    pub async fn run(self, ending: CancellationToken) {
        let mut in_part: u32 = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = ending.cancelled() => return,
            }
            match ask(&self.client).await {
                Ok((found, is_all)) => {
                    let is_part = found == Found::Synced && !is_all;
                    in_part = if is_part { in_part.saturating_add(1) } else { 0 };
                    if let Some(may_lose) = news(found, is_all, in_part) {
                        self.tell(may_lose);
                    }
                }
                Err(error) => tracing::debug!(%error, "the servers were not heard: {error}"),
            }
        }
    }

    /// Says what was found: `None` that all is on disk, else why not.
    fn tell(&self, may_lose: Option<String>) {
        let before = self.metrics.may_lose.get() == 1;
        self.metrics.may_lose.set(i64::from(may_lose.is_some()));
        self.standing
            .set_unsynced(may_lose.is_some() && self.wanted == Durability::Synced);
        match (may_lose, self.wanted) {
            (None, _) => {
                if before {
                    tracing::info!("NATS writes to disk before it acknowledges, as it must");
                }
                self.latch.ready();
            }
            (Some(why), Durability::MayLose) => self.latch.degraded(why),
            (Some(why), Durability::Synced) => {
                if !before {
                    tracing::error!("nothing is acknowledged until this is mended: {why}");
                }
                self.latch.not_ready(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn answers(rows: &[(&str, Value)]) -> Vec<ServerAnswer> {
        let answer = |(name, data): &(&str, Value)| ServerAnswer {
            name: (*name).to_owned(),
            data: data.clone(),
        };
        rows.iter().map(answer).collect()
    }

    fn config(always: bool) -> Value {
        // As the server writes them: the interval has its default also where it does not count.
        let mut data = json!({ "config": { "sync_interval": 120_000_000_000_u64 } });
        if always {
            data["config"]["sync_always"] = json!(true);
        }
        data
    }

    #[test]
    fn one_server_that_writes_late_is_enough() {
        let check = |rows: &[(&str, Value)], synced: bool, parts: &[&str]| {
            let found = judge(&answers(rows));
            assert_eq!(found == Found::Synced, synced, "{found:?}");
            let text = format!("{found:?}");
            parts
                .iter()
                .for_each(|part| assert!(text.contains(part), "{part} in {text}"));
        };
        let without = json!({ "disabled": true, "config": { "sync_interval": 0 } });
        check(&[("n1", config(true))], true, &[]);
        check(&[("n1", config(true)), ("leaf", without.clone())], true, &[]);
        check(&[("n1", config(false))], false, &["n1 every 120 s", "power cut"]);
        check(
            &[("n1", config(true)), ("n2", config(true)), ("n3", config(false))],
            false,
            &["n3 every 120 s"],
        );
        check(
            &[("n1", json!({ "config": { "sync_interval": 1_000_000_000 } }))],
            false,
            &["n1 every 1 s"],
        );
        check(&[], false, &["Nobody"]);
        check(&[("leaf", without)], false, &["Nobody"]);
        check(&[("n1", Value::Null)], false, &["Nobody"]);
    }

    /// The node that writes late is down, or slow to answer: the others cannot speak for it, until it has been silent for long.
    #[test]
    fn a_part_of_the_servers_says_nothing_good() {
        let late = || Found::MayLose("late".to_owned());
        for (found, is_all, in_part, expected) in [
            (Found::Synced, true, 0, Some(false)),
            (Found::Synced, false, 1, None),
            (Found::Synced, false, IN_PART_MAX - 1, None),
            (Found::Synced, false, IN_PART_MAX, Some(false)),
            (Found::Synced, false, IN_PART_MAX + 1, Some(false)),
            (late(), true, 0, Some(true)),
            (late(), false, 0, Some(true)),
            (Found::Nobody, true, 0, None),
            (Found::Nobody, false, 0, None),
        ] {
            let said = format!("{found:?} {is_all} {in_part}");
            let may_lose = news(found, is_all, in_part).map(|why| why.is_some());
            assert_eq!(may_lose, expected, "{said}");
        }
    }

    #[test]
    fn a_lone_server_is_not_waited_for_and_of_a_cluster_all_are() {
        let member = |size: u64| {
            let mut member = config(true);
            member["meta_cluster"] = json!({ "cluster_size": size });
            member
        };
        let without = json!({ "disabled": true, "config": {} });
        let rows = [
            (answers(&[]), false),
            (answers(&[("n1", config(true))]), true),
            (answers(&[("n1", member(3))]), false),
            (answers(&[("n1", member(3)), ("n2", member(3))]), false),
            (
                answers(&[("n1", member(3)), ("n2", member(3)), ("n3", member(3))]),
                true,
            ),
            // A node of leaves with its own storage beside a lone server: nobody knows of more.
            (answers(&[("n1", config(true)), ("n2", config(true))]), true),
            (answers(&[("n1", member(3)), ("leaf", config(true))]), false),
            // Who stores nothing stands for nobody.
            (answers(&[("x", without.clone())]), false),
            (
                answers(&[("n1", member(3)), ("n2", member(3)), ("x", without)]),
                false,
            ),
        ];
        for (answers, expected) in rows {
            assert_eq!(all_there(&answers), expected, "{answers:?}");
        }
    }
}
