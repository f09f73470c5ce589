//! The hub with all who use it at once, in thousands of orders: writers of both streams, reads of the stream that are ahead of what
//! has come live, a policy that changes, and a client that comes, is cut off anywhere and comes back with its cursor. Between them are
//! the inboxes that shards have, with their wake-ups, and so small that they overflow.
//!
//! What must hold in every order: the client sees each event once and in order, no value goes back, it ends with the newest of every
//! key; nobody waits for ever, also not a shard for a wake-up; a shard that was told too much knows it before it says anything that
//! came after; what a changed policy takes away is not given to those who come after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use roomcast_access::Subscribe;
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use super::super::{Hub, HubSettings, Incoming, Read, Recovered, Recovery, ToShard, Waiter};
use super::*;
use crate::metrics::GatewayMetrics;
use crate::shard::{Handle, Inbox, Inlet};
use crate::sync::{Mutex, modelled, turn};

/// Messages in each stream, and keys among which state values go round.
const EVENTS: u64 = 5;
const VALUES: u64 = 5;
const KEYS: u64 = 2;
/// Connections that are cut off, before one that stays.
const CUTS: u64 = 2;
/// Times that others open another room.
const ROUNDS: u64 = 2;
/// More turns than any order needs: who still waits then waits for ever.
const TURNS_MAX: usize = 40_000;
/// A policy is read and metrics are declared on it.
const STACK_BYTES: usize = 1 << 20;
const RANDOM_ORDERS: usize = 2_000;
const UNLIKELY_ORDERS: usize = 1_000;
/// Connections of all orders that ended because an inbox was full.
static LOST: AtomicU32 = AtomicU32::new(0);

/// What the threads share.
struct World {
    hub: Arc<Hub>,
    /// Of the client's shard, and of the one where somebody looks around.
    loops: [Mutex<Option<Loop>>; 2],
    /// The stream of state reaches to here; the spine may be behind it.
    stored: AtomicU64,
    /// Whether `staff` is an audience that anybody belongs to.
    staff: AtomicBool,
    /// The policy has changed, and the hub knows.
    taken_away: AtomicBool,
    client_done: AtomicBool,
    others_done: AtomicBool,
}

/// A shard's loop around its inbox, as far as the hub knows it: woken, it reads in turns.
struct Loop {
    poll: Poll,
    events: Events,
    inlet: Inlet,
    in_turn: bool,
    more: bool,
}

/// What a shard finds when it looks.
enum Found {
    /// Nothing, and nobody has woken it.
    Nothing,
    /// Deliveries were lost: its clients are to come back.
    Lost,
    Told(ToShard),
}

impl Loop {
    /// The other end, and the loop.
    fn new(metrics: &Metrics) -> (Handle, Self) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (handle, inlet) = Handle::new(waker, GatewayMetrics::new(metrics).unwrap());
        let made = Self {
            poll,
            events: Events::with_capacity(4),
            inlet,
            in_turn: false,
            more: false,
        };
        (handle, made)
    }

    fn next(&mut self) -> Found {
        if !self.in_turn {
            turn();
            self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
            if self.events.is_empty() && !self.more {
                return Found::Nothing;
            }
            self.in_turn = true;
            if self.inlet.begin(usize::MAX) {
                return Found::Lost;
            }
        }
        match self.inlet.next() {
            Some(Inbox::Hub(told)) => Found::Told(told),
            Some(other) => panic!("{other:?}"),
            None => {
                self.in_turn = false;
                self.more = self.inlet.end();
                Found::Nothing
            }
        }
    }
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new_cyclic(|world: &std::sync::Weak<Self>| {
            let [one, two] = [(); 2].map(|()| Loop::new(&Metrics::new("model").unwrap()));
            let (asked, policy) = (world.clone(), Policy::parse(POLICY, "policy.yaml").unwrap());
            let lookup = Box::new(move |name: &str| {
                let staff = asked
                    .upgrade()
                    .is_none_or(|world| world.staff.load(Ordering::SeqCst));
                policy.audience(name).filter(|_| staff || name != "staff")
            });
            // No memory for rooms that nobody is in: who comes back finds nothing loaded.
            let settings = HubSettings {
                state_bytes_max: 1,
                ..HubSettings::default()
            };
            let hub = Hub::new(settings, lookup, &Metrics::new("model").unwrap()).unwrap();
            let loops = [one, two].map(|(handle, its_loop)| {
                hub.attach(Box::new(move |message| handle.tell(message)));
                Mutex::new(Some(its_loop))
            });
            hub.reset_state("s", 1, None);
            hub.reset_events("e", 1, 1, None);
            hub.open();
            Self {
                hub,
                loops,
                stored: AtomicU64::new(0),
                staff: AtomicBool::new(true),
                taken_away: AtomicBool::new(false),
                client_done: AtomicBool::new(false),
                others_done: AtomicBool::new(false),
            }
        })
    }

    /// Every other event is for staff.
    fn write_events(&self) {
        for seq in 1..=EVENTS {
            turn();
            let audience = if is_for_all(seq) { "all" } else { "staff" };
            self.hub.event(seq, 0, &for_audience(audience), false);
        }
    }

    fn write_values(&self) {
        for rev in 1..=VALUES {
            self.stored.fetch_max(rev, Ordering::SeqCst);
            turn();
            self.hub.state_value(rev, 0, &value("a", &key_of(rev)));
        }
    }

    /// The side of NATS: answers what is asked with what is stored, at some time.
    fn answer_reads(&self) {
        let mut reads = self.hub.take_reads().unwrap();
        let over = || self.client_done.load(Ordering::SeqCst) && self.others_done.load(Ordering::SeqCst);
        while !over() {
            turn();
            let Ok(Read::State(place)) = reads.try_recv() else {
                continue;
            };
            let life = self.hub.life();
            // The stream may be ahead of the spine, by what is stored and on its way.
            let ahead = shuttle::rand::thread_rng().gen_range(0..=1);
            let to = self.stored.fetch_max(0, Ordering::SeqCst) + ahead;
            let to = to.min(VALUES);
            self.stored.fetch_max(to, Ordering::SeqCst);
            let to = if &*place.key == "main.a" { to } else { 0 };
            let newest: BTreeMap<String, u64> = (1..=to).map(|rev| (key_of(rev), rev)).collect();
            turn();
            let values = newest
                .into_iter()
                .map(|(key, rev)| self.hub.old_value(rev, 0, &value("a", &key)).unwrap())
                .collect();
            turn();
            self.hub.loaded(&place.key, life, Some(values));
        }
    }

    /// Others open another room and leave it, for which the cache has to let go of one.
    fn look_around(&self) {
        let permit = permit("b");
        let mut shard = self.shard(1);
        for ticket in 1..=ROUNDS {
            let waiter = Waiter { shard: 1, ticket };
            while matches!(self.hub.recover(&permit, None, waiter, 0), Recovery::Wait) {
                // Nobody is in a room there, so nobody is sent away.
                while !matches!(shard.next(), Found::Told(told) if is_ready(&told, ticket)) {
                    turn();
                }
            }
            self.hub.hold(&permit);
            turn();
            self.hub.release(&permit);
            self.hub.forget(waiter);
        }
        self.others_done.store(true, Ordering::SeqCst);
    }

    fn shard(&self, number: usize) -> Loop {
        self.loops[number].lock().unwrap().take().unwrap()
    }

    fn change_policy(&self) {
        turn();
        self.staff.store(false, Ordering::SeqCst);
        turn();
        self.hub.policy_changed();
        self.taken_away.store(true, Ordering::SeqCst);
    }
}

fn is_ready(message: &ToShard, ticket: u64) -> bool {
    matches!(message, ToShard::Ready { ticket: told } if *told == ticket)
}

fn is_for_all(seq: u64) -> bool {
    seq % 2 == 1
}

fn key_of(rev: u64) -> String {
    format!("k{}", rev % KEYS)
}

fn for_audience(audience: &str) -> Incoming {
    message(subject::event(
        &Tenant::default(),
        &Room::parse("a").unwrap(),
        &Audience::parse(audience).unwrap(),
    ))
}

/// A client of one room in a shard that has only it, through all its connections.
struct Client<'a> {
    world: &'a World,
    shard: Loop,
    /// Connections that ended because the shard had lost deliveries.
    lost: u32,
    permit: Subscribe,
    ticket: u64,
    cursor: Option<Cursor>,
    /// The event after which the first connection began.
    began: Option<u64>,
    events: Vec<u64>,
    values: BTreeMap<String, u64>,
}

impl Client<'_> {
    fn live(&mut self) {
        for _ in 0..CUTS {
            let patience = shuttle::rand::thread_rng().gen_range(0..8);
            self.connection(Some(patience));
        }
        while !self.connection(None) {}
        let all = self.events.iter().copied().filter(|seq| is_for_all(*seq));
        let began = self.began.unwrap();
        let owed = (began + 1..=EVENTS).filter(|seq| is_for_all(*seq));
        assert_eq!(
            all.collect::<Vec<_>>(),
            owed.collect::<Vec<_>>(),
            "began after {began}"
        );
        let newest = (1..=VALUES).map(|rev| (key_of(rev), rev)).collect();
        assert_eq!(self.values, newest);
        self.world.client_done.store(true, Ordering::SeqCst);
    }

    /// One connection, cut off after so many frames; without a number it stays until everything is there. Whether it has stayed: also
    /// its shard ends it, when it has lost something.
    fn connection(&mut self, frames_max: Option<usize>) -> bool {
        let mut frames_left = frames_max;
        let Some(recovered) = self.open(frames_max) else {
            return false;
        };
        self.world.hub.hold(&self.permit);
        let skip = recovered.head.position;
        let gone = self.take_recovery(&recovered, &mut frames_left);
        let mut given: BTreeMap<String, u64> = self.values.clone();
        let mut at = skip;
        let mut stayed = true;
        while !gone && frames_left != Some(0) && (at.seq < EVENTS || at.rev < VALUES) {
            turn();
            let delivery = match self.shard.next() {
                Found::Told(ToShard::Deliver(delivery)) => delivery,
                Found::Told(_) | Found::Nothing => continue,
                Found::Lost => {
                    self.lost += 1;
                    stayed = false;
                    break;
                }
            };
            let is_event = delivery.kind == Kind::Event;
            let position = delivery.position;
            let is_known = match is_event {
                true => position.seq <= skip.seq,
                false => position.rev <= skip.rev,
            };
            if is_known {
                continue;
            }
            at = position;
            if !delivery.visible(&self.permit, 0) {
                continue;
            }
            match &delivery.kind {
                Kind::State { key, .. } => {
                    let before = given.insert(key.to_string(), position.rev);
                    assert!(
                        before.is_none_or(|before| before < position.rev),
                        "a value came twice"
                    );
                    self.values.insert(key.to_string(), position.rev);
                }
                _ => self.event(position.seq),
            }
            self.cursor = delivery.cursor();
            frames_left = frames_left.map(|left| left - 1);
        }
        self.world.hub.release(&self.permit);
        self.world.hub.forget(self.waiter());
        stayed
    }

    fn waiter(&self) -> Waiter {
        waiter(self.ticket)
    }

    /// Asks until there is an answer. A client with little patience may be gone before.
    fn open(&mut self, patience: Option<usize>) -> Option<Recovered> {
        self.ticket += 1;
        let mut waited = 0;
        loop {
            let taken_away = self.world.taken_away.load(Ordering::SeqCst);
            match self
                .world
                .hub
                .recover(&self.permit, self.cursor, self.waiter(), 0)
            {
                Recovery::Done(recovered) => {
                    let staff = recovered
                        .events
                        .iter()
                        .filter(|event| !is_for_all(event.position.seq));
                    assert!(!taken_away || staff.count() == 0, "given after it was taken away");
                    return Some(recovered);
                }
                Recovery::Wait => {}
                other => panic!("{other:?}"),
            }
            loop {
                turn();
                waited += 1;
                if patience == Some(0) && waited > 5 {
                    self.world.hub.forget(self.waiter());
                    return None;
                }
                match self.shard.next() {
                    Found::Told(told) if is_ready(&told, self.ticket) => break,
                    Found::Told(_) | Found::Nothing => {}
                    Found::Lost => {
                        self.lost += 1;
                        self.world.hub.forget(self.waiter());
                        return None;
                    }
                }
            }
        }
    }

    /// Takes what was missed, frame by frame; whether the connection was cut off meanwhile.
    fn take_recovery(&mut self, recovered: &Recovered, frames_left: &mut Option<usize>) -> bool {
        let mut cut = || match frames_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        match recovered.recovery {
            Outcome::Fresh => {
                assert!(self.cursor.is_none());
                self.values.clear();
                self.events.clear();
                self.began = Some(recovered.head.position.seq);
            }
            Outcome::Complete => {}
            Outcome::Incomplete { reason } => panic!("{reason:?}"),
        }
        for event in &recovered.events {
            if cut() {
                return true;
            }
            self.event(event.position.seq);
            self.cursor = event.cursor();
        }
        for value in &recovered.state {
            if cut() {
                return true;
            }
            let Kind::State { key, .. } = &value.kind else {
                continue;
            };
            let rev = value.position.rev;
            assert!(rev <= recovered.head.position.rev, "a value from after the cut");
            let before = self.values.insert(key.to_string(), rev);
            // After a cut in the middle of a recovery values come again; older ones never.
            assert!(
                before.is_none_or(|before| before <= rev),
                "{before:?} and then {rev}"
            );
        }
        if cut() {
            return true;
        }
        self.cursor = Some(recovered.head);
        false
    }

    fn event(&mut self, seq: u64) {
        assert!(
            self.events.last().is_none_or(|last| *last < seq),
            "{seq} after {:?}",
            self.events
        );
        self.events.push(seq);
    }
}

fn everybody_at_once() {
    let world = World::new();
    let start = |work: fn(&World)| {
        let world = Arc::clone(&world);
        shuttle::thread::spawn(move || work(&world))
    };
    let threads = [
        start(World::write_events),
        start(World::write_values),
        start(World::answer_reads),
        start(World::look_around),
        start(World::change_policy),
    ];
    let mut client = Client {
        world: &world,
        shard: world.shard(0),
        lost: 0,
        permit: permit("a"),
        ticket: 0,
        cursor: None,
        began: None,
        events: Vec::new(),
        values: BTreeMap::new(),
    };
    client.live();
    LOST.fetch_add(client.lost, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(world.hub.stock().waiting(), 0, "nobody waits");
}

fn run(scheduler: impl Scheduler + 'static) {
    let mut config = shuttle::Config::default();
    config.stack_size = STACK_BYTES;
    config.max_steps = shuttle::MaxSteps::FailAfter(TURNS_MAX);
    modelled(|| {
        shuttle::Runner::new(scheduler, config).run(everybody_at_once);
    });
}

#[test]
fn in_any_order_everything_arrives_once() {
    run(RandomScheduler::new(RANDOM_ORDERS));
    assert!(LOST.load(Ordering::Relaxed) > 0, "no inbox was ever full");
}

/// Orders in which one thread is held up for long, which chance seldom makes.
#[test]
fn in_unlikely_orders_too() {
    run(PctScheduler::new(3, UNLIKELY_ORDERS));
}
