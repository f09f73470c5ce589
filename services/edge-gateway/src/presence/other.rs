//! Another gateway, as far as it has said who is with it.

use std::collections::{BTreeMap, HashSet};

use roomcast_proto::presence::{Here, Is, What};

use super::{ASK_MILLIS, CHANGES_MAX, Member, Place, ROOM_USERS_MAX, Rooms, USERS_MAX};

/// Another gateway.
#[derive(Debug, Default)]
pub(super) struct Other {
    pub(super) rooms: Rooms,
    users: usize,
    /// The number of the last change that is known.
    version: u64,
    pub(super) heard_at: u64,
    asked_at: Option<u64>,
    /// Something was missed.
    behind: bool,
    /// It has been silent for so long that its users are away.
    pub(super) lost: bool,
    /// Parts of everything that have come.
    parts: Option<Parts>,
}

/// Everything, as far as it has come: the version it is of, in how many parts it comes, those that are here.
#[derive(Debug)]
pub(super) struct Parts {
    version: u64,
    of: u32,
    here: BTreeMap<u32, Vec<Here>>,
}

impl Other {
    /// A gateway that is heard for the first time: unless it has never had anything to say, that was missed.
    pub(super) fn new(version: u64) -> Self {
        Self {
            behind: version > 0,
            ..Self::default()
        }
    }

    /// It has said something: as of which version, and what. Answers how many users were left off by a bound.
    pub(super) fn said(&mut self, version: u64, what: What, changed: &mut HashSet<Place>) -> u64 {
        match what {
            What::Beat | What::TellAll(_) => self.behind |= version > self.version,
            What::Changes(changes) if version == self.version + 1 && !self.behind => {
                self.version = version;
                return changes
                    .into_iter()
                    .map(|change| self.apply(change, changed))
                    .sum();
            }
            What::Changes(_) => self.behind |= version > self.version,
            What::All { part, of, users } => {
                if version > self.version || (version == self.version && self.behind) {
                    return self.take_part(version, part, of, users, changed);
                }
            }
        }
        0
    }

    /// Whether it is to be asked for everything now.
    pub(super) fn asks(&mut self, now: u64) -> bool {
        let asks = self.behind && !self.lost && self.asked_at.is_none_or(|at| now >= at + ASK_MILLIS);
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }

    /// It has been silent for so long that its users are away. Should it speak again, all of it is asked for.
    pub(super) fn lose(&mut self, changed: &mut HashSet<Place>) {
        if std::mem::replace(&mut self.lost, true) {
            return;
        }
        self.behind = true;
        changed.extend(self.rooms.keys().cloned());
        for member in self.rooms.values_mut().flat_map(BTreeMap::values_mut) {
            member.connections = 0;
        }
    }

    fn take_part(
        &mut self,
        version: u64,
        part: u32,
        of: u32,
        users: Vec<Here>,
        changed: &mut HashSet<Place>,
    ) -> u64 {
        let most = u32::try_from(USERS_MAX / CHANGES_MAX + 1).unwrap_or(u32::MAX);
        if part >= of || of > most || users.len() > CHANGES_MAX {
            return 0;
        }
        match &mut self.parts {
            Some(parts) if parts.version == version && parts.of == of => {
                parts.here.insert(part, users);
            }
            // Older parts than those that are being collected help nobody.
            Some(parts) if parts.version > version => return 0,
            _ => {
                let here = BTreeMap::from([(part, users)]);
                self.parts = Some(Parts { version, of, here });
            }
        }
        let whole = |parts: &mut Parts| parts.here.len() == parts.of as usize;
        let Some(parts) = self.parts.take_if(whole) else {
            return 0;
        };
        changed.extend(self.rooms.drain().map(|(place, _)| place));
        self.users = 0;
        self.version = version;
        self.behind = false;
        let users = parts.here.into_values().flatten();
        users.map(|user| self.apply(user, changed)).sum()
    }

    fn apply(&mut self, change: Here, changed: &mut HashSet<Place>) -> u64 {
        let Here {
            tenant,
            room,
            user,
            is,
        } = change;
        let place = (tenant, room);
        changed.insert(place.clone());
        match is {
            Some(is) => {
                let full = self.users >= USERS_MAX;
                let members = self.rooms.entry(place).or_default();
                let known = members.contains_key(&user);
                if !known && (full || members.len() >= ROOM_USERS_MAX) {
                    return 1;
                }
                members.insert(user, is.into());
                self.users += usize::from(!known);
            }
            None => {
                if let Some(members) = self.rooms.get_mut(&place) {
                    self.users -= usize::from(members.remove(&user).is_some());
                    if members.is_empty() {
                        self.rooms.remove(&place);
                    }
                }
            }
        }
        0
    }

    #[cfg(test)]
    pub(super) fn collects(&self) -> bool {
        self.parts.is_some()
    }
}

impl From<Is> for Member {
    fn from(is: Is) -> Self {
        Self {
            roles: is.roles,
            connections: is.connections,
            since_millis: is.since_millis,
            left_at: None,
        }
    }
}
