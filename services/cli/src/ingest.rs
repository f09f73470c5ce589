//! Publishes over ingest's HTTP, again and again with the same ids until everything is stored.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
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
    /// Will not work later either.
    #[error("{0}")]
    Refused(String),
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

    /// Posts until it is stored, of a batch only what is left; says once that it is waiting, and once that it goes on. `None`: stopped
    /// meanwhile.
    ///
    /// # Errors
    /// [`PublishError::Refused`] only.
    pub(crate) async fn post_until_stored(
        &self,
        kind: &str,
        mut body: Bytes,
        stop: &CancellationToken,
    ) -> Result<Option<Bytes>, PublishError> {
        let mut pause = PAUSES[0];
        let mut waiting = false;
        loop {
            let (message, after) = match self.post(kind, body.clone()).await {
                Ok(answer) => {
                    if waiting {
                        say("simulator: ingest takes events again");
                    }
                    return Ok(Some(answer));
                }
                Err(PublishError::Temporary { message, after, left }) => {
                    body = rest(&body, &left).unwrap_or(body);
                    (message, after)
                }
                Err(refused) => return Err(refused),
            };
            if !waiting {
                say(&format!("simulator: {message}; trying again with the same ids"));
                waiting = true;
            }
            tokio::select! {
                () = tokio::time::sleep(after.unwrap_or(pause).min(PAUSES[1])) => pause = (pause * 2).min(PAUSES[1]),
                () = stop.cancelled() => return Ok(None),
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
    Err(PublishError::Refused(message))
}

/// A batch of which not everything was taken: what is refused for good counts before what may be taken later.
fn refused(batch: &BatchAnswer) -> PublishError {
    let refused = || {
        batch
            .results
            .iter()
            .enumerate()
            .filter(|(_, one)| one.status == "refused")
    };
    let first = refused().min_by_key(|(_, one)| one.temporary).map(|(_, one)| one);
    let why = first
        .map(|one| format!("{}: {}", one.code, harmless(&one.detail)))
        .unwrap_or_default();
    let message = format!(
        "{} events of a batch were refused; the first: {why}",
        batch.refused
    );
    match first {
        Some(first) if first.temporary => PublishError::Temporary {
            message,
            after: first.retry_after_ms.map(Duration::from_millis),
            left: refused().map(|(index, _)| index).collect(),
        },
        _ => PublishError::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[track_caller]
    fn check(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
        expected: Result<(), (bool, &str)>,
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
            (Err(error), Err((temporary, part))) => {
                assert_eq!(
                    matches!(error, PublishError::Temporary { .. }),
                    temporary,
                    "{error}"
                );
                assert!(error.to_string().contains(part), "{error}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
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
        check(200, &[], refused, Err((false, "bad_room: no")));
        let later = r#"{"stored":1,"duplicate":0,"refused":1,"results":[{"status":"stored"},{"status":"refused","code":"unavailable","detail":"away","temporary":true,"retryAfterMs":1000}]}"#;
        check(200, &[], later, Err((true, "unavailable: away")));
        let both = r#"{"stored":0,"duplicate":0,"refused":2,"results":[{"status":"refused","code":"unavailable","detail":"away","temporary":true},{"status":"refused","code":"late","detail":"old","temporary":false}]}"#;
        check(200, &[], both, Err((false, "late: old")));
        check(503, &[("retry-after", "1")], "{}", Err((true, "503")));
        check(429, &[], "{}", Err((true, "429")));
        check(403, &[], r#"{"code":"forbidden"}"#, Err((false, "forbidden")));
        check(401, &[], "\x1b[2J", Err((false, "401")));
    }

    /// A leader steps down in the middle of a batch: what was taken is not sent again, what is left is, in its order.
    #[tokio::test]
    async fn what_is_left_of_a_batch_is_sent_again() {
        let answers = [
            r#"{"stored":1,"duplicate":0,"refused":2,"results":[{"status":"refused","code":"unknown","detail":"?","temporary":true,"retryAfterMs":1},{"status":"stored"},{"status":"refused","code":"unavailable","detail":"away","temporary":true,"retryAfterMs":1}]}"#,
            r#"{"stored":1,"duplicate":1,"refused":0,"results":[{"status":"duplicate"},{"status":"stored"}]}"#,
        ];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = tokio::spawn(async move {
            let mut bodies = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                while !text.ends_with(']') {
                    let mut piece = [0; 4_096];
                    let count = socket.read(&mut piece).await.unwrap();
                    assert!(count > 0, "{text}");
                    text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
                }
                bodies.push(text.split_once("\r\n\r\n").unwrap().1.to_owned());
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            bodies
        });
        let ingest = Ingest::new(&url, Credential::Fixed("token".to_owned()));
        let body = Bytes::from_static(br#"[{"id":"a"},{"id":"b"}, {"id":"c"}]"#);
        let stop = CancellationToken::new();
        let stored = ingest.post_until_stored(BATCH, body.clone(), &stop).await;
        assert!(stored.unwrap().is_some());
        let expected = [body, Bytes::from_static(br#"[{"id":"a"},{"id":"c"}]"#)];
        assert_eq!(heard.await.unwrap(), expected);
    }
}
