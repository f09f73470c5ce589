//! What a metrics file says, understood key by key.

use std::sync::Arc;

use jiff::tz::TimeZone;
use roomcast_access::yaml::{self, At, Mistakes, Node, Value};
use roomcast_access::{Mistake, Policy};
use roomcast_proto::ids::{Tenant, is_token, shard};
use roomcast_proto::metric::STATUS_PREFIX;
use roomcast_schemas::Catalog;

use super::{Aggregate, Clock, Compare, Definition, Definitions, Join, Leg, METRICS_MAX, Unit, Window};
use crate::engine::decimal::Decimal;
use crate::engine::fnv::Fnv;

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
const LATENESS_DEFAULT: i64 = 10 * MINUTE;
const LATENESS_MAX: i64 = 7 * DAY;
pub(super) const EVERY_DEFAULT: i64 = 250_000;
const GROUPS_DEFAULT: usize = 1_000;
const PUBLISHED_DEFAULT: usize = 100;
/// Longest list of `type` and `group_by`.
pub(super) const LIST_MAX: usize = 32;

const TOP: [&str; 4] = ["version", "timezone", "metrics", "rules"];
const METRIC: [&str; 16] = [
    "name",
    "from",
    "where",
    "value",
    "group_by",
    "window",
    "clock",
    "compare",
    "flat_within_percent",
    "lateness",
    "stalled_after",
    "publish",
    "groups_max",
    "groups_published_max",
    "ratio",
    "arithmetic",
];
/// What a metric made of two takes from those it names.
const NOT_IN_JOINT: [&str; 4] = ["from", "where", "value", "group_by"];

/// A metric as written, ratios not yet resolved.
struct Draft {
    definition: Definition,
    at: At,
    joint: Option<Joint>,
    written: Written,
}

/// Which of the keys a ratio may repeat were written.
struct Written {
    window: Option<At>,
    lateness: Option<At>,
    clock: Option<At>,
    compare: Option<At>,
    stalled_after: bool,
    groups_max: Option<At>,
}

/// The two metrics that a third is made of.
struct Joint {
    of: (At, String),
    with: (At, String),
    how: Join,
}

/// Understands one file.
pub(super) struct Reader<'a> {
    /// The name that mistakes carry.
    pub(super) file: &'a str,
    pub(super) mistakes: Mistakes<'a>,
    pub(super) policy: Option<&'a Policy>,
    pub(super) schemas: Option<&'a Catalog>,
    pub(super) zone: TimeZone,
    zone_name: String,
}

pub(super) fn definitions(
    text: &str,
    file: &str,
    policy: Option<&Policy>,
    schemas: Option<&Catalog>,
) -> Result<Definitions, Vec<Mistake>> {
    let (root, mistakes) = yaml::read(text, file)?;
    let mut reader = Reader {
        file,
        mistakes,
        policy,
        schemas,
        zone: TimeZone::UTC,
        zone_name: "UTC".to_owned(),
    };
    let definitions = reader.file(&root);
    if reader.mistakes.is_empty() {
        Ok(definitions)
    } else {
        Err(reader.mistakes.finish())
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> Definitions {
        let none = Definitions {
            metrics: Vec::new(),
            rules: Vec::new(),
            warnings: Vec::new(),
        };
        if matches!(root.value, Value::Nothing) {
            self.mistakes.add(
                root.at,
                "the file is empty; it needs `version: 1`, `timezone` and `metrics`",
            );
            return none;
        }
        let Some(top) = self
            .mistakes
            .fields(root, "the file", &TOP, &["version", "timezone", "metrics"])
        else {
            return none;
        };
        if let Some(node) = top
            .get("version")
            .filter(|node| !matches!(node.value, Value::Whole(1)))
        {
            self.mistakes
                .add(node.at, "expected version 1, the only one there is");
        }
        if let Some(node) = top.get("timezone") {
            self.timezone(node);
        }
        let drafts = top
            .get("metrics")
            .map(|node| self.metrics(node))
            .unwrap_or_default();
        let places: Vec<At> = drafts.iter().map(|draft| draft.at).collect();
        let metrics = self.resolve(drafts);
        let warnings = self.warnings(&metrics, &places);
        let rules = top
            .get("rules")
            .map(|node| self.rules(node, &metrics))
            .unwrap_or_default();
        Definitions {
            metrics,
            rules,
            warnings,
        }
    }

    fn timezone(&mut self, node: &Node) {
        let Some(name) = self.mistakes.text(node, "the name of a time zone") else {
            return;
        };
        match TimeZone::get(name) {
            Ok(zone) => {
                self.zone = zone;
                name.clone_into(&mut self.zone_name);
            }
            Err(_) => {
                let message = format!("no time zone {name:?}; it takes an IANA name such as Europe/Istanbul");
                let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
                self.mistakes
                    .unknown(node.at, message, name, known.iter().map(String::as_str));
            }
        }
    }

    fn metrics(&mut self, node: &Node) -> Vec<Draft> {
        let Value::List(items) = &node.value else {
            self.mistakes.add(
                node.at,
                format!("expected `metrics` as a list, found {}", node.value.kind()),
            );
            return Vec::new();
        };
        if items.len() > METRICS_MAX {
            self.mistakes.add(
                node.at,
                format!("at most {METRICS_MAX} metrics, found {}", items.len()),
            );
            return Vec::new();
        }
        let mut drafts: Vec<Draft> = Vec::with_capacity(items.len());
        for item in items {
            if let Some(draft) = self.metric(item) {
                if drafts
                    .iter()
                    .any(|known| known.definition.name == draft.definition.name)
                {
                    let name = &draft.definition.name;
                    self.mistakes
                        .add(draft.at, format!("there is a metric {name:?} already"));
                }
                drafts.push(draft);
            }
        }
        drafts
    }

    fn metric(&mut self, node: &Node) -> Option<Draft> {
        let found = self.mistakes.fields(node, "a metric", &METRIC, &["name"])?;
        let before = self.mistakes.len();
        let name_node = *found.get("name")?;
        let name = self.mistakes.text(name_node, "a metric's name")?.to_owned();
        if !is_token(&name) {
            let message = format!("bad metric name {name:?}: 1 to 64 letters, digits, - or _");
            self.mistakes.add(name_node.at, message);
        } else if name == STATUS_PREFIX {
            self.mistakes.add(
                name_node.at,
                "`status` is the first part of the keys of statuses and no metric's name",
            );
        }
        let written_joint = match (found.get("ratio").copied(), found.get("arithmetic").copied()) {
            (Some(_), Some(node)) => {
                self.mistakes
                    .add(node.at, "a metric is a `ratio` or `arithmetic`, not both");
                return None;
            }
            (Some(node), None) => Some(("a ratio", self.ratio(node))),
            (None, Some(node)) => Some(("arithmetic", self.arithmetic(node))),
            (None, None) => None,
        };
        let (leg, joint) = match written_joint {
            Some((what, joint)) => {
                for key in NOT_IN_JOINT {
                    if let Some(node) = found.get(key) {
                        let message = format!("{what} takes `{key}` from the metrics it names");
                        self.mistakes.add(node.at, message);
                    }
                }
                (None, Some(joint?))
            }
            None => {
                for key in ["from", "value"] {
                    if !found.contains_key(key) {
                        self.mistakes
                            .add(node.at, format!("the metric {name:?} needs `{key}`"));
                    }
                }
                (self.leg(&found), None)
            }
        };
        let (leg, own_window) = leg.unzip();
        let own_window = own_window.flatten();
        let window = match (found.get("window"), own_window) {
            (Some(node), Some(_)) => {
                self.mistakes
                    .add(node.at, "active(..) has a window of its own; leave `window` out");
                None
            }
            (Some(node), None) => self.window(node),
            (None, Some(window)) => Some((window, false)),
            // A value with a mistake may have one of its own.
            (None, None) if joint.is_none() && (leg.is_some() || !found.contains_key("value")) => {
                self.mistakes
                    .add(node.at, format!("the metric {name:?} needs `window`"));
                None
            }
            (None, None) => None,
        };
        let lateness = found
            .get("lateness")
            .map(|node| self.duration(node, 0, LATENESS_MAX).unwrap_or(LATENESS_DEFAULT));
        let written = Written {
            window: found.get("window").map(|node| node.at),
            lateness: found.get("lateness").map(|node| node.at),
            clock: found.get("clock").map(|node| node.at),
            compare: found.get("compare").map(|node| node.at),
            stalled_after: found.contains_key("stalled_after"),
            groups_max: found.get("groups_max").map(|node| node.at),
        };
        let definition = Definition {
            tenant: Tenant::default(),
            shard: shard(&Tenant::default(), &name),
            join: joint.as_ref().map(|joint| joint.how),
            group_values: leg.as_ref().map_or(0, |leg| leg.group_by.len()),
            legs: leg.into_iter().collect(),
            window: window.map_or(Window::Total, |(window, _)| window),
            to_date: window.is_some_and(|(_, to_date)| to_date),
            zone: self.zone.clone(),
            clock: found
                .get("clock")
                .and_then(|node| self.clock(node))
                .unwrap_or(Clock::Wall),
            lateness_micros: lateness.unwrap_or(LATENESS_DEFAULT),
            stalled_after_micros: found
                .get("stalled_after")
                .and_then(|node| self.duration(node, SECOND, 366 * DAY)),
            compare: found.get("compare").and_then(|node| self.compare(node)),
            flat_within_percent: found
                .get("flat_within_percent")
                .and_then(|node| self.percent(node))
                .unwrap_or(Decimal::ZERO),
            groups_max: found
                .get("groups_max")
                .and_then(|node| self.count(node, 100_000))
                .unwrap_or(GROUPS_DEFAULT),
            groups_published_max: found
                .get("groups_published_max")
                .and_then(|node| self.count(node, 1_000))
                .unwrap_or(PUBLISHED_DEFAULT),
            publish: found.get("publish").and_then(|node| self.publish(node)),
            fingerprint: 0,
            name,
        };
        let complete = joint.is_some() || (definition.legs.len() == 1 && window.is_some());
        (complete || self.mistakes.len() > before).then_some(Draft {
            definition,
            at: name_node.at,
            joint,
            written,
        })
    }

    fn ratio(&mut self, node: &Node) -> Option<Joint> {
        let found = self
            .mistakes
            .fields(node, "`ratio`", &["of", "to", "scale"], &["of", "to"])?;
        let scale = match found.get("scale").map(|node| (node.at, &node.value)) {
            None => 4,
            Some((_, Value::Whole(scale @ 0..=12))) => u32::try_from(*scale).unwrap_or(4),
            Some((at, _)) => {
                self.mistakes
                    .add(at, "scale is a whole number of decimals from 0 to 12");
                4
            }
        };
        let (of, to) = (*found.get("of")?, *found.get("to")?);
        self.joint(of, to, Join::Ratio(scale))
    }

    fn arithmetic(&mut self, node: &Node) -> Option<Joint> {
        const KEYS: [(&str, Join); 3] = [
            ("plus", Join::Plus),
            ("minus", Join::Minus),
            ("times", Join::Times),
        ];
        let found = self
            .mistakes
            .fields(node, "`arithmetic`", &["of", "plus", "minus", "times"], &["of"])?;
        let of = *found.get("of")?;
        let written: Vec<_> = KEYS
            .into_iter()
            .filter_map(|(key, how)| Some((*found.get(key)?, how)))
            .collect();
        let [(with, how)] = written[..] else {
            let message = "arithmetic is { of: a, plus: b }, { of: a, minus: b } or { of: a, times: b }";
            self.mistakes.add(node.at, message);
            return None;
        };
        self.joint(of, with, how)
    }

    fn joint(&mut self, of: &Node, with: &Node, how: Join) -> Option<Joint> {
        let of = (of.at, self.mistakes.text(of, "a metric's name")?.to_owned());
        let with = (with.at, self.mistakes.text(with, "a metric's name")?.to_owned());
        Some(Joint { of, with, how })
    }

    /// Gives metrics made of two their legs, and every definition its fingerprint.
    fn resolve(&mut self, drafts: Vec<Draft>) -> Vec<Arc<Definition>> {
        let mut metrics = Vec::with_capacity(drafts.len());
        for draft in &drafts {
            let mut definition = draft.definition.clone();
            if let Some(joint) = &draft.joint {
                self.join(&mut definition, &draft.written, joint, &drafts);
            }
            self.fits(&definition, &draft.written, draft.at);
            definition.fingerprint = fingerprint(&definition, &self.zone_name);
            metrics.push(Arc::new(definition));
        }
        metrics
    }

    /// What a window must be like for what is computed over it and what it is compared with.
    fn fits(&mut self, definition: &Definition, written: &Written, at: At) {
        if definition.compare == Some(Compare::SameWeekday)
            && definition.window != Window::Tumbling(Unit::Day)
        {
            let message =
                "`compare: same_weekday` is for { tumbling: day }; there is previous for all windows";
            self.mistakes.add(written.compare.unwrap_or(at), message);
        }
        if definition.compare == Some(Compare::PreviousElapsed) {
            let parts = |leg: &Leg| {
                use Aggregate::{Avg, Count, Max, Min, Rate, Sum};
                matches!(leg.aggregate, Count | Sum(_) | Avg(_) | Min(_) | Max(_) | Rate(_))
            };
            let message = if !matches!(definition.window, Window::Tumbling(_)) {
                "`compare: previous_elapsed` is for { tumbling: .. } and { to_date: .. }; there is previous for all windows"
            } else if !definition.legs.iter().all(parts) {
                "`compare: previous_elapsed` is for count, sum, avg, min, max and rate; there is previous for all"
            } else {
                ""
            };
            if !message.is_empty() {
                self.mistakes.add(written.compare.unwrap_or(at), message);
            }
        }
        let gauge = |leg: &Leg| matches!(leg.aggregate, Aggregate::Gauge(_));
        if definition.window != Window::Total && definition.legs.iter().any(gauge) {
            let message = "gauge(..) is how many there are now, of { total: true } only";
            self.mistakes.add(written.window.unwrap_or(at), message);
        }
        let rate = |leg: &Leg| matches!(leg.aggregate, Aggregate::Rate(_));
        if definition.window == Window::Total && definition.legs.iter().any(rate) {
            let message = "rate(..) needs a window that begins, and { total: true } never does";
            self.mistakes.add(written.window.unwrap_or(at), message);
        }
    }

    fn join(&mut self, definition: &mut Definition, written: &Written, joint: &Joint, drafts: &[Draft]) {
        let mut named = Vec::new();
        for (at, name) in [&joint.of, &joint.with] {
            match drafts.iter().find(|draft| draft.definition.name == *name) {
                Some(draft) if draft.joint.is_some() => {
                    self.mistakes
                        .add(*at, format!("{name:?} is made of two metrics itself"));
                }
                Some(draft)
                    if draft.definition.legs.iter().any(|leg| {
                        matches!(
                            leg.aggregate,
                            Aggregate::First(_) | Aggregate::Last(_) | Aggregate::Top(..)
                        )
                    }) =>
                {
                    let message =
                        format!("{name:?} says more than a number, and nothing is computed from it");
                    self.mistakes.add(*at, message);
                }
                Some(draft) => named.push(&draft.definition),
                None => {
                    let known = drafts.iter().map(|draft| draft.definition.name.as_str());
                    self.mistakes
                        .unknown(*at, format!("no metric {name:?}"), name, known);
                }
            }
        }
        let [of, to] = named[..] else { return };
        let mut differ = |what: &str, same: bool| {
            if !same {
                let message = format!(
                    "{:?} and {:?} differ in `{what}`, so they make no third",
                    of.name, to.name
                );
                self.mistakes.add(joint.with.0, message);
            }
        };
        differ("window", of.window == to.window && of.to_date == to.to_date);
        differ("group_by", of.group_values == to.group_values);
        differ("lateness", of.lateness_micros == to.lateness_micros);
        differ("clock", of.clock == to.clock);
        for (at, what, same) in [
            (
                written.window,
                "window",
                definition.window == of.window && definition.to_date == of.to_date,
            ),
            (
                written.lateness,
                "lateness",
                definition.lateness_micros == of.lateness_micros,
            ),
            (written.clock, "clock", definition.clock == of.clock),
            (
                written.groups_max,
                "groups_max",
                definition.groups_max == of.groups_max.min(to.groups_max),
            ),
        ] {
            if let (Some(at), false) = (at, same) {
                self.mistakes.add(
                    at,
                    format!("`{what}` differs from that of the metrics this one names; leave it out"),
                );
            }
        }
        definition.window = of.window;
        definition.to_date = of.to_date;
        definition.lateness_micros = of.lateness_micros;
        definition.clock = of.clock;
        definition.groups_max = of.groups_max.min(to.groups_max);
        definition.group_values = of.group_values;
        if written.compare.is_none() {
            definition.compare = of.compare.filter(|_| of.compare == to.compare);
        }
        if !written.stalled_after {
            definition.stalled_after_micros = of.stalled_after_micros.or(to.stalled_after_micros);
        }
        definition.legs = of.legs.iter().chain(&to.legs).cloned().collect();
    }
}

/// A digest of everything that decides what is folded and into which window. What is only shown (publish, stalled_after,
/// flat_within_percent, compare but for what keeps windows in parts) is left out, so that changing it keeps the numbers.
fn fingerprint(definition: &Definition, zone: &str) -> u64 {
    let mut hash = Fnv::default();
    let mut add = |text: &str| {
        hash.write(&text.len().to_le_bytes());
        hash.write(text.as_bytes());
    };
    add("1");
    add(definition.tenant.as_str());
    add(&format!("{:?}", definition.join.is_some()));
    let (window, zone) = match definition.window {
        // As it was named when it was the only unit: its stored state goes on.
        Window::Tumbling(Unit::Day) => ("Day".to_owned(), zone),
        Window::Tumbling(_) => (format!("{:?}", definition.window), zone),
        _ => (format!("{:?}", definition.window), ""),
    };
    add(&window);
    add(zone);
    add(&format!(
        "{:?} {} {}",
        definition.clock, definition.lateness_micros, definition.groups_max
    ));
    if definition.compare == Some(Compare::PreviousElapsed) {
        add("parts");
    }
    for leg in &definition.legs {
        let paths: Vec<String> = leg.paths.iter().map(ToString::to_string).collect();
        add(leg.rooms.as_str());
        add(&leg.types.join("\n"));
        add(&paths.join("\n"));
        add(&format!(
            "{:?} {:?} {:?}",
            leg.condition, leg.group_by, leg.aggregate
        ));
        if let Some(holds) = &leg.holds {
            add(&format!("{holds:?}"));
        }
    }
    hash.finish()
}
