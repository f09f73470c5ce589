//! Metrics before they are in force: their mistakes, or what each would have shown over the newest events. Nothing is changed.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use roomcast_admin::extract::Json as Body;
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Problem, Routes};
use roomcast_chassis::jetstream::{ApiError, JetStream, StoredMessage};
use roomcast_proto::event::rfc3339;
use roomcast_proto::metric::Update;
use roomcast_proto::refusal::Code;
use roomcast_proto::subject::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::AdminDesk;
use crate::definition::Definitions;
use crate::publish::now_micros;
use crate::trial::{MetricReport, Report, RuleReport, Trial};

/// The name of the definitions in mistakes.
const NAME: &str = "metrics";
/// Hours that are looked back: usual, and the most there are in the stream.
const HOURS: (u32, u32) = (24, 72);
/// Events that are read: the newest. So many are read and folded into a few dozen metrics within seconds.
const EVENTS_MAX: u64 = 20_000;
/// Events read at once, and about how many bytes.
const PAGE: (usize, usize) = (500, 4 << 20);
/// What is not read by then is left out: the door waits 20 s for the answer, and folding and telling need time as well.
const READ_WITHIN: Duration = Duration::from_secs(8);
/// Groups of a metric that are told, the largest first.
const VALUES_MAX: usize = 10;
/// Notifications of a rule that are told.
const NOTICES_MAX: usize = 5;
const HOUR_MICROS: i64 = 3_600_000_000;

/// One trial at a time: folding takes a processor.
static UNDER_WAY: Semaphore = Semaphore::const_new(1);

/// Metrics to be tried.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The whole text of the definitions, YAML.
    metrics: String,
    /// How far back, in hours: 1 to 72, 24 when left out.
    hours: Option<u32>,
}

/// What was found.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    /// Why the definitions would not be taken, each as `metrics:line:column: …`; then nothing was folded.
    mistakes: Vec<String>,
    /// What is taken and may not be what is meant.
    warnings: Vec<String>,
    /// Stored events that were read.
    events: u64,
    /// The instant from which on they were read, RFC 3339.
    from: String,
    /// Whether these were all since then that were asked for; else only the newest were, or reading took too long.
    complete: bool,
    /// In the order of the file.
    metrics: Vec<Shown>,
    /// In the order of the file.
    rules: Vec<Said>,
}

/// What a metric would have shown.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Its name.
    name: String,
    /// Events folded.
    folded: u64,
    /// Matching events that were not folded, by reason.
    skipped: Value,
    /// The current windows of its largest groups, as `metric.updated` would say them.
    #[schemars(with = "Vec<Map<String, Value>>")]
    values: Vec<Value>,
    /// Groups it has.
    groups: usize,
    /// Closed windows.
    closed: usize,
    /// Bytes of its stored state.
    state_bytes: usize,
}

/// What a rule would have said.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Said {
    /// Its name.
    alert: String,
    /// How often it would have spoken.
    count: usize,
    /// The first of them: when, and the notification's data.
    #[schemars(with = "Vec<Map<String, Value>>")]
    notices: Vec<Value>,
}

/// What definitions are checked against: what is in force here.
#[derive(Debug, Default)]
pub struct Against {
    /// The policy, so that audiences are checked.
    pub policy: Option<roomcast_access::Policy>,
    /// The schemas of types, so that fields are.
    pub schemas: Option<roomcast_schemas::Catalog>,
}

pub(super) fn described() -> Routes<AdminDesk> {
    let attempt = guarded(Operation::new(
        "aggregator",
        "tryMetrics",
        "Says what metrics and rules would have shown, before they are in force.",
    ))
    .about(
        "Checks the definitions against the policy and the schemas that are in force, and folds the newest 20,000 stored events of the time \
         asked for into them. Changes and publishes nothing. Numbers of windows that began earlier miss what came before. One at a time.",
    )
    .takes_json::<Asked>()
    .answers_json::<Outcome>(200, "What would have been shown, or the mistakes.")
    .refuses([Code::BadJson, Code::UnsupportedType].map(Code::listed));
    Routes::new().post("/admin/v1/metrics/trial", attempt, tried)
}

async fn tried(State(desk): State<AdminDesk>, Body(asked): Body<Asked>) -> Result<Json<Outcome>, Problem> {
    let hours = asked.hours.unwrap_or(HOURS.0);
    if !(1..=HOURS.1).contains(&hours) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("hours is 1 to {}", HOURS.1),
        ));
    }
    let _one = UNDER_WAY
        .try_acquire()
        .map_err(|_| Problem::new(Code::Unavailable, "another trial is under way here"))?;
    let against = &desk.against;
    let parsed = Definitions::parse_with(
        &asked.metrics,
        NAME,
        against.policy.as_ref(),
        against.schemas.as_ref(),
    );
    let definitions = match parsed {
        Ok(definitions) => definitions,
        Err(mistakes) => {
            return Ok(Json(Outcome {
                mistakes: mistakes.iter().map(ToString::to_string).collect(),
                ..Outcome::default()
            }));
        }
    };
    let warnings = definitions.warnings.iter().map(ToString::to_string).collect();
    let now = now_micros();
    let begin = now - i64::from(hours) * HOUR_MICROS;
    let away = |error: ApiError| Problem::new(Code::Unavailable, format!("events cannot be read: {error}"));
    let found = Found::read(&desk.jetstream, begin, now).await.map_err(away)?;
    let (complete, first) = (!found.left_out, found.messages.first());
    // Nothing is known of the time before what was read.
    let from = first
        .filter(|_| !complete)
        .map_or(begin, |first| first.time_micros);
    let report = tokio::task::spawn_blocking(move || fold(&definitions, found.messages, from, now));
    let broken = |why: String| Problem::new(Code::Internal, why);
    let report = report
        .await
        .map_err(|error| broken(error.to_string()))?
        .map_err(broken)?;
    Ok(Json(Outcome::of(report, warnings, from, complete)))
}

/// Events that were found.
#[derive(Default)]
struct Found {
    messages: Vec<StoredMessage>,
    /// There are more of that time.
    left_out: bool,
}

impl Found {
    /// Reads the newest of the events stored in a time.
    async fn read(jetstream: &JetStream, begin: i64, end: i64) -> Result<Self, ApiError> {
        let until = Instant::now() + READ_WITHIN;
        let state = jetstream.stream_info(stream::EVENTS).await?;
        let state = state.map(|info| info.state).unwrap_or_default();
        let newest = (state.last_seq + 1).saturating_sub(EVENTS_MAX);
        let first = jetstream.direct_since(stream::EVENTS, begin, 1).await?;
        let Some(first) = first.messages.first() else {
            return Ok(Self::default());
        };
        let mut from = first.sequence.max(newest);
        let mut found = Self {
            left_out: from > first.sequence,
            ..Self::default()
        };
        loop {
            let batch = jetstream
                .direct_portion(stream::EVENTS, from, PAGE.0, PAGE.1)
                .await?;
            let Some(last) = batch.messages.last() else { break };
            let (over, more) = (last.time_micros > end, batch.pending > 0);
            from = last.sequence + 1;
            found.messages.extend(
                batch
                    .messages
                    .into_iter()
                    .filter(|message| message.time_micros <= end),
            );
            if over || !more {
                break;
            }
            if Instant::now() > until {
                found.left_out = true;
                break;
            }
        }
        Ok(found)
    }
}

/// Folds them all. Takes a processor for as long as it lasts.
fn fold(
    definitions: &Definitions,
    messages: Vec<StoredMessage>,
    begin: i64,
    end: i64,
) -> Result<Report, String> {
    let mut trial = Trial::new(definitions, begin).map_err(|error| error.to_string())?;
    for message in messages {
        trial.stored(
            message.sequence,
            message.time_micros,
            &message.subject,
            message.payload,
        );
    }
    Ok(trial.finish(end))
}

impl Outcome {
    fn of(report: Report, warnings: Vec<String>, from: i64, complete: bool) -> Self {
        Self {
            mistakes: Vec::new(),
            warnings,
            events: report.events,
            from: rfc3339(from),
            complete,
            metrics: report.metrics.into_iter().map(Shown::of).collect(),
            rules: report.rules.into_iter().map(Said::of).collect(),
        }
    }
}

impl Shown {
    fn of(report: MetricReport) -> Self {
        let json = |update: &Update| serde_json::to_value(update).unwrap_or_default();
        Self {
            groups: report.values.len(),
            values: report.values.iter().take(VALUES_MAX).map(json).collect(),
            closed: report.closed.len(),
            skipped: serde_json::to_value(report.skipped).unwrap_or_default(),
            folded: report.folded,
            state_bytes: report.state_bytes,
            name: report.name,
        }
    }
}

impl Said {
    fn of(report: RuleReport) -> Self {
        let notices = report.notices.into_iter().take(NOTICES_MAX);
        Self {
            alert: report.alert,
            count: report.count,
            notices: notices
                .map(|said| json!({ "at": said.at, "data": said.data }))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roomcast_proto::ids::{Audience, Room, Tenant};

    use super::*;

    const BEGIN: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
    const MINUTE: i64 = 60_000_000;
    const METRICS: &str = "version: 1
timezone: Europe/Istanbul
metrics:
  - name: takings
    from: { room: bookings, type: booking:new }
    value: sum(data.amount)
    window: { sliding: 1h, step: 1m }
    group_by: [data.category]
    publish: { room: os_dashboard, audience: all }
";

    fn stored(seq: u64, room: &str, kind: &str, data: &str) -> StoredMessage {
        let subject =
            roomcast_proto::subject::event(&Tenant::default(), &Room::parse(room).unwrap(), &Audience::all());
        let time = rfc3339(BEGIN + i64::try_from(seq).unwrap() * MINUTE);
        let event = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{seq}\",\"source\":\"s\",\"type\":\"{kind}\",\"time\":\"{time}\",\"room\":\"{room}\",\"data\":{data}}}"
        );
        StoredMessage {
            sequence: seq,
            subject,
            time_micros: BEGIN + i64::try_from(seq).unwrap() * MINUTE,
            headers: async_nats::HeaderMap::new(),
            payload: Bytes::from(event),
        }
    }

    #[test]
    fn what_would_be_shown_is_told_with_what_was_left_out() {
        let definitions = Definitions::parse(METRICS, NAME, None).unwrap();
        let amount =
            |category: &str, amount: &str| format!("{{\"category\":\"{category}\",\"amount\":{amount}}}");
        let messages = vec![
            stored(1, "bookings", "booking:new", &amount("tour", "10.5")),
            stored(2, "bookings", "booking:new", &amount("car", "100")),
            stored(3, "bookings", "booking:new", &amount("car", "\"much\"")),
            stored(4, "elsewhere", "booking:new", &amount("car", "7")),
            StoredMessage {
                payload: Bytes::from_static(b"not JSON"),
                ..stored(5, "bookings", "booking:new", "1")
            },
        ];
        let report = fold(&definitions, messages, BEGIN, BEGIN + 10 * MINUTE).unwrap();
        let told = serde_json::to_value(Outcome::of(report, Vec::new(), BEGIN, true)).unwrap();
        let metric = &told["metrics"][0];
        let values: Vec<(&str, &str)> = metric["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| {
                (
                    value["group"][0].as_str().unwrap(),
                    value["value"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            values,
            [("car", "100"), ("tour", "10.5")],
            "the largest first: {told}"
        );
        assert_eq!(
            (
                &metric["name"],
                &metric["folded"],
                &metric["groups"],
                &metric["skipped"]["not_a_number"]
            ),
            (&json!("takings"), &json!(2), &json!(2), &json!(1))
        );
        assert_eq!(
            (&told["events"], &told["from"], &told["complete"]),
            (&json!(4), &json!("2026-06-01T12:00:00Z"), &json!(true))
        );
    }
}
