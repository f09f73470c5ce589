//! State that an update leaves behind: the row's value goes from the room and key that it had.
//!
//! Of a table without `state` nothing is withdrawn: its events are what happened, and stay.

use roomcast_cel::predicate::Verdict;
use roomcast_proto::ids::Room;

use super::{Bound, Change, Op, Seen, Source, Stamp, WITHDRAWN, write_state};
use crate::pgoutput::Before;

impl Bound {
    /// Writes that the row's value is gone from where it was, if an update moves the row to another room or key, or `where` no longer
    /// holds for it. `out` grows by the event's JSON, or not at all. Belongs before what [`Bound::write`] makes of the same change.
    ///
    /// Its id is made of the change's, so that it is the same each time the change is read.
    pub fn withdraw(&self, change: &Change<'_>, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> bool {
        let types = &self.table.types;
        let (Op::Update, Some(kind), Some(row)) = (change.op, types.update.as_deref(), change.row) else {
            return false;
        };
        if self.state.is_empty() || (change.before.is_none() && self.table.condition.is_none()) {
            return false;
        }
        // Where the database sends no old row, the columns of the replica identity are as they were.
        let same;
        let before = match change.before {
            Some(before) => before,
            None => {
                same = Before::Key(row.clone());
                &same
            }
        };
        let was = Change {
            op: change.op,
            row: None,
            before: Some(before),
        };
        let now = |index| self.seen(change, index);
        // What is not known of the old row, of changes before the table had the replica identity that the checks ask for, is taken as
        // unchanged.
        let then = |index| match self.seen(&was, index) {
            Seen::Absent => now(index),
            known => known,
        };
        let (room, key) = (self.room(then), self.key(then));
        let stays =
            self.holds(change, kind) == Verdict::True && room == self.room(now) && key == self.key(now);
        // In what is no room nothing was ever stored.
        if stays || !self.was_published(&was, kind) || Room::parse(&room).is_err() {
            return false;
        }
        let id = format!("{}-withdrawn", stamp.id);
        let kind = types.delete.as_deref().unwrap_or(kind);
        self.write_head(kind, &Stamp { id: &id, ..*stamp }, &room, out);
        write_state(&key, out);
        out.extend_from_slice(WITHDRAWN);
        true
    }

    /// What `where` says of a change.
    fn holds(&self, change: &Change<'_>, kind: &str) -> Verdict {
        self.verdict(&self.values(self.conditional(), change, kind))
    }

    /// Whether `where` held for the row as it was; where the database does not say enough of it, perhaps.
    fn was_published(&self, was: &Change<'_>, kind: &str) -> bool {
        match self.holds(was, kind) {
            Verdict::True => true,
            Verdict::False => false,
            Verdict::Error => self.conditional().iter().any(|source| match source {
                Source::Row(index) | Source::Old(index) => {
                    matches!(self.seen_before(was, *index), Seen::Absent | Seen::Unchanged)
                }
                Source::Op | Source::Type => false,
            }),
        }
    }

    fn conditional(&self) -> &[Source] {
        let count = self.table.condition_paths.min(self.sources.len());
        &self.sources[..count]
    }
}
