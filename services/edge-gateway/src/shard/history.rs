//! Older events on request: one page in one message, one request of a client at a time.

use bytes::Bytes;
use roomcast_proto::cursor::{Cursor, Cursors};
use roomcast_proto::frame::{HistoryPage, PlacedEvent, ServerFrame, server_frame};
use roomcast_proto::refusal::{Code, Refusal};

use super::recovery::unavailable;
use super::{Shard, Ticket};
use crate::allowance::{self, Operation};
use crate::hub;
use crate::limit::Limit;
use crate::session::Reading;

impl Shard {
    /// Reads history and answers, or waits for the hub; one request of a client waits at a time.
    pub(super) fn read_history(&mut self, key: u32, reading: Reading) {
        let ticket = self.new_ticket();
        self.read_on(key, reading, ticket);
    }

    /// The same again for a request that waited: its time goes on.
    pub(super) fn read_on(&mut self, key: u32, mut reading: Reading, ticket: u64) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let Some(session) = connection.session() else {
            return;
        };
        if !session.may_still_read(&mut reading) {
            return self.refuse(key, reading.id, &Refusal::forbidden());
        }
        let (tenant, user) = (session.tenant().clone(), session.user().to_owned());
        if connection.reading.is_some() {
            self.shared.metrics.limited(Limit::Reading);
            let refusal = Refusal::new(Code::Rate, "one request for history at a time").retry_after_ms(1_000);
            return self.refuse(key, reading.id, &refusal);
        }
        let waiter = self.waiter(ticket);
        let now = self.now.unix_millis;
        let allowance = &self.shared.allowance;
        let deep = || allowance.take(&tenant, &user, Operation::DeepHistory);
        match self
            .shared
            .hub
            .history(&reading.permit, reading.before, reading.limit, waiter, now, deep)
        {
            hub::History::Done(page) => {
                if let Some(id) = reading.id {
                    let cursors = self.shared.hub.cursors();
                    let bytes_max = self.shared.limits.answer_bytes_max;
                    let page = history_page(&reading, page, (cursors, bytes_max), &mut self.tally.unreadable);
                    let body = server_frame::Body::History(page);
                    self.say(key, &ServerFrame::answer(Some(id), body));
                }
            }
            hub::History::Rate(wait_millis) => {
                self.refuse(key, reading.id, &allowance::too_many(wait_millis));
            }
            hub::History::Unavailable => {
                self.shared.hub.forget(waiter);
                self.refuse(key, reading.id, &unavailable());
            }
            hub::History::Wait => {
                self.tickets.insert(ticket, Ticket::Reading(key));
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.reading = Some(Box::new((ticket, reading)));
                }
            }
        }
    }

    pub(super) fn refuse(&mut self, key: u32, id: Option<u32>, refusal: &Refusal) {
        if id.is_some() {
            self.say(key, &ServerFrame::refuse(id, refusal));
        }
    }
}

/// A page as it is sent: the newest of its events that fit into one message of so many bytes.
fn history_page(
    reading: &Reading,
    page: hub::HistoryPage,
    (cursors, bytes_max): (Cursors, usize),
    unreadable: &mut u64,
) -> HistoryPage {
    let tenant = reading.permit.tenant();
    let text = |cursor: Cursor| cursors.write(tenant, &cursor).to_string();
    let seen = page.events.iter().map(|event| {
        (
            event.cursor(),
            event.for_class(&reading.permit).map(|seen| seen.body_bytes()),
        )
    });
    let mut events: Vec<(Option<Cursor>, Bytes)> = Vec::with_capacity(page.events.len());
    for (cursor, body) in seen {
        match body {
            Some(body) => events.push((cursor, body)),
            None => *unreadable += 1,
        }
    }
    let (kept, cut) = newest_that_fit(&events, |(_, body)| body.len(), bytes_max);
    let cursor = if cut {
        kept.first().and_then(|(cursor, _)| *cursor)
    } else {
        page.cursor
    };
    HistoryPage {
        room: reading.permit.room().as_str().to_owned(),
        events: kept
            .iter()
            .map(|(cursor, event)| PlacedEvent {
                cursor: cursor.map(text).unwrap_or_default(),
                event: event.clone(),
            })
            .collect(),
        cursor: cursor.map(text),
        complete: page.complete && !cut,
    }
}

/// The last elements that have at most `bytes_max` together, at least one; and whether any was left out.
pub(crate) fn newest_that_fit<T>(
    events: &[T],
    bytes_of: impl Fn(&T) -> usize,
    bytes_max: usize,
) -> (&[T], bool) {
    let mut bytes = 0;
    let fits = events.iter().rev().take_while(|event| {
        bytes += bytes_of(event);
        bytes <= bytes_max
    });
    let count = fits.count().max(usize::from(!events.is_empty()));
    (&events[events.len() - count..], count < events.len())
}
