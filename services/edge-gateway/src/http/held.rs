//! How many requests may be held at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};

use crate::limit::Limit;

/// When to come back to a gateway that holds as many as it may, milliseconds.
const RETRY_MS: u64 = 5_000;

/// Places for held requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holds {
    most: usize,
    of_tenant: usize,
    taken: Arc<Mutex<Taken>>,
    count: IntGauge,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Tenants with held requests.
    tenants: HashMap<Tenant, usize>,
}

/// One of the places; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    tenant: Tenant,
    taken: Arc<Mutex<Taken>>,
    count: IntGauge,
}

/// What is answered where no place is left: `wait=0` is answered all the same.
pub(super) fn refusal() -> Refusal {
    let detail = "as many requests are held as may be; ask with wait=0";
    Refusal::new(Code::Unavailable, detail).retry_after_ms(RETRY_MS)
}

impl Holds {
    /// So many places, so many of one tenant, with the gauge of those that are taken.
    #[must_use]
    pub fn new(most: usize, of_tenant: usize, count: IntGauge) -> Self {
        Self {
            most,
            of_tenant,
            taken: Arc::default(),
            count,
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// The limit that was met, to be counted; answer with [`refusal`].
    pub(super) fn take(&self, tenant: &Tenant) -> Result<Held, Limit> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = taken.tenants.get(tenant).copied().unwrap_or(0);
        if taken.all >= self.most {
            return Err(Limit::Polls);
        }
        if of_tenant >= self.of_tenant {
            return Err(Limit::PollsOfTenant);
        }
        taken.all += 1;
        taken.tenants.insert(tenant.clone(), of_tenant + 1);
        self.count.inc();
        Ok(Held {
            tenant: tenant.clone(),
            taken: Arc::clone(&self.taken),
            count: self.count.clone(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.dec();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.tenants.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_of_the_places_and_gives_them_back() {
        let gauge = IntGauge::new("held", "held").unwrap();
        let holds = Holds::new(3, 2, gauge.clone());
        let (main, acme) = (Tenant::default(), Tenant::parse("acme").unwrap());
        let first = holds.take(&main).unwrap();
        let _second = holds.take(&main).unwrap();
        assert_eq!(holds.take(&main).unwrap_err(), Limit::PollsOfTenant);
        let other = holds.take(&acme).unwrap();
        assert_eq!(holds.take(&acme).unwrap_err(), Limit::Polls);
        assert_eq!(gauge.get(), 3);
        drop(first);
        drop(other);
        assert!(holds.take(&main).is_ok());
        assert_eq!(gauge.get(), 1);
        assert_eq!(holds.taken.lock().unwrap().tenants.len(), 1);
    }
}
