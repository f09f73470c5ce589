//! Whether a message of the bucket of records was lost on its way.

/// What was heard of the bucket, by position: each write of it makes one message, and its position is one more.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// The last position heard of; `None`: nothing is known yet.
    heard: Option<u64>,
    /// Where the bucket was at the question before.
    probed: u64,
}

impl Trail {
    /// A message came; whether one before it did not.
    pub(super) fn heard(&mut self, sequence: u64) -> bool {
        // Less than before: the bucket was made anew.
        let is_next = self.heard.is_none_or(|heard| sequence == heard + 1);
        self.heard = Some(sequence);
        !is_next
    }

    /// The bucket says where it is; whether something was lost: it was there at the question before, and has still not come.
    pub(super) fn probed(&mut self, last: u64) -> bool {
        // What was before is in the records when they are read.
        let heard = *self.heard.get_or_insert(last);
        let lost = heard < self.probed;
        if lost {
            self.heard = Some(self.probed);
        }
        self.probed = last;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_message_is_found_by_the_next_or_by_the_second_question() {
        let mut trail = Trail::default();
        assert!(!trail.probed(7));
        assert!(!trail.heard(8));
        assert!(trail.heard(10), "9 was lost");
        assert!(!trail.heard(11));
        assert!(!trail.probed(11));
        assert!(!trail.probed(12), "12 may be on its way");
        assert!(trail.probed(12), "12 was lost");
        assert!(!trail.probed(12));
        assert!(!trail.heard(13));
        assert!(trail.heard(1), "the bucket was made anew");
        assert!(!trail.heard(2));
        let mut quiet = Trail::default();
        assert!(!quiet.probed(0));
        assert!(!quiet.heard(1));
        assert!(!quiet.probed(1));
        let mut first = Trail::default();
        assert!(!first.probed(0));
        assert!(!first.probed(1));
        assert!(first.probed(1), "the first message of all was lost");
    }
}
