//! Filling new and changed metrics from what the stream keeps, while the others go on.
//!
//! The worker reads the rooms of these metrics alone into [`Shard::fill`]. When nothing is left there it reads those of all metrics from
//! the same place on: a node's word that nothing is waiting is no proof, an event that is as far as the others have come is one. Then
//! [`Shard::join`] makes them metrics like the others.

use std::sync::Arc;

use super::{Shard, Unsaved};
use crate::definition::Definition;
use crate::engine::metric::Outcome;
use crate::engine::row::Event;

impl Shard {
    /// The metrics that are being filled.
    pub fn filling(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.metrics
            .iter()
            .filter(|metric| metric.filling)
            .map(|metric| &metric.definition)
    }

    /// The metrics that go on.
    pub fn settled_definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.metrics
            .iter()
            .filter(|metric| !metric.filling)
            .map(|metric| &metric.definition)
    }

    /// Everything up to here is in the metrics that are being filled; `None` where none is.
    #[must_use]
    pub fn filled_to(&self) -> Option<u64> {
        let filling = self.metrics.iter().filter(|metric| metric.filling);
        filling.map(|metric| metric.folded_to).min()
    }

    /// Folds an event into the metrics that are being filled, in stream order. True where it is as far as the others have come: one
    /// that is further is not folded, because the others have yet to see it.
    pub fn fill(&mut self, event: &Event<'_>, told: &mut impl FnMut(Outcome)) -> bool {
        if event.seq > self.seq {
            return true;
        }
        let row = self.paths.row(event);
        let mut concerned = false;
        for metric in self.metrics.iter_mut().filter(|metric| metric.filling) {
            metric.fold(event, &row, &mut |outcome| {
                concerned |= outcome != Outcome::NotOurs;
                told(outcome);
            });
            metric.folded_to = metric.folded_to.max(event.seq);
        }
        self.unsaved = self.unsaved.max(if concerned {
            Unsaved::Content
        } else {
            Unsaved::Position
        });
        event.seq == self.seq
    }

    /// As far as is known nothing is left to fill in: what there is may be said.
    pub fn believe_filled(&mut self) {
        for metric in self.metrics.iter_mut().filter(|metric| metric.filling) {
            metric.live = true;
        }
    }

    /// What was filled is as far as the others, and goes on with them from [`Shard::position`]. The reader of events must be one of all
    /// rooms from there on.
    pub fn join(&mut self) {
        let live = self.metrics.iter().any(|metric| !metric.filling && metric.live);
        for metric in self.metrics.iter_mut().filter(|metric| metric.filling) {
            metric.folded_to = self.seq;
            metric.filling = false;
            metric.live |= live;
        }
        self.unsaved = Unsaved::Content;
    }

    /// Whether anything that is said may be a part of what is to come, so that nothing stored is taken back yet.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.metrics.iter().any(|metric| metric.filling && !metric.live)
    }
}
