//! Publishes over ingest's HTTP, again and again with the same ids until everything is stored.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
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
struct OneAnswer {
    status: String,
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
            Err(HttpError::Unreachable(message)) => Err(PublishError::Temporary { message, after: None }),
        }
    }

    /// Posts until it is stored; says once that it is waiting, and once that it goes on. `None`: stopped meanwhile.
    ///
    /// # Errors
    /// [`PublishError::Refused`] only.
    pub(crate) async fn post_until_stored(
        &self,
        kind: &str,
        body: Bytes,
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
                Err(PublishError::Temporary { message, after }) => (message, after),
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
            Ok(batch) if batch.refused > 0 => {
                let first = batch.results.iter().find(|one| one.status == "refused");
                let why = first
                    .map(|one| format!("{}: {}", one.code, harmless(&one.detail)))
                    .unwrap_or_default();
                Err(PublishError::Refused(format!(
                    "{} events of a batch were refused; the first: {why}",
                    batch.refused
                )))
            }
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
        });
    }
    Err(PublishError::Refused(message))
}

#[cfg(test)]
mod tests {
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
        check(503, &[("retry-after", "1")], "{}", Err((true, "503")));
        check(429, &[], "{}", Err((true, "429")));
        check(403, &[], r#"{"code":"forbidden"}"#, Err((false, "forbidden")));
        check(401, &[], "\x1b[2J", Err((false, "401")));
    }
}
