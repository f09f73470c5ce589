//! Who is connected: asked of all gateways by ingest, answered by each for itself, and added up. Pure.
//!
//! Asked on `ctl.statistics`, answered on `sts.<id>`; see [`crate::subject`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Room, Tenant};

/// Users that one gateway names: with more, the answer is not complete.
pub const USERS_MAX: usize = 1_000;
/// Bytes of their names; a message takes 256 KiB.
pub const USERS_BYTES_MAX: usize = 96 * 1024;
/// Rooms that one gateway names, those with the most connections.
pub const ROOMS_MAX: usize = 500;

/// What ingest asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Where the answers go: one token.
    pub id: String,
    /// Whose users.
    pub tenant: Tenant,
    /// Only those who are in this room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
}

/// What one gateway answers, and what all of them together say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Present {
    /// Connections; with a room asked for, those that have it open.
    pub connections: u64,
    /// Users, each with its connections.
    pub users: BTreeMap<String, u64>,
    /// Rooms that somebody has open; with a room asked for, that one.
    pub rooms: BTreeMap<Room, InRoom>,
    /// Whether every user and every room is named.
    pub complete: bool,
}

/// One room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InRoom {
    /// Connections that have it open.
    pub connections: u64,
    /// Their users; one at two gateways counts at each.
    pub users: u64,
}

impl Present {
    /// Leaves out what one message does not take: users by name from the end, rooms with the fewest connections.
    pub fn bound(&mut self) {
        let mut bytes = 0;
        let kept = self.users.keys().take(USERS_MAX).take_while(|user| {
            bytes += user.len();
            bytes <= USERS_BYTES_MAX
        });
        if let Some(first_cut) = self.users.keys().nth(kept.count()).cloned() {
            self.users.split_off(&first_cut);
            self.complete = false;
        }
        if self.rooms.len() > ROOMS_MAX {
            let mut sizes: Vec<u64> = self.rooms.values().map(|room| room.connections).collect();
            sizes.sort_unstable_by(|one, other| other.cmp(one));
            let least = sizes[ROOMS_MAX];
            // All of one size stay or go together, so that which of them is shown is no accident.
            self.rooms.retain(|_, room| room.connections > least);
            self.complete = false;
        }
    }

    /// Adds what another gateway says.
    pub fn add(&mut self, other: Self) {
        self.connections += other.connections;
        for (user, connections) in other.users {
            *self.users.entry(user).or_default() += connections;
        }
        for (room, one) in other.rooms {
            let room = self.rooms.entry(room).or_default();
            room.connections += one.connections;
            room.users += one.users;
        }
        self.complete &= other.complete;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(users: &[(&str, u64)], rooms: &[(&str, u64, u64)]) -> Present {
        let room = |(name, connections, users): &(&str, u64, u64)| {
            let (connections, users) = (*connections, *users);
            (Room::parse(name).unwrap(), InRoom { connections, users })
        };
        Present {
            connections: users.iter().map(|(_, connections)| connections).sum(),
            users: users.iter().map(|(user, n)| ((*user).to_owned(), *n)).collect(),
            rooms: rooms.iter().map(room).collect(),
            complete: true,
        }
    }

    #[test]
    fn gateways_add_up() {
        let mut all = present(&[("u1", 2), ("u2", 1)], &[("a", 3, 2)]);
        all.add(present(&[("u1", 1)], &[("a", 1, 1), ("b", 1, 1)]));
        assert_eq!(all, present(&[("u1", 3), ("u2", 1)], &[("a", 4, 3), ("b", 1, 1)]));
        all.add(Present::default());
        assert!(!all.complete, "what one left out is left out");
    }

    #[test]
    fn what_a_message_does_not_take_is_left_out_and_said() {
        let name = |n: usize| format!("user-{n:05}");
        let users = |count: usize| Present {
            users: (0..count).map(|n| (name(n), 1)).collect(),
            complete: true,
            ..Present::default()
        };
        for (count, left) in [(0, 0), (USERS_MAX, USERS_MAX), (USERS_MAX + 1, USERS_MAX)] {
            let mut answer = users(count);
            answer.bound();
            assert_eq!((answer.users.len(), answer.complete), (left, count == left));
        }
        let mut long = Present {
            users: (0..200).map(|n| (format!("{n:01000}"), 1)).collect(),
            complete: true,
            ..Present::default()
        };
        long.bound();
        assert!(long.users.len() == USERS_BYTES_MAX / 1_000 && !long.complete);
        let mut rooms = Present {
            rooms: (0..2 * ROOMS_MAX)
                .map(|n| {
                    let connections = if n < 10 { 5 } else { 1 };
                    let room = Room::parse(&format!("r{n}")).unwrap();
                    (
                        room,
                        InRoom {
                            connections,
                            users: 1,
                        },
                    )
                })
                .collect(),
            complete: true,
            ..Present::default()
        };
        rooms.bound();
        assert_eq!((rooms.rooms.len(), rooms.complete), (10, false));
        let bytes =
            serde_json::to_vec(&long).unwrap().len() + serde_json::to_vec(&users(USERS_MAX)).unwrap().len();
        assert!(bytes < 256 * 1024);
    }

    #[test]
    fn a_question_is_read_strictly() {
        let read = |text: &str| serde_json::from_str::<Question>(text).is_ok();
        assert!(read(r#"{"id":"x","tenant":"main"}"#));
        assert!(read(r#"{"id":"x","tenant":"main","room":"a.b"}"#));
        for wrong in [
            r#"{"id":"x"}"#,
            r#"{"id":"x","tenant":"GW"}"#,
            r#"{"id":"x","tenant":"main","room":"a b"}"#,
            r#"{"id":"x","tenant":"main","rooms":[]}"#,
        ] {
            assert!(!read(wrong), "{wrong}");
        }
    }
}
