//! What each fault left behind, summed over its runs, as one table.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use roomcast_harness::account::{Ledger, audit};

use crate::traffic::Told;

/// What is expected of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing lost, doubled, reordered or made up.
    Nothing,
    /// Events are lost: this row shows that the method sees it.
    Loss,
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub fault: &'static str,
    /// Servers.
    pub nodes: usize,
    expected: Expected,
    runs: usize,
    acknowledged: usize,
    lost: usize,
    doubled: usize,
    reordered: usize,
    phantom: usize,
    refused: usize,
    silence: Duration,
    /// Why it was not run, or not to its end.
    not_run: Option<String>,
}

impl Row {
    /// Nothing done yet.
    #[must_use]
    pub fn new(fault: &'static str, nodes: usize, expected: Expected) -> Self {
        Self {
            fault,
            nodes,
            expected,
            runs: 0,
            acknowledged: 0,
            lost: 0,
            doubled: 0,
            reordered: 0,
            phantom: 0,
            refused: 0,
            silence: Duration::ZERO,
            not_run: None,
        }
    }

    /// Says that it could not be run.
    #[must_use]
    pub fn skipped(mut self, why: impl Into<String>) -> Self {
        self.not_run = Some(why.into());
        self
    }

    /// Adds a run: what publishers were told, and the ids of the stream in its order.
    pub fn add(&mut self, told: &Told, stored: &[String]) {
        let Ledger {
            lost,
            doubled,
            reordered,
        } = audit(stored, &told.acknowledged);
        let made_up: HashSet<&String> = stored.iter().filter(|id| !told.sent.contains(*id)).collect();
        self.runs += 1;
        self.acknowledged += told.acknowledged.len();
        self.lost += lost.len();
        self.doubled += doubled.len();
        self.reordered += reordered.len();
        self.phantom += made_up.len();
        self.refused += told.refused.len();
        self.silence = self.silence.max(told.silence);
    }

    /// Acknowledged events that were not found, so far.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Whether it came out as expected; a row that was not run did not.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let clean = self.doubled + self.reordered + self.phantom + self.refused == 0;
        let loss = match self.expected {
            Expected::Nothing => self.lost == 0,
            Expected::Loss => self.lost > 0,
        };
        self.not_run.is_none() && self.acknowledged > 0 && clean && loss
    }

    /// Whether it was left out because the machine cannot do it.
    #[must_use]
    pub fn is_skipped(&self) -> bool {
        self.not_run.is_some() && self.runs == 0
    }

    fn verdict(&self) -> String {
        match (&self.not_run, self.expected) {
            (Some(why), _) => format!("**not run**: {why}"),
            (None, Expected::Nothing) if self.is_good() => "kept".to_owned(),
            (None, Expected::Loss) if self.is_good() => "loses, as it must".to_owned(),
            (None, Expected::Loss) if self.lost == 0 => "**the cut cuts nothing**".to_owned(),
            (None, _) if self.refused > 0 => format!("**broken**: {} refused for good", self.refused),
            (None, _) => "**broken**".to_owned(),
        }
    }
}

/// The table as Markdown.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = "| fault | NATS nodes | runs | acknowledged | lost | doubled | reordered | phantom | longest silence | |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let Row {
            fault,
            nodes,
            runs,
            acknowledged,
            lost,
            doubled,
            reordered,
            phantom,
            silence,
            ..
        } = row;
        let (silence, verdict) = (silence.as_secs_f64(), row.verdict());
        let _ = writeln!(
            text,
            "| {fault} | {nodes} | {runs} | {acknowledged} | {lost} | {doubled} | {reordered} | {phantom} | {silence:.1} s | {verdict} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(acknowledged: &str, sent: &str) -> Told {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut told = Told::default();
        told.acknowledged = words(acknowledged).into_iter().map(|id| (0, id)).collect();
        told.sent = words(sent).into_iter().collect();
        told
    }

    #[test]
    fn a_row_is_good_only_when_every_event_is_where_it_must_be() {
        let row = |expected, acknowledged: &str, stored: &str| {
            let mut row = Row::new("x", 1, expected);
            let stored: Vec<String> = stored.split_whitespace().map(str::to_owned).collect();
            row.add(&told(acknowledged, "a b c d"), &stored);
            row.is_good()
        };
        let rows = [
            (Expected::Nothing, "a b c", "a b c", true),
            (Expected::Nothing, "a b c", "a b c d", true), // d was sent and not answered
            (Expected::Nothing, "a b c", "a c", false),
            (Expected::Nothing, "a b c", "a b b c", false),
            (Expected::Nothing, "a b c", "b a c", false),
            (Expected::Nothing, "a b c", "a b c x", false),
            (Expected::Nothing, "", "", false),
            (Expected::Loss, "a b c", "a", true),
            (Expected::Loss, "a b c", "a b c", false),
        ];
        for (expected, acknowledged, stored, good) in rows {
            assert_eq!(
                row(expected, acknowledged, stored),
                good,
                "{acknowledged} / {stored}"
            );
        }
        let skipped = Row::new("x", 1, Expected::Nothing).skipped("no root");
        assert!(!skipped.is_good() && skipped.is_skipped());
        assert!(table(&[skipped]).contains("**not run**: no root"));
    }
}
