//! Publishes over ingest's HTTP, again and again with the same ids until everything is stored.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use roomcast_proto::refusal::Code;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::http::{Answer, Http, HttpError};
use crate::terminal::{harmless, say};
use crate::token::{Claims, Signer};

/// Content type of one CloudEvent.
pub(crate) const EVENT: &str = "application/cloudevents+json";
/// Content type of a JSON array of CloudEvents.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
/// Content type of the short form.
pub(crate) const SHORT: &str = "application/json";

/// Code of the refusal of an id that is too old for a repeat of it to be found.
const LATE: &str = Code::Late.as_str();
/// First and longest pause between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// How a publisher says who it is.
#[derive(Debug)]
pub(crate) enum Credential {
    /// A token from elsewhere.
    Fixed(String),
    /// Its own token, signed anew for each request: a simulator that runs for days outlives any token.
    Signed(Box<Signer>, Claims),
}

/// Publishes to one ingest.
#[derive(Debug)]
pub(crate) struct Ingest {
    http: Http,
    url: String,
    credential: Credential,
}

/// Why something was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// May work later, with the same ids.
    #[error("{message}")]
    Temporary {
        /// What happened.
        message: String,
        /// When to come back, where ingest said so.
        after: Option<Duration>,
        /// Which events of a batch are left, in order, where ingest took the others; empty: nothing is known to be taken.
        left: Vec<usize>,
    },
    /// Ids are too old to be found again. What is sent again may be stored since an attempt without an answer; what is sent once has
    /// waited too long, or was given its id by a wrong clock.
    #[error("{message}")]
    Late {
        /// What happened.
        message: String,
        /// How many events are.
        count: usize,
        /// When to come back with what is left.
        after: Option<Duration>,
        /// Which events of a batch may be taken later, in order.
        left: Vec<usize>,
    },
    /// Will not work later either.
    #[error("{0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

#[derive(Deserialize)]
struct BatchAnswer {
    refused: u64,
    results: Vec<OneAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneAnswer {
    status: String,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

impl Ingest {
    /// Speaks to the ingest at `base` (`http://127.0.0.1:8081`).
    pub(crate) fn new(base: &str, credential: Credential) -> Self {
        let url = format!("{}/v1/events", base.trim_end_matches('/'));
        Self {
            http: Http::new(Duration::from_secs(10)),
            url,
            credential,
        }
    }

    /// Posts once. The answer is ingest's own, successful one.
    ///
    /// # Errors
    /// [`PublishError`].
    pub(crate) async fn post(&self, kind: &str, body: Bytes) -> Result<Bytes, PublishError> {
        let token = match &self.credential {
            Credential::Fixed(token) => token.clone(),
            Credential::Signed(signer, claims) => {
                let now = jiff::Timestamp::now().as_second();
                signer
                    .sign(claims, now)
                    .map_err(|failure| PublishError::Refused(failure.message))?
            }
        };
        match self.http.post(&self.url, &token, kind, body).await {
            Ok(answer) => judge(answer),
            Err(HttpError::Request(message)) => Err(PublishError::Refused(message)),
            Err(HttpError::Unreachable(message)) => Err(PublishError::Temporary {
                message,
                after: None,
                left: Vec::new(),
            }),
        }
    }

    /// Posts until it is stored, of a batch only what is left; says once that it is waiting, and once that it goes on. What becomes too
    /// old while it waits is given up, because it may be stored, and that is said. `false`: stopped meanwhile.
    ///
    /// # Errors
    /// [`PublishError::Refused`], and [`PublishError::Late`] of what has not waited.
    pub(crate) async fn post_until_stored(
        &self,
        kind: &str,
        mut body: Bytes,
        stop: &CancellationToken,
    ) -> Result<bool, PublishError> {
        let mut pause = PAUSES[0];
        let mut waiting = false;
        loop {
            let (message, after, left) = match self.post(kind, body.clone()).await {
                Ok(_) => {
                    if waiting {
                        say("simulator: ingest takes events again");
                    }
                    return Ok(true);
                }
                Err(PublishError::Temporary { message, after, left }) => (message, after, left),
                Err(PublishError::Late {
                    message,
                    count,
                    after,
                    left,
                }) if waiting => {
                    say(&format!(
                        "simulator: {count} events became too old to be sent again; they may be stored already and are given up: {message}"
                    ));
                    if left.is_empty() {
                        return Ok(true);
                    }
                    (message, after, left)
                }
                Err(refused) => return Err(refused),
            };
            body = rest(&body, &left).unwrap_or(body);
            if !waiting {
                say(&format!("simulator: {message}; trying again with the same ids"));
                waiting = true;
            }
            tokio::select! {
                () = tokio::time::sleep(after.unwrap_or(pause).min(PAUSES[1])) => pause = (pause * 2).min(PAUSES[1]),
                () = stop.cancelled() => return Ok(false),
            }
        }
    }
}

/// The elements of a batch with these indexes; `None`: all are left.
fn rest(batch: &Bytes, left: &[usize]) -> Option<Bytes> {
    if left.is_empty() {
        return None;
    }
    let events: Vec<&RawValue> = serde_json::from_slice(batch).ok()?;
    let events: Option<Vec<&str>> = left.iter().map(|index| Some(events.get(*index)?.get())).collect();
    Some(Bytes::from(format!("[{}]", events?.join(","))))
}

/// Says what an answer means for the caller.
fn judge(answer: Answer) -> Result<Bytes, PublishError> {
    let text = || {
        harmless(
            &String::from_utf8_lossy(&answer.body)
                .chars()
                .take(500)
                .collect::<String>(),
        )
    };
    if answer.status == StatusCode::OK {
        return match serde_json::from_slice::<BatchAnswer>(&answer.body) {
            Ok(batch) if batch.refused > 0 => Err(refused(&batch)),
            _ => Ok(answer.body),
        };
    }
    let message = format!("ingest answered {}: {}", answer.status, text());
    if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
        let after = answer
            .headers
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        return Err(PublishError::Temporary {
            message,
            after: after.map(Duration::from_secs),
            left: Vec::new(),
        });
    }
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) if problem.code == LATE => Err(PublishError::Late {
            message,
            count: 1,
            after: None,
            left: Vec::new(),
        }),
        _ => Err(PublishError::Refused(message)),
    }
}

/// A batch of which not everything was taken: what is refused for good counts before what is too old, and that before what may be taken
/// later.
fn refused(batch: &BatchAnswer) -> PublishError {
    let refused = || {
        batch
            .results
            .iter()
            .enumerate()
            .filter(|(_, one)| one.status == "refused")
    };
    let first = refused().min_by_key(|(_, one)| (one.temporary, one.code == LATE));
    let first = first.map(|(_, one)| one);
    let why = first
        .map(|one| format!("{}: {}", one.code, harmless(&one.detail)))
        .unwrap_or_default();
    let message = format!(
        "{} events of a batch were refused; the first: {why}",
        batch.refused
    );
    let mut later = refused().filter(|(_, one)| one.temporary).peekable();
    let after = later.peek().and_then(|(_, one)| one.retry_after_ms);
    let after = after.map(Duration::from_millis);
    let left: Vec<usize> = later.map(|(index, _)| index).collect();
    match first {
        Some(first) if first.temporary => PublishError::Temporary { message, after, left },
        Some(first) if first.code == LATE => PublishError::Late {
            message,
            count: refused().filter(|(_, one)| one.code == LATE).count(),
            after,
            left,
        },
        _ => PublishError::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::server;

    #[track_caller]
    fn check(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
        expected: Result<(), (&str, &str)>,
    ) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        };
        match (judge(answer), expected) {
            (Ok(found), Ok(())) => assert_eq!(found, body),
            (Err(error), Err((end, part))) => {
                assert_eq!(ended(&error), end, "{error}");
                assert!(error.to_string().contains(part), "{error}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    fn ended(error: &PublishError) -> &'static str {
        match error {
            PublishError::Temporary { .. } => "later",
            PublishError::Late { .. } => "late",
            PublishError::Refused(_) => "never",
        }
    }

    #[test]
    fn answers_mean_stored_later_or_never() {
        check(200, &[], r#"{"status":"stored","id":"1"}"#, Ok(()));
        check(
            200,
            &[],
            r#"{"stored":2,"duplicate":0,"refused":0,"results":[]}"#,
            Ok(()),
        );
        let refused = r#"{"stored":1,"duplicate":0,"refused":1,"results":[{"status":"stored"},{"status":"refused","code":"bad_room","detail":"no"}]}"#;
        check(200, &[], refused, Err(("never", "bad_room: no")));
        let later = r#"{"stored":1,"duplicate":0,"refused":1,"results":[{"status":"stored"},{"status":"refused","code":"unavailable","detail":"away","temporary":true,"retryAfterMs":1000}]}"#;
        check(200, &[], later, Err(("later", "unavailable: away")));
        let late = r#"{"stored":0,"duplicate":0,"refused":2,"results":[{"status":"refused","code":"unavailable","detail":"away","temporary":true},{"status":"refused","code":"late","detail":"old","temporary":false}]}"#;
        check(200, &[], late, Err(("late", "late: old")));
        let both = r#"{"stored":0,"duplicate":0,"refused":2,"results":[{"status":"refused","code":"late","detail":"old"},{"status":"refused","code":"bad_room","detail":"no"}]}"#;
        check(200, &[], both, Err(("never", "bad_room: no")));
        check(503, &[("retry-after", "1")], "{}", Err(("later", "503")));
        check(429, &[], "{}", Err(("later", "429")));
        check(403, &[], r#"{"code":"forbidden"}"#, Err(("never", "forbidden")));
        check(
            422,
            &[],
            r#"{"code":"late","detail":"old"}"#,
            Err(("late", "old")),
        );
        check(401, &[], "\x1b[2J", Err(("never", "401")));
    }

    /// What is heard of a body by an ingest that gives these answers, one after the other, and how posting it ends.
    async fn sent(
        body: &'static str,
        answers: &[(u16, String)],
    ) -> (Vec<String>, Result<bool, &'static str>) {
        let (url, heard) = server(answers.to_owned()).await;
        let ingest = Ingest::new(&url, Credential::Fixed("token".to_owned()));
        let kind = if body.starts_with('[') { BATCH } else { EVENT };
        let stop = CancellationToken::new();
        let stored = ingest.post_until_stored(kind, body.into(), &stop).await;
        let heard = heard
            .try_iter()
            .map(|asked| asked.replace("POST /v1/events ", ""));
        (heard.collect(), stored.map_err(|error| ended(&error)))
    }

    /// A leader steps down in the middle of a batch, or ingest is away for so long that ids become too old: what was taken is not sent
    /// again, what is left is, in its order, and what may be stored is given up.
    #[tokio::test]
    async fn what_is_left_is_sent_again() {
        const ALL: &str = r#"[{"id":"a"},{"id":"b"}, {"id":"c"}]"#;
        const ONE: &str = r#"{"id":"a"}"#;
        // Of each event: stored, or the code of its refusal.
        let batch = |results: &[&str]| {
            let one = |result: &&str| match *result {
                "stored" => r#"{"status":"stored"}"#.to_owned(),
                code => {
                    let temporary = matches!(code, "unknown" | "unavailable");
                    format!(
                        r#"{{"status":"refused","code":"{code}","detail":"?","temporary":{temporary},"retryAfterMs":1}}"#
                    )
                }
            };
            let refused = results.iter().filter(|result| **result != "stored").count();
            let results: Vec<String> = results.iter().map(one).collect();
            (
                200,
                format!(r#"{{"refused":{refused},"results":[{}]}}"#, results.join(",")),
            )
        };
        let away = || (503, "{}".to_owned());
        let late = || (422, r#"{"code":"late"}"#.to_owned());
        let rest = r#"[{"id":"a"},{"id":"c"}]"#;
        let last = r#"[{"id":"c"}]"#;
        for (body, answers, heard, end) in [
            (
                ALL,
                vec![
                    batch(&["unknown", "stored", "unavailable"]),
                    batch(&["stored", "stored"]),
                ],
                vec![ALL, rest],
                Ok(true),
            ),
            (
                ALL,
                vec![
                    away(),
                    batch(&["late", "stored", "unavailable"]),
                    batch(&["stored"]),
                ],
                vec![ALL, ALL, last],
                Ok(true),
            ),
            (
                ALL,
                vec![away(), batch(&["late", "late", "late"])],
                vec![ALL, ALL],
                Ok(true),
            ),
            (
                ALL,
                vec![away(), batch(&["late", "bad_room", "stored"])],
                vec![ALL, ALL],
                Err("never"),
            ),
            (
                ALL,
                vec![batch(&["late", "stored", "unavailable"]), batch(&["stored"])],
                vec![ALL],
                Err("late"),
            ),
            (ONE, vec![away(), late()], vec![ONE, ONE], Ok(true)),
            (ONE, vec![late()], vec![ONE], Err("late")),
        ] {
            assert_eq!(
                sent(body, &answers).await,
                (heard.iter().map(|text| (*text).to_owned()).collect(), end),
                "{answers:?}"
            );
        }
    }
}
