//! One metric, recomputed from all its facts: what becomes of an event, and which windows there are.

use super::*;

/// One folded event of one leg.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) leg: usize,
    pub(super) group: String,
    pub(super) time: i64,
    pub(super) seq: u64,
    pub(super) amount: Decimal,
    pub(super) value: String,
    /// Of a distinct value: whether it found room among those that are kept one by one.
    pub(super) kept: bool,
}

/// No time at all.
const NEVER: Range<i64> = i64::MIN..i64::MIN;

/// A value as it is shown, and as a number if it is one.
pub(super) type Number = (String, Option<Decimal>);

/// How often each value came, most often first.
pub(super) fn top_of(facts: &[&Fact]) -> Vec<(String, u64)> {
    let values: BTreeSet<&str> = facts.iter().map(|fact| fact.value.as_str()).collect();
    let count = |value: &str| facts.iter().filter(|fact| fact.value == value).count() as u64;
    let mut counts: Vec<(String, u64)> = values
        .into_iter()
        .map(|value| (value.to_owned(), count(value)))
        .collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.as_bytes().cmp(b.0.as_bytes())));
    counts
}

/// What is known of a gauge's key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) rank: (i64, u64),
    pub(super) group: String,
    pub(super) holds: bool,
}

/// One metric, recomputed from all its facts.
pub(super) struct Naive {
    pub(super) definition: std::sync::Arc<Definition>,
    pub(super) facts: Vec<Fact>,
    /// (leg, group, block, time) in which a value is not kept one by one, or a key found no room.
    pub(super) capped: BTreeSet<(usize, String, i64, i64)>,
    /// Keys of gauges by leg, those that are not forgotten.
    pub(super) keys: HashMap<(usize, String), Key>,
    /// Groups that a key was in, and the event that said so.
    pub(super) moves: Vec<(String, u64)>,
    pub(super) marks: HashMap<(usize, String), i64>,
    pub(super) highest: Option<i64>,
    pub(super) last_match: Option<i64>,
    pub(super) created: i64,
    pub(super) skipped: BTreeMap<&'static str, u64>,
    pub(super) as_of: i64,
    /// The newest instant the current window had to contain.
    pub(super) newest: Option<i64>,
    /// Windows by minute; all these zones move their clocks at whole minutes.
    pub(super) windows: RefCell<HashMap<i64, Range<i64>>>,
}

impl Naive {
    pub(super) fn follow(&mut self) {
        let newest = match self.definition.clock {
            Clock::Wall => Some(self.highest.unwrap_or(i64::MIN).max(self.as_of)),
            Clock::Event => self.highest,
        };
        self.newest = self.newest.max(newest);
        if let (Window::Session { .. }, Some(horizon)) = (self.definition.window, self.horizon()) {
            let groups: BTreeSet<String> = self.times().map(|(group, _)| group.to_owned()).collect();
            for group in groups {
                let last = self
                    .times()
                    .filter(|(g, _)| *g == group)
                    .map(|(_, time)| time)
                    .max();
                if last.unwrap() + 31 * DAY < horizon {
                    self.facts.retain(|fact| fact.group != group);
                    self.capped.retain(|(_, capped, ..)| *capped != group);
                }
            }
        }
    }

    /// All events that belong to sessions, those that did not fit among them.
    pub(super) fn times(&self) -> impl Iterator<Item = (&str, i64)> {
        let capped = self
            .capped
            .iter()
            .map(|(_, group, _, time)| (group.as_str(), *time));
        self.facts
            .iter()
            .map(|fact| (fact.group.as_str(), fact.time))
            .chain(capped)
    }

    /// What is older belongs to no session; whole days, or gaps where they are longer.
    pub(super) fn horizon(&self) -> Option<i64> {
        let oldest = self.newest? - HOUR - FUTURE_MICROS;
        Some(oldest - oldest.rem_euclid(DAY))
    }

    /// The sessions of a group, as if one more event came.
    pub(super) fn sessions(&self, group: &str, more: Option<i64>) -> Vec<Range<i64>> {
        let Window::Session { gap } = self.definition.window else {
            return Vec::new();
        };
        let mut times: Vec<i64> = self
            .times()
            .filter(|(g, _)| *g == group)
            .map(|(_, time)| time)
            .chain(more)
            .collect();
        times.sort_unstable();
        let mut sessions: Vec<Range<i64>> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                Some(session) if time < session.end => session.end = time + gap,
                _ => {
                    if sessions
                        .last()
                        .is_some_and(|session| time - (session.end - gap) > 31 * DAY)
                    {
                        sessions.clear();
                    }
                    sessions.push(time..time + gap);
                }
            }
        }
        sessions
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.definition.zone
    }

    /// The window whose newest instant is `at`.
    pub(super) fn window(&self, at: i64) -> Option<Range<i64>> {
        match self.definition.window {
            Window::Total | Window::Session { .. } => None,
            Window::Sliding { size, step } => {
                let end = (at.div_euclid(step) + 1) * step;
                Some(end - size..end)
            }
            Window::Tumbling(unit) => {
                let minute = at.div_euclid(MINUTE);
                if let Some(known) = self.windows.borrow().get(&minute) {
                    return Some(known.clone());
                }
                let window = match unit {
                    Unit::Minute | Unit::Hour => self.clock_window(unit, minute * MINUTE),
                    _ => self.date_window(unit, at),
                };
                self.windows.borrow_mut().insert(minute, window.clone());
                Some(window)
            }
        }
    }

    /// All minutes around this one that show the same floor of their local time, less their offset.
    pub(super) fn clock_window(&self, unit: Unit, at: i64) -> Range<i64> {
        let floor = |at: i64| {
            let zoned = Timestamp::from_microsecond(at)
                .unwrap()
                .to_zoned(self.zone().clone());
            let local = zoned.datetime();
            let cut = local.with().second(0).subsec_nanosecond(0);
            let cut = if unit == Unit::Hour { cut.minute(0) } else { cut };
            at - i64::try_from(local.duration_since(cut.build().unwrap()).as_micros()).unwrap()
        };
        let (mut start, mut end) = (at, at + MINUTE);
        while floor(start - MINUTE) == floor(at) {
            start -= MINUTE;
        }
        while floor(end) == floor(at) {
            end += MINUTE;
        }
        start..end
    }

    pub(super) fn date_window(&self, unit: Unit, at: i64) -> Range<i64> {
        let date = self
            .zone()
            .to_datetime(Timestamp::from_microsecond(at).unwrap())
            .date();
        let (first, span) = match unit {
            Unit::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                (date.checked_sub(days.days()).unwrap(), 1.week())
            }
            Unit::Month => (date.first_of_month(), 1.month()),
            Unit::Quarter => {
                let month = (date.month() - 1) / 3 * 3 + 1;
                (
                    date.first_of_month().with().month(month).build().unwrap(),
                    3.months(),
                )
            }
            Unit::Year => (date.first_of_year(), 1.year()),
            _ => (date, 1.day()),
        };
        let start = |date: jiff::civil::Date| {
            let zoned = date.to_zoned(self.zone().clone()).unwrap();
            zoned.timestamp().as_microsecond()
        };
        start(first)..start(first.checked_add(span).unwrap())
    }

    pub(super) fn before(&self, group: &str, window: &Range<i64>) -> Range<i64> {
        match self.definition.window {
            Window::Tumbling(_) => self.window(window.start - 1).unwrap(),
            Window::Session { .. } => {
                let sessions = self.sessions(group, None);
                let before = sessions.into_iter().rfind(|session| session.end <= window.start);
                before.unwrap_or(NEVER)
            }
            _ => window.start - (window.end - window.start)..window.start,
        }
    }

    pub(super) fn compared(&self, group: &str, window: &Range<i64>) -> Range<i64> {
        if self.definition.compare != Some(Compare::SameWeekday) {
            return self.before(group, window);
        }
        let date = |at: i64| {
            self.zone()
                .to_datetime(Timestamp::from_microsecond(at).unwrap())
                .date()
        };
        let start = |date: jiff::civil::Date| {
            let zoned = date.to_zoned(self.zone().clone()).unwrap();
            zoned.timestamp().as_microsecond()
        };
        let week_ago = date(window.start).checked_sub(7.days()).unwrap();
        start(week_ago)..start(week_ago.tomorrow().unwrap())
    }

    pub(super) fn spark(&self, group: &str, window: Option<&Range<i64>>) -> Vec<Option<Range<i64>>> {
        let Some(window) = window else { return vec![None] };
        if matches!(
            self.definition.window,
            Window::Tumbling(_) | Window::Session { .. }
        ) {
            let mut days = vec![window.clone()];
            while days.len() < 24 {
                let before = self.before(group, days.last().unwrap());
                days.push(before);
            }
            return days.into_iter().rev().map(Some).collect();
        }
        let size = window.end - window.start;
        (0..24)
            .map(|i| Some(window.start + size * i / 24..window.start + size * (i + 1) / 24))
            .collect()
    }

    /// What groups and distinct values are bounded by.
    pub(super) fn block(&self, at: i64) -> i64 {
        match self.definition.window {
            Window::Total => 0,
            Window::Session { .. } => at.div_euclid(DAY),
            Window::Sliding { size, .. } => at.div_euclid(size),
            Window::Tumbling(_) => self.window(at).unwrap().start,
        }
    }

    pub(super) fn event(&mut self, event: &Event<'_>, data: &serde_json::Value, as_of: i64) {
        self.as_of = self.as_of.max(as_of);
        let definition = std::sync::Arc::clone(&self.definition);
        for (index, leg) in definition.legs.iter().enumerate() {
            if !event.room.starts_with("shop.") || leg.types[0] != event.kind {
                continue;
            }
            if let Err(reason) = self.judge(index, leg.aggregate, event, data) {
                *self.skipped.entry(reason).or_default() += 1;
            }
        }
    }

    pub(super) fn judge(
        &mut self,
        leg: usize,
        aggregate: Aggregate,
        event: &Event<'_>,
        data: &serde_json::Value,
    ) -> Result<(), &'static str> {
        match data.get("customer") {
            None => return Err("where_error"),
            Some(serde_json::Value::Bool(true)) => return Ok(()),
            _ => {}
        }
        if event.time_micros > event.stored_micros + FUTURE_MICROS {
            return Err("future");
        }
        self.last_match = self.last_match.max(Some(event.stored_micros));
        self.highest = self.highest.max(Some(event.time_micros));
        self.follow();
        let mark = self.marks.entry((leg, event.room.to_owned())).or_insert(i64::MIN);
        let late = event.time_micros < mark.saturating_sub(10 * MINUTE);
        *mark = (*mark).max(event.time_micros);
        if late {
            return Err("late");
        }
        let mut group = "[]".to_owned();
        if self.definition.group_values > 0 {
            group = match data.get("category") {
                None | Some(serde_json::Value::Null) => "[null]".to_owned(),
                Some(serde_json::Value::Array(_)) => return Err("not_a_scalar"),
                Some(value) => format!("[{value}]"),
            };
        }
        let (mut amount, mut value) = (Decimal::ZERO, String::new());
        match aggregate {
            Aggregate::Count | Aggregate::Rate(_) => {}
            Aggregate::Sum(_)
            | Aggregate::Avg(_)
            | Aggregate::Min(_)
            | Aggregate::Max(_)
            | Aggregate::Percentile(..) => {
                amount = match data.get("amount") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Number(number)) => {
                        Decimal::parse(&number.to_string()).map_err(|_| "out_of_range")?
                    }
                    Some(serde_json::Value::String(text)) => {
                        Decimal::parse(text).map_err(|_| "not_a_number")?
                    }
                    Some(_) => return Err("not_a_number"),
                }
            }
            Aggregate::First(_) | Aggregate::Last(_) => {
                value = match data.get("amount") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Object(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(_) => {
                        let raw: HashMap<&str, &RawValue> =
                            serde_json::from_str(event.data.unwrap()).unwrap();
                        raw["amount"].get().to_owned()
                    }
                }
            }
            Aggregate::Top(..) => {
                value = match data.get("category") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Array(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                }
            }
            Aggregate::Distinct(_) | Aggregate::Gauge(_) => {
                value = match data.get("customer") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Object(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::Number(number)) => format!("n{}", number.as_f64().unwrap()),
                    Some(other) => other.to_string(),
                }
            }
        }
        // What is older than everything any window can still show is not folded.
        let newest = self.newest.unwrap_or(i64::MIN);
        let past = match self.definition.window {
            Window::Sliding { size, .. } => {
                self.block(event.time_micros) < self.block(self.window(newest).unwrap().end - 2 * size)
            }
            // An hour of closed minutes and the near future, and what their sparklines show.
            Window::Tumbling(Unit::Minute) => {
                let oldest = self.window(newest).unwrap().start - HOUR - FUTURE_MICROS;
                event.time_micros < self.window(oldest).unwrap().start - 24 * MINUTE
            }
            Window::Session { .. } => event.time_micros < self.horizon().unwrap(),
            _ => false,
        };
        if past {
            return Ok(());
        }
        let block = self.block(event.time_micros);
        if self.definition.group_values > 0 {
            let in_block: BTreeSet<&str> = self
                .times()
                .filter(|(group, time)| self.block(*time) == block && *group != GroupName::OTHER)
                .map(|(group, _)| group)
                .collect();
            if !in_block.contains(group.as_str()) && in_block.len() >= self.definition.groups_max {
                group = GroupName::OTHER.to_owned();
            }
        }
        if matches!(aggregate, Aggregate::Gauge(_)) {
            // The two gauges are of two types.
            let field = if event.kind == "new" { "amount" } else { "category" };
            let holds = data.get(field).is_some();
            amount = Decimal::from_count(u64::from(holds));
            let (id, rank) = ((leg, value.clone()), (event.time_micros, event.seq));
            let known = self.keys.get(&id);
            if known.is_some_and(|known| known.rank > rank) {
                return Ok(());
            }
            if known.is_none() && self.keys.len() >= KEYS_MAX {
                let highest = self.highest.unwrap();
                self.keys
                    .retain(|_, key| key.holds || key.rank.0 + 10 * MINUTE + DAY >= highest);
                if self.keys.len() >= KEYS_MAX {
                    self.capped.insert((leg, group, block, event.time_micros));
                    return Err("overflow");
                }
            }
            let now = Key {
                rank,
                group: group.clone(),
                holds,
            };
            if let Some(before) = self.keys.insert(id, now) {
                self.moves.push((before.group, event.seq));
            }
        }
        let mut kept = true;
        if matches!(aggregate, Aggregate::Distinct(_)) {
            let session = self
                .sessions(&group, Some(event.time_micros))
                .into_iter()
                .find(|session| session.contains(&event.time_micros));
            let together = |fact: &Fact| match &session {
                Some(session) => session.contains(&fact.time),
                None => self.block(fact.time) == block,
            };
            let values: BTreeSet<&str> = self
                .facts
                .iter()
                .filter(|fact| fact.kept && fact.leg == leg && fact.group == group && together(fact))
                .map(|fact| fact.value.as_str())
                .collect();
            if !values.contains(value.as_str()) && values.len() >= DISTINCT_MAX as usize {
                self.capped.insert((leg, group.clone(), block, event.time_micros));
                kept = false;
            }
        }
        self.facts.push(Fact {
            leg,
            group,
            time: event.time_micros,
            seq: event.seq,
            amount,
            value,
            kept,
        });
        Ok(())
    }
}
