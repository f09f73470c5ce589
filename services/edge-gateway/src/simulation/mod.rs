//! Gateways, clients and a log that misbehaves as JetStream does, in one thread with a clock and a network of their own.
//!
//! Spine, hub, ring, state cache, replay and session are the real ones; only sockets and NATS are not. The same seed is the
//! same run: `ROOMCAST_SIMULATION_SEED=17 cargo test -p roomcast-edge-gateway simulation` plays one again, with
//! `ROOMCAST_SIMULATION_SEEDS=1000` it plays so many. What must hold is
//! said in `client`: every event of a room once and in order over all connections and gateways, and in the end the newest values.
//! Late acknowledgements are not among the log's misdeeds: publishers see them (the tests of ingest), gateways never do.

mod client;
mod gateway;
mod log;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use client::Account;
use log::Log;

/// Mistakes that have been made in gateways like this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// What was missed is read first, and live events are taken only afterwards.
    HistoryBeforeLive,
    /// What the recovery held already is not skipped when it comes live.
    NoSkip,
    /// A client is told where it stands before it is sent what brings it there.
    CursorBeforeWrite,
}

/// Two rooms are enough to see one's events in the other.
pub(crate) const ROOMS: [&str; 2] = ["a", "b"];
const GATEWAYS: [&str; 2] = ["gateway-0", "gateway-1"];
const CLIENTS: u64 = 3;
/// Traffic and faults.
const TROUBLE: Duration = Duration::from_secs(12);
/// Then everything must arrive within this.
const CALM: Duration = Duration::from_secs(12);

/// What all hosts of one run share: the turmoil of it is single-threaded.
#[derive(Clone)]
pub(crate) struct Shared {
    pub log: Rc<RefCell<Log>>,
    pub accounts: Rc<RefCell<Vec<Account>>>,
    pub calm: Rc<RefCell<bool>>,
    pub mistake: Option<Mistake>,
    pub seed: u64,
}

impl Shared {
    pub fn is_calm(&self) -> bool {
        *self.calm.borrow()
    }
}

/// What went on in a run.
#[derive(Debug)]
struct Told {
    events: u64,
    values: u64,
    /// Rooms that clients came back to completely.
    recovered: u64,
}

/// One run; what was wrong otherwise.
fn run(seed: u64, mistake: Option<Mistake>) -> Result<Told, String> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(TROUBLE + CALM + Duration::from_secs(5))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(100_000)
        .build();
    let shared = Shared {
        log: Rc::new(RefCell::new(Log::new(seed))),
        accounts: Rc::new(RefCell::new((0..CLIENTS).map(|_| Account::default()).collect())),
        calm: Rc::new(RefCell::new(false)),
        mistake,
        seed,
    };
    let world = shared.clone();
    sim.host("log", move || log::serve(world.clone()));
    for name in GATEWAYS {
        let world = shared.clone();
        sim.host(name, move || gateway::serve(world.clone()));
    }
    for number in 0..CLIENTS {
        let world = shared.clone();
        sim.client(
            format!("client-{number}"),
            client::live(world, number, TROUBLE + CALM),
        );
    }
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    // Which gateway, and until when.
    let mut down: Option<(usize, Duration)> = None;
    let mut held: Option<(usize, Duration)> = None;
    loop {
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => return Err(error.to_string()),
        }
        let now = sim.elapsed();
        if let Some((at, _)) = down.filter(|(_, until)| now >= *until) {
            sim.bounce(GATEWAYS[at]);
            down = None;
        }
        if let Some((at, _)) = held.filter(|(_, until)| now >= *until) {
            sim.release("log", GATEWAYS[at]);
            held = None;
        }
        if now >= TROUBLE {
            *shared.calm.borrow_mut() = down.is_none() && held.is_none();
            continue;
        }
        // A gateway is killed every 3 s or so, another one hears nothing for a while.
        if down.is_none() && random.u32(0..3_000) == 0 {
            let at = random.usize(0..GATEWAYS.len());
            sim.crash(GATEWAYS[at]);
            down = Some((at, now + Duration::from_millis(random.u64(50..800))));
        }
        if held.is_none() && random.u32(0..2_000) == 0 {
            let at = random.usize(0..GATEWAYS.len());
            sim.hold("log", GATEWAYS[at]);
            held = Some((at, now + Duration::from_millis(random.u64(20..1_500))));
        }
    }
    let log = shared.log.borrow();
    for (number, account) in shared.accounts.borrow().iter().enumerate() {
        account
            .verdict(&log)
            .map_err(|why| format!("client {number}: {why}"))?;
    }
    let recovered: u64 = shared
        .accounts
        .borrow()
        .iter()
        .map(|account| account.recovered)
        .sum();
    let (events, values) = log.ends();
    Ok(Told {
        events,
        values,
        recovered,
    })
}

#[test]
fn every_event_once_in_order_and_the_newest_values() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("ROOMCAST_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ROOMCAST_SIMULATION_SEEDS").unwrap_or(12),
    };
    let (mut recovered, mut least) = (0, 0);
    for seed in seeds {
        match run(seed, None) {
            Ok(told) => {
                assert!(told.events > 100 && told.values > 50, "a dull log: {told:?}");
                recovered += told.recovered;
                least += 10;
            }
            Err(why) => panic!("ROOMCAST_SIMULATION_SEED={seed}: {why}"),
        }
    }
    // In a single run the gateways may be away for too long.
    assert!(
        recovered >= least || least == 10,
        "dull runs: {recovered} rooms recovered"
    );
}

#[test]
fn planted_mistakes_are_found() {
    for mistake in [
        Mistake::HistoryBeforeLive,
        Mistake::NoSkip,
        Mistake::CursorBeforeWrite,
    ] {
        let found = (0..40).find_map(|seed| run(seed, Some(mistake)).err().map(|why| (seed, why)));
        println!("{mistake:?}: {found:?}");
        let (seed, why) = found.unwrap_or_else(|| panic!("{mistake:?} goes unnoticed"));
        // It is the mistake that was found, not the seed.
        assert!(run(seed, None).is_ok(), "seed {seed} is red without a mistake");
        let clients = why.starts_with("client ");
        assert!(
            clients,
            "{mistake:?} shows otherwise than by what clients have: {why}"
        );
    }
}
