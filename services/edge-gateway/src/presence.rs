//! Who is in which room, at this gateway and at all others: a state machine that messages and the passing of time go into.
//!
//! A gateway says only what it knows itself: who its own sockets are. Every change of that has a number; a gateway that misses one,
//! seen by the next change or by the beat that comes each second, asks for all. Three beats missed, and all whom that gateway spoke
//! for are away, and gone after the grace, as if they had left. So what is known is never older than a few seconds, whatever the
//! network drops, doubles or reorders. A gateway hears itself, too: when it does not, it is the one that is cut off, and says nothing
//! to its clients. Nothing here awaits, reads a clock or touches a socket.

mod other;
mod polls;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::presence::{Here, Is, Said, What};

use other::Other;
use polls::Polls;

/// Milliseconds between two beats.
pub const BEAT_MILLIS: u64 = 1_000;
/// Three missed beats, and half of one for the way.
const LOST_MILLIS: u64 = 3 * BEAT_MILLIS + BEAT_MILLIS / 2;
/// So long a gateway listens before it answers: every other has beaten once, and what was missed has come.
const LISTEN_MILLIS: u64 = BEAT_MILLIS + BEAT_MILLIS / 2;
/// A user without connections is shown so long: reconnects are not seen.
pub const GRACE_MILLIS: u64 = 10_000;
/// Between two requests for everything a gateway knows, and between two answers to such requests.
const ASK_MILLIS: u64 = 1_000;
/// Users of one room that one gateway speaks for; who comes later is not shown.
pub const ROOM_USERS_MAX: usize = 1_000;
/// Users in rooms, counted once per room, that one gateway speaks for.
pub const USERS_MAX: usize = 200_000;
/// Gateways listened to. More than that are not one installation.
pub const GATEWAYS_MAX: usize = 256;
/// Changes in one message, and users in one part of everything: 200 of them have about 30 KiB.
const CHANGES_MAX: usize = 200;

/// A room of a tenant.
pub type Place = (Tenant, Room);

/// A user in a room, as one gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    roles: Arc<[String]>,
    connections: u32,
    since_millis: i64,
    /// Since when there are no connections, on the machine's own clock.
    left_at: Option<u64>,
}

/// A user in a room, over all gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// The token's subject.
    pub user: Arc<str>,
    /// Its roles, by the policy's names: those of all its connections.
    pub roles: Arc<[String]>,
    /// Open connections; 0: it has just left, and may come back.
    pub connections: u32,
    /// Since when, Unix milliseconds.
    pub since_millis: i64,
}

type Rooms = HashMap<Place, BTreeMap<Arc<str>, Member>>;

/// Since when a gateway hears itself without a break, and when it last did.
#[derive(Clone, Copy, Debug)]
struct Echo {
    since: u64,
    last: u64,
}

/// Everything known.
#[derive(Debug)]
pub struct Presence {
    own: String,
    rooms: Rooms,
    users: usize,
    version: u64,
    beat_at: u64,
    echo: Option<Echo>,
    was_current: bool,
    /// Own users whose change was not said yet.
    unsaid: BTreeSet<(Place, Arc<str>)>,
    /// Own users without connections, by when their grace ends.
    leaving: BTreeSet<(u64, Place, Arc<str>)>,
    /// Who is here by polling.
    polls: Polls,
    /// Somebody asked for all, and when all was told last.
    tell_all: bool,
    told_all_at: Option<u64>,
    others: HashMap<String, Other>,
    /// Rooms that look different since they were last taken.
    changed: HashSet<Place>,
    /// Users who were not counted in because a bound was reached.
    cut: u64,
}

impl Presence {
    /// Knows nobody yet. `own`: the name of this gateway's life, one plain token that no other ever has.
    #[must_use]
    pub fn new(own: String) -> Self {
        Self {
            own,
            rooms: HashMap::new(),
            users: 0,
            version: 0,
            beat_at: 0,
            echo: None,
            was_current: false,
            unsaid: BTreeSet::new(),
            leaving: BTreeSet::new(),
            polls: Polls::default(),
            tell_all: false,
            told_all_at: None,
            others: HashMap::new(),
            changed: HashSet::new(),
            cut: 0,
        }
    }

    /// A connection of a user is in a room from now on. Whether it is counted: then [`Presence::leave`] undoes it.
    pub fn enter(&mut self, place: &Place, user: &Arc<str>, roles: &Arc<[String]>, unix_millis: i64) -> bool {
        let full = self.users >= USERS_MAX;
        if let Some(member) = self.member_mut(place, user) {
            member.connections += 1;
            member.roles = Arc::clone(roles);
            if let Some(left) = member.left_at.take() {
                self.leaving
                    .remove(&(left + GRACE_MILLIS, place.clone(), Arc::clone(user)));
            }
        } else if full || self.rooms.get(place).map_or(0, BTreeMap::len) >= ROOM_USERS_MAX {
            self.cut += 1;
            return false;
        } else {
            let member = Member {
                roles: Arc::clone(roles),
                connections: 1,
                // Who moves between gateways has been there all the time.
                since_millis: self.since(place, user).unwrap_or(unix_millis).min(unix_millis),
                left_at: None,
            };
            self.users += 1;
            let members = self.rooms.entry(place.clone()).or_default();
            members.insert(Arc::clone(user), member);
        }
        self.say(place, user);
        true
    }

    /// A connection of a user that was counted is no longer in a room.
    pub fn leave(&mut self, place: &Place, user: &Arc<str>, now: u64) {
        let Some(member) = self.member_mut(place, user) else {
            return;
        };
        if member.connections == 0 {
            return;
        }
        member.connections -= 1;
        if member.connections == 0 {
            member.left_at = Some(now);
            self.leaving
                .insert((now + GRACE_MILLIS, place.clone(), Arc::clone(user)));
        }
        self.say(place, user);
    }

    /// A user who is in a room has other roles from now on.
    pub fn roles_changed(&mut self, place: &Place, user: &Arc<str>, roles: &Arc<[String]>) {
        match self.member_mut(place, user) {
            Some(member) if member.roles != *roles => member.roles = Arc::clone(roles),
            _ => return,
        }
        self.say(place, user);
    }

    fn member_mut(&mut self, place: &Place, user: &str) -> Option<&mut Member> {
        self.rooms.get_mut(place)?.get_mut(user)
    }

    fn say(&mut self, place: &Place, user: &Arc<str>) {
        self.unsaid.insert((place.clone(), Arc::clone(user)));
        self.changed.insert(place.clone());
    }

    fn everywhere<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a BTreeMap<Arc<str>, Member>> {
        let rooms = std::iter::once(&self.rooms).chain(self.others.values().map(|other| &other.rooms));
        rooms.filter_map(move |rooms| rooms.get(place))
    }

    fn since(&self, place: &Place, user: &str) -> Option<i64> {
        let known = self.everywhere(place).filter_map(|members| members.get(user));
        known.map(|member| member.since_millis).min()
    }

    /// At least as many as there are in a room, without counting who is there twice.
    #[must_use]
    pub fn size(&self, place: &Place) -> usize {
        self.everywhere(place).map(BTreeMap::len).sum()
    }

    /// Everybody in a room who may be seen by somebody with `sees`, the longest there first, at most `most`; and how many they are.
    #[must_use]
    pub fn room(&self, place: &Place, most: usize, sees: impl Fn(&Present) -> bool) -> (Vec<Present>, usize) {
        let mut all: BTreeMap<&Arc<str>, Present> = BTreeMap::new();
        for (user, member) in self.everywhere(place).flatten() {
            all.entry(user)
                .and_modify(|present| present.add(member))
                .or_insert_with(|| Present {
                    user: Arc::clone(user),
                    roles: Arc::clone(&member.roles),
                    connections: member.connections,
                    since_millis: member.since_millis,
                });
        }
        let mut seen: Vec<Present> = all.into_values().filter(sees).collect();
        seen.sort_by(|a, b| (a.since_millis, &a.user).cmp(&(b.since_millis, &b.user)));
        let total = seen.len();
        seen.truncate(most);
        (seen, total)
    }

    /// Whether this is what all gateways know: not right after the start, and not while this one is cut off from the others.
    #[must_use]
    pub fn is_current(&self, now: u64) -> bool {
        let heard = |echo: Echo| now < echo.last + LOST_MILLIS && now >= echo.since + LISTEN_MILLIS;
        self.echo.is_some_and(heard)
    }

    /// Rooms that look different since this was last asked.
    pub fn take_changed(&mut self) -> HashSet<Place> {
        std::mem::take(&mut self.changed)
    }

    /// Users who were not counted in since this was last asked.
    pub fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Gateways heard of, those that have fallen silent within the grace included.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.others.len()
    }

    /// Time passes: what is to be said to the other gateways now, in this order. Called ten times a second.
    pub fn tick(&mut self, now: u64) -> Vec<Said> {
        self.end_polls(now);
        self.forget_the_gone(now);
        self.lose_the_silent(now);
        self.notice_whether_current(now);
        let mut said = Vec::new();
        while !self.unsaid.is_empty() {
            let changes = self.next_changes();
            self.version += 1;
            said.push(self.said(What::Changes(changes)));
        }
        if self.tell_all && self.told_all_at.is_none_or(|at| now >= at + ASK_MILLIS) {
            (self.tell_all, self.told_all_at) = (false, Some(now));
            said.extend(self.all());
        }
        if now >= self.beat_at {
            self.beat_at = now + BEAT_MILLIS;
            said.push(self.said(What::Beat));
        }
        let asked = self.others.iter_mut();
        let asked = asked.filter_map(|(name, other)| other.asks(now).then(|| name.clone()));
        let asked: Vec<String> = asked.collect();
        said.extend(asked.into_iter().map(|name| self.said(What::TellAll(name))));
        said
    }

    fn said(&self, what: What) -> Said {
        Said {
            gateway: self.own.clone(),
            version: self.version,
            what,
        }
    }

    fn next_changes(&mut self) -> Vec<Here> {
        let mut changes = Vec::new();
        while changes.len() < CHANGES_MAX {
            let Some((place, user)) = self.unsaid.pop_first() else {
                break;
            };
            let member = self.rooms.get(&place).and_then(|members| members.get(&user));
            changes.push(here(&place, &user, member));
        }
        changes
    }

    fn all(&self) -> Vec<Said> {
        let everybody = self.rooms.iter().flat_map(|(place, members)| {
            let here = move |(user, member)| here(place, user, Some(member));
            members.iter().map(here)
        });
        let everybody: Vec<Here> = everybody.collect();
        let mut parts: Vec<Vec<Here>> = everybody.chunks(CHANGES_MAX).map(<[Here]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let numbered = (0..of).zip(parts);
        numbered
            .map(|(part, users)| self.said(What::All { part, of, users }))
            .collect()
    }

    /// Own users whose grace is over.
    fn forget_the_gone(&mut self, now: u64) {
        while self.leaving.first().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, place, user)) = self.leaving.pop_first() {
                self.forget(&place, &user);
            }
        }
    }

    fn forget(&mut self, place: &Place, user: &Arc<str>) {
        let Some(members) = self.rooms.get_mut(place) else {
            return;
        };
        if members.remove(user).is_none() {
            return;
        }
        self.users -= 1;
        if members.is_empty() {
            self.rooms.remove(place);
        }
        self.say(place, user);
    }

    /// Gateways that say nothing any more: theirs are away, and then gone.
    fn lose_the_silent(&mut self, now: u64) {
        let changed = &mut self.changed;
        self.others.retain(|_, other| {
            let silent = now.saturating_sub(other.heard_at);
            if silent >= LOST_MILLIS {
                other.lose(changed);
            }
            let gone = silent >= LOST_MILLIS + GRACE_MILLIS;
            if gone {
                changed.extend(other.rooms.keys().cloned());
            }
            !gone
        });
    }

    /// Who is not told anything meanwhile is told all afterwards.
    fn notice_whether_current(&mut self, now: u64) {
        let current = self.is_current(now);
        if current && !self.was_current {
            let others = self.others.values().flat_map(|other| other.rooms.keys());
            self.changed.extend(self.rooms.keys().chain(others).cloned());
        }
        self.was_current = current;
    }

    /// A gateway has said something, perhaps this one. Doubled or late words, and those of too many gateways, change nothing.
    pub fn hear(&mut self, said: Said, now: u64) {
        if said.gateway == self.own {
            let unbroken = self.echo.filter(|echo| now < echo.last + LOST_MILLIS);
            let since = unbroken.map_or(now, |echo| echo.since);
            self.echo = Some(Echo { since, last: now });
            return;
        }
        if let What::TellAll(name) = &said.what {
            self.tell_all |= *name == self.own;
        }
        if !self.others.contains_key(&said.gateway) && self.others.len() >= GATEWAYS_MAX {
            self.cut += 1;
            return;
        }
        let new = || Other::new(said.version);
        let other = self.others.entry(said.gateway).or_insert_with(new);
        (other.heard_at, other.lost) = (now, false);
        self.cut += other.said(said.version, said.what, &mut self.changed);
    }
}

impl Present {
    /// Adds what another gateway knows of the same user.
    fn add(&mut self, member: &Member) {
        self.connections += member.connections;
        self.since_millis = self.since_millis.min(member.since_millis);
        if self.roles != member.roles {
            let both: BTreeSet<&String> = self.roles.iter().chain(member.roles.iter()).collect();
            self.roles = both.into_iter().cloned().collect();
        }
    }
}

fn here(place: &Place, user: &Arc<str>, member: Option<&Member>) -> Here {
    Here {
        tenant: place.0.clone(),
        room: place.1.clone(),
        user: Arc::clone(user),
        is: member.map(|member| Is {
            roles: Arc::clone(&member.roles),
            connections: member.connections,
            since_millis: member.since_millis,
        }),
    }
}

#[cfg(test)]
mod tests;
