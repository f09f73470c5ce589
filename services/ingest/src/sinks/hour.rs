//! Receivers that hang or answer 500 for an hour, by a clock that is moved: everything that decides, nothing that sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{SinkJob, SinkTarget};
use roomcast_sinks::attempt::{Next, Outcome, next};

use super::term::LATE;
use super::waiting::{Lane, Waiting};

/// How long the operator lets them be tried.
const GIVE_UP: Duration = Duration::from_secs(3_600);
/// How long an attempt takes that is answered, and one that is not.
const ANSWERED: u64 = 20;
const SILENT: u64 = 5_000;

/// One webhook: how often it is told of something, and when it takes things, milliseconds.
struct Hook {
    name: &'static str,
    every: u64,
    takes: u64,
    takes_from: u64,
}

/// What became of everything that one of them was told, by how old it was then, milliseconds.
#[derive(Debug, Default)]
struct Ends {
    taken: Vec<u64>,
    dead: Vec<u64>,
}

/// Moves the clock from one moment at which something happens to the next; notifications come for so long.
fn run(hooks: &[Hook], come_for: u64) -> BTreeMap<&'static str, Ends> {
    /// By then everything is over.
    const END: u64 = 3 * 3_600_000;
    let mut waiting = Waiting::default();
    let mut ends: BTreeMap<&str, Ends> = hooks.iter().map(|hook| (hook.name, Ends::default())).collect();
    // When it ends, and its position.
    let mut under_way: BTreeSet<(u64, u64)> = BTreeSet::new();
    // When the next attempt is due.
    let mut wakes: BTreeSet<u64> = BTreeSet::new();
    let mut of: Vec<(usize, u64, u32)> = Vec::new();
    for hook in hooks {
        wakes.extend((0..come_for).step_by(usize::try_from(hook.every).unwrap()));
    }
    while let Some(now) = wakes
        .first()
        .copied()
        .into_iter()
        .chain(under_way.first().map(|(at, _)| *at))
        .min()
        .filter(|now| *now < END)
    {
        wakes.remove(&now);
        for (number, hook) in hooks.iter().enumerate() {
            if now < come_for && now.is_multiple_of(hook.every) {
                let position = of.len() as u64;
                let target = SinkTarget::Webhook(hook.name.to_owned());
                let tenant = Tenant::default();
                let job = SinkJob {
                    tenant,
                    target,
                    position,
                };
                let since = i64::try_from(now).unwrap() * 1_000;
                waiting.add(position, job, since, Lane::Webhook(hook.name.to_owned()), now);
                of.push((number, now, 0));
            }
        }
        while let Some((_, position)) = under_way.first().copied().filter(|(at, _)| *at <= now) {
            under_way.remove(&(now, position));
            let (number, since, attempts) = of[usize::try_from(position).unwrap()];
            let (hook, age) = (&hooks[number], now - since);
            let outcome = match now >= hook.takes_from {
                true => Outcome::Taken,
                false => Outcome::Later(None),
            };
            waiting.heard(position, hook.takes < SILENT);
            let ends = ends.get_mut(hook.name).unwrap();
            match next(outcome, attempts, Duration::from_millis(age), GIVE_UP, 0.5) {
                Next::Again(pause) => {
                    let due = now + u64::try_from(pause.as_millis()).unwrap();
                    waiting.again(position, due, true);
                    wakes.insert(due);
                    continue;
                }
                Next::Done => ends.taken.push(age),
                Next::GiveUp | Next::Forget => ends.dead.push(age),
            }
            waiting.done(position);
        }
        let late = i64::try_from(now).unwrap() * 1_000 - i64::try_from((GIVE_UP + LATE).as_micros()).unwrap();
        while let Some((position, _)) = waiting.overdue(late, now) {
            let (number, since, _) = of[usize::try_from(position).unwrap()];
            ends.get_mut(hooks[number].name).unwrap().dead.push(now - since);
            waiting.done(position);
        }
        while let Some((position, job)) = waiting.next(now) {
            let entry = &mut of[usize::try_from(position).unwrap()];
            entry.2 = job.attempts;
            under_way.insert((now + hooks[entry.0].takes, position));
        }
    }
    assert_eq!(waiting.len(), 0, "nothing waits for ever");
    ends
}

#[test]
fn an_hour_of_failures_ends_in_dead_letters_at_its_end_or_in_everything_taken_before() {
    let never = u64::MAX;
    let hook = |name, every, takes, takes_from| Hook {
        name,
        every,
        takes,
        takes_from,
    };
    let hooks = [
        hook("answers 500", 1_000, ANSWERED, never),
        hook("hangs", 10_000, SILENT, never),
        hook("hangs and hears too much", 500, SILENT, never),
        hook("is back after fifty minutes", 1_000, ANSWERED, 3_000_000),
        hook("is fine", 1_000, ANSWERED, 0),
    ];
    let ends = run(&hooks, 3_600_000);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
    // One that has room makes its last attempt when the time is over; for others it is over soon after.
    let (least, most) = (millis(GIVE_UP), millis(GIVE_UP + LATE) + SILENT);
    for (name, count) in [
        ("answers 500", 3_600),
        ("hangs", 360),
        ("hangs and hears too much", 7_200),
    ] {
        let Ends { taken, dead } = &ends[name];
        assert_eq!((taken.len(), dead.len()), (0, count), "{name}");
        assert!(
            dead.iter().all(|age| (least..=most).contains(age)),
            "{name}: {:?}",
            dead.iter().max()
        );
    }
    let back = &ends["is back after fifty minutes"];
    assert_eq!((back.taken.len(), back.dead.len()), (3_600, 0));
    // The longest pause, and what is left of those under way.
    let latest = back
        .taken
        .iter()
        .zip((0_u64..).step_by(1))
        .map(|(age, _)| *age)
        .max();
    assert!(
        latest.is_some_and(|age| age <= 3_000_000 + 300_000 + 10_000),
        "{latest:?}"
    );
    let fine = &ends["is fine"];
    assert_eq!((fine.taken.len(), fine.dead.len()), (3_600, 0));
    assert!(
        fine.taken.iter().all(|age| *age == ANSWERED),
        "the others hold up nobody"
    );
}

#[test]
fn receivers_that_hang_never_hold_up_one_that_is_fine_however_many_they_are() {
    let hook = |name, every, takes| Hook {
        name,
        every,
        takes,
        takes_from: match takes {
            SILENT => u64::MAX,
            _ => 0,
        },
    };
    let hangs = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"];
    let mut hooks: Vec<Hook> = hangs.map(|name| hook(name, 200, SILENT)).into();
    hooks.push(hook("fine", 50, ANSWERED));
    hooks.push(hook("takes its time", 1_000, 800));
    let ends = run(&hooks, 300_000);
    for (name, count, age) in [("fine", 6_000, ANSWERED), ("takes its time", 300, 800)] {
        let Ends { taken, dead } = &ends[name];
        assert_eq!((taken.len(), dead.len()), (count, 0), "{name}");
        assert!(
            taken.iter().all(|taken| *taken == age),
            "{name}: {:?}",
            taken.iter().max()
        );
    }
    for name in hangs {
        assert_eq!(
            (ends[name].taken.len(), ends[name].dead.len()),
            (0, 1_500),
            "{name}"
        );
    }
}
