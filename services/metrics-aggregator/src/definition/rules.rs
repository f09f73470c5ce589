//! `rules` and `silences` as written.

use jiff::Timestamp;
use jiff::civil::Time;
use roomcast_access::yaml::{At, Found, Node, Value};
use roomcast_proto::event::Priority;
use roomcast_proto::ids::is_token;
use std::sync::Arc;

use super::read::{DAY, Reader, SECOND};
use super::rule::{
    Change, Condition, Hours, HoursOfDays, Measure, Measured, NoData, Notify, Piece, RULES_MAX, Rule, Sign,
    Silence, Template, Test,
};
use super::{Definition, Window};
use crate::engine::decimal::Decimal;

const RULE: [&str; 9] = [
    "alert",
    "when",
    "until",
    "for",
    "keep_firing_for",
    "no_data",
    "hours",
    "silences",
    "notify",
];
const NOTIFY: [&str; 9] = [
    "room", "audience", "priority", "title", "body", "link", "category", "sound", "per",
];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const SIGNS: [(&str, Sign); 6] = [
    ("<=", Sign::AtMost),
    (">=", Sign::AtLeast),
    ("==", Sign::Equal),
    ("!=", Sign::Unequal),
    ("<", Sign::Less),
    (">", Sign::More),
];
/// What a condition looks like, said where it looks otherwise.
const SUPPORTED: &str = "a condition is revenue.change_percent < -20, change(revenue.value, 10m) > 100, \
     change_percent(revenue.value, 10m) < -20 or absent(bookings, 30m)";
/// Longest title and link, and longest body, as written.
const TEXT_BYTES_MAX: usize = 400;
const BODY_BYTES_MAX: usize = 1_500;
/// Most parts of opening hours, and most silences of a rule.
const PARTS_MAX: usize = 32;

/// A side of a condition: the metric's name with its place in the text, and what of it.
struct Side<'t> {
    metric: &'t str,
    offset: usize,
    measured: Measured,
}

impl Reader<'_> {
    pub(super) fn rules(&mut self, node: &Node, metrics: &[Arc<Definition>]) -> Vec<Arc<Rule>> {
        let items = match &node.value {
            Value::Nothing => return Vec::new(),
            Value::List(items) if items.len() <= RULES_MAX => items,
            other => {
                let found = other.kind();
                let message = format!("expected `rules` as a list of at most {RULES_MAX}, found {found}");
                self.mistakes.add(node.at, message);
                return Vec::new();
            }
        };
        let mut rules: Vec<Arc<Rule>> = Vec::new();
        for item in items {
            if let Some((at, rule)) = self.rule(item, metrics) {
                if rules.iter().any(|known| known.alert == rule.alert) {
                    let message = format!("there is a rule {:?} already", rule.alert);
                    self.mistakes.add(at, message);
                }
                rules.push(Arc::new(rule));
            }
        }
        rules
    }

    fn rule(&mut self, node: &Node, metrics: &[Arc<Definition>]) -> Option<(At, Rule)> {
        let found = self
            .mistakes
            .fields(node, "a rule", &RULE, &["alert", "when", "notify"])?;
        let name_node = *found.get("alert")?;
        let alert = self.mistakes.text(name_node, "a rule's name")?.to_owned();
        if !is_token(&alert) {
            let message = format!("bad name of a rule {alert:?}: 1 to 64 letters, digits, - or _");
            self.mistakes.add(name_node.at, message);
        }
        let hours = Hours {
            zone: self.zone.clone(),
            parts: found
                .get("hours")
                .map(|node| self.hours(node))
                .unwrap_or_default(),
        };
        let when = found.get("when").and_then(|node| self.when(node, metrics));
        let metric = when.as_ref().map(|(metric, _)| Arc::clone(metric));
        let until = match (found.get("until"), &when) {
            (Some(node), Some((metric, condition))) => self.until(node, metric, condition),
            _ => None,
        };
        let mut span = |key: &str| {
            let found = found.get(key);
            found.map_or(Some(0), |node| self.duration(node, 0, 7 * DAY))
        };
        let (for_micros, keep_micros) = (span("for"), span("keep_firing_for"));
        let no_data = found.get("no_data").and_then(|node| self.no_data(node));
        let silences = found
            .get("silences")
            .map(|node| self.silences(node))
            .unwrap_or_default();
        let notify = found
            .get("notify")
            .and_then(|node| self.notify(node, metric.as_deref()));
        let (metric, when) = when?;
        let rule = Rule {
            alert,
            metric: metric.name.clone(),
            shard: metric.shard,
            when,
            until,
            for_micros: for_micros?,
            keep_micros: keep_micros?,
            no_data: no_data.unwrap_or(NoData::Ok),
            hours,
            notify: notify?,
            silences,
        };
        Some((name_node.at, rule))
    }

    /// The metric that a condition names, and what it asks of it.
    fn when(&mut self, node: &Node, metrics: &[Arc<Definition>]) -> Option<(Arc<Definition>, Condition)> {
        let text = self
            .mistakes
            .text(node, "a condition such as revenue.change_percent < -20")?;
        if let Some((name, span)) = call(text, "absent") {
            let (metric, offset) = trimmed(text, name);
            let span = Node {
                at: node.at,
                value: Value::Text(span.trim().to_owned()),
            };
            let span = self.duration(&span, SECOND, 7 * DAY);
            let metric = self.named(node, text, metric, offset, metrics)?;
            return Some((metric, Condition::Absent(span?)));
        }
        let (left, test) = self.comparison(node, text)?;
        let metric = self.named(node, text, left.metric, left.offset, metrics)?;
        if left.measured.of != Measure::Value
            && left.measured.of != Measure::Events
            && metric.compare.is_none()
        {
            let message = format!("{:?} has no `compare`, so it has no change", metric.name);
            self.mistakes.inside(node.at, text, left.offset, &message);
        }
        Some((metric, Condition::Test(left.measured, test)))
    }

    fn named(
        &mut self,
        node: &Node,
        text: &str,
        name: &str,
        offset: usize,
        metrics: &[Arc<Definition>],
    ) -> Option<Arc<Definition>> {
        let Some(metric) = metrics.iter().find(|metric| metric.name == name) else {
            let known = metrics.iter().map(|metric| metric.name.as_str());
            let message = if name.is_empty() {
                SUPPORTED.to_owned()
            } else {
                format!("no metric {name:?}")
            };
            let at = At {
                column: node.at.column,
                ..node.at
            };
            self.mistakes.unknown(at, message, name, known);
            return None;
        };
        if matches!(metric.window, Window::Session { .. }) {
            let message = "rules look at metrics whose window is always there, not at sessions";
            self.mistakes.inside(node.at, text, offset, message);
        }
        Some(Arc::clone(metric))
    }

    /// What ends it: a test of the same number.
    fn until(&mut self, node: &Node, metric: &Definition, when: &Condition) -> Option<Test> {
        let text = self
            .mistakes
            .text(node, "a condition such as revenue.change_percent > -10")?;
        let (left, test) = self.comparison(node, text)?;
        match when {
            Condition::Test(measured, _) if left.metric == metric.name && left.measured == *measured => {
                Some(test)
            }
            _ => {
                let message = "`until` compares the same number as `when` with another bound";
                self.mistakes.add(node.at, message);
                None
            }
        }
    }

    fn comparison<'t>(&mut self, node: &Node, text: &'t str) -> Option<(Side<'t>, Test)> {
        let sign = text
            .char_indices()
            .find_map(|(at, _)| Some((at, SIGNS.iter().find(|(sign, _)| text[at..].starts_with(sign))?)));
        let Some((at, (written, sign))) = sign else {
            self.mistakes
                .add(node.at, format!("{text:?} compares nothing; {SUPPORTED}"));
            return None;
        };
        let (number, offset) = trimmed(text, &text[at + written.len()..]);
        let Ok(bound) = Decimal::parse(number) else {
            let message = format!("{number:?} is no number below 10^18 with at most 12 decimals");
            self.mistakes.inside(node.at, text, offset, &message);
            return None;
        };
        let side = self.side(node, text, &text[..at])?;
        Some((side, Test { sign: *sign, bound }))
    }

    fn side<'t>(&mut self, node: &Node, text: &'t str, left: &'t str) -> Option<Side<'t>> {
        let changes = [("change", Change::By), ("change_percent", Change::Percent)];
        let found = changes
            .into_iter()
            .find_map(|(name, change)| Some((call(left.trim(), name)?, change)));
        let (path, over) = match found {
            Some(((path, span), change)) => {
                let span = Node {
                    at: node.at,
                    value: Value::Text(span.trim().to_owned()),
                };
                (path, Some((change, self.duration(&span, 10 * SECOND, 7 * DAY)?)))
            }
            None => (left, None),
        };
        let (path, offset) = trimmed(text, path);
        let (metric, measure) = path.split_once('.').unwrap_or((path, "value"));
        let Some((_, of)) = Measure::ALL.into_iter().find(|(name, _)| *name == measure) else {
            let message = format!("a metric has no {measure:?}; {SUPPORTED}");
            let known = Measure::ALL.iter().map(|(name, _)| *name);
            self.mistakes.unknown(node.at, message, measure, known);
            return None;
        };
        Some(Side {
            metric,
            offset,
            measured: Measured { of, over },
        })
    }

    fn no_data(&mut self, node: &Node) -> Option<NoData> {
        match self.mistakes.text(node, "ok, alert or keep")? {
            "ok" => Some(NoData::Ok),
            "alert" => Some(NoData::Alert),
            "keep" => Some(NoData::Keep),
            other => {
                let message = format!("no_data is ok, alert or keep, not {other:?}");
                self.mistakes
                    .unknown(node.at, message, other, ["ok", "alert", "keep"]);
                None
            }
        }
    }

    fn hours(&mut self, node: &Node) -> Vec<HoursOfDays> {
        let items = match &node.value {
            Value::List(items) if (1..=PARTS_MAX).contains(&items.len()) => items.iter().collect(),
            Value::List(_) => {
                self.mistakes
                    .add(node.at, format!("expected 1 to {PARTS_MAX} entries"));
                Vec::new()
            }
            _ => vec![node],
        };
        items.into_iter().filter_map(|item| self.part(item)).collect()
    }

    fn part(&mut self, node: &Node) -> Option<HoursOfDays> {
        let keys = ["days", "from", "to"];
        let found = self.mistakes.fields(node, "hours", &keys, &keys)?;
        let mut days = [false; 7];
        for (at, name) in self.texts(found.get("days")?, "a day such as mon") {
            match DAYS.iter().position(|day| *day == name) {
                Some(day) => days[day] = true,
                None => {
                    self.mistakes
                        .unknown(at, format!("no day {name:?}; days are mon to sun"), &name, DAYS)
                }
            }
        }
        let (from_node, to_node) = (*found.get("from")?, *found.get("to")?);
        let from = self.time_of_day(from_node)?;
        let to = self.time_of_day(to_node)?;
        match (from, to) {
            (Some(from), to) if to.is_none_or(|to| from < to) => Some(HoursOfDays { days, from, to }),
            _ => {
                let message = "`from` is before `to` of the same day; a night is two entries";
                self.mistakes.add(to_node.at, message);
                None
            }
        }
    }

    /// `"09:30"`; `Some(None)` is `"24:00"`.
    fn time_of_day(&mut self, node: &Node) -> Option<Option<Time>> {
        let text = self.mistakes.text(node, "a time such as \"09:00\"")?;
        if text == "24:00" {
            return Some(None);
        }
        let time = text.split_once(':').and_then(|(hour, minute)| {
            let two = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
            Time::new(two(hour)?, two(minute)?, 0, 0).ok()
        });
        if time.is_none() {
            let message = format!("{text:?} is no time from \"00:00\" to \"24:00\"");
            self.mistakes.add(node.at, message);
        }
        time.map(Some)
    }

    fn silences(&mut self, node: &Node) -> Vec<Silence> {
        let Value::List(items) = &node.value else {
            self.mistakes
                .add(node.at, "expected a list of { from, until, reason }");
            return Vec::new();
        };
        if items.len() > PARTS_MAX {
            self.mistakes
                .add(node.at, format!("expected at most {PARTS_MAX} entries"));
        }
        items.iter().filter_map(|item| self.silence(item)).collect()
    }

    fn silence(&mut self, node: &Node) -> Option<Silence> {
        let found = self.mistakes.fields(
            node,
            "a silence",
            &["from", "until", "reason"],
            &["from", "until"],
        )?;
        if let Some(reason) = found.get("reason") {
            self.mistakes.text(reason, "a reason");
        }
        let mut instant = |key: &str| {
            let node = *found.get(key)?;
            let text = self
                .mistakes
                .text(node, "an instant such as 2026-06-01T12:00:00Z")?;
            let instant = text.parse::<Timestamp>().ok();
            if instant.is_none() {
                let message = format!("{text:?} is no instant such as 2026-06-01T12:00:00Z");
                self.mistakes.add(node.at, message);
            }
            instant.map(Timestamp::as_microsecond)
        };
        let (from, until) = (instant("from"), instant("until"));
        let silence = Silence {
            from: from?,
            until: until?,
        };
        if silence.from >= silence.until {
            self.mistakes.add(node.at, "`from` is before `until`");
        }
        Some(silence)
    }

    fn notify(&mut self, node: &Node, metric: Option<&Definition>) -> Option<Notify> {
        let found = self
            .mistakes
            .fields(node, "`notify`", &NOTIFY, &["room", "audience", "title"])?;
        let target = self.target(&found);
        let priority = found.get("priority").map_or(Some(Priority::High), |node| {
            let name = self.mistakes.text(node, "a priority")?;
            let priority = Priority::from_name(name);
            if priority.is_none() {
                let message = format!("a priority is critical, high, medium or low, not {name:?}");
                let known = ["critical", "high", "medium", "low"];
                self.mistakes.unknown(node.at, message, name, known);
            }
            priority
        });
        let together = match found.get("per") {
            None => Some(false),
            Some(node) => match self.mistakes.text(node, "group or rule")? {
                "group" => Some(false),
                "rule" => Some(true),
                other => {
                    let message = format!("a notification is per group or rule, not {other:?}");
                    self.mistakes.unknown(node.at, message, other, ["group", "rule"]);
                    None
                }
            },
        };
        let title = found
            .get("title")
            .and_then(|node| self.template(node, TEXT_BYTES_MAX, metric));
        let body = found
            .get("body")
            .map(|node| self.template(node, BODY_BYTES_MAX, metric));
        let mut short = |key: &str| {
            let node = *found.get(key)?;
            let text = self.mistakes.text(node, "a text")?.to_owned();
            if text.len() > TEXT_BYTES_MAX || text.is_empty() {
                let message = format!("`{key}` has 1 to {TEXT_BYTES_MAX} bytes");
                self.mistakes.add(node.at, message);
            }
            Some(text)
        };
        let (link, category, sound) = (short("link"), short("category"), short("sound"));
        if let (Some(link), Some(node)) = (&link, found.get("link")) {
            let data = serde_json::json!({ "title": "t", "link": link }).to_string();
            if let Err(refusal) = roomcast_proto::notification::check_data(Some(&data)) {
                self.mistakes.add(node.at, refusal.detail);
            }
        }
        let (room, audience) = target?;
        Some(Notify {
            room,
            audience,
            priority: priority?,
            title: title?,
            body: body.flatten(),
            link,
            category: category.unwrap_or_else(|| "alert".to_owned()),
            sound,
            together: together?,
        })
    }

    /// Text in which `{{ .. }}` names what is put there.
    fn template(&mut self, node: &Node, bytes_max: usize, metric: Option<&Definition>) -> Option<Template> {
        let text = self.mistakes.text(node, "a text")?;
        if text.len() > bytes_max || text.trim().is_empty() {
            let message = format!("this text has 1 to {bytes_max} bytes");
            self.mistakes.add(node.at, message);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((name, after)) = behind.split_once("}}") else {
                let offset = text.chars().count() - behind.chars().count();
                self.mistakes
                    .inside(node.at, text, offset, "`{{` without its `}}`");
                return None;
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let name = name.trim();
            let own = |name: &str| {
                let (of, measure) = name.split_once('.')?;
                let known = metric.is_none_or(|metric| metric.name == of);
                let measure = Measure::ALL.into_iter().find(|(known, _)| *known == measure);
                measure.filter(|_| known).map(|(_, measure)| measure)
            };
            match name {
                "group" => pieces.push(Piece::Group),
                "count" => pieces.push(Piece::Count),
                "measured" => pieces.push(Piece::Measured),
                _ => match own(name) {
                    Some(measure) => pieces.push(Piece::Measure(measure)),
                    None => {
                        let of = metric.map_or("metric", |metric| metric.name.as_str());
                        let mut known = vec!["group".to_owned(), "count".to_owned(), "measured".to_owned()];
                        known.extend(Measure::ALL.iter().map(|(measure, _)| format!("{of}.{measure}")));
                        let message =
                            format!("nothing is called {name:?} here; there are {}", known.join(", "));
                        let known = known.iter().map(String::as_str);
                        self.mistakes.unknown(node.at, message, name, known);
                    }
                },
            }
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Some(Template(pieces))
    }

    fn target(
        &mut self,
        found: &Found<'_>,
    ) -> Option<(roomcast_proto::ids::Room, roomcast_proto::ids::Audience)> {
        let (room, audience) = (*found.get("room")?, *found.get("audience")?);
        self.room_and_audience(room, audience)
    }
}

/// The arguments of a call `name(a, b)`.
fn call<'t>(text: &'t str, name: &str) -> Option<(&'t str, &'t str)> {
    let rest = text.trim().strip_prefix(name)?.trim_start();
    let arguments = rest.strip_prefix('(')?.strip_suffix(')')?;
    arguments.rsplit_once(',')
}

/// A part of a text without the space around it, and how many characters stand before it.
fn trimmed<'t>(text: &str, part: &'t str) -> (&'t str, usize) {
    let trimmed = part.trim();
    let before = (trimmed.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    (
        trimmed,
        text.get(..before).map_or(0, |before| before.chars().count()),
    )
}
