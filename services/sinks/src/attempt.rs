//! When another attempt makes sense: decided from what the answer was and how long it has been tried. Reads no clock.

use std::time::Duration;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Taken,
    /// The receiver does not exist any more, and never will again.
    Gone,
    /// This one will never be taken: it is malformed or too large to the receiver.
    Refused,
    /// Not now: nothing was heard, or that it cannot at the moment. The receiver may have said for how long.
    Later(Option<Duration>),
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Done,
    /// Again after this.
    Again(Duration),
    /// It becomes a dead letter.
    GiveUp,
    /// The receiver is forgotten.
    Forget,
}

/// The pause after the first attempt; it doubles.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest pause, also where a receiver asks for more.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What becomes of something that was tried `attempts` times (at least once), first to be sent `age` ago. `give_up`: then nobody waits for
/// it any more. `jitter`, 0 to 1: the pause is made shorter by up to a quarter, so that not all come back at once.
#[must_use]
pub fn next(outcome: Outcome, attempts: u32, age: Duration, give_up: Duration, jitter: f64) -> Next {
    match outcome {
        Outcome::Taken => Next::Done,
        Outcome::Gone => Next::Forget,
        Outcome::Refused => Next::GiveUp,
        Outcome::Later(_) if age >= give_up => Next::GiveUp,
        Outcome::Later(asked) => {
            let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(16)));
            let doubled = doubled.min(PAUSE_MAX).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
            // Who says for how long is not asked before.
            let pause = asked.map_or(doubled, |asked| asked.min(PAUSE_MAX).max(doubled));
            // The last attempt is made when the time is over, not long after.
            Next::Again(pause.min((give_up - age).max(FIRST)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn pauses_double_up_to_a_bound_and_end_with_the_time() {
        let secs = Duration::from_secs;
        let rows = [
            (Outcome::Taken, 1, 0, Next::Done),
            (Outcome::Gone, 9, 9_999, Next::Forget),
            (Outcome::Refused, 1, 0, Next::GiveUp),
            (Outcome::Later(None), 1, 0, Next::Again(secs(1))),
            (Outcome::Later(None), 2, 1, Next::Again(secs(2))),
            (Outcome::Later(None), 5, 20, Next::Again(secs(16))),
            (Outcome::Later(None), 40, 100, Next::Again(secs(300))),
            (Outcome::Later(Some(secs(60))), 1, 0, Next::Again(secs(60))),
            (Outcome::Later(Some(secs(60))), 9, 100, Next::Again(secs(256))),
            (Outcome::Later(Some(secs(9_999))), 1, 0, Next::Again(secs(300))),
            (Outcome::Later(None), 40, 3_500, Next::Again(secs(100))),
            (Outcome::Later(None), 40, 3_599, Next::Again(secs(1))),
            (Outcome::Later(None), 40, 3_600, Next::GiveUp),
            (Outcome::Later(Some(secs(60))), 1, 9_999, Next::GiveUp),
        ];
        for (outcome, attempts, age, expected) in rows {
            let found = next(outcome, attempts, secs(age), HOUR, 0.0);
            assert_eq!(found, expected, "{outcome:?} {attempts} {age}");
        }
    }

    proptest! {
        /// Whatever a receiver answers, it is asked a bounded number of times, never at once again, never before it said, and no longer
        /// than it was promised plus one pause.
        #[test]
        fn a_receiver_that_never_takes_it_is_left_in_time(
            answers in prop::collection::vec(prop::option::of(0_u64..100_000), 400),
            took_millis in 0_u64..5_000,
            jitter in 0.0_f64..=1.0,
            give_up_secs in 60_u64..86_400,
        ) {
            let give_up = Duration::from_secs(give_up_secs);
            let (mut age, mut attempts, mut answers) = (Duration::ZERO, 0, answers.into_iter().cycle());
            loop {
                let asked = answers.next().flatten().map(Duration::from_secs);
                attempts += 1;
                age += Duration::from_millis(took_millis);
                let Next::Again(pause) = next(Outcome::Later(asked), attempts, age, give_up, jitter) else { break };
                prop_assert!(pause >= FIRST.mul_f64(0.75) && pause <= PAUSE_MAX);
                let left = give_up.saturating_sub(age).max(FIRST);
                prop_assert!(asked.is_none_or(|asked| pause >= asked.min(PAUSE_MAX).min(left)));
                age += pause;
                prop_assert!(age <= give_up + FIRST);
            }
            prop_assert!(age <= give_up + FIRST + Duration::from_millis(took_millis));
            // Eight doublings, then one in 225 s at the least, and the last ones a second apart.
            prop_assert!(u64::from(attempts) <= 12 + give_up_secs / 225, "{attempts}");
        }
    }
}
