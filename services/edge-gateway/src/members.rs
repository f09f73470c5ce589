//! Who is in which room, in one shard: rooms, their classes of equal permits and encodings, and the members of each class.
//!
//! Members with the same permit and encoding see the same bytes, so the decision about an event is made once per class and the
//! fan-out is a walk over one array. A member is 32 bytes; nothing here knows sockets. Only the shard's own thread
//! touches it. Cost per event does not depend on how many rooms there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_proto::cursor::{Cursor, Position};
use roomcast_proto::ids::{Room, Tenant};
use slab::Slab;

use crate::delivery::{Delivery, Kind};
use crate::encoding::Encoding;
use crate::gather::{Gather, Turn};
use crate::maps::HashMap;

/// Bytes of events that wait for each other in all rooms of a shard; beyond it nothing waits.
pub const GATHERED_BYTES_MAX: usize = 16 << 20;

/// The place of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    room: u32,
    class: u32,
    index: u32,
}

impl Seat {
    /// A seat that nobody has.
    pub const NONE: Self = Self {
        room: u32::MAX,
        class: u32::MAX,
        index: u32::MAX,
    };
}

/// One connection in one room.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The connection's key in the shard.
    pub connection: u32,
    /// The room's slot in the connection's session.
    pub slot: u32,
    /// What is not after this was sent during recovery.
    pub skip: Position,
    /// A long recovery is still being sent: live events are not written, they come with its next page.
    pub behind: bool,
    /// How it is written to.
    pub encoding: Encoding,
}

impl Member {
    /// Whether a delivery was sent to this member already, during recovery.
    #[must_use]
    pub fn has(&self, delivery: &Delivery) -> bool {
        match delivery.kind {
            Kind::Event => delivery.position.seq <= self.skip.seq,
            Kind::State { .. } => delivery.position.rev <= self.skip.rev,
            Kind::Ephemeral => false,
        }
    }
}

/// Members of a room with one and the same permit and encoding.
#[derive(Debug)]
pub struct Class {
    /// What all of them may see.
    pub permit: Arc<Subscribe>,
    /// How all of them are written to.
    pub encoding: Encoding,
    /// They.
    pub members: Vec<Member>,
    /// When they were last told a cursor, milliseconds of the shard's clock.
    pub told_millis: u64,
    /// The last cursor they were told because the room was quiet.
    pub told: Option<Cursor>,
}

/// A room with members.
#[derive(Debug)]
pub struct Entry {
    tenant: Tenant,
    room: Room,
    /// Its classes.
    pub classes: Slab<Class>,
    gather: Gather,
}

impl Entry {
    /// Whether events wait for each other: then the room's members are behind what this shard was handed.
    #[must_use]
    pub fn gathers(&self) -> bool {
        !self.gather.is_empty()
    }

    /// How long its events wait for each other while it is busy. All permits of one policy say the same of a room; while another one
    /// takes its place, any of them will do.
    fn window_millis(&self, usual_millis: u64) -> u64 {
        let said = self
            .classes
            .iter()
            .next()
            .and_then(|(_, class)| class.permit.flush_millis());
        match usual_millis {
            0 => 0,
            usual => said.map_or(usual, u64::from),
        }
    }

    /// Its name and its number of members.
    fn counted(&self) -> (Tenant, Room, usize) {
        let members = self.classes.iter().map(|(_, class)| class.members.len()).sum();
        (self.tenant.clone(), self.room.clone(), members)
    }
}

/// What leaving left behind.
#[derive(Debug)]
pub struct Left {
    /// The member that now has the seat of the one that left: its session must know.
    pub moved: Option<(Member, Seat)>,
    /// The permit, when the room is empty now: the hub may let go of it.
    pub emptied: Option<Arc<Subscribe>>,
}

/// All rooms of a shard that have members.
#[derive(Debug, Default)]
pub struct Members {
    by_name: HashMap<Tenant, HashMap<Room, u32>>,
    rooms: Slab<Entry>,
    /// What waits in all rooms.
    gathered_bytes: usize,
}

impl Members {
    /// Rooms with members.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// The first `limit` rooms after `after` (tenant and name) with their numbers of members, in the order of their names.
    #[must_use]
    pub fn page(
        &self,
        tenant: Option<&Tenant>,
        after: Option<(String, String)>,
        limit: usize,
    ) -> Vec<(Tenant, Room, usize)> {
        let mut first: BTreeMap<(&str, &str), &Entry> = BTreeMap::new();
        for (_, entry) in &self.rooms {
            let name = (entry.tenant.as_str(), entry.room.as_str());
            let past = after
                .as_ref()
                .is_none_or(|(tenant, room)| name > (tenant.as_str(), room.as_str()));
            if past && tenant.is_none_or(|tenant| *tenant == entry.tenant) {
                first.insert(name, entry);
                if first.len() > limit {
                    first.pop_last();
                }
            }
        }
        first.into_values().map(Entry::counted).collect()
    }

    /// All rooms with their numbers of members, in no order.
    #[must_use]
    pub fn counted(&self, tenant: Option<&Tenant>) -> Vec<(Tenant, Room, usize)> {
        let rooms = self.rooms.iter().map(|(_, entry)| entry);
        rooms
            .filter(|entry| tenant.is_none_or(|tenant| *tenant == entry.tenant))
            .map(Entry::counted)
            .collect()
    }

    /// Looks a room up.
    #[must_use]
    pub fn find(&self, tenant: &Tenant, room: &Room) -> Option<usize> {
        self.by_name.get(tenant)?.get(room).map(|at| *at as usize)
    }

    /// A room found by [`Members::find`].
    #[must_use]
    pub fn room(&self, at: usize) -> Option<&Entry> {
        self.rooms.get(at)
    }

    /// The same, to change its members' marks.
    pub fn room_mut(&mut self, at: usize) -> Option<&mut Entry> {
        self.rooms.get_mut(at)
    }

    /// All rooms' places are below this: for walks that are spread over time.
    #[must_use]
    pub fn places_max(&self) -> usize {
        self.rooms.capacity()
    }

    /// Offers events to a room; see [`Gather::offer`]. `usual_millis`: the window of a room whose policy says none; 0: nothing waits,
    /// whatever the policy says.
    pub fn offer(
        &mut self,
        at: usize,
        events: &[Arc<Delivery>],
        now_millis: u64,
        usual_millis: u64,
    ) -> Option<Turn> {
        let entry = self.rooms.get_mut(at)?;
        let window_millis = entry.window_millis(usual_millis);
        let gather = &mut entry.gather;
        let before = gather.bytes();
        let turn = gather.offer(events, now_millis, window_millis);
        self.gathered_bytes += gather.bytes() - before;
        Some(match turn {
            Turn::From(_) | Turn::Waits if self.gathered_bytes > GATHERED_BYTES_MAX => Turn::Full,
            turn => turn,
        })
    }

    /// Whether what waits in a room leaves at this instant; the room may be another one by now.
    #[must_use]
    pub fn is_due(&self, at: usize, due_millis: u64) -> bool {
        self.rooms
            .get(at)
            .is_some_and(|entry| entry.gather.is_due(due_millis))
    }

    /// Takes what waits in a room: it leaves now.
    pub fn take_gathered(&mut self, at: usize, now_millis: u64, usual_millis: u64) -> Vec<Arc<Delivery>> {
        let Some(entry) = self.rooms.get_mut(at) else {
            return Vec::new();
        };
        let window_millis = entry.window_millis(usual_millis);
        self.gathered_bytes -= entry.gather.bytes();
        entry.gather.take(now_millis, window_millis)
    }

    /// Adds a member. Answers its seat, and whether the room had none before.
    pub fn join(&mut self, permit: &Arc<Subscribe>, member: Member, now_millis: u64) -> (Seat, bool) {
        let names = self.by_name.entry(permit.tenant().clone()).or_default();
        let (at, first) = match names.get(permit.room()) {
            Some(at) => (*at, false),
            None => {
                let entry = Entry {
                    tenant: permit.tenant().clone(),
                    room: permit.room().clone(),
                    classes: Slab::new(),
                    gather: Gather::default(),
                };
                let at = index(self.rooms.insert(entry));
                names.insert(permit.room().clone(), at);
                (at, true)
            }
        };
        let classes = &mut self.rooms[at as usize].classes;
        let known = classes
            .iter()
            .find(|(_, class)| class.encoding == member.encoding && *class.permit == **permit)
            .map(|(at, _)| at);
        let class = known.unwrap_or_else(|| {
            classes.insert(Class {
                permit: Arc::clone(permit),
                encoding: member.encoding,
                members: Vec::new(),
                told_millis: now_millis,
                told: None,
            })
        });
        let members = &mut classes[class].members;
        members.push(member);
        (
            Seat {
                room: at,
                class: index(class),
                index: index(members.len() - 1),
            },
            first,
        )
    }

    /// The member on a seat.
    pub fn member_mut(&mut self, seat: Seat) -> Option<&mut Member> {
        self.class_mut(seat)?.members.get_mut(seat.index as usize)
    }

    /// The permit of a seat's holder.
    #[must_use]
    pub fn permit(&self, seat: Seat) -> Option<&Arc<Subscribe>> {
        let class = self
            .rooms
            .get(seat.room as usize)?
            .classes
            .get(seat.class as usize)?;
        Some(&class.permit)
    }

    /// Takes a member out.
    pub fn leave(&mut self, seat: Seat) -> Left {
        let mut left = Left {
            moved: None,
            emptied: None,
        };
        let Some(class) = self.class_mut(seat) else {
            return left;
        };
        if (seat.index as usize) >= class.members.len() {
            return left;
        }
        class.members.swap_remove(seat.index as usize);
        left.moved = class
            .members
            .get(seat.index as usize)
            .map(|member| (*member, seat));
        if class.members.is_empty() {
            let permit = Arc::clone(&class.permit);
            self.drop_class(seat, permit, &mut left);
        } else if class.members.capacity() > 4 * class.members.len() + 16 {
            class.members.shrink_to(2 * class.members.len());
        }
        left
    }

    fn drop_class(&mut self, seat: Seat, permit: Arc<Subscribe>, left: &mut Left) {
        let Some(entry) = self.rooms.get_mut(seat.room as usize) else {
            return;
        };
        entry.classes.try_remove(seat.class as usize);
        if !entry.classes.is_empty() {
            return;
        }
        let Some(entry) = self.rooms.try_remove(seat.room as usize) else {
            return;
        };
        self.gathered_bytes -= entry.gather.bytes();
        if let Some(names) = self.by_name.get_mut(&entry.tenant) {
            names.remove(&entry.room);
            if names.is_empty() {
                self.by_name.remove(&entry.tenant);
            }
        }
        left.emptied = Some(permit);
    }

    fn class_mut(&mut self, seat: Seat) -> Option<&mut Class> {
        self.rooms
            .get_mut(seat.room as usize)?
            .classes
            .get_mut(seat.class as usize)
    }
}

/// Slabs here hold connections and rooms of one process: far fewer than 2³².
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
