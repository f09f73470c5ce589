//! The spine against a log that misbehaves as JetStream really does: it must deliver every position once, in order.

use proptest::prelude::*;

use super::repair::AHEAD_MESSAGES_MAX;
use super::*;

/// Mistakes that have been made in readers like this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    /// What is read again is delivered again.
    DeliversRepeats,
    /// The answer of a replica that is behind lowers the position.
    BelievesStaleTail,
    /// A hole that one replica confirms is taken for real.
    SkipsOnFirstNothing,
    /// Silence is taken for the end.
    NeverProbes,
}

impl<M> Spine<M> {
    pub(super) fn mistaken_no_probe(&self) -> bool {
        self.mistake == Some(Mistake::NeverProbes)
    }

    pub(super) fn mistaken_lowering(&mut self, last: u64) {
        if self.mistake == Some(Mistake::BelievesStaleTail) && last + 1 < self.next {
            self.next = last + 1;
        }
    }

    pub(super) fn mistaken_repeat(&self) -> bool {
        self.mistake == Some(Mistake::DeliversRepeats)
    }

    pub(super) fn mistaken_skip(&mut self, out: &mut Vec<Wish<M>>) -> bool {
        let Some(end) = self
            .hole_end()
            .filter(|_| self.mistake == Some(Mistake::SkipsOnFirstNothing))
        else {
            return false;
        };
        self.skip_to(end + 1, out);
        true
    }
}

fn placed(sequence: u64) -> Placed<u64> {
    Placed {
        sequence,
        time_micros: time_of(sequence),
        bytes: 100,
        message: sequence,
    }
}

fn time_of(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap() * 1_000
}

/// A stream, its replicas, and the network between it and one spine.
struct World {
    spine: Spine<u64>,
    rng: fastrand::Rng,
    now: i64,
    last: u64,
    /// Positions that hold nothing (deleted, or replaced).
    gone: Vec<u64>,
    on_the_way: Vec<u64>,
    asked: Vec<Wish<u64>>,
    delivered: Vec<u64>,
    resets: Vec<Cause>,
    honest: bool,
}

impl World {
    fn new(seed: u64, holes: Holes, mistake: Option<Mistake>) -> Self {
        let mut spine = Spine::new(holes, "a".to_owned(), 1, 0);
        spine.mistake = mistake;
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            spine,
            rng,
            now: 0,
            last: 0,
            gone: Vec::new(),
            on_the_way: Vec::new(),
            asked: Vec::new(),
            delivered: Vec::new(),
            resets: Vec::new(),
            honest: false,
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        !self.honest && self.rng.u32(0..n) == 0
    }

    fn publish(&mut self, deletes: bool) {
        self.last += 1;
        if deletes && self.one_in(8) {
            self.gone.push(self.last);
            return;
        }
        if !self.one_in(6) {
            self.on_the_way.push(self.last);
        }
        if self.one_in(10) {
            let earlier = self.rng.u64(1..=self.last);
            if !self.gone.contains(&earlier) {
                self.on_the_way.push(earlier);
            }
        }
    }

    /// How far a replica, or a leader that has not applied everything yet, sees.
    fn sees_to(&mut self) -> u64 {
        if self.one_in(3) {
            self.rng.u64(0..=self.last)
        } else {
            self.last
        }
    }

    fn read(&self, from: u64, to: u64, max: usize) -> Vec<Placed<u64>> {
        (from..=to)
            .filter(|seq| !self.gone.contains(seq))
            .take(max)
            .map(placed)
            .collect()
    }

    fn take(&mut self, wishes: Vec<Wish<u64>>) {
        for wish in wishes {
            match wish {
                Wish::Deliver { placed, .. } => self.delivered.push(placed.message),
                Wish::Skip { .. } => {}
                Wish::Reset { cause, .. } => self.resets.push(cause),
                asked => self.asked.push(asked),
            }
        }
    }

    fn answer(&mut self, wish: Wish<u64>) {
        let (mut out, now) = (Vec::new(), self.now);
        let silent = self.one_in(5);
        let to = self.sees_to();
        match wish {
            Wish::Read { ticket, from } => {
                let max = if self.honest {
                    READ_MESSAGES
                } else {
                    self.rng.usize(1..6)
                };
                let messages = self.read(from, to, max);
                let more = messages.last().is_some_and(|last| last.sequence < to);
                let answer = (!silent).then_some(ReadAnswer { messages, more });
                self.spine.on_read(ticket, answer, now, &mut out);
            }
            Wish::AskLeader { ticket, from } => {
                let answer = (!silent).then(|| self.read(from, to, 1).pop());
                self.spine.on_leader(ticket, answer, now, &mut out);
            }
            Wish::Probe { ticket } => {
                let last = self.read(1, to, usize::MAX).last().map(|last| last.sequence);
                self.spine
                    .on_probe(ticket, last.filter(|_| !silent), now, &mut out);
            }
            Wish::Info { ticket } => {
                let answer = InfoAnswer {
                    created: "a".to_owned(),
                    first: 1,
                    last: to,
                };
                self.spine
                    .on_info(ticket, (!silent).then_some(answer), now, &mut out);
            }
            other => unreachable!("{other:?} is not asked for"),
        }
        self.take(out);
    }

    fn step(&mut self, deletes: bool) {
        let mut out = Vec::new();
        match self.rng.u32(0..10) {
            0..=2 => self.publish(deletes),
            3..=5 if !self.on_the_way.is_empty() => {
                // Mostly in order, sometimes not.
                let at = if self.one_in(4) {
                    self.rng.usize(0..self.on_the_way.len())
                } else {
                    0
                };
                let sequence = self.on_the_way.remove(at);
                self.spine.on_live(placed(sequence), self.now, &mut out);
            }
            6 | 7 if !self.asked.is_empty() => {
                let at = self.rng.usize(0..self.asked.len());
                let wish = self.asked.swap_remove(at);
                self.answer(wish);
            }
            8 if self.one_in(10) => self.spine.on_interrupted(self.now, &mut out),
            _ => {
                self.now += self.rng.i64(1..120);
                self.spine.on_tick(self.now, &mut out);
            }
        }
        self.take(out);
    }

    /// Faults end; nothing more is published; live messages on the way are lost. What must then still come, comes.
    fn settle(&mut self) {
        self.honest = true;
        self.on_the_way.clear();
        for _ in 0..400 {
            while let Some(wish) = self.asked.pop() {
                self.answer(wish);
            }
            self.now += 100;
            let mut out = Vec::new();
            self.spine.on_tick(self.now, &mut out);
            self.take(out);
        }
    }

    fn verdict(&self, exact: bool) -> Result<(), String> {
        let expected: Vec<u64> = (1..=self.last).filter(|seq| !self.gone.contains(seq)).collect();
        if !self.resets.is_empty() {
            return Err(format!("reset: {:?}", self.resets));
        }
        if self.delivered == expected && self.spine.is_current() == exact {
            return Ok(());
        }
        let twice = self.delivered.windows(2).find(|pair| pair[0] >= pair[1]);
        let missing: Vec<_> = expected
            .iter()
            .filter(|seq| !self.delivered.contains(seq))
            .collect();
        Err(format!(
            "missing {missing:?}, not ascending {twice:?}, next {}",
            self.spine.next()
        ))
    }
}

fn run(seed: u64, holes: Holes, deletes: bool, mistake: Option<Mistake>) -> Result<(), String> {
    let mut world = World::new(seed, holes, mistake);
    for _ in 0..400 {
        world.step(deletes);
    }
    world.settle();
    world.verdict(true)
}

#[test]
fn planted_mistakes_are_found() {
    use Mistake::{BelievesStaleTail, DeliversRepeats, NeverProbes, SkipsOnFirstNothing};
    for mistake in [
        DeliversRepeats,
        BelievesStaleTail,
        SkipsOnFirstNothing,
        NeverProbes,
    ] {
        let found = (0..200).find(|seed| run(*seed, Holes::Lost, false, Some(mistake)).is_err());
        assert!(found.is_some(), "{mistake:?} goes unnoticed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_event_once_in_order(seed: u64) {
        prop_assert_eq!(run(seed, Holes::Lost, false, None), Ok(()));
    }

    #[test]
    fn holes_that_are_real_are_crossed(seed: u64, replaced: bool) {
        let holes = if replaced { Holes::Replaced } else { Holes::Lost };
        prop_assert_eq!(run(seed, holes, true, None), Ok(()));
    }
}

/// The first wish that is none of Deliver and Skip.
fn asked(out: &[Wish<u64>]) -> Option<Wish<u64>> {
    out.iter()
        .find(|wish| !matches!(wish, Wish::Deliver { .. } | Wish::Skip { .. }))
        .cloned()
}

/// A spine that has delivered positions 1 to `last` and knows of nothing more.
fn current(holes: Holes, last: u64) -> Spine<u64> {
    let (mut spine, mut out) = (Spine::new(holes, "a".to_owned(), 1, 0), Vec::new());
    spine.on_tick(0, &mut out);
    let Some(Wish::Read { ticket, .. }) = asked(&out) else {
        panic!("{out:?}")
    };
    let messages = (1..=last).map(placed).collect();
    spine.on_read(
        ticket,
        Some(ReadAnswer {
            messages,
            more: false,
        }),
        0,
        &mut out,
    );
    assert!(spine.is_current());
    spine
}

fn info(spine: &mut Spine<u64>, now: i64, created: &str, first: u64, last: u64) -> Vec<Wish<u64>> {
    let mut out = Vec::new();
    spine.on_tick(now, &mut out);
    let ticket = out.iter().find_map(|wish| match wish {
        Wish::Info { ticket } => Some(*ticket),
        _ => None,
    });
    let answer = InfoAnswer {
        created: created.to_owned(),
        first,
        last,
    };
    out.clear();
    spine.on_info(ticket.unwrap(), Some(answer), now, &mut out);
    out
}

#[test]
fn a_stream_made_anew_is_read_from_its_beginning() {
    let mut spine = current(Holes::Lost, 5);
    let out = info(&mut spine, 3_000, "b", 1, 2);
    assert_eq!(
        out[0],
        Wish::Reset {
            cause: Cause::Recreated,
            next: 1
        }
    );
    assert!(matches!(out[1], Wish::Read { from: 1, .. }), "{out:?}");
}

#[test]
fn an_end_that_is_gone_for_ten_seconds_is_gone() {
    let mut spine = current(Holes::Lost, 5);
    for now in [3_000, 6_000, 9_000, 12_000] {
        assert_eq!(
            info(&mut spine, now, "a", 1, 3),
            [],
            "a replica that is behind lowers nothing"
        );
    }
    let out = info(&mut spine, 14_000, "a", 1, 3);
    assert_eq!(
        out[0],
        Wish::Reset {
            cause: Cause::Regressed,
            next: 4
        }
    );
}

#[test]
fn what_came_while_the_ends_were_asked_for_is_not_beyond_them() {
    let mut spine = current(Holes::Lost, 5);
    for (n, now) in (0..20).zip((3_000..).step_by(2_000)) {
        let mut out = Vec::new();
        spine.on_tick(now, &mut out);
        let ticket = out.iter().find_map(|wish| match wish {
            Wish::Info { ticket } => Some(*ticket),
            _ => None,
        });
        let last = 5 + n;
        // Busy: there is always a message that is faster than the answer.
        spine.on_live(placed(last + 1), now, &mut out);
        let answer = InfoAnswer {
            created: "a".to_owned(),
            first: 1,
            last,
        };
        spine.on_info(ticket.unwrap(), Some(answer), now + 1, &mut out);
        let reset = out.iter().find(|wish| matches!(wish, Wish::Reset { .. }));
        assert_eq!(reset, None, "after {n} answers");
    }
}

#[test]
fn a_position_used_a_second_time_is_seen_at_once() {
    let (mut spine, mut out) = (current(Holes::Lost, 5), Vec::new());
    spine.on_live(placed(4), 100, &mut out);
    assert_eq!(out, [], "the same message again is a repeat");
    let other = Placed {
        time_micros: 99_000,
        ..placed(4)
    };
    spine.on_live(other, 100, &mut out);
    assert_eq!(
        out[0],
        Wish::Reset {
            cause: Cause::Regressed,
            next: 4
        }
    );
    assert!(matches!(&out[1], Wish::Deliver { placed, .. } if placed.sequence == 4));
}

#[test]
fn after_an_interruption_the_newest_is_read_again() {
    // What the read from 5 on finds, and what follows: the first position after a reset, the last one delivered, whether 5 is still
    // to be read again.
    #[track_caller]
    fn check(holes: Holes, found: Vec<Placed<u64>>, reset: Option<u64>, delivered: u64, open: bool) {
        let (mut spine, mut out) = (current(holes, 5), Vec::new());
        spine.on_interrupted(1_000, &mut out);
        let [Wish::Read { ticket, from: 5 }, .., Wish::Info { ticket: ends }] = out[..] else {
            panic!("{out:?}")
        };
        out.clear();
        let (messages, more) = (found, false);
        spine.on_read(ticket, Some(ReadAnswer { messages, more }), 1_100, &mut out);
        let told = out.iter().find_map(|wish| match wish {
            Wish::Reset { cause, next } => Some((*cause, *next)),
            _ => None,
        });
        assert_eq!(told, reset.map(|next| (Cause::Regressed, next)), "{out:?}");
        let last = out.iter().rev().find_map(|wish| match wish {
            Wish::Deliver { placed, .. } => Some(placed.sequence),
            _ => None,
        });
        assert_eq!(last.unwrap_or(5), delivered, "{out:?}");
        let (created, first, last) = ("a".to_owned(), 1, 8);
        spine.on_info(ends, Some(InfoAnswer { created, first, last }), 1_200, &mut out);
        let read = out.iter().any(|wish| matches!(wish, Wish::Read { from: 5, .. }));
        assert_eq!(read, open, "{out:?}");
    }
    let other = |sequence| Placed {
        time_micros: 99_000 + time_of(sequence),
        ..placed(sequence)
    };
    for holes in [Holes::Lost, Holes::Replaced] {
        check(holes, vec![placed(5)], None, 5, false);
        check(holes, vec![placed(5), placed(6), placed(7)], None, 7, false);
        // Lost, and written over.
        check(holes, vec![other(5), other(6), other(7)], Some(5), 5, true);
        // A replica that is behind; asked again.
        check(holes, vec![], None, 5, true);
    }
    // Replaced meanwhile: what follows is the proof that the replica is not behind.
    check(Holes::Replaced, vec![placed(6), placed(8)], None, 8, false);
}

#[test]
fn an_end_that_was_too_low_and_grew_again_is_read_again() {
    let mut spine = current(Holes::Lost, 5);
    assert_eq!(info(&mut spine, 3_000, "a", 1, 3), []);
    let out = info(&mut spine, 6_000, "a", 1, 7);
    assert!(matches!(out[0], Wish::Read { from: 5, .. }), "{out:?}");
}

#[test]
fn history_that_is_no_longer_kept_is_never_skipped_silently() {
    let (mut spine, mut out) = (current(Holes::Lost, 5), Vec::new());
    spine.on_live(placed(9), 100, &mut out);
    let Some(Wish::Read { ticket, from: 6 }) = asked(&out) else {
        panic!("{out:?}")
    };
    out.clear();
    spine.on_read(
        ticket,
        Some(ReadAnswer {
            messages: vec![placed(9)],
            more: false,
        }),
        200,
        &mut out,
    );
    let Some(Wish::AskLeader { ticket, from: 6 }) = asked(&out) else {
        panic!("{out:?}")
    };
    out.clear();
    spine.on_leader(ticket, Some(Some(placed(9))), 500, &mut out);
    let Some(Wish::Info { ticket }) = asked(&out) else {
        panic!("{out:?}")
    };
    out.clear();
    let answer = InfoAnswer {
        created: "a".to_owned(),
        first: 9,
        last: 9,
    };
    spine.on_info(ticket, Some(answer), 500, &mut out);
    assert_eq!(
        out[0],
        Wish::Reset {
            cause: Cause::HistoryLost,
            next: 9
        }
    );
    assert!(
        matches!(&out[1], Wish::Deliver { placed, .. } if placed.sequence == 9),
        "{out:?}"
    );
}

#[test]
fn more_live_messages_than_fit_are_read_again() {
    let (mut spine, mut out) = (current(Holes::Lost, 1), Vec::new());
    let last = AHEAD_MESSAGES_MAX as u64 + 10;
    for sequence in 3..=last {
        spine.on_live(placed(sequence), 1, &mut out);
    }
    assert!(spine.ahead.len() <= AHEAD_MESSAGES_MAX);
    let mut delivered = 1;
    while let Some(Wish::Read { ticket, from }) = asked(&out) {
        out.clear();
        let to = (from + READ_MESSAGES as u64 - 1).min(last);
        let messages = (from..=to).map(placed).collect();
        spine.on_read(
            ticket,
            Some(ReadAnswer {
                messages,
                more: to < last,
            }),
            2,
            &mut out,
        );
        delivered += out
            .iter()
            .filter(|wish| matches!(wish, Wish::Deliver { .. }))
            .count() as u64;
    }
    assert_eq!((delivered, spine.is_current()), (last, true));
}
