//! What a publisher is told, the same over HTTP and as a NATS reply.

use roomcast_chassis::openapi::Shape;
use roomcast_proto::limits::DEDUP_WINDOW;
use roomcast_proto::refusal::{Code, Refusal};
use schemars::JsonSchema;
use serde::Serialize;

use crate::metrics::Outcome;

/// An event that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Stored, duplicate or sent.
    pub outcome: Outcome,
    /// The event's id, given or made.
    pub id: String,
    /// Where it stands; none for what is not stored.
    pub cursor: Option<String>,
}

/// An event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// Why.
    pub refusal: Refusal,
    /// Its id, where one is known.
    pub id: Option<String>,
    /// Where a part of it is stored all the same: the users whose copies are not. `None`: nothing of it is known to be stored.
    pub left: Option<Vec<String>>,
}

impl NotTaken {
    /// Nothing of it is stored, as far as is known.
    #[must_use]
    pub fn new(refusal: Refusal, id: Option<String>) -> Self {
        Self {
            refusal,
            id,
            left: None,
        }
    }

    /// A part of it is stored: its publisher is told so, with the id under which a repeat finds that part.
    #[must_use]
    pub fn in_part(mut refusal: Refusal, id: String, left: Vec<String>) -> Self {
        let detail = format!("{}; a part of it is stored, under the id {id:?}", refusal.detail);
        refusal.detail = detail;
        Self {
            refusal,
            id: Some(id),
            left: Some(left),
        }
    }
}

/// What became of one event.
pub type Taken = Result<Receipt, NotTaken>;

/// Whether anything of an event is stored, now or before.
#[must_use]
pub fn has_stored(taken: &Taken) -> bool {
    taken
        .as_ref()
        .map_or_else(|refused| refused.left.is_some(), |_| true)
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request was one event.
    One(Taken),
    /// The request was a readable batch: one result per event, in order.
    Batch(Vec<Taken>),
    /// Nothing in it could be read or done.
    Refused(Refusal),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    status: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_seconds: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    status: &'static str,
    #[schemars(with = "String")]
    code: Code,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Element<'a> {
    Taken(One<'a>),
    Refused(Refused<'a>),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    stored: usize,
    duplicate: usize,
    #[serde(skip_serializing_if = "is_zero")]
    sent: usize,
    refused: usize,
    dedup_seconds: u64,
    results: Vec<Element<'a>>,
}

/// The shape of the answer to one event that was taken.
#[must_use]
pub fn receipt_shape() -> Shape {
    Shape::of::<One<'static>>()
}

/// The shape of the answer to one event or to a readable batch.
#[must_use]
pub fn whole_shape() -> Shape {
    Shape::of::<Whole>()
}

/// The shape of one line of a streamed answer.
#[must_use]
pub fn line_shape() -> Shape {
    Shape::of::<StreamedLine>()
}

/// What a readable request is answered with.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is looked at")]
enum Whole {
    One(One<'static>),
    Batch(Batch<'static>),
}

/// A line of a streamed answer: a result, or at last the summary.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is looked at")]
enum StreamedLine {
    Result(Element<'static>),
    Summary(SummaryLine<'static>),
}

/// Results of one portion of an NDJSON request, one a line.
#[must_use]
pub fn lines(results: &[Taken]) -> String {
    let mut out = String::with_capacity(results.len() * 96);
    for taken in results {
        out.push_str(&json(&element(taken)));
        out.push('\n');
    }
    out
}

/// The last line of a streamed answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    stored: usize,
    duplicate: usize,
    sent: usize,
    refused: usize,
    cut: Option<Refusal>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SummaryLine<'a> {
    complete: bool,
    stored: usize,
    duplicate: usize,
    #[serde(skip_serializing_if = "is_zero")]
    sent: usize,
    refused: usize,
    dedup_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temporary: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Summary {
    /// Counts a portion's results.
    pub fn add(&mut self, results: &[Taken]) {
        for taken in results {
            let count = match taken.as_ref().map(|receipt| receipt.outcome) {
                Ok(Outcome::Stored) => &mut self.stored,
                Ok(Outcome::Duplicate) => &mut self.duplicate,
                Ok(Outcome::Sent) => &mut self.sent,
                Ok(Outcome::Refused) | Err(_) => &mut self.refused,
            };
            *count += 1;
        }
    }

    /// The body was not taken to its end.
    pub fn cut(&mut self, refusal: Refusal) {
        self.cut = Some(refusal);
    }

    /// Its text, with the line's end.
    #[must_use]
    pub fn line(&self) -> String {
        let cut = self.cut.as_ref();
        let line = SummaryLine {
            complete: cut.is_none(),
            stored: self.stored,
            duplicate: self.duplicate,
            sent: self.sent,
            refused: self.refused,
            dedup_seconds: DEDUP_WINDOW.as_secs(),
            code: cut.map(|refusal| refusal.code),
            detail: cut.map(|refusal| refusal.detail.as_str()),
            temporary: cut.map(|refusal| refusal.code.temporary()),
            retry_after_ms: cut.and_then(|refusal| refusal.retry_after_ms),
        };
        json(&line) + "\n"
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Answer {
    /// Whether anything of the request is stored, now or before.
    #[must_use]
    pub fn has_stored(&self) -> bool {
        match self {
            Answer::One(taken) => has_stored(taken),
            Answer::Batch(taken) => taken.iter().any(has_stored),
            Answer::Refused(_) => false,
        }
    }

    /// The JSON body where the request was understood; the refusal where it was not.
    ///
    /// # Errors
    /// The refusal; each protocol has its own way of writing one.
    pub fn body(&self) -> Result<String, &Refusal> {
        match self {
            Answer::Refused(refusal) => Err(refusal),
            Answer::One(Err(not_taken)) => Err(&not_taken.refusal),
            Answer::One(Ok(receipt)) => Ok(json(&one(receipt, Some(DEDUP_WINDOW.as_secs())))),
            Answer::Batch(results) => Ok(json(&batch(results))),
        }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Our own types: no maps with odd keys, no failing `Serialize`.
    serde_json::to_string(value).unwrap_or_default()
}

fn one(receipt: &Receipt, dedup_seconds: Option<u64>) -> One<'_> {
    One {
        status: receipt.outcome.as_str(),
        id: &receipt.id,
        cursor: receipt.cursor.as_deref(),
        dedup_seconds,
    }
}

fn batch(results: &[Taken]) -> Batch<'_> {
    let count = |outcome| {
        results
            .iter()
            .flatten()
            .filter(|receipt| receipt.outcome == outcome)
            .count()
    };
    Batch {
        stored: count(Outcome::Stored),
        duplicate: count(Outcome::Duplicate),
        sent: count(Outcome::Sent),
        refused: results.iter().filter(|taken| taken.is_err()).count(),
        dedup_seconds: DEDUP_WINDOW.as_secs(),
        results: results.iter().map(element).collect(),
    }
}

fn element(taken: &Taken) -> Element<'_> {
    match taken {
        Ok(receipt) => Element::Taken(one(receipt, None)),
        Err(NotTaken { refusal, id, .. }) => Element::Refused(Refused {
            status: Outcome::Refused.as_str(),
            code: refusal.code,
            detail: &refusal.detail,
            pointer: refusal.pointer.as_deref(),
            id: id.as_deref(),
            temporary: refusal.code.temporary(),
            retry_after_ms: refusal.retry_after_ms,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn receipt(outcome: Outcome, id: &str, seq: Option<u64>) -> Taken {
        let cursor = seq.map(|seq| format!("c{seq}"));
        Ok(Receipt {
            outcome,
            id: id.to_owned(),
            cursor,
        })
    }

    #[test]
    fn one_event_is_answered_flat() {
        let body = Answer::One(receipt(Outcome::Stored, "e1", Some(7)))
            .body()
            .unwrap();
        let expected = json!({ "status": "stored", "id": "e1", "cursor": "c7", "dedupSeconds": 120 });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
        let body = Answer::One(receipt(Outcome::Sent, "e2", None)).body().unwrap();
        let expected = json!({ "status": "sent", "id": "e2", "dedupSeconds": 120 });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn a_streamed_answer_is_lines_and_a_summary() {
        let refused = NotTaken::new(Refusal::new(Code::BadRoom, "no\nno"), None);
        let results = [
            receipt(Outcome::Stored, "a", Some(1)),
            Err(refused),
            receipt(Outcome::Sent, "c", None),
        ];
        let text = lines(&results);
        let read: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let states: Vec<_> = read.iter().map(|line| line["status"].as_str().unwrap()).collect();
        assert_eq!(states, ["stored", "refused", "sent"]);
        let mut summary = Summary::default();
        summary.add(&results);
        let expected = json!({ "complete": true, "stored": 1, "duplicate": 0, "sent": 1, "refused": 1, "dedupSeconds": 120 });
        assert_eq!(serde_json::from_str::<Value>(&summary.line()).unwrap(), expected);
        summary.cut(Refusal::new(Code::RequestTimeout, "late"));
        let line: Value = serde_json::from_str(&summary.line()).unwrap();
        assert_eq!(
            (&line["complete"], &line["code"], &line["temporary"]),
            (&json!(false), &json!("request_timeout"), &json!(true))
        );
    }

    #[test]
    fn a_batch_has_one_result_per_event_in_order() {
        let refused = NotTaken::new(Refusal::new(Code::BadRoom, "no").at("/room"), None);
        let results = vec![
            receipt(Outcome::Stored, "a", Some(1)),
            Err(refused),
            receipt(Outcome::Duplicate, "c", Some(1)),
        ];
        let body: Value = serde_json::from_str(&Answer::Batch(results).body().unwrap()).unwrap();
        assert_eq!(
            (&body["stored"], &body["duplicate"], &body["refused"]),
            (&json!(1), &json!(1), &json!(1))
        );
        assert_eq!(body["dedupSeconds"], 120);
        assert_eq!(body["results"][0]["status"], "stored");
        assert_eq!(
            body["results"][1],
            json!({ "status": "refused", "code": "bad_room", "detail": "no", "pointer": "/room", "temporary": false })
        );
        assert_eq!(body["results"][2]["id"], "c");
    }
}
