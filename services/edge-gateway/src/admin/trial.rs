//! A policy against what is connected now: who would lose and gain which rooms, before it is put in force.
//!
//! Nothing is changed. Shards only say who is there, a page at a time; deciding is done elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use roomcast_access::{InForce, Policy, Rights};
use roomcast_admin::extract::Json as Body;
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Problem, Routes};
use roomcast_proto::ids::Room;
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connections::number;
use super::{AdminDesk, bad, page_size};
use crate::shard::{Filter, Holder};

/// Connections that are decided about between two questions to the shards.
const PORTION: usize = 500;
/// Rooms that are counted by name.
const ROOMS_MAX: usize = 1_000;
/// The name of the policy in mistakes.
const NAME: &str = "policy";

/// The policy to be tried.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The whole text of the policy, YAML.
    policy: String,
    /// `next` of the page before.
    after: Option<String>,
    /// Changed connections of a page: 1 to 500, 100 when left out.
    limit: Option<usize>,
}

/// What would happen.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    /// Why the policy would not be taken, each as `policy:line:column: …`; then nothing was decided.
    mistakes: Vec<String>,
    /// A mark of its content, as `/admin/v1/policy` says it once it is in force.
    fingerprint: String,
    /// Connections that were decided about: all at this gateway that have shown a token.
    connections: usize,
    /// Those for which anything would change.
    changed: usize,
    /// Connections that would lose, gain or see differently each room (`<tenant>.<room>`), of the first thousand rooms met.
    rooms: BTreeMap<String, Counts>,
    /// Changes of rooms that are not among these.
    others: usize,
    /// A page of those that would change, by name.
    changes: Vec<Change>,
    /// Give this as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Connections by what would become of one room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
struct Counts {
    /// May follow it now and could not then.
    lose: usize,
    /// Of these, those that follow it.
    closed: usize,
    /// Could follow it then and may not now.
    gain: usize,
    /// Of these, those for which it opens by itself.
    opened: usize,
    /// Would be reached by other audiences, or have something else taken out.
    differ: usize,
}

/// What would become of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Change {
    /// Its name, as `connected` told it to the client.
    connection: String,
    /// The token's subject.
    user: String,
    /// The tenant.
    tenant: String,
    /// Its roles now.
    roles: Vec<String>,
    /// Its roles then.
    then: Vec<String>,
    /// Rooms that it may follow now and could not then.
    loses: Vec<Lost>,
    /// Rooms that it could follow then and may not now.
    gains: Vec<Gained>,
    /// Rooms in which it would be reached by other audiences, or have something else taken out.
    differs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Lost {
    room: String,
    /// Whether it follows the room: it would be closed at once.
    closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Gained {
    room: String,
    /// Whether the room would open by itself.
    opened: bool,
}

pub(super) fn routes() -> Routes<AdminDesk> {
    let attempt = guarded(Operation::new(
        "gateway",
        "tryPolicy",
        "Says who would lose and gain which rooms under another policy.",
    ))
    .about(
        "Decides about every connection at this gateway as if the policy were in force, with the grants and revocations of now, and \
         changes nothing. Of each user the first 512 rooms are compared.",
    )
    .takes_json::<Asked>()
    .answers_json::<Outcome>(200, "What would happen, or the policy's mistakes.")
    .refuses([Code::BadJson, Code::UnsupportedType].map(Code::listed));
    Routes::new().post("/admin/v1/policy/trial", attempt, tried)
}

async fn tried(State(desk): State<AdminDesk>, Body(asked): Body<Asked>) -> Result<Json<Outcome>, Problem> {
    let limit = page_size(asked.limit)?;
    let shown_after = asked.after.as_deref().map(number).transpose();
    let shown_after = shown_after.map_err(|_| bad("after is not a `next` of ours"))?;
    let now = desk.gate.rights().now();
    let policy = match Policy::parse_after(&asked.policy, NAME, Some(&now.policy)) {
        Ok(policy) => policy,
        Err(mistakes) => {
            return Ok(Json(Outcome {
                mistakes: mistakes.iter().map(ToString::to_string).collect(),
                ..Outcome::default()
            }));
        }
    };
    let mut outcome = Outcome {
        fingerprint: format!("{:016x}", policy.fingerprint()),
        ..Outcome::default()
    };
    let then = Arc::new(InForce {
        policy,
        acl: Arc::clone(&now.acl),
        generation: now.generation,
    });
    let mut after = None;
    loop {
        let found = desk
            .ask(|shard| shard.holders(Filter::default(), after, PORTION))
            .await?;
        let mut portion: Vec<Holder> = found.into_iter().flatten().collect();
        portion.sort_unstable_by_key(|holder| holder.number);
        // Each shard answers its first ones; only up to here they are the first of all.
        portion.truncate(PORTION);
        let Some(last) = portion.last() else { break };
        after = Some(last.number);
        outcome.connections += portion.len();
        let (then, secs) = (Arc::clone(&then), jiff::Timestamp::now().as_second());
        let decided = tokio::task::spawn_blocking(move || {
            let changes = portion
                .iter()
                .map(|holder| (holder.number, change(holder, &then, secs)));
            changes
                .filter_map(|(number, change)| Some((number, change?)))
                .collect::<Vec<_>>()
        });
        let decided = decided
            .await
            .map_err(|_| Problem::new(Code::Internal, "deciding broke off"))?;
        for (number, change) in decided {
            outcome.add(number, change, shown_after, limit);
        }
    }
    Ok(Json(outcome))
}

impl Outcome {
    /// Counts a change, and shows it if it is of the page.
    fn add(&mut self, number: u64, change: Change, after: Option<u64>, limit: usize) {
        self.changed += 1;
        let mut count = |room: &str, add: &dyn Fn(&mut Counts)| {
            let room = format!("{}.{room}", change.tenant);
            if self.rooms.len() < ROOMS_MAX || self.rooms.contains_key(&room) {
                add(self.rooms.entry(room).or_default());
            } else {
                self.others += 1;
            }
        };
        for lost in &change.loses {
            count(&lost.room, &|counts| {
                counts.lose += 1;
                counts.closed += usize::from(lost.closed);
            });
        }
        for gained in &change.gains {
            count(&gained.room, &|counts| {
                counts.gain += 1;
                counts.opened += usize::from(gained.opened);
            });
        }
        for room in &change.differs {
            count(room, &|counts| counts.differ += 1);
        }
        if after.is_some_and(|after| number <= after) {
            return;
        }
        if self.changes.len() < limit {
            self.changes.push(change);
        } else if self.next.is_none() {
            self.next = self.changes.last().map(|last| last.connection.clone());
        }
    }
}

/// What would become of one connection; `None`: nothing.
fn change(holder: &Holder, then: &InForce, now_secs: i64) -> Option<Change> {
    let admitted = &holder.admitted;
    // Who is revoked is being closed, whatever the policy.
    let decided = then.decide(&admitted.principal, now_secs).ok()?;
    let rooms = compare(&admitted.rights, &decided.rights);
    if admitted.roles == decided.roles && rooms.is_empty() {
        return None;
    }
    let follows = |room: &Room| holder.rooms.iter().any(|(followed, _)| followed == room);
    let opens = decided.rights.auto_join();
    Some(Change {
        connection: holder.name(),
        user: admitted.user.as_ref().to_owned(),
        tenant: admitted.rights.tenant().as_str().to_owned(),
        roles: admitted.roles.to_vec(),
        then: decided.roles.to_vec(),
        loses: rooms
            .lost
            .iter()
            .map(|room| Lost {
                room: room.as_str().to_owned(),
                closed: follows(room),
            })
            .collect(),
        gains: rooms
            .gained
            .iter()
            .map(|room| Gained {
                room: room.as_str().to_owned(),
                opened: opens.contains(room),
            })
            .collect(),
        differs: rooms.differ.iter().map(|room| room.as_str().to_owned()).collect(),
    })
}

/// Rooms by what becomes of them.
#[derive(Debug, Default)]
struct Compared {
    lost: Vec<Room>,
    gained: Vec<Room>,
    differ: Vec<Room>,
}

impl Compared {
    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.gained.is_empty() && self.differ.is_empty()
    }
}

fn compare(now: &Rights, then: &Rights) -> Compared {
    let mut compared = Compared::default();
    for room in now.rooms().0 {
        match (now.subscribe(&room), then.subscribe(&room)) {
            (Ok(seen), Ok(then)) if !seen.shows_same(&then) => compared.differ.push(room),
            (Ok(_), Err(_)) => compared.lost.push(room),
            _ => {}
        }
    }
    let gained = then.rooms().0.into_iter();
    compared.gained = gained.filter(|room| now.subscribe(room).is_err()).collect();
    compared
}

#[cfg(test)]
pub(super) mod tests;
