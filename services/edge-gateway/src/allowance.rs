//! How often one user may do what, over all connections and transports of this gateway.
//!
//! Asked by the shards for messages and by the HTTP routes for requests, before anything is done. A user is held here only while
//! something is taken from one of the buckets, and there is room for a fixed number: who comes when it is full is told to wait.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::IntCounterVec;
use roomcast_proto::frame::{ClientFrame, client_frame};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};

use crate::bucket::{Bucket, Rate};
use crate::maps::HashMap;

/// Users held at most: about 250 bytes each.
const USERS_MAX: usize = 100_000;
/// How often users who have rested are forgotten, milliseconds.
const SWEEP_MILLIS: u64 = 10_000;
/// What a user is told who does not fit, milliseconds.
const FULL_WAIT_MILLIS: u64 = 1_000;
/// Upper bound of a rate and of a burst.
const MOST: u64 = 1_000_000;

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a room.
    Subscribe,
    /// Older events that are in memory.
    History,
    /// Older events that have to be read from the stream, by `history` or `rewind`.
    DeepHistory,
    /// State or a snapshot over HTTP.
    Read,
    /// An event of the user's own.
    Publish,
    /// A command to a backend.
    Command,
    /// Asking who is in a room.
    Presence,
    /// A page of notifications.
    Feed,
    /// Marking notifications.
    Mark,
    /// Setting preferences.
    Preferences,
    /// Saying what one does.
    Activity,
    /// A newer token: the signature is checked.
    Refresh,
    /// A ticket for a native `EventSource`.
    Ticket,
    /// Devices for pushes.
    Device,
}

/// How many there are. A number of its own: as a length in a type, `ALL.len()` has the optimizing compiler go in circles (E0391).
const OPERATIONS: usize = 14;

impl Operation {
    /// All of them, with their names in settings and metrics and their usual rates: what a page with many tabs needs, several
    /// times over, and far below what would be felt by others.
    pub const ALL: [(Self, &'static str, Rate); OPERATIONS] = [
        (Self::Subscribe, "subscribe", rate(50, 500)),
        (Self::History, "history", rate(10, 30)),
        // A read walks up to 50,000 positions while others wait for theirs.
        (Self::DeepHistory, "deep_history", rate(1, 3)),
        (Self::Read, "read", rate(20, 100)),
        (Self::Publish, "publish", rate(10, 30)),
        (Self::Command, "command", rate(10, 30)),
        (Self::Presence, "presence", rate(5, 50)),
        (Self::Feed, "feed", rate(5, 30)),
        (Self::Mark, "mark", rate(10, 50)),
        (Self::Preferences, "preferences", rate(1, 10)),
        (Self::Activity, "activity", rate(2, 20)),
        (Self::Refresh, "refresh", rate(1, 20)),
        (Self::Ticket, "ticket", rate(2, 20)),
        // Registering is a durable write.
        (Self::Device, "device", rate(1, 10)),
    ];

    /// The operation a message asks for; `None`: it is counted with all messages of its connection alone.
    #[must_use]
    pub fn of(frame: &ClientFrame) -> Option<Self> {
        use client_frame::Body;
        match frame.body.as_ref()? {
            Body::Subscribe(_) => Some(Self::Subscribe),
            Body::History(_) => Some(Self::History),
            Body::Publish(_) => Some(Self::Publish),
            Body::Command(_) => Some(Self::Command),
            Body::Presence(_) => Some(Self::Presence),
            Body::Feed(_) | Body::Counters(_) => Some(Self::Feed),
            Body::Mark(_) => Some(Self::Mark),
            Body::Preferences(_) => Some(Self::Preferences),
            Body::Activity(_) => Some(Self::Activity),
            Body::Refresh(_) => Some(Self::Refresh),
            Body::Connect(_) | Body::Unsubscribe(_) | Body::Pong(_) => None,
        }
    }

    /// The name in settings and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(operation, _, _)| *operation == self)
            .map_or("", |(_, name, _)| name)
    }

    fn index(self) -> usize {
        self as usize
    }
}

const fn rate(per_second: u64, burst: u64) -> Rate {
    Rate { per_second, burst }
}

/// The rates of all operations, by [`Operation::index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates([Rate; OPERATIONS]);

impl Default for Rates {
    fn default() -> Self {
        Self(Operation::ALL.map(|(_, _, rate)| rate))
    }
}

impl FromStr for Rates {
    type Err = String;

    /// Reads `name=per_second/burst`, comma-separated; what is not named keeps its usual rate.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut rates = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let names = || Operation::ALL.map(|(_, name, _)| name).join(", ");
            let (name, rate) = part
                .split_once('=')
                .ok_or_else(|| format!("parts like history=10/30, which {part:?} is not"))?;
            let (operation, _, _) = Operation::ALL
                .into_iter()
                .find(|(_, known, _)| *known == name.trim())
                .ok_or_else(|| format!("one of {}, which {name:?} is not", names()))?;
            let number = |text: &str| text.trim().parse().ok().filter(|n| (1..=MOST).contains(n));
            let rate = rate
                .split_once('/')
                .and_then(|(per_second, burst)| Some(self::rate(number(per_second)?, number(burst)?)));
            rates.0[operation.index()] =
                rate.ok_or_else(|| format!("two numbers from 1 to {MOST} for {name}, like {name}=10/30"))?;
        }
        Ok(rates)
    }
}

/// The book of what users have done lately. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Allowance {
    book: Arc<Mutex<Book>>,
    started: Instant,
    refused: IntCounterVec,
}

impl Allowance {
    /// An empty book; `refused` counts by operation.
    #[must_use]
    pub fn new(rates: Rates, refused: IntCounterVec) -> Self {
        Self {
            book: Arc::new(Mutex::new(Book::new(rates, USERS_MAX))),
            started: Instant::now(),
            refused,
        }
    }

    /// Counts one operation of a user.
    ///
    /// # Errors
    /// It is one too many: after how many milliseconds it makes sense to try again; [`too_many`] says so.
    pub fn take(&self, tenant: &Tenant, user: &str, operation: Operation) -> Result<(), u64> {
        let now_millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let taken = self
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(tenant, user, operation, now_millis);
        if taken.is_err() {
            self.refused.with_label_values(&[operation.as_str()]).inc();
        }
        taken
    }
}

/// What is answered to one operation too many: `rate`, temporary, with when to try again.
#[must_use]
pub fn too_many(wait_millis: u64) -> Refusal {
    Refusal::new(Code::Rate, "too many requests of this kind").retry_after_ms(wait_millis.max(1))
}

/// The decisions; the time is an argument.
#[derive(Debug)]
struct Book {
    rates: Rates,
    users_max: usize,
    /// By `<tenant>/<user>`: a tenant has no slash.
    users: HashMap<Box<str>, [Bucket; OPERATIONS]>,
    swept_millis: u64,
    key: String,
}

impl Book {
    fn new(rates: Rates, users_max: usize) -> Self {
        Self {
            rates,
            users_max,
            users: HashMap::default(),
            swept_millis: 0,
            key: String::new(),
        }
    }

    fn take(
        &mut self,
        tenant: &Tenant,
        user: &str,
        operation: Operation,
        now_millis: u64,
    ) -> Result<(), u64> {
        let due = now_millis >= self.swept_millis + SWEEP_MILLIS;
        // When it is full, looking for room costs a walk: once a second.
        let full = self.users.len() >= self.users_max && now_millis >= self.swept_millis + FULL_WAIT_MILLIS;
        if due || full {
            self.swept_millis = now_millis;
            self.users
                .retain(|_, buckets| !buckets.iter().all(|bucket| bucket.is_full(now_millis)));
        }
        self.key.clear();
        self.key.extend([tenant.as_str(), "/", user]);
        if !self.users.contains_key(self.key.as_str()) {
            if self.users.len() >= self.users_max {
                return Err(FULL_WAIT_MILLIS);
            }
            self.users.insert(self.key.as_str().into(), Default::default());
        }
        let rate = self.rates.0[operation.index()];
        let Some(bucket) = self
            .users
            .get_mut(self.key.as_str())
            .map(|buckets| &mut buckets[operation.index()])
        else {
            return Err(FULL_WAIT_MILLIS);
        };
        if bucket.take(now_millis, 1, rate) {
            Ok(())
        } else {
            Err(bucket.wait_millis(now_millis, rate))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn book(users_max: usize) -> Book {
        Book::new("history=1/2,mark=10/1".parse().unwrap(), users_max)
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn rates_are_read_and_mistakes_named() {
        let rates: Rates = "history=7/70, mark = 1/1".parse().unwrap();
        assert_eq!(rates.0[Operation::History.index()], rate(7, 70));
        assert_eq!(rates.0[Operation::Mark.index()], rate(1, 1));
        assert_eq!(rates.0[Operation::Command.index()], rate(10, 30));
        assert_eq!("".parse::<Rates>(), Ok(Rates::default()));
        let rows = [
            ("history", "parts like"),
            ("histori=1/1", "deep_history"),
            ("history=1", "two numbers"),
            ("history=0/1", "two numbers"),
            ("history=1/0", "two numbers"),
            ("history=-1/5", "two numbers"),
            ("history=1/5000000", "two numbers"),
        ];
        for (text, says) in rows {
            let mistake = text.parse::<Rates>().unwrap_err();
            assert!(mistake.contains(says), "{text}: {mistake}");
        }
        for (at, (operation, _, _)) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.index(), at, "{operation:?}");
        }
    }

    #[test]
    fn operations_users_and_tenants_are_counted_apart() {
        let mut book = book(100);
        let (main, acme) = (tenant("main"), tenant("acme"));
        let rows = [
            (&main, "u1", Operation::History, Ok(())),
            (&main, "u1", Operation::History, Ok(())),
            (&main, "u1", Operation::History, Err(1_000)),
            (&main, "u1", Operation::Mark, Ok(())),
            (&main, "u1", Operation::Mark, Err(100)),
            (&main, "u2", Operation::History, Ok(())),
            (&acme, "u1", Operation::History, Ok(())),
        ];
        for (number, (tenant, user, operation, expected)) in rows.into_iter().enumerate() {
            assert_eq!(book.take(tenant, user, operation, 5), expected, "row {number}");
        }
        assert_eq!(book.take(&main, "u1", Operation::History, 1_005), Ok(()));
    }

    #[test]
    fn users_who_rest_are_forgotten_and_a_full_book_says_wait() {
        let mut book = book(3);
        let main = tenant("main");
        for user in ["a", "b", "c"] {
            assert_eq!(book.take(&main, user, Operation::History, 1), Ok(()));
        }
        assert_eq!(
            book.take(&main, "d", Operation::History, 2),
            Err(FULL_WAIT_MILLIS)
        );
        assert_eq!(
            book.take(&main, "a", Operation::History, 2),
            Ok(()),
            "who is in stays in"
        );
        // One second later b and c have rested.
        assert_eq!(book.take(&main, "d", Operation::History, 1_010), Ok(()));
        assert_eq!(book.users.len(), 2);
        assert_eq!(book.take(&main, "e", Operation::History, 100_000), Ok(()));
        assert_eq!(book.users.len(), 1);
    }

    proptest! {
        #[test]
        fn the_book_never_holds_more_than_it_may(users in prop::collection::vec(0_u32..500, 1..400)) {
            let mut book = book(20);
            for (now, user) in (0..).zip(users) {
                let _ = book.take(&Tenant::default(), &user.to_string(), Operation::History, now);
                prop_assert!(book.users.len() <= 20);
            }
        }
    }
}
