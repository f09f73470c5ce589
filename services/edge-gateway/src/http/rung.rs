//! A request that is held and wants to be told what its user has not read.

use roomcast_proto::frame::Counters;
use tokio::sync::watch;

use super::Desk;
use crate::bells::{Bell, Entering};
use crate::bells_driver::{BellDesk, Listener};
use crate::gate::Admitted;
use crate::session;

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Rung {
    name: u64,
    bells: BellDesk,
    heard: watch::Receiver<Option<Bell>>,
    /// The version that the client has; 0: none.
    known: u64,
    /// What was counted when this was heard first: what ends by itself changes the count under the same version.
    first: Option<Counters>,
}

impl Rung {
    /// Listens for this user, with its rights of now.
    pub(super) fn new(desk: &Desk, admitted: &Admitted, known: u64) -> Self {
        let (sender, heard) = watch::channel(None);
        let name = fastrand::u64(..);
        desk.bells.enter(Entering {
            name,
            to: Listener::Held(sender),
            tenant: admitted.rights.tenant().clone(),
            user: admitted.user.clone(),
            permits: session::counted_rooms(admitted),
        });
        Self {
            name,
            bells: desk.bells.clone(),
            heard,
            known,
            first: None,
        }
    }

    /// Waits until there is something that the client does not have: whichever version it names, older, or from a gateway that was ahead.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn news(&mut self) {
        let (known, first) = (self.known, &mut self.first);
        let is_news = |bell: &Option<Bell>| {
            let Some(Bell { counters, .. }) = bell else {
                return false;
            };
            let first = first.get_or_insert(*counters);
            counters.version != known || counters != first
        };
        if self.heard.wait_for(is_news).await.is_err() {
            // Nobody counts any more: the process ends.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until anything is known.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn known(&mut self) {
        let heard = self.heard.wait_for(Option::is_some).await;
        match heard.map(|bell| bell.as_ref().map(|bell| bell.counters)) {
            Ok(first) => self.first = first,
            Err(_) => std::future::pending().await,
        }
    }

    /// What is known now.
    pub(super) fn bell(&self) -> Option<Bell> {
        self.heard.borrow().clone()
    }

    /// Whether that is news for the client.
    pub(super) fn is_news(&self) -> bool {
        self.bell().is_some_and(|bell| {
            let is_other = |first: &Counters| *first != bell.counters;
            bell.counters.version != self.known || self.first.as_ref().is_some_and(is_other)
        })
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        self.bells.leave(self.name);
    }
}
