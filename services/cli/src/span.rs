//! A part of a stream, read to its end.
//!
//! Any replica answers a read, and one that lags has less than its leader: where nothing more comes, the leader is asked whether that is
//! the end. So nobody takes a part for the whole.

use std::time::{Duration, Instant};

use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};

/// Messages read at once. 500 of the largest are 32 MB; usual ones 150 KB.
const PAGE: usize = 500;
/// Between two questions to replicas that lag: they do by some milliseconds, where nothing is wrong.
const PAUSE: Duration = Duration::from_millis(100);
/// A replica that has nothing new for so long is not about to.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Why a part was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpanError {
    #[error("{0}")]
    Api(#[from] ApiError),
    /// Waiting has not helped.
    #[error(
        "positions {next} to {last} could not be read: the leader has them, and the replica that answers does not; do the same again when \
         it has caught up"
    )]
    Behind { next: u64, last: u64 },
}

/// What it means that no message came.
#[derive(Debug, PartialEq, Eq)]
enum Nothing {
    /// There is none.
    End,
    /// The replica that answered does not have it yet.
    Later,
    /// The same, for too long.
    Behind,
}

/// `leader`: where the leader has the next message; `silence`: for how long none has come.
fn nothing(leader: Option<u64>, last: u64, silence: Duration) -> Nothing {
    match leader.filter(|position| *position <= last) {
        None => Nothing::End,
        Some(_) if silence < SILENCE_MAX => Nothing::Later,
        Some(_) => Nothing::Behind,
    }
}

/// Positions of a stream that are read one page after the other.
pub(crate) struct Span<'a> {
    jetstream: &'a JetStream,
    stream: &'static str,
    next: u64,
    last: u64,
}

impl<'a> Span<'a> {
    /// From `first` to `last`, with both.
    pub(crate) fn new(jetstream: &'a JetStream, stream: &'static str, first: u64, last: u64) -> Self {
        Self {
            jetstream,
            stream,
            next: first,
            last,
        }
    }

    /// The next messages, in their order; none at the end. Some may stand behind `last`.
    ///
    /// # Errors
    /// [`SpanError`]: what is left is not read.
    pub(crate) async fn page(&mut self) -> Result<Vec<StoredMessage>, SpanError> {
        let began = Instant::now();
        while self.next <= self.last {
            let read = self.jetstream.direct_batch(self.stream, self.next, PAGE, None);
            let messages = read.await?.messages;
            if let Some(message) = messages.last() {
                self.next = message.sequence + 1;
                return Ok(messages);
            }
            let at = At::Next {
                from: self.next,
                subject: ">",
            };
            let found = self.jetstream.message(self.stream, at).await?;
            match nothing(found.map(|message| message.sequence), self.last, began.elapsed()) {
                Nothing::End => break,
                Nothing::Later => tokio::time::sleep(PAUSE).await,
                Nothing::Behind => {
                    let Self { next, last, .. } = *self;
                    return Err(SpanError::Behind { next, last });
                }
            }
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leader_says_that_nothing_is_left() {
        let check = |leader: Option<u64>, silence: u64, expected: Nothing| {
            let found = nothing(leader, 9, Duration::from_secs(silence));
            assert_eq!(found, expected, "{leader:?} {silence}");
        };
        check(None, 0, Nothing::End);
        check(None, 60, Nothing::End);
        // What comes after the span is none of it.
        check(Some(10), 0, Nothing::End);
        for position in [1, 8, 9] {
            check(Some(position), 0, Nothing::Later);
            check(Some(position), 4, Nothing::Later);
            check(Some(position), 5, Nothing::Behind);
        }
    }
}
