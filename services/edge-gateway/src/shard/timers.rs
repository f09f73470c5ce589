//! The passing of time: one entry in the wheel per connection, whatever it waits for.

use roomcast_proto::close::Close;

use super::newcomers::NEWCOMER;
use super::{Limits, Shard};
use crate::beat::{Due, Pace};
use crate::connection::Stage;
use crate::encoding::Encoding;
use crate::limit::Limit;
use crate::metrics::Ending;
use crate::outbox;

impl Shard {
    /// The earliest instant at which a connection must be looked at, entered into the wheel if it is earlier than before.
    pub(super) fn schedule(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let mut due = match &connection.stage {
            Stage::Handshake { due, .. } => *due,
            Stage::Closing { until } => *until,
            #[cfg(all(feature = "echo", debug_assertions))]
            Stage::Echo => self.now.millis + super::echo::LOOK_AT_MILLIS,
            Stage::Session(session) => {
                let left = session
                    .next_at()
                    .saturating_mul(1000)
                    .saturating_sub(self.now.unix_millis)
                    .max(0);
                let token = self.now.millis.saturating_add(u64::try_from(left).unwrap_or(0));
                token.min(connection.beat.next_at())
            }
        };
        if connection.stuck_at != 0 {
            due = due.min(connection.stuck_at + write_timeout_millis(&self.shared.limits));
        }
        if connection.wake_at == 0 || due < connection.wake_at {
            connection.wake_at = due;
            self.wheel.insert(key, due);
        }
    }

    pub(super) fn timers(&mut self) {
        let mut fired = Vec::new();
        self.wheel.advance(self.now.millis, &mut fired);
        for key in fired {
            if key & NEWCOMER != 0 {
                self.lose_patience(key & !NEWCOMER);
                continue;
            }
            let Some(connection) = self.connections.get_mut(key as usize) else {
                continue;
            };
            // An older entry of this connection, or one of a former holder of the key.
            if connection.wake_at > self.now.millis {
                continue;
            }
            connection.wake_at = 0;
            self.look_at(key);
            self.schedule(key);
        }
    }

    /// Does what is due for one connection.
    fn look_at(&mut self, key: u32) {
        let now = self.now;
        let stuck_after = write_timeout_millis(&self.shared.limits);
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let stuck = connection.stuck_at != 0 && now.millis >= connection.stuck_at + stuck_after;
        match &mut connection.stage {
            Stage::Handshake { due, .. } if now.millis >= *due => {
                self.shared.metrics.limited(Limit::Authenticate);
                self.ending.push((key, Ending::Closed(Close::BadToken)))
            }
            Stage::Closing { until } if stuck || now.millis >= *until => {
                self.ending.push((key, Ending::Gone))
            }
            Stage::Handshake { .. } | Stage::Closing { .. } => {}
            #[cfg(all(feature = "echo", debug_assertions))]
            Stage::Echo => {}
            Stage::Session(_) if stuck => {
                self.shared.metrics.limited(Limit::Write);
                self.ending.push((key, Ending::Closed(Close::TooSlow)));
            }
            Stage::Session(session) => {
                let mut wishes = std::mem::take(&mut self.wishes);
                session.passes(now, &mut wishes);
                let waits = connection.is_blocked();
                let pace = pace(&self.shared.limits, connection.encoding);
                match connection.beat.look(now.millis, waits, pace) {
                    Due::Nothing => {}
                    Due::Ping => {
                        if connection.encoding == Encoding::Sse {
                            // A stream cannot answer: what is not acknowledged tells the kernel, which ends it.
                            connection.beat.heard();
                        }
                        let ping = self.ping.in_encoding(connection.encoding).clone();
                        self.queue(key, ping, outbox::Class::Answer);
                    }
                    Due::NotNow => connection.queue_thinned(),
                    Due::NoPong => {
                        self.shared.metrics.limited(Limit::Pong);
                        self.ending.push((key, Ending::Closed(Close::NoPong)));
                    }
                }
                self.carry_out(key, &mut wishes);
                self.wishes = wishes;
            }
        }
    }
}

/// How often a connection is told that it is alive, and how long it has to say the same.
pub(super) fn pace(limits: &Limits, encoding: Encoding) -> Pace {
    match encoding {
        Encoding::Sse => Pace {
            every: limits.comment_every,
            ..limits.beat
        },
        Encoding::Json | Encoding::Protobuf => limits.beat,
    }
}

pub(super) fn write_timeout_millis(limits: &Limits) -> u64 {
    u64::try_from(limits.write_timeout.as_millis()).unwrap_or(u64::MAX)
}
