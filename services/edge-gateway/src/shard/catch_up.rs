//! What a client missed: queued whole, or in pages that it takes one after the other.

use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_proto::close::Close;
use roomcast_proto::cursor::Cursor;

use super::{Shard, Ticket};
use crate::delivery::Delivery;
use crate::encoding::{self, Encoding};
use crate::hub::{Outcome, Recovered, Recovery};
use crate::metrics::Ending;
use crate::outbox::Class;

impl Shard {
    /// Queues missed events, then state, then `caughtUp`. Of many events only a page, with the rest to follow when the
    /// client has taken it: then nothing live is queued for it, because that comes with the last page.
    pub(super) fn catch_up(&mut self, key: u32, slot: usize, permit: &Arc<Subscribe>, recovered: Recovered) {
        let page = self.shared.limits.page_events;
        let last = recovered
            .events
            .get(page.saturating_sub(1))
            .and_then(|event| event.cursor());
        let behind = last.filter(|_| recovered.events.len() > page);
        let count = if behind.is_some() {
            page
        } else {
            recovered.events.len()
        };
        for event in recovered.events.iter().take(count) {
            self.queue_seen(key, permit, event);
        }
        if behind.is_none() {
            for value in &recovered.state {
                self.queue_seen(key, permit, value);
            }
            self.say_caught_up(key, permit, recovered.head);
        }
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let encoding = connection.encoding;
        let Some(open) = connection
            .session()
            .and_then(|session| session.rooms.get_mut(slot))
        else {
            return;
        };
        open.behind = behind.map(Box::new);
        if let Some(member) = self.members.member_mut(open.seat) {
            member.behind = behind.is_some();
            member.skip = recovered.head.position;
        }
        if encoding == Encoding::Sse {
            self.fall_in_behind(key, slot, recovered.head);
        }
    }

    pub(super) fn queue_seen(&mut self, key: u32, permit: &Arc<Subscribe>, delivery: &Arc<Delivery>) {
        let Some(connection) = self.connections.get(key as usize) else {
            return;
        };
        let encoding = connection.encoding;
        match delivery.for_class(permit) {
            Some(seen) => self.queue(key, seen.frame(encoding).clone(), Class::Recovery),
            None => self.tally.unreadable += 1,
        }
    }

    fn say_caught_up(&mut self, key: u32, permit: &Subscribe, head: Cursor) {
        let Some(connection) = self.connections.get(key as usize) else {
            return;
        };
        let cursor = self.shared.hub.cursors().write(permit.tenant(), &head);
        let frame = encoding::caught_up(connection.encoding, permit.room(), cursor.as_str());
        self.queue(key, frame, Class::Recovery);
    }

    /// Goes on with long recoveries of clients that have taken their last page: one page per client and turn.
    pub(super) fn next_pages(&mut self) {
        // Who has had a page and wants another one stands at the end.
        let mut left = self.pages.len();
        self.piece_by_piece(|shard| {
            if left == 0 {
                return false;
            }
            left -= 1;
            let Some(key) = shard.pages.pop_front() else {
                return false;
            };
            let connection = shard.connections.get_mut(key as usize);
            if connection.is_some_and(|connection| connection.page_ticket == 0 && !connection.is_blocked()) {
                shard.next_page(key);
            }
            true
        });
    }

    fn next_page(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if connection.encoding == Encoding::Sse {
            return self.next_stream_page(key);
        }
        let Some(session) = connection.session() else {
            return;
        };
        let behind = session.rooms.iter().position(|room| room.behind.is_some());
        let Some((slot, open)) = behind.and_then(|slot| Some((slot, session.rooms.get(slot)?))) else {
            return;
        };
        let from = open.behind.as_deref().copied();
        let Some(permit) = self.members.permit(open.seat).cloned() else {
            return;
        };
        let ticket = self.new_ticket();
        let waiter = self.waiter(ticket);
        let page = self.page_and_one();
        match self
            .shared
            .hub
            .recover_page(&permit, from, page, waiter, self.now.unix_millis)
        {
            Recovery::Done(recovered) if recovered.recovery == Outcome::Complete => {
                self.catch_up(key, slot, &permit, recovered);
            }
            // What was promised is no longer there: the client comes back with its cursor and is told so.
            Recovery::Done(_) | Recovery::Unavailable | Recovery::Rate(_) => {
                self.ending.push((key, Ending::Closed(Close::Resync)))
            }
            Recovery::Wait => {
                self.tickets.insert(ticket, Ticket::Page(key));
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.page_ticket = ticket;
                }
            }
        }
    }
}
