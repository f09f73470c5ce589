//! The admin port of an ingest: its dead letters listed and taken again, also where a call is not answered.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use roomcast_chassis::process::Failure;
use serde_json::{Value, json};

use super::{became, head, say};
use crate::http::{Answer, Http, HttpError};
use crate::terminal::harmless;

/// Letters listed in one call.
const PAGE: usize = 100;
/// Letters taken in one call: each is stored before the next, and an admin port waits 20 s for all of them.
const TAKEN_AT_ONCE: usize = 5;
/// Longer than an admin port takes to say that it has no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The admin port of an ingest.
pub(super) struct Desk {
    http: Http,
    base: String,
    token: String,
}

impl Desk {
    /// The first of these addresses that has dead letters.
    pub(super) async fn find(addresses: &[String], token: &str) -> Result<Self, Failure> {
        let http = Http::new(ANSWER_WITHIN);
        let mut why = String::new();
        for address in addresses {
            let desk = Self {
                http: http.clone(),
                base: format!("{}/admin/v1", address.trim_end_matches('/')),
                token: token.to_owned(),
            };
            match desk.get("dead-letters?limit=1").await {
                Ok(_) => return Ok(desk),
                Err(failure) => why = failure.message,
            }
        }
        Err(Failure::unavailable(format!(
            "no admin port of an ingest answers: {why}"
        )))
    }

    /// # Errors
    /// 69: it does not answer, or refuses.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}/{path}", self.base);
        let answer = self.http.get_as(&url, &self.token).await;
        let answer = answer.map_err(|error| Failure::unavailable(error.to_string()))?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status != StatusCode::OK {
            let detail = harmless(said["detail"].as_str().unwrap_or("no admin API"));
            return Err(Failure::unavailable(format!(
                "{url}: {} {detail}",
                answer.status.as_u16()
            )));
        }
        Ok(said)
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<Heard, Failure> {
        let url = format!("{}/{path}", self.base);
        match self.http.post(&url, &self.token, "application/json", body).await {
            Ok(answer) if is_an_answer(&answer) => Ok(Heard::Answer(answer)),
            Ok(answer) => Ok(Heard::Nothing(words(&answer))),
            Err(HttpError::Unreachable(why)) => Ok(Heard::Nothing(why)),
            Err(error @ HttpError::Request(_)) => Err(Failure::unavailable(error.to_string())),
        }
    }

    /// The first letters of a selection, whose `limit` and `after` say how many and where they begin.
    async fn page(&self, selection: &Value) -> Result<Value, Failure> {
        let mut query: Vec<String> = Vec::new();
        for (name, value) in selection.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            query.push(format!("{name}={}", percent(&value)));
        }
        self.get(&format!("dead-letters?{}", query.join("&"))).await
    }

    /// Prints a line for each letter, oldest first.
    pub(super) async fn list(&self, mut selection: Value) -> Result<(), Failure> {
        selection["limit"] = json!(PAGE);
        loop {
            let page = self.page(&selection).await?;
            for letter in page["letters"].as_array().into_iter().flatten() {
                if !say(&head(letter)) {
                    return Ok(());
                }
            }
            match page["next"].as_u64() {
                Some(next) => selection["after"] = json!(next),
                None => return Ok(()),
            }
        }
    }

    /// Takes each by itself; one without an answer does not end it, and is named.
    pub(super) async fn take(&self, positions: &[u64], body: Bytes) -> Result<(), Failure> {
        let mut left = 0;
        let mut unheard = Vec::new();
        for position in positions {
            let path = format!("dead-letters/{position}/replay");
            match self.post(&path, body.clone()).await? {
                Heard::Answer(answer) => {
                    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    let (lines, whole) = became(*position, answer.status == StatusCode::OK, &said);
                    for line in lines {
                        say(&line);
                    }
                    left += usize::from(!whole);
                }
                Heard::Nothing(why) => {
                    say(&format!("{position} {why}"));
                    unheard.push(*position);
                }
            }
        }
        ended(left, &unheard)
    }

    /// Takes a few at a time. They are listed before, because a call without an answer names none of them.
    pub(super) async fn take_all(&self, mut selection: Value) -> Result<(), Failure> {
        selection["limit"] = json!(TAKEN_AT_ONCE);
        let mut left = 0;
        loop {
            let page = self.page(&selection).await?;
            let answer = match self.post("replays", Bytes::from(selection.to_string())).await? {
                Heard::Answer(answer) if answer.status == StatusCode::OK => answer,
                Heard::Answer(refused) => return Err(Failure::unavailable(words(&refused))),
                Heard::Nothing(why) => return Err(broken_off(left, &why, &meant(&page, &selection))),
            };
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            for letter in said["letters"].as_array().into_iter().flatten() {
                let (outcome, detail) = (
                    letter["outcome"].as_str().unwrap_or("?"),
                    letter["detail"].as_str(),
                );
                let refused = letter["refused"].as_u64().unwrap_or(0);
                left += usize::from(outcome != "taken" || refused > 0);
                let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                say(&format!("{} {outcome}{detail}", letter["position"]));
            }
            match said["next"].as_u64() {
                Some(next) => selection["after"] = json!(next),
                None => return ended(left, &[]),
            }
        }
    }
}

/// The end of taking all where a call for these letters was not answered.
fn broken_off(left: usize, why: &str, positions: &[u64]) -> Failure {
    for position in positions {
        say(&format!("{position} {why}"));
    }
    let ended = ended(left, positions).err();
    let mut said: Vec<String> = ended.map(|failure| failure.message).into_iter().collect();
    said.push(format!(
        "{why}: letters that come after are as they were; run --all again for them"
    ));
    Failure::unavailable(said.join("\n"))
}

/// Whether it says what became of what was asked for. Of what the server failed at, only that nothing was done.
fn is_an_answer(answer: &Answer) -> bool {
    let unavailable = || {
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        answer.status == StatusCode::SERVICE_UNAVAILABLE && said["code"] == "unavailable"
    };
    !answer.status.is_server_error() || unavailable()
}

/// A refusal in its own words.
fn words(answer: &Answer) -> String {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = harmless(said["detail"].as_str().unwrap_or_default());
    format!("{} {detail}", answer.status.as_u16())
}

/// The letters of a page that a call for all of them takes.
fn meant(page: &Value, selection: &Value) -> Vec<u64> {
    let letters = page["letters"].as_array().into_iter().flatten();
    let taken = letters.filter(|letter| letter["reason"] != "unknown" || selection["reason"] == "unknown");
    taken.filter_map(|letter| letter["position"].as_u64()).collect()
}

/// How it ends: letters `left` as they were, and those whose taking was not answered.
fn ended(left: usize, unheard: &[u64]) -> Result<(), Failure> {
    let mut said = Vec::new();
    if left > 0 {
        said.push(format!("{left} letters were not taken, or not wholly"));
    }
    if !unheard.is_empty() {
        let positions: Vec<String> = unheard.iter().map(u64::to_string).collect();
        let positions = positions.join(" ");
        said.push(format!(
            "it is not known whether these are taken: {positions}; that may still be going on. In a minute run `roomcast replay \
             {positions}` (with --mended where you had it): it takes what was not taken, and says conflict of what was or may be"
        ));
    }
    match said.is_empty() {
        true => Ok(()),
        false => Err(Failure::unavailable(said.join("\n"))),
    }
}

/// What is known of a call that changes something.
#[derive(Debug)]
enum Heard {
    Answer(Answer),
    /// Why there is no answer; it may still be going on.
    Nothing(String),
}

fn percent(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;
    use crate::http::tests::server;

    /// An admin port that gives these answers, and what it is asked.
    async fn desk(answers: &[(u16, Value)]) -> (Desk, Receiver<String>) {
        let answers = answers.iter().map(|(status, said)| (*status, said.to_string()));
        let (url, heard) = server(answers.collect()).await;
        let desk = Desk {
            http: Http::new(ANSWER_WITHIN),
            base: url,
            token: "token".to_owned(),
        };
        (desk, heard)
    }

    /// What is asked for to take all, and how it ends.
    #[tokio::test]
    async fn all_are_taken_a_few_at_a_time_and_a_call_without_an_answer_is_named() {
        let letter = |position: u64, reason: &str| json!({ "position": position, "reason": reason });
        let page = |next: Option<u64>| {
            let letters = [letter(17, "schema"), letter(19, "unknown")];
            (200, json!({ "letters": letters, "next": next }))
        };
        let taken = |next: Option<u64>| {
            let letters = [json!({ "position": 17, "outcome": "taken" })];
            (200, json!({ "letters": letters, "next": next }))
        };
        let no = |status: u16| {
            (
                status,
                json!({ "code": "unknown", "detail": "no answer in time" }),
            )
        };
        let busy = || {
            (
                503,
                json!({ "code": "unavailable", "detail": "too much at once" }),
            )
        };
        let (listed, posted) = ("GET /dead-letters?limit=5", r#"POST /replays {"limit":5}"#);
        let again = "are taken: 17; that may still be going on. In a minute run `roomcast replay 17` (";
        for (answers, asked, says) in [
            (vec![page(None), taken(None)], vec![listed, posted], None),
            // How far to go on the answer says: it may have stopped before the end of what was listed.
            (
                vec![page(Some(19)), taken(Some(17)), page(None), taken(None)],
                vec![
                    listed,
                    posted,
                    "GET /dead-letters?after=17&limit=5",
                    r#"POST /replays {"after":17,"limit":5}"#,
                ],
                None,
            ),
            (vec![page(None), no(504)], vec![listed, posted], Some(again)),
            (vec![page(None), no(503)], vec![listed, posted], Some(again)),
            (vec![page(None), no(500)], vec![listed, posted], Some(again)),
            (vec![page(None), no(0)], vec![listed, posted], Some(again)),
            (
                vec![page(None), no(504)],
                vec![listed, posted],
                Some("504 no answer in time: letters that come after"),
            ),
        ] {
            let (desk, heard) = self::desk(&answers).await;
            let ended = desk.take_all(json!({})).await;
            assert_eq!(heard.try_iter().collect::<Vec<_>>(), asked, "{answers:?}");
            match (ended, says) {
                (Ok(()), None) => {}
                (Err(failure), Some(says)) => {
                    assert!(failure.message.contains(says), "{failure}");
                    assert_eq!(failure.exit as u8, 69);
                }
                (ended, says) => panic!("{answers:?}: {ended:?}, expected {says:?}"),
            }
        }
        // Nothing was done, and that is known: none is named.
        for (answer, says) in [
            (no(403), "403 no answer in time"),
            (busy(), "503 too much at once"),
        ] {
            let (desk, heard) = self::desk(&[page(None), answer]).await;
            let ended = desk.take_all(json!({})).await.unwrap_err();
            assert_eq!(ended.message, says);
            assert_eq!(heard.try_iter().collect::<Vec<_>>(), [listed, posted]);
        }
        // Those that were named are taken each by itself, whatever becomes of the others.
        let answers = vec![
            no(504),
            (200, json!({ "status": "stored" })),
            no(0),
            no(409),
            busy(),
        ];
        let (desk, heard) = self::desk(&answers).await;
        let ended = desk.take(&[17, 18, 19, 20, 21], Bytes::from_static(b"{}")).await;
        let message = ended.unwrap_err().message;
        assert!(
            message.starts_with("2 letters were not taken") && message.contains("are taken: 17 19;"),
            "{message}"
        );
        assert_eq!(
            heard.try_iter().nth(3).unwrap(),
            "POST /dead-letters/20/replay {}"
        );
        // Who asks for those of reason unknown is told of them.
        let answers = vec![page(None), no(504)];
        let (desk, _heard) = self::desk(&answers).await;
        let ended = desk.take_all(json!({ "reason": "unknown" })).await.unwrap_err();
        assert!(ended.message.contains("are taken: 17 19;"), "{ended}");
    }
}
