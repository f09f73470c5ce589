//! Who has how much under way: each ask has a place among those of its user, its tenant and the gateway.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, MutexGuard, PoisonError};

use prometheus::IntGauge;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::Refusal;
use tokio::sync::OwnedSemaphorePermit;

use super::{Asking, Who, too_many, unavailable};
use crate::limit::Limit;

/// Who has how much under way.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) users: HashMap<(Tenant, Arc<str>), u32>,
    pub(super) tenants: HashMap<Tenant, u32>,
}

/// One less; who has nothing under way is not held.
fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One ask under way; dropped, there is room for another one.
#[derive(Debug)]
pub struct Place {
    asking: Arc<Asking>,
    user: (Tenant, Arc<str>),
    all: Arc<Slot>,
}

/// The part of a [`Place`] that is held until the last answer has come, also after the client was told.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    in_flight: IntGauge,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.asking.under_way();
        give_back(&mut under_way.users, &self.user);
        give_back(&mut under_way.tenants, &self.user.0);
    }
}

impl Place {
    /// See [`Slot`].
    #[must_use]
    pub fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.all)
    }
}

impl Asking {
    pub(super) fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, who: &Who) -> Result<Place, Refusal> {
        let user = (who.tenant.clone(), Arc::clone(&who.user));
        let mut under_way = self.under_way();
        let of_user = under_way.users.get(&user).copied().unwrap_or(0);
        let of_tenant = under_way.tenants.get(&user.0).copied().unwrap_or(0);
        let met = match (
            of_user >= self.limits.per_user,
            of_tenant >= self.limits.per_tenant,
        ) {
            (true, _) => Some(Limit::AsksOfUser),
            (false, true) => Some(Limit::AsksOfTenant),
            (false, false) => None,
        };
        if let Some(limit) = met {
            self.limited.limited(limit);
            return Err(too_many());
        }
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            self.limited.limited(Limit::Asks);
            unavailable("too much is under way at this gateway")
        })?;
        under_way.users.insert(user.clone(), of_user + 1);
        under_way.tenants.insert(user.0.clone(), of_tenant + 1);
        drop(under_way);
        self.metrics.in_flight.inc();
        Ok(Place {
            asking: Arc::clone(self),
            user,
            all: Arc::new(Slot {
                _permit: permit,
                in_flight: self.metrics.in_flight.clone(),
            }),
        })
    }
}
