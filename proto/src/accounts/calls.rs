//! Who may ask the server what, and who hears and writes which subjects of `CORE` in an account of its own.

use crate::subject::{SERIES_ALL, STATISTICS_ANSWERS_ALL, stream as names};

/// How often the server answers a call.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    One,
    Many,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Gateway,
    Aggregator,
    Reader,
}

impl Who {
    pub(super) const fn account(self) -> &'static str {
        match self {
            Who::Gateway => "GW",
            Who::Aggregator => "AGG",
            Who::Reader => "READER",
        }
    }

    /// Subjects this account may publish on in `CORE` through an import, with one answer each.
    pub(super) const fn writes(self) -> &'static [&'static str] {
        match self {
            Who::Aggregator => &["st.>", "$KV.agg.>", "dlq.>", "audit.aggregator.>"],
            Who::Gateway => &["audit.gateway.>"],
            Who::Reader => &[],
        }
    }

    /// What this account lets others hear or ask: gateways tell `CORE` who is connected, aggregators answer what comes through it.
    pub(super) fn exports(self) -> String {
        match self {
            Who::Gateway => {
                format!("\n    exports: [ {{ stream: \"{STATISTICS_ANSWERS_ALL}\", accounts: [ CORE ] }} ]")
            }
            Who::Aggregator => {
                format!(
                    "\n    exports: [ {{ service: \"{SERIES_ALL}\", accounts: [ CORE ], response_type: Singleton }} ]"
                )
            }
            Who::Reader => String::new(),
        }
    }

    /// Subjects of `CORE` this account listens to.
    pub(super) const fn hears(self) -> &'static [&'static str] {
        match self {
            Who::Gateway => &["live.>", "slive.>", "eph.>", "ctl.>", "kvl.>"],
            Who::Aggregator => &["kvl.cfg.>"],
            Who::Reader => &[],
        }
    }
}

pub(super) const IMPORTERS: [Who; 3] = [Who::Gateway, Who::Aggregator, Who::Reader];

/// A call of the JetStream API (without prefix) and who imports it.
pub(super) fn api_calls() -> Vec<(String, Answer, &'static [Who])> {
    use Who::{Aggregator, Gateway, Reader};
    let mut calls: Vec<(String, Answer, &'static [Who])> = vec![
        ("INFO".into(), Answer::One, &[Gateway, Aggregator, Reader]),
        (
            format!("CONSUMER.CREATE.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.DELETE.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.INFO.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.MSG.NEXT.{}.>", names::EVENTS),
            Answer::Many,
            &[Aggregator],
        ),
    ];
    let readable: [(&str, &'static [Who]); 7] = [
        (names::EVENTS, &[Gateway, Aggregator, Reader]),
        (names::STATE, &[Gateway, Aggregator, Reader]),
        (names::DLQ, &[Reader]),
        (names::AGG, &[Aggregator]),
        (names::ACL, &[Gateway]),
        (names::CFG, &[Gateway, Aggregator]),
        // Thousands of users come back at once, so gateways read what is kept of them many at a time; only ingest writes it.
        (names::READSTATE, &[Gateway]),
    ];
    for (stream, who) in readable {
        calls.push((format!("STREAM.INFO.{stream}"), Answer::One, who));
        calls.push((format!("STREAM.MSG.GET.{stream}"), Answer::One, who));
        // One direct get may be answered by a whole batch of messages.
        calls.push((format!("DIRECT.GET.{stream}"), Answer::Many, who));
        calls.push((format!("DIRECT.GET.{stream}.>"), Answer::Many, who));
    }
    calls
}
