//! Whether the other side is still there: when it is asked, and until when it must have answered.
//!
//! A client that is gone without a word takes no bytes and answers no ping. Who takes what waits for it, however slowly, is there:
//! it is not asked, because the question would stand behind everything else, and the answer would come too late. The time-out of
//! writes judges it meanwhile. Decided here, without clock or socket.

use std::time::Duration;

use roomcast_proto::limits::{PING_EVERY, PONG_WITHIN};

/// How often clients are asked, and how long they have.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// `ROOMCAST_PING_SECONDS`: from one ping to the next.
    pub every: Duration,
    /// `ROOMCAST_PONG_SECONDS`: from a ping to its pong.
    pub within: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: PING_EVERY,
            within: PONG_WITHIN,
        }
    }
}

/// What is to be done for one client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Send it a ping.
    Ping,
    /// Bytes wait for it: it is not asked now.
    NotNow,
    /// No pong came in time: it is gone.
    NoPong,
}

/// When one client was asked. Instants are milliseconds of the shard's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beat {
    /// When it is asked next.
    ping_at: u64,
    /// When its pong must be there; 0: none is waited for.
    pong_due: u64,
}

impl Beat {
    /// A client that came now. It is asked early and at random (`random`: any number), so that clients that came together are not
    /// asked together.
    #[must_use]
    pub fn new(now_millis: u64, pace: Pace, random: u64) -> Self {
        let every = millis(pace.every);
        Self {
            ping_at: now_millis + every / 2 + random % (every / 2 + 1),
            pong_due: 0,
        }
    }

    /// When [`Beat::look`] has something to say, at the earliest.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        if self.pong_due == 0 {
            self.ping_at
        } else {
            self.pong_due
        }
    }

    /// A pong came.
    pub fn heard(&mut self) {
        self.pong_due = 0;
    }

    /// Says what is due. `waits`: bytes wait for this client, its socket takes no more at the moment.
    pub fn look(&mut self, now_millis: u64, waits: bool, pace: Pace) -> Due {
        if now_millis < self.next_at() {
            return Due::Nothing;
        }
        let again = now_millis + millis(pace.within);
        match (self.pong_due != 0, waits) {
            (true, false) => Due::NoPong,
            // What was asked may be among what waits, or right before it.
            (true, true) => {
                self.pong_due = again;
                Due::NotNow
            }
            (false, true) => {
                self.ping_at = again;
                Due::NotNow
            }
            (false, false) => {
                self.ping_at = now_millis + millis(pace.every);
                self.pong_due = again;
                Due::Ping
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        every: Duration::from_millis(100),
        within: Duration::from_millis(40),
    };

    /// Instants at which a client is looked at, whether bytes wait for it then, whether its pong has come before, what is due.
    #[track_caller]
    fn check(rows: &[(u64, bool, bool, Due)]) {
        let mut beat = Beat::new(1_000, PACE, 50);
        assert_eq!(beat.next_at(), 1_100);
        for (at, waits, ponged, due) in rows {
            if *ponged {
                beat.heard();
            }
            assert_eq!(beat.look(*at, *waits, PACE), *due, "at {at}");
        }
    }

    #[test]
    fn a_client_is_asked_at_its_pace_and_given_up_without_an_answer() {
        use Due::{NoPong, NotNow, Nothing, Ping};
        let (waits, ponged) = (true, true);
        check(&[
            (1_099, false, false, Nothing),
            (1_100, false, false, Ping),
            (1_139, false, false, Nothing),
            (1_140, false, false, NoPong),
        ]);
        check(&[
            (1_100, false, false, Ping),
            (1_140, false, ponged, Nothing),
            (1_200, false, false, Ping),
            (1_240, false, false, NoPong),
        ]);
        // One that reads slowly is not asked; when nothing waits any more it has its whole time.
        check(&[
            (1_100, waits, false, NotNow),
            (1_139, false, false, Nothing),
            (1_140, waits, false, NotNow),
            (1_180, false, false, Ping),
            (1_219, false, false, Nothing),
            (1_220, waits, false, NotNow),
            (1_259, false, false, Nothing),
            (1_260, false, false, NoPong),
        ]);
    }

    #[test]
    fn clients_that_came_together_are_first_asked_within_half_an_interval() {
        for random in 0..1_000 {
            let first = Beat::new(0, PACE, random).next_at();
            assert!((50..=100).contains(&first), "{first}");
        }
    }
}
