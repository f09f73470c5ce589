//! What clients of a shard ask others to do: handed to a task, answered when that has ended.

use std::sync::Arc;

use roomcast_proto::frame::{CommandResult, Published, ServerFrame, server_frame};
use roomcast_proto::refusal::Refusal;

use super::Shard;
use super::inbox::Inbox;
use crate::asking::{Ask, Done, RIGHTS_CHANGED, What, too_many, unavailable};
use crate::limit::Limit;

/// The end of what one connection asked for.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The connection's key, and its name: the key may have another holder by now.
    pub(super) key: u32,
    pub(super) name: u64,
    /// What to say, if anybody waits for it.
    pub(super) frame: Option<ServerFrame>,
    /// Of what shows something: under which generation of rights, and what to refuse.
    pub(super) shows: Option<(u64, Option<u32>)>,
}

impl Shard {
    /// Has something carried out; a bounded number for each connection at the same time.
    pub(super) fn ask(&mut self, key: u32, ask: Ask) {
        let asking = Arc::clone(&self.shared.asking);
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if connection.asks >= asking.per_connection() {
            self.shared.metrics.limited(Limit::AsksOfConnection);
            return self.refuse(key, ask.id, &too_many());
        }
        let Some(session) = connection.session() else {
            return;
        };
        if !session.may_still_ask(&ask) {
            return self.refuse(key, ask.id, &unavailable(RIGHTS_CHANGED));
        }
        let generation = session.rights_generation();
        connection.asks += 1;
        let (name, handle) = (connection.name, self.handle.clone());
        let hub = Arc::clone(&self.shared.hub);
        let silent = matches!(ask.what, What::Activity(_));
        let Ask { id, who, what, .. } = ask;
        let shows = matches!(what, What::Feed(_)).then_some((generation, id));
        self.shared.runtime.spawn(async move {
            let done = asking.carry_out(&hub, who, what, None).await;
            let frame = (id.is_some() && !(silent && done.is_ok())).then(|| answer(id, done));
            handle.send(Inbox::Answered(Box::new(Answered {
                key,
                name,
                frame,
                shows,
            })));
        });
    }

    pub(super) fn answered(&mut self, answered: Answered) {
        let connection = self.connections.get_mut(answered.key as usize);
        let Some(connection) = connection.filter(|connection| connection.name == answered.name) else {
            return;
        };
        connection.asks = connection.asks.saturating_sub(1);
        let generation = connection.session().map(|session| session.rights_generation());
        if let Some((shown, id)) = answered.shows
            && Some(shown) != generation
        {
            // What was read for it may be somebody else's by now.
            return self.refuse(answered.key, id, &unavailable(RIGHTS_CHANGED));
        }
        if let Some(frame) = answered.frame {
            self.say(answered.key, &frame);
        }
    }
}

fn answer(id: Option<u32>, done: Result<Done, Refusal>) -> ServerFrame {
    match done {
        Ok(Done::Result(data)) => ServerFrame::answer(id, server_frame::Body::Result(CommandResult { data })),
        Ok(Done::Published(event_id)) => {
            ServerFrame::answer(id, server_frame::Body::Published(Published { event_id }))
        }
        Ok(Done::Feed(page)) => ServerFrame::answer(id, server_frame::Body::Feed(page)),
        Ok(Done::Preferences(kept)) => ServerFrame::answer(id, server_frame::Body::Preferences(kept)),
        Err(refusal) => ServerFrame::refuse(id, &refusal),
    }
}
