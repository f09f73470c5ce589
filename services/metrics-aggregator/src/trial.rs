//! What metrics and rules would have shown over past events: each metric by itself, so that its size and the time it takes can be told.
//!
//! The program beside this library reads the events from its input; nothing here or there changes anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_proto::ids::Tenant;
use roomcast_proto::metric::{Skipped, Status, Update, status_key};
use serde::Serialize;

use crate::definition::{Definition, Definitions, Window};
use crate::delivered::Delivered;
use crate::engine::codec::Corrupt;
use crate::engine::metric::Outcome;
use crate::engine::row::Event;
use crate::engine::shard::Shard;

/// Between two events rules look this often.
const STEP_MICROS: i64 = 1_000_000;
/// What closed is taken this often; it is kept for an hour at least.
const SHOW_MICROS: i64 = 30 * 60 * 1_000_000;
/// Values of a metric that are told; of those beyond, closed windows are left out.
const VALUES_MAX: usize = 50_000;
/// Notices of a rule that are told; of more, how many there are.
const NOTICES_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Stored events that were read.
    pub events: u64,
    /// In the order of the file.
    pub metrics: Vec<MetricReport>,
    /// In the order of the file.
    pub rules: Vec<RuleReport>,
}

/// What a metric would have shown.
#[derive(Debug, Clone, Serialize)]
pub struct MetricReport {
    /// Its name.
    pub name: String,
    /// Events folded, once for each leg.
    pub folded: u64,
    /// Matching events that were not folded, by reason.
    pub skipped: Skipped,
    /// Its current windows, the largest first.
    pub values: Vec<Update>,
    /// Its closed windows, as they were last published.
    pub closed: Vec<Update>,
    /// Bytes of its stored state.
    pub state_bytes: usize,
    /// Time it took to fold all these events, seconds: what filling it would take, reading aside.
    pub fold_seconds: f64,
}

/// What a rule would have said.
#[derive(Debug, Clone, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub alert: String,
    /// How often it would have spoken.
    pub count: usize,
    /// The first of them.
    pub notices: Vec<Said>,
}

/// A notification that would have been made.
#[derive(Debug, Clone, Serialize)]
pub struct Said {
    /// When.
    pub at: String,
    /// Its data.
    pub data: serde_json::Value,
}

/// One metric with the rules on it.
#[derive(Debug)]
struct Alone {
    definition: Arc<Definition>,
    shard: Shard,
    now: i64,
    watched: bool,
    /// Whether its windows close.
    closes: bool,
    shown: i64,
    folded: u64,
    spent: Duration,
    state: HashMap<String, usize>,
    current: HashMap<String, String>,
    skipped: Skipped,
}

/// Folds past events into metrics that are not in force.
#[derive(Debug)]
pub struct Trial {
    alone: Vec<Alone>,
    rules: Vec<RuleReport>,
    events: u64,
}

impl Trial {
    /// Begins at an instant, Unix microseconds: nothing before it is known.
    ///
    /// # Errors
    /// [`Corrupt`], which a trial without stored state never is.
    pub fn new(definitions: &Definitions, begin: i64) -> Result<Self, Corrupt> {
        let mut alone = Vec::new();
        for definition in &definitions.metrics {
            let of_metric = definitions
                .rules
                .iter()
                .filter(|rule| rule.metric == definition.name);
            let rules: Vec<_> = of_metric.cloned().collect();
            let watched = !rules.is_empty();
            let mut shown = (**definition).clone();
            // What is not published has numbers as well, and they are asked for.
            if let Some(publish) = definitions
                .metrics
                .iter()
                .find_map(|metric| metric.publish.clone())
            {
                shown.publish = shown.publish.or(Some(publish));
            }
            if let Some(publish) = &mut shown.publish {
                // All there is at the end is wanted.
                publish.at_most_every_micros = 0;
            }
            let mut shard = Shard::load_with(vec![Arc::new(shown)], rules, None, begin)?;
            shard.go_live();
            alone.push(Alone {
                definition: Arc::clone(definition),
                shard,
                now: begin,
                watched,
                closes: matches!(definition.window, Window::Tumbling(_) | Window::Session { .. }),
                shown: begin,
                folded: 0,
                spent: Duration::ZERO,
                state: HashMap::new(),
                current: HashMap::new(),
                skipped: Skipped::default(),
            });
        }
        let rules = definitions.rules.iter().map(|rule| RuleReport {
            alert: rule.alert.clone(),
            count: 0,
            notices: Vec::new(),
        });
        Ok(Self {
            alone,
            rules: rules.collect(),
            events: 0,
        })
    }

    /// Takes a message of the stream in, in the order of the positions; what is no event of the default tenant is left out.
    pub fn stored(&mut self, seq: u64, stored_micros: i64, subject: &str, payload: Bytes) {
        let delivered = Delivered {
            seq,
            stored_micros,
            pending: 0,
            subject: subject.into(),
            payload,
            said: None,
            trail: None,
        };
        delivered.read(&Tenant::default(), |event| self.event(event));
    }

    /// Takes the next stored event, in stream order.
    fn event(&mut self, event: &Event<'_>) {
        self.events += 1;
        for metric in &mut self.alone {
            let legs = &metric.definition.legs;
            if !legs.iter().any(|leg| leg.rooms.fits(event.room)) {
                continue;
            }
            metric.pass(event.stored_micros, &mut self.rules);
            let begun = Instant::now();
            let folded = &mut metric.folded;
            metric.shard.fold(event, &mut |outcome| {
                *folded += u64::from(outcome == Outcome::Folded);
            });
            metric.spent += begun.elapsed();
        }
    }

    /// Ends at an instant.
    #[must_use]
    pub fn finish(mut self, end: i64) -> Report {
        let mut metrics = Vec::new();
        for mut metric in std::mem::take(&mut self.alone) {
            metric.pass(end, &mut self.rules);
            metrics.push(metric.report());
        }
        Report {
            events: self.events,
            metrics,
            rules: self.rules,
        }
    }
}

impl Alone {
    /// Lets time pass; with rules second by second, else by half hours.
    fn pass(&mut self, until: i64, said: &mut [RuleReport]) {
        let step = if self.watched { STEP_MICROS } else { SHOW_MICROS };
        while until - self.now > step {
            self.to(self.now + step, said);
        }
        self.to(until, said);
    }

    fn to(&mut self, now: i64, said: &mut [RuleReport]) {
        if now > self.now {
            self.now = now;
            self.shard.advance(now);
            self.listen(said);
        }
        // Closed windows are published before they are forgotten; the current one is asked for at the end.
        if self.closes && self.now - self.shown >= SHOW_MICROS {
            self.shown = self.now;
            self.show();
        }
    }

    fn listen(&mut self, said: &mut [RuleReport]) {
        if !self.watched {
            return;
        }
        let notices: Vec<_> = self.shard.notices().cloned().collect();
        for notice in notices {
            self.shard.said(&notice.id);
            let data: serde_json::Value = serde_json::from_str(&notice.data).unwrap_or_default();
            let Some(rule) = said.iter_mut().find(|rule| data["alert"] == rule.alert.as_str()) else {
                continue;
            };
            rule.count += 1;
            if rule.notices.len() < NOTICES_MAX {
                let at = roomcast_proto::event::rfc3339(notice.time_micros);
                rule.notices.push(Said { at, data });
            }
        }
    }

    /// Takes what would be published, so that only the newest of each key is kept.
    fn show(&mut self) {
        for value in self.shard.render() {
            match value.body {
                Some(body) if self.current.len() < VALUES_MAX || !value.key.contains('@') => {
                    self.current.insert(value.key, body);
                }
                Some(_) => {}
                None => {
                    self.current.remove(&value.key);
                }
            }
        }
        self.shard.settled();
    }

    fn report(mut self) -> MetricReport {
        self.show();
        let flush = self.shard.flush();
        self.state.insert("head".to_owned(), flush.head.len());
        self.state
            .extend(flush.chunks.into_iter().map(|(name, bytes)| (name, bytes.len())));
        let name = self.definition.name.clone();
        let status = self.current.remove(&status_key(&name));
        if let Some(status) = status.and_then(|body| serde_json::from_str::<Status>(&body).ok()) {
            self.skipped = status.skipped;
        }
        let read = |(key, body): (String, String)| Some((key, serde_json::from_str::<Update>(&body).ok()?));
        let shown = self.current.into_iter().filter_map(read);
        let (mut closed, mut current): (Vec<_>, Vec<_>) = shown.partition(|(key, _)| key.contains('@'));
        closed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let size = |update: &Update| {
            let value = update
                .value
                .as_deref()
                .and_then(|value| value.parse::<f64>().ok());
            value.map_or(-1.0, f64::abs)
        };
        current.sort_by(|(a_key, a), (b_key, b)| size(b).total_cmp(&size(a)).then_with(|| a_key.cmp(b_key)));
        let only = |updates: Vec<(String, Update)>| updates.into_iter().map(|(_, update)| update).collect();
        MetricReport {
            values: only(current),
            closed: only(closed),
            folded: self.folded,
            skipped: self.skipped,
            state_bytes: self.state.values().sum(),
            fold_seconds: self.spent.as_secs_f64(),
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const BEGIN: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    /// The bookings desk is told of a fall in revenue when it has lasted, once, and that it is over; nobody but those who see money.
    #[test]
    fn the_bookings_desk_is_told_when_revenue_falls() {
        let text = include_str!("../../../deploy/scenarios/bookings/metrics.yaml");
        let definitions = Definitions::parse(text, "metrics.yaml", None).unwrap();
        let rule = definitions
            .rules
            .iter()
            .find(|rule| rule.alert == "revenue_drop")
            .unwrap();
        assert_eq!(
            (rule.notify.room.as_str(), rule.notify.audience.as_str()),
            ("notifications", "admin")
        );
        let mut trial = Trial::new(&definitions, BEGIN).unwrap();
        // Two days as ever, six hours of nothing, then three times as much as ever.
        let last = 58 * HOUR;
        for (seq, at) in (1..).zip((0..last).step_by(usize::try_from(10 * MINUTE).unwrap())) {
            let amount = match at / HOUR {
                0..48 => "100",
                48..54 => "0",
                _ => "300",
            };
            let data =
                format!("{{\"id\":\"b\",\"customer\":\"c\",\"amount\":{amount},\"currency\":\"TRY\"}}");
            let data: Box<RawValue> = serde_json::from_str(&data).unwrap();
            trial.event(&Event {
                seq,
                stored_micros: BEGIN + at,
                time_micros: BEGIN + at,
                room: "bookings",
                audience: "staff",
                kind: "booking:confirmed",
                source: "s",
                id: "i",
                subject: None,
                priority: "medium",
                data: Some(data.get()),
            });
        }
        let report = trial.finish(BEGIN + last);
        let rule = report
            .rules
            .iter()
            .find(|rule| rule.alert == "revenue_drop")
            .unwrap();
        let said: Vec<(&str, &str)> = rule
            .notices
            .iter()
            .map(|said| (said.at.as_str(), said.data["state"].as_str().unwrap()))
            .collect();
        // The 29th event of nothing comes at 16:40 and makes it more than a fifth of 144; that has to last for five minutes.
        let [(fell, "firing"), (rose, "resolved")] = said[..] else {
            panic!("{said:?}")
        };
        assert!(
            ("2026-06-03T16:44:00Z".."2026-06-03T16:50:00Z").contains(&fell),
            "{fell}"
        );
        assert!(
            ("2026-06-03T19:40:00Z".."2026-06-03T20:40:00Z").contains(&rose),
            "{rose}"
        );
        let first = &rule.notices[0].data;
        assert!(
            first["title"].as_str().unwrap().starts_with("Revenue -2"),
            "{first}"
        );
        assert!(
            first["body"]
                .as_str()
                .unwrap()
                .contains(", 14400 TRY in those before"),
            "{first}"
        );
    }
}
