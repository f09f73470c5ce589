//! What failed on the way to the stream, turned into what the publisher is told.

use roomcast_chassis::jetstream::{PublishError, code};
use roomcast_proto::refusal::{Code, Refusal};

/// When a publisher should ask again after a temporary refusal, milliseconds. A leader's step-down takes 100 ms, an
/// election after a crash 4 s; one second is between them and costs a waiting publisher little.
pub const RETRY_AFTER_MS: u64 = 1_000;

/// Nothing was done; the same request may succeed later.
#[must_use]
pub fn unavailable(detail: &str) -> Refusal {
    Refusal::new(Code::Unavailable, detail).retry_after_ms(RETRY_AFTER_MS)
}

/// It may or may not be stored; the same id gives the one result.
#[must_use]
pub fn unknown(id: &str) -> Refusal {
    let detail = format!("it is not known whether the event was stored; publish it again with id {id:?}");
    Refusal::new(Code::Unknown, detail).retry_after_ms(RETRY_AFTER_MS)
}

/// Of what the parts of one event are refused for, what its publisher is told: before all that it is not known what became of one,
/// because that is never taken for nothing; then that asking again may help; else the first.
#[must_use]
pub fn told<'a>(refusals: impl IntoIterator<Item = &'a Refusal>) -> Option<&'a Refusal> {
    refusals.into_iter().min_by_key(|refusal| match refusal.code {
        Code::Unknown => 0,
        code if code.temporary() => 1,
        _ => 2,
    })
}

/// The answer when all attempts have failed, the last one with `error`.
///
/// `perhaps_stored`: an attempt ended without an answer. Whose fault: [`Code::TooLarge`] is the publisher's, the
/// temporary codes are upstream's, [`Code::Internal`] is ours and is logged by the caller.
#[must_use]
pub fn not_stored(error: &PublishError, perhaps_stored: bool, id: &str) -> Refusal {
    /// Larger than the stream takes.
    const MESSAGE_TOO_LARGE: u64 = 10_054;
    match error {
        _ if perhaps_stored => unknown(id),
        PublishError::Timeout => unknown(id),
        PublishError::NoResponders | PublishError::Client(_) => unavailable("the stream cannot be reached"),
        PublishError::Refused(refusal) if refusal.err_code == MESSAGE_TOO_LARGE => Refusal::new(
            Code::TooLarge,
            "with what ingest fills in, the event is larger than the stream takes",
        ),
        PublishError::Refused(refusal) if refusal.is_full() => {
            unavailable("the stream is full: it takes nothing before its operator gives it room")
        }
        PublishError::Refused(refusal) if refusal.retryable() => {
            unavailable("the stream takes nothing at the moment")
        }
        PublishError::Refused(refusal) if refusal.err_code == code::NO_STREAM => {
            unavailable("the stream does not exist")
        }
        PublishError::Refused(_) | PublishError::Malformed(_) => {
            Refusal::new(Code::Internal, "the stream refused the event").retry_after_ms(RETRY_AFTER_MS)
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_chassis::jetstream;

    use super::*;

    #[test]
    fn every_failure_has_its_word() {
        let refused = |code, err_code| {
            PublishError::Refused(jetstream::Refusal {
                code,
                err_code,
                description: String::new(),
            })
        };
        let rows = [
            (PublishError::Timeout, false, Code::Unknown),
            (PublishError::NoResponders, false, Code::Unavailable),
            (PublishError::NoResponders, true, Code::Unknown),
            (PublishError::Client("closed".into()), false, Code::Unavailable),
            (refused(503, 10_077), false, Code::Unavailable),
            (refused(429, 10_167), false, Code::Unavailable),
            (refused(400, 10_054), false, Code::TooLarge),
            (refused(400, 10_060), false, Code::Internal),
            (PublishError::Malformed(String::new()), false, Code::Internal),
        ];
        for (error, perhaps_stored, code) in rows {
            assert_eq!(not_stored(&error, perhaps_stored, "e1").code, code, "{error:?}");
        }
        assert!(unknown("e1").detail.contains("e1"));
    }

    #[test]
    fn of_several_refusals_the_one_that_may_pass_is_told() {
        use Code::{Conflict, Internal, TooManyKeys, Unavailable, Unknown};
        let rows: [(&[Code], Option<Code>); 6] = [
            (&[], None),
            (&[Conflict], Some(Conflict)),
            (&[TooManyKeys, Conflict], Some(TooManyKeys)),
            (&[Conflict, Unavailable, Internal], Some(Unavailable)),
            (&[Unavailable, Conflict, Unknown], Some(Unknown)),
            (&[Conflict, Unknown, Unavailable], Some(Unknown)),
        ];
        for (codes, expected) in rows {
            let refusals: Vec<_> = codes.iter().map(|code| Refusal::new(*code, "")).collect();
            assert_eq!(told(&refusals).map(|refusal| refusal.code), expected, "{codes:?}");
        }
    }
}
