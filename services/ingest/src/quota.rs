//! How much one publisher and one tenant may have done: so many events a second, and so many requests worked on at the same time.
//!
//! Asked by both doors when they know who publishes, and by [`crate::intake`] before anything is stored. One that sends too much is told
//! which limit it is and when to come back; the others do not notice. Each instance counts for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::fast::RandomState;
use roomcast_chassis::bucket::{Bucket, Rate};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};

use crate::accept::{May, Sender};
use crate::error::RETRY_AFTER_MS;
use crate::metrics::IngestMetrics;

/// Bytes of dead letters of one tenant at this instance. At once a sixteenth of what the stream keeps, then the whole of it in a quarter
/// of an hour: nobody's refused events push out everybody else's before an operator has seen it. What waits in a queue is not counted:
/// nobody sends it again, and the queue has its rate and its size.
const TENANT_LETTERS: Rate = Rate {
    per_second: 256 << 10,
    burst: 16 << 20,
};
/// Of one publisher: a quarter, so that one that floods leaves the others of its tenant theirs.
const PUBLISHER_LETTERS: Rate = Rate {
    per_second: TENANT_LETTERS.per_second / 4,
    burst: TENANT_LETTERS.burst / 4,
};
/// Publishers and tenants counted at the same time. Those that rest are forgotten; where all are busy, newcomers wait.
const COUNTED_MAX: usize = 20_000;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events of one publisher.
    pub publisher_rate: Rate,
    /// Events of one tenant.
    pub tenant_rate: Rate,
    /// Requests of one publisher worked on at the same time.
    pub publisher_requests_max: usize,
    /// Requests of one tenant worked on at the same time.
    pub tenant_requests_max: usize,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Publisher,
    Tenant,
}

impl Whose {
    const ALL: [Whose; 2] = [Whose::Publisher, Whose::Tenant];

    fn as_str(self) -> &'static str {
        match self {
            Whose::Publisher => "publisher",
            Whose::Tenant => "tenant",
        }
    }

    fn holder(self, sender: &Sender) -> Holder {
        let publisher = (self == Whose::Publisher).then(|| Arc::clone(&sender.publisher));
        Holder(sender.tenant.clone(), publisher)
    }

    /// Bytes of its dead letters.
    fn letters(self) -> Rate {
        match self {
            Whose::Publisher => PUBLISHER_LETTERS,
            Whose::Tenant => TENANT_LETTERS,
        }
    }

    fn named(self, sender: &Sender) -> String {
        match self {
            Whose::Publisher => format!("the publisher {}", sender.publisher),
            Whose::Tenant => format!("the tenant {}", sender.tenant),
        }
    }
}

impl Limits {
    fn rate(&self, whose: Whose) -> Rate {
        match whose {
            Whose::Publisher => self.publisher_rate,
            Whose::Tenant => self.tenant_rate,
        }
    }

    fn requests_max(&self, whose: Whose) -> usize {
        match whose {
            Whose::Publisher => self.publisher_requests_max,
            Whose::Tenant => self.tenant_requests_max,
        }
    }
}

/// What one publisher or tenant has taken.
#[derive(Debug, Default)]
struct Account {
    events: Bucket,
    /// Bytes of what was refused and kept.
    letters: Bucket,
    requests: usize,
}

/// A tenant, or one publisher of it. Made without a copy of their names: every event asks several times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder(Tenant, Option<Arc<str>>);

type Book = HashMap<Holder, Account, RandomState>;

/// The book of what publishers and tenants have taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Quotas {
    limits: Limits,
    book: Arc<Mutex<Book>>,
    began: Instant,
    metrics: IngestMetrics,
}

/// A request's place among those of its publisher and its tenant; given back when dropped.
#[derive(Debug)]
pub struct Share {
    book: Arc<Mutex<Book>>,
    holders: [Holder; 2],
}

impl Quotas {
    /// An empty book.
    #[must_use]
    pub fn new(limits: Limits, metrics: IngestMetrics) -> Self {
        for (whose, what) in Whose::ALL.into_iter().zip(["publisher", "tenant"]) {
            debug_assert_eq!(whose.as_str(), what);
            metrics.over_quota.with_label_values(&[what, "rate"]);
            metrics.over_quota.with_label_values(&[what, "requests"]);
            metrics.over_quota.with_label_values(&[what, "letters"]);
        }
        Self {
            limits,
            book: Arc::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// Takes a place for one request. `None`: this sender is not counted.
    ///
    /// # Errors
    /// `quota`: the publisher or tenant has as many requests under way as it may; `rate`: it has no events left now. Nothing was taken.
    pub fn enter(&self, sender: &Sender) -> Result<Option<Share>, Refusal> {
        if !is_counted(sender) {
            return Ok(None);
        }
        let now_millis = self.now_millis();
        let holders = Whose::ALL.map(|whose| whose.holder(sender));
        let mut book = self.book();
        for (whose, holder) in Whose::ALL.into_iter().zip(&holders) {
            let Some(account) = book.get(holder) else { continue };
            let most = self.limits.requests_max(whose);
            if account.requests >= most {
                drop(book);
                return Err(self.too_many_requests(sender, whose, most));
            }
            let (mut events, rate) = (account.events, self.limits.rate(whose));
            if !events.take(now_millis, 1, rate) {
                let wait_millis = events.wait_millis(now_millis, rate);
                drop(book);
                return Err(self.too_fast(sender, whose, wait_millis));
            }
        }
        if !make_room(&mut book, &holders, now_millis) {
            drop(book);
            return Err(self.too_many_requests(sender, Whose::Publisher, 0));
        }
        for holder in &holders {
            match book.get_mut(holder) {
                Some(account) => account.requests += 1,
                None => book.entry(holder.clone()).or_default().requests = 1,
            }
        }
        Ok(Some(Share {
            book: Arc::clone(&self.book),
            holders,
        }))
    }

    /// Counts events that are about to be stored or refused. What is more than may be at once costs as much as may be at once.
    ///
    /// # Errors
    /// `rate`, with the publisher or tenant that sends too fast; nothing was counted.
    pub fn take(&self, sender: &Sender, events: usize) -> Result<(), Refusal> {
        let taken = self.charge(
            sender,
            events,
            |whose| self.limits.rate(whose),
            |account| &mut account.events,
        );
        taken.map_err(|(whose, wait_millis)| self.too_fast(sender, whose, wait_millis))
    }

    /// Counts the bytes of letters that are about to be kept, as [`Quotas::take`] does events. Those were counted before.
    ///
    /// # Errors
    /// `rate`: more of the publisher's or the tenant's is refused than is kept; nothing was counted.
    pub fn keep(&self, sender: &Sender, letter_bytes: usize) -> Result<(), Refusal> {
        let kept = self.charge(sender, letter_bytes, Whose::letters, |account| {
            &mut account.letters
        });
        kept.map_err(|(whose, wait_millis)| self.too_much_refused(sender, whose, wait_millis))
    }

    /// Takes that much of the publisher's and of the tenant's bucket, or of neither: then whose has too little, and for how long.
    fn charge(
        &self,
        sender: &Sender,
        units: usize,
        rate: impl Fn(Whose) -> Rate,
        bucket: impl Fn(&mut Account) -> &mut Bucket,
    ) -> Result<(), (Whose, u64)> {
        if !is_counted(sender) {
            return Ok(());
        }
        let now_millis = self.now_millis();
        let mut book = self.book();
        let mut taken = Whose::ALL.map(|whose| (whose.holder(sender), Bucket::default()));
        for (whose, (holder, now)) in Whose::ALL.into_iter().zip(&mut taken) {
            let rate = rate(whose);
            *now = book
                .get_mut(holder)
                .map_or_else(Bucket::default, |account| *bucket(account));
            let cost = u64::try_from(units).unwrap_or(u64::MAX).min(rate.burst);
            if !now.take(now_millis, cost, rate) {
                return Err((whose, now.wait_millis_for(now_millis, cost, rate)));
            }
        }
        for (holder, now) in taken {
            // Whoever has a share is listed; without one (a broadcast) there is nothing to keep.
            if let Some(account) = book.get_mut(&holder) {
                *bucket(account) = now;
            }
        }
        Ok(())
    }

    fn too_much_refused(&self, sender: &Sender, whose: Whose, wait_millis: u64) -> Refusal {
        self.metrics
            .over_quota
            .with_label_values(&[whose.as_str(), "letters"])
            .inc();
        let Rate { per_second, burst } = whose.letters();
        let detail = format!(
            "of {} more is refused than is kept: {per_second} bytes a second, {burst} at once",
            whose.named(sender)
        );
        Refusal::new(Code::Rate, detail).retry_after_ms(wait_millis.max(1))
    }

    fn too_fast(&self, sender: &Sender, whose: Whose, wait_millis: u64) -> Refusal {
        self.metrics
            .over_quota
            .with_label_values(&[whose.as_str(), "rate"])
            .inc();
        let Rate { per_second, burst } = self.limits.rate(whose);
        let detail = format!(
            "{} sends more than {per_second} events a second, {burst} at once",
            whose.named(sender)
        );
        Refusal::new(Code::Rate, detail).retry_after_ms(wait_millis.max(1))
    }

    fn too_many_requests(&self, sender: &Sender, whose: Whose, most: usize) -> Refusal {
        self.metrics
            .over_quota
            .with_label_values(&[whose.as_str(), "requests"])
            .inc();
        let detail = match most {
            0 => "more publishers than can be counted send at the same time".to_owned(),
            most => format!(
                "{} has {most} requests under way, which is its share",
                whose.named(sender)
            ),
        };
        Refusal::new(Code::Quota, detail).retry_after_ms(RETRY_AFTER_MS)
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The system's own notifications and what administrators say are not held up by what others send.
fn is_counted(sender: &Sender) -> bool {
    match sender.may {
        May::Service(_) | May::User(_) | May::Nothing => true,
        May::Aggregator | May::Administrator | May::Capture => false,
    }
}

/// Whether these are in the book or fit into it; those that rest make room.
fn make_room(book: &mut Book, holders: &[Holder; 2], now_millis: u64) -> bool {
    if book.len() + holders.len() <= COUNTED_MAX {
        return true;
    }
    let fits = |book: &Book| {
        let new = holders.iter().filter(|one| !book.contains_key(*one)).count();
        book.len() + new <= COUNTED_MAX
    };
    if !fits(book) {
        let rests =
            |account: &Account| account.events.is_full(now_millis) && account.letters.is_full(now_millis);
        book.retain(|_, account| account.requests > 0 || !rests(account));
    }
    fits(book)
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in &self.holders {
            if let Some(account) = book.get_mut(holder) {
                account.requests -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_access::{Policy, Principal};
    use roomcast_proto::ids::Tenant;

    use super::*;

    const LIMITS: Limits = Limits {
        publisher_rate: Rate {
            per_second: 1,
            burst: 1_000,
        },
        tenant_rate: Rate {
            per_second: 1,
            burst: 1_500,
        },
        publisher_requests_max: 2,
        tenant_requests_max: 3,
    };

    fn sender(tenant: &str, publisher: &str) -> Sender {
        let policy = Policy::parse(
            "version: 1\nroles: { r: { permissions: [p] } }\nrooms: []\n",
            "policy.yaml",
        )
        .unwrap();
        let principal = Principal {
            tenant: Tenant::parse(tenant).unwrap(),
            subject: publisher.into(),
            roles: vec!["r".to_owned()],
            claims: serde_json::Map::new(),
            expires_at: i64::MAX,
            issued_at: None,
            token_id: None,
        };
        let rights = policy.rights(&principal);
        Sender::of_token(&principal, rights)
    }

    #[test]
    fn a_publisher_and_a_tenant_have_their_rates() {
        let quotas = Quotas::new(LIMITS, IngestMetrics::for_tests());
        let (one, two, other) = (
            sender("main", "one"),
            sender("main", "two"),
            sender("acme", "one"),
        );
        let _held: Vec<_> = [&one, &two, &other]
            .map(|sender| quotas.enter(sender).unwrap())
            .into();
        quotas.take(&one, 1_000).unwrap();
        let refusal = quotas.take(&one, 500).unwrap_err();
        assert_eq!(refusal.code, Code::Rate);
        assert!(
            refusal
                .detail
                .starts_with("the publisher one sends more than 1 events"),
            "{}",
            refusal.detail
        );
        assert!((400_000..=500_000).contains(&refusal.retry_after_ms.unwrap()));
        quotas.take(&two, 500).unwrap();
        let refusal = quotas.take(&two, 400).unwrap_err();
        assert!(
            refusal.detail.starts_with("the tenant main sends"),
            "{}",
            refusal.detail
        );
        // More than may be at once costs all of it, once.
        quotas.take(&other, 1_000_000).unwrap();
        assert_eq!(quotas.take(&other, 500).unwrap_err().code, Code::Rate);
        let aggregator = Sender::aggregator(&one.tenant);
        assert!(quotas.enter(&aggregator).unwrap().is_none());
        quotas.take(&aggregator, 1_000).unwrap();
    }

    #[test]
    fn letters_have_their_share_of_a_publisher_and_of_a_tenant_and_good_events_do_not_notice() {
        let quotas = Quotas::new(LIMITS, IngestMetrics::for_tests());
        let stranger = Sender::stranger(Tenant::parse("acme").unwrap(), "nats/nobody");
        let of_main = ["one", "two", "three", "four", "five"].map(|name| sender("main", name));
        // One request at a time: accounts that do not rest stay.
        let keep = |sender: &Sender, letter_bytes: usize| {
            let _share = quotas.enter(sender).unwrap();
            quotas.take(sender, 1).unwrap();
            quotas.keep(sender, letter_bytes)
        };
        let [one, two, three, four, five] = &of_main;
        let quarter = 4 << 20;
        let (of_one, of_main) = (Some("of the publisher one more"), Some("of the tenant main more"));
        for (sender, letter_bytes, refused) in [
            (one, quarter, None),
            (one, 1 << 20, of_one),
            // It leaves the others theirs, until all of them together have the tenant's.
            (two, quarter, None),
            (three, quarter, None),
            (four, quarter, None),
            (five, 1 << 20, of_main),
            (five, 0, None),
            (&stranger, quarter / 2, None),
            // More than may be at once costs all of it, once.
            (&stranger, usize::MAX, Some("of the publisher nats/nobody more")),
        ] {
            let told = keep(sender, letter_bytes);
            let said = format!("{} {letter_bytes}: {told:?}", sender.publisher);
            match (told, refused) {
                (Ok(()), None) => {}
                (Err(refusal), Some(words)) => {
                    assert_eq!(refusal.code, Code::Rate, "{said}");
                    assert!(refusal.detail.starts_with(words), "{said}");
                }
                _ => panic!("{said}, expected {refused:?}"),
            }
        }
    }

    #[test]
    fn requests_under_way_are_shared_and_come_back() {
        let quotas = Quotas::new(LIMITS, IngestMetrics::for_tests());
        let (one, two) = (sender("main", "one"), sender("main", "two"));
        let first = quotas.enter(&one).unwrap();
        let _second = quotas.enter(&one).unwrap();
        let refusal = quotas.enter(&one).unwrap_err();
        assert_eq!(refusal.code, Code::Quota);
        assert_eq!(
            refusal.detail,
            "the publisher one has 2 requests under way, which is its share"
        );
        let third = quotas.enter(&two).unwrap();
        assert!(
            quotas
                .enter(&two)
                .unwrap_err()
                .detail
                .starts_with("the tenant main has 3")
        );
        drop((first, third));
        drop((quotas.enter(&one).unwrap(), quotas.enter(&two).unwrap()));
    }

    #[test]
    fn those_that_rest_are_forgotten() {
        let quotas = Quotas::new(LIMITS, IngestMetrics::for_tests());
        for n in 0..COUNTED_MAX + 10 {
            drop(quotas.enter(&sender("main", &format!("p{n}"))).unwrap());
        }
        assert!(quotas.book().len() <= COUNTED_MAX);
    }
}
