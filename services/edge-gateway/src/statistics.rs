//! Who is connected here, for ingest, which asks all gateways: each shard is looked at in its turn, and what they say is one answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::future::try_join_all;
use roomcast_proto::ids::Room;
use roomcast_proto::statistics::{InRoom, Present, Question};
use roomcast_proto::subject::statistics_answer;
use tokio::sync::Semaphore;

use crate::shard::Handle;

/// Questions that are worked on at a time; more are not answered.
const AT_ONCE: usize = 2;
/// Time for all shards to answer; who asks waits no longer either.
const WITHIN: Duration = Duration::from_millis(400);

/// What one shard says.
#[derive(Debug, Default)]
pub struct Here {
    /// Connections of each user.
    pub users: HashMap<Arc<str>, u64>,
    /// Connections and users of each room.
    pub rooms: HashMap<Room, (u64, HashSet<Arc<str>>)>,
}

/// Answers questions.
#[derive(Debug, Clone)]
pub struct Statistics {
    shards: Arc<[Handle]>,
    turns: Arc<Semaphore>,
}

impl Statistics {
    /// Makes it.
    #[must_use]
    pub fn new(shards: Arc<[Handle]>) -> Self {
        Self {
            shards,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Begins to answer a question; `false`: it is none, or there are too many. Nobody waits for it.
    #[must_use]
    pub fn answer(&self, question: &[u8], client: &Client) -> bool {
        let Ok(question) = serde_json::from_slice::<Question>(question) else {
            return false;
        };
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return false;
        };
        let (shards, client) = (Arc::clone(&self.shards), client.clone());
        tokio::spawn(async move {
            let Question { id, tenant, room } = question;
            let asked = shards
                .iter()
                .map(|shard| shard.present(tenant.clone(), room.clone()));
            // Without one of its shards a gateway says nothing: what is missing is then a gateway, which shows.
            if let Ok(Ok(said)) = tokio::time::timeout(WITHIN, try_join_all(asked)).await {
                let mut answer = added_up(said);
                answer.bound();
                let sent = client.publish(
                    statistics_answer(&id),
                    serde_json::to_vec(&answer).unwrap_or_default().into(),
                );
                if let Err(error) = sent.await {
                    tracing::debug!(%error, "statistics could not be sent: {error}");
                }
            }
            drop(turn);
        });
        true
    }
}

/// A user who is in several shards is one user.
fn added_up(shards: Vec<Here>) -> Present {
    let mut rooms: HashMap<Room, (u64, HashSet<Arc<str>>)> = HashMap::new();
    let mut all = Present {
        complete: true,
        ..Present::default()
    };
    for shard in shards {
        for (user, connections) in shard.users {
            all.connections += connections;
            *all.users.entry(user.to_string()).or_default() += connections;
        }
        for (room, (connections, users)) in shard.rooms {
            let room = rooms.entry(room).or_default();
            room.0 += connections;
            room.1.extend(users);
        }
    }
    let counted = |(room, (connections, users)): (Room, (u64, HashSet<Arc<str>>))| {
        let users = users.len() as u64;
        (room, InRoom { connections, users })
    };
    all.rooms = rooms.into_iter().map(counted).collect();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_two_shards_is_one_user() {
        let room = Room::parse("a").unwrap();
        let shard = |users: &[(&str, u64)]| Here {
            users: users.iter().map(|(user, n)| ((*user).into(), *n)).collect(),
            rooms: [(
                room.clone(),
                (
                    users.iter().map(|(_, n)| n).sum(),
                    users.iter().map(|(user, _)| (*user).into()).collect(),
                ),
            )]
            .into(),
        };
        let all = added_up(vec![shard(&[("u1", 1), ("u2", 1)]), shard(&[("u1", 2)])]);
        assert_eq!(all.connections, 4);
        assert_eq!(all.users, [("u1".to_owned(), 3), ("u2".to_owned(), 1)].into());
        let expected = InRoom {
            connections: 4,
            users: 2,
        };
        assert_eq!((all.rooms[&room], all.complete), (expected, true));
    }
}
