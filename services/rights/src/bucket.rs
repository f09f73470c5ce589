//! How far a bucket was read, and what an answer about it means. Decides without clock or I/O.

/// Lower answers in a row until they are believed: for some seconds a node that has just come back may know less than there is.
const LOWER_BELIEVED_AFTER: u32 = 10;

/// What is to be done after an answer about the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: everything was read.
    Whole,
    /// Read what is after this position.
    Read {
        /// The position.
        after: u64,
    },
    /// Forget what was read and read from the beginning: it is another bucket, or has lost its end.
    Anew,
    /// Ask again: the answer may be old.
    Doubt,
}

/// How far a bucket was read.
#[derive(Debug, Default)]
pub(crate) struct Place {
    created: Option<String>,
    seen: u64,
    lower: u32,
}

impl Place {
    /// The bucket of `created` has reached `last`.
    pub(crate) fn told(&mut self, created: &str, last: u64) -> Step {
        if self.created.as_deref() != Some(created) {
            return self.begin(created);
        }
        if last < self.seen {
            self.lower += 1;
            return match self.lower {
                LOWER_BELIEVED_AFTER.. => self.begin(created),
                _ => Step::Doubt,
            };
        }
        self.lower = 0;
        if last == self.seen {
            Step::Whole
        } else {
            Step::Read { after: self.seen }
        }
    }

    /// Everything up to here was read.
    pub(crate) fn read(&mut self, seen: u64) {
        self.seen = self.seen.max(seen);
    }

    fn begin(&mut self, created: &str) -> Step {
        *self = Self {
            created: Some(created.to_owned()),
            seen: 0,
            lower: 0,
        };
        Step::Anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_to_its_end_and_anew_when_it_is_another() {
        let mut place = Place::default();
        assert_eq!(place.told("a", 7), Step::Anew);
        assert_eq!(place.told("a", 7), Step::Read { after: 0 });
        place.read(5);
        assert_eq!(place.told("a", 7), Step::Read { after: 5 });
        place.read(7);
        place.read(6);
        assert_eq!(place.told("a", 7), Step::Whole);
        assert_eq!(place.told("b", 7), Step::Anew);
        assert_eq!(place.told("b", 0), Step::Whole);
    }

    #[test]
    fn a_lower_answer_is_believed_when_it_stays() {
        let mut place = Place::default();
        place.told("a", 9);
        place.read(9);
        for _ in 1..LOWER_BELIEVED_AFTER {
            assert_eq!(place.told("a", 8), Step::Doubt);
        }
        assert_eq!(place.told("a", 9), Step::Whole);
        for _ in 1..LOWER_BELIEVED_AFTER {
            assert_eq!(place.told("a", 8), Step::Doubt);
        }
        assert_eq!(place.told("a", 8), Step::Anew);
        assert_eq!(place.told("a", 8), Step::Read { after: 0 });
    }
}
