//! How many connections there are and from where, and whether one more may come.
//!
//! Asked by a shard before a byte is read, and again once it is known who it is. A [`Place`] is held by the connection for as
//! long as it lives, a [`Stranger`] until it has shown a token, a [`Resident`] from then on; all give back what they took when they
//! are dropped, on whichever thread.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};

use crate::bucket::{Bucket, Rate};
use crate::maps::HashMap;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of the process.
    pub connections_max: usize,
    /// Connections of one tenant.
    pub per_tenant_max: usize,
    /// Connections of one user.
    pub per_user_max: usize,
    /// Connections of one address.
    pub per_address_max: usize,
    /// Connections of the process that have not shown a token.
    pub strangers_max: usize,
    /// Connections of one address that have not shown a token.
    pub strangers_per_address_max: usize,
    /// New connections of the process.
    pub rate: Rate,
    /// New connections of one address.
    pub address_rate: Rate,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The process holds as many as it may.
    #[error("connections")]
    Connections,
    /// Too many that are not authenticated.
    #[error("strangers")]
    Strangers,
    /// Too many new ones at once.
    #[error("rate")]
    Rate,
    /// The address holds as many as it may.
    #[error("address")]
    Address,
    /// Too many of this address that are not authenticated.
    #[error("address_strangers")]
    AddressStrangers,
    /// Too many new ones of this address at once.
    #[error("address_rate")]
    AddressRate,
    /// The tenant holds as many as it may.
    #[error("tenant")]
    Tenant,
    /// The user holds as many as it may.
    #[error("user")]
    User,
}

impl TooMany {
    /// All of them, for counters.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Strangers,
        Self::Rate,
        Self::Address,
        Self::AddressStrangers,
        Self::AddressRate,
        Self::Tenant,
        Self::User,
    ];

    /// The word in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Strangers => "strangers",
            Self::Rate => "rate",
            Self::Address => "address",
            Self::AddressStrangers => "address_strangers",
            Self::AddressRate => "address_rate",
            Self::Tenant => "tenant",
            Self::User => "user",
        }
    }

    /// What somebody is told whose token is good and who is one too many: `limit`, and 4504 where it is a connection.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let whose = if self == Self::Tenant { "tenant" } else { "user" };
        Refusal::new(Code::Limit, format!("this {whose} has too many connections"))
            .retry_after_ms(LIMIT_RETRY_MILLIS)
    }
}

/// When to try again after a limit on connections: somebody has to leave first.
const LIMIT_RETRY_MILLIS: u64 = 5_000;

/// The book of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Limits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    strangers: usize,
    rate: Bucket,
    /// Addresses with connections, or with a rate that has not recovered yet.
    addresses: std::collections::HashMap<IpAddr, Address>,
    /// Tenants and users with connections, so no more than there are connections.
    tenants: HashMap<Tenant, usize>,
    /// By `<tenant>/<user>`: a tenant has no slash.
    users: HashMap<Arc<str>, usize>,
    swept_millis: u64,
}

#[derive(Debug, Default)]
struct Address {
    connections: usize,
    strangers: usize,
    rate: Bucket,
}

/// How often addresses without connections are forgotten, milliseconds.
const SWEEP_MILLIS: u64 = 10_000;

impl Ledger {
    /// An empty book.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: Arc::default(),
        }
    }

    /// Takes a place for a new connection. `now_millis`: any clock that never goes back.
    ///
    /// # Errors
    /// [`TooMany`]; nothing was taken, and nothing was allocated for an address that holds nothing.
    pub fn enter(&self, address: IpAddr, now_millis: u64) -> Result<(Place, Stranger), TooMany> {
        let address = source(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.sweep(now_millis);
        if counts.connections >= self.limits.connections_max {
            return Err(TooMany::Connections);
        }
        if counts.strangers >= self.limits.strangers_max {
            return Err(TooMany::Strangers);
        }
        // The address first: what is refused to one address must not use up the rate of all.
        let (known, strangers) = counts
            .addresses
            .get(&address)
            .map_or((0, 0), |known| (known.connections, known.strangers));
        if known >= self.limits.per_address_max {
            return Err(TooMany::Address);
        }
        if strangers >= self.limits.strangers_per_address_max {
            return Err(TooMany::AddressStrangers);
        }
        let mut rate = counts
            .addresses
            .get(&address)
            .map(|known| known.rate)
            .unwrap_or_default();
        if !rate.take(now_millis, 1, self.limits.address_rate) {
            return Err(TooMany::AddressRate);
        }
        if !counts.rate.take(now_millis, 1, self.limits.rate) {
            return Err(TooMany::Rate);
        }
        let entry = counts.addresses.entry(address).or_default();
        entry.connections += 1;
        entry.strangers += 1;
        entry.rate = rate;
        counts.connections += 1;
        counts.strangers += 1;
        Ok((
            Place {
                ledger: self.clone(),
                address,
                resident: None,
            },
            Stranger {
                counts: Arc::clone(&self.counts),
                address,
            },
        ))
    }

    /// Takes a place among the connections of a tenant and a user, for a request that stays open.
    ///
    /// # Errors
    /// [`TooMany::Tenant`], [`TooMany::User`]; nothing was taken. Answer with [`TooMany::refusal`].
    pub fn reside(&self, tenant: &Tenant, user: &str) -> Result<Resident, TooMany> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = counts.tenants.get(tenant).copied().unwrap_or(0);
        if of_tenant >= self.limits.per_tenant_max {
            return Err(TooMany::Tenant);
        }
        let name = [tenant.as_str(), "/", user].concat();
        let known = counts
            .users
            .get_key_value(name.as_str())
            .map(|(name, count)| (Arc::clone(name), *count));
        let (user, of_user) = known.unwrap_or_else(|| (name.into(), 0));
        if of_user >= self.limits.per_user_max {
            return Err(TooMany::User);
        }
        match counts.tenants.get_mut(tenant) {
            Some(count) => *count += 1,
            None => drop(counts.tenants.insert(tenant.clone(), 1)),
        }
        *counts.users.entry(Arc::clone(&user)).or_default() += 1;
        Ok(Resident {
            counts: Arc::clone(&self.counts),
            tenant: tenant.clone(),
            user,
        })
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connections
    }
}

impl Counts {
    fn sweep(&mut self, now_millis: u64) {
        if now_millis.saturating_sub(self.swept_millis) < SWEEP_MILLIS {
            return;
        }
        self.swept_millis = now_millis;
        let rested = |address: &Address| address.rate.is_full(now_millis);
        self.addresses
            .retain(|_, address| address.connections + address.strangers > 0 || !rested(address));
    }
}

/// The address that limits count: an IPv4 address as itself however it is written, of an IPv6 address its network of
/// 64 bits, because a single customer holds all of that.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A place of the process and of an address.
#[derive(Debug)]
pub struct Place {
    ledger: Ledger,
    address: IpAddr,
    resident: Option<Arc<Resident>>,
}

impl Place {
    /// Holds a place of a tenant and a user that was taken before.
    pub fn hold(&mut self, resident: Arc<Resident>) {
        self.resident = Some(resident);
    }

    /// Takes a place of a tenant and a user as well, for as long as this one is held.
    ///
    /// # Errors
    /// As [`Ledger::reside`].
    pub fn settle(&mut self, tenant: &Tenant, user: &str) -> Result<(), TooMany> {
        self.resident = Some(self.ledger.reside(tenant, user)?.into());
        Ok(())
    }
}

impl Place {
    /// Takes a place among those without a token, for a connection that gave its own back.
    ///
    /// # Errors
    /// [`TooMany::Strangers`], [`TooMany::AddressStrangers`]; nothing was taken.
    pub fn be_a_stranger(&self) -> Result<Stranger, TooMany> {
        let limits = &self.ledger.limits;
        let mut counts = self.ledger.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.strangers >= limits.strangers_max {
            return Err(TooMany::Strangers);
        }
        let address = counts.addresses.entry(self.address).or_default();
        if address.strangers >= limits.strangers_per_address_max {
            return Err(TooMany::AddressStrangers);
        }
        address.strangers += 1;
        counts.strangers += 1;
        Ok(Stranger {
            counts: Arc::clone(&self.ledger.counts),
            address: self.address,
        })
    }

    /// Where the connection comes from; of an IPv6 address, its network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &self.ledger.counts;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.connections -= 1;
        if let Some(address) = counts.addresses.get_mut(&self.address) {
            address.connections -= 1;
        }
    }
}

/// A place among those that are not authenticated.
#[derive(Debug)]
pub struct Stranger {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.strangers -= 1;
        if let Some(address) = counts.addresses.get_mut(&self.address) {
            address.strangers -= 1;
        }
    }
}

/// A place of a tenant and of a user.
#[derive(Debug)]
pub struct Resident {
    counts: Arc<Mutex<Counts>>,
    tenant: Tenant,
    user: Arc<str>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.tenants.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.tenants.remove(&self.tenant);
            }
        }
        if let Some(count) = counts.users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 5,
        per_tenant_max: 3,
        per_user_max: 2,
        per_address_max: 2,
        strangers_max: 3,
        strangers_per_address_max: 2,
        rate: Rate {
            per_second: 100,
            burst: 100,
        },
        address_rate: Rate {
            per_second: 1,
            burst: 4,
        },
    };

    fn from(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let ledger = Ledger::new(LIMITS);
        let first = ledger.enter(from(1), 1).unwrap();
        let (_second, stranger) = ledger.enter(from(1), 1).unwrap();
        assert_eq!(ledger.enter(from(1), 1).unwrap_err(), TooMany::Address);
        let _third = ledger.enter(from(2), 1).unwrap();
        assert_eq!(ledger.enter(from(3), 1).unwrap_err(), TooMany::Strangers);
        drop(stranger);
        let (_fourth, known) = ledger.enter(from(3), 1).unwrap();
        drop(known);
        let (_fifth, known) = ledger.enter(from(4), 1).unwrap();
        drop(known);
        assert_eq!(ledger.enter(from(5), 1).unwrap_err(), TooMany::Connections);
        drop(first);
        assert!(ledger.enter(from(1), 1).is_ok());
        assert_eq!(ledger.connections(), 4);
    }

    #[test]
    fn one_address_cannot_hold_all_places_of_strangers() {
        let ledger = Ledger::new(Limits {
            per_address_max: 5,
            ..LIMITS
        });
        let first = ledger.enter(from(1), 1).unwrap();
        let (_place, stranger) = ledger.enter(from(1), 1).unwrap();
        assert_eq!(ledger.enter(from(1), 1).unwrap_err(), TooMany::AddressStrangers);
        let _other = ledger.enter(from(2), 1).unwrap();
        drop(stranger);
        assert!(
            ledger.enter(from(1), 1).is_ok(),
            "who has shown a token is no stranger"
        );
        drop(first);
        assert!(ledger.enter(from(1), 1).is_ok());
    }

    #[test]
    fn who_is_a_stranger_again_takes_a_place_again() {
        let ledger = Ledger::new(LIMITS);
        let (place, stranger) = ledger.enter(from(1), 1).unwrap();
        drop(stranger);
        let (_second, _stranger) = ledger.enter(from(1), 1).unwrap();
        let again = place.be_a_stranger().unwrap();
        assert_eq!(place.be_a_stranger().unwrap_err(), TooMany::AddressStrangers);
        let (other, _stranger) = ledger.enter(from(2), 1).unwrap();
        assert_eq!(other.be_a_stranger().unwrap_err(), TooMany::Strangers);
        drop(again);
        assert!(place.be_a_stranger().is_ok());
    }

    #[test]
    fn tenants_and_users_have_shares_that_are_given_back() {
        let ledger = Ledger::new(LIMITS);
        let (main, acme) = (Tenant::default(), Tenant::parse("acme").unwrap());
        let (mut place, _stranger) = ledger.enter(from(1), 1).unwrap();
        place.settle(&main, "u1").unwrap();
        let second = ledger.reside(&main, "u1").unwrap();
        assert_eq!(ledger.reside(&main, "u1").unwrap_err(), TooMany::User);
        let _of_another = ledger.reside(&acme, "u1").unwrap();
        let _third = ledger.reside(&main, "u2").unwrap();
        assert_eq!(ledger.reside(&main, "u3").unwrap_err(), TooMany::Tenant);
        drop(place);
        drop(second);
        assert!(ledger.reside(&main, "u3").is_ok());
        let counts = ledger.counts.lock().unwrap();
        let users: Vec<&str> = counts.users.keys().map(AsRef::as_ref).collect();
        assert_eq!((counts.tenants.len(), users.len()), (2, 2), "{users:?}");
    }

    #[test]
    fn one_address_cannot_use_up_the_rate_of_all() {
        let ledger = Ledger::new(Limits {
            rate: Rate {
                per_second: 1,
                burst: 6,
            },
            ..LIMITS
        });
        for _ in 0..4 {
            drop(ledger.enter(from(1), 1).unwrap());
        }
        for _ in 0..50 {
            assert_eq!(ledger.enter(from(1), 1).unwrap_err(), TooMany::AddressRate);
        }
        drop(ledger.enter(from(2), 1).unwrap());
        drop(ledger.enter(from(2), 1).unwrap());
        assert_eq!(ledger.enter(from(3), 1).unwrap_err(), TooMany::Rate);
    }

    #[test]
    fn addresses_are_forgotten_when_they_have_rested() {
        let ledger = Ledger::new(LIMITS);
        for last in 0..5 {
            drop(ledger.enter(from(last), 1).unwrap());
        }
        let _held = ledger.enter(from(100), SWEEP_MILLIS + 2).unwrap();
        assert_eq!(ledger.counts.lock().unwrap().addresses.len(), 1);
    }

    #[test]
    fn a_v6_network_is_one_address_and_a_mapped_v4_is_itself() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            source(parse("2001:db8:1:2:3::4")),
            source(parse("2001:db8:1:2::"))
        );
        assert_ne!(source(parse("2001:db8:1:2::")), source(parse("2001:db8:1:3::")));
        assert_eq!(source(parse("::ffff:10.0.0.1")), parse("10.0.0.1"));
    }
}
