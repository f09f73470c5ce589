//! JetStream by its raw API: what the client library lacks (batched direct get, `multi_last`, atomic batches) and
//! what must be exact (errors with their codes, reads from the leader).
//!
//! Requests go to an API prefix, so the same code works inside the account that owns the streams and through
//! imports from another.

mod ack;
mod batch;
mod error;
mod message;
mod publisher;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, HeaderValue, Message, Request, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use ack::PubAck;
pub use batch::{BATCH_MAX, Outgoing};
pub use error::{ApiError, PublishError, Refusal, code};
pub use message::StoredMessage;
pub use publisher::{ACK_TIMEOUT, Pending, Publisher};
pub use stream::{At, Batch, LastMessages, Newest, StreamInfo, StreamState};

use message::is_stored;
use stream::some_subject;

/// Subjects `multi_last` answers at most; more is [`LastMessages::TooMany`].
pub const MULTI_LAST_MAX: usize = 1_024;
/// Names [`JetStream::stream_names`] gives at most.
pub const STREAM_NAMES_MAX: usize = 10_000;
/// Default time for one call.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A read of many messages may take this many times the time-out in all; each message must come within one.
const STREAMED_TIMEOUTS: u32 = 5;

/// The description of a status that says that no subject matches, and not that one of them has lost its message since.
const NO_RESULTS: &str = "No Results";

/// The statuses that end a read of many messages.
mod status {
    /// End of batch.
    pub(super) const END: u16 = 204;
    /// Nothing matches.
    pub(super) const NONE: u16 = 404;
    /// More subjects than the server answers at once.
    pub(super) const TOO_MANY: u16 = 413;
}

/// The JetStream API over one connection. Cheap to clone.
///
/// Every call has its answer within its time, room in the client's queue included: while there is no connection, nothing leaves that.
#[derive(Clone, Debug)]
pub struct JetStream {
    client: Client,
    api_prefix: Arc<str>,
    timeout: Duration,
}

impl JetStream {
    /// Makes it. `api_prefix` is `$JS.API`, or an import's prefix such as `core.JS.API`. Nothing is sent.
    pub fn new(client: Client, api_prefix: impl Into<Arc<str>>) -> Self {
        Self {
            client,
            api_prefix: api_prefix.into(),
            timeout: TIMEOUT,
        }
    }

    /// The same with another time-out per call (default 1 s).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The connection it uses.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Describes a stream; `None` if there is none of that name.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, ApiError> {
        optional(
            self.call(&format!("STREAM.INFO.{stream}"), Bytes::new()).await,
            code::NO_STREAM,
        )
    }

    /// Creates a stream from its configuration as JSON. One with exactly this configuration may exist already.
    ///
    /// # Errors
    /// `Refused`, e.g. [`code::STREAM_NAME_IN_USE`] where it exists with another configuration.
    pub async fn create_stream(&self, config: &Value) -> Result<StreamInfo, ApiError> {
        let name = config.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(ApiError::Client("a stream without a name".to_owned()));
        }
        self.call(&format!("STREAM.CREATE.{name}"), config.to_string().into())
            .await
    }

    /// The names of the streams that capture a subject which `subject` (wildcards allowed) matches; at most [`STREAM_NAMES_MAX`].
    ///
    /// # Errors
    /// See [`ApiError`]. An empty subject is refused here, because the server would take it for "all".
    pub async fn stream_names(&self, subject: &str) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            total: usize,
            streams: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        loop {
            let request = json!({ "subject": some_subject(subject)?, "offset": found.len() });
            let page: Names = self.call("STREAM.NAMES", request.to_string().into()).await?;
            let streams = page.streams.unwrap_or_default();
            let last = streams.is_empty();
            found.extend(streams);
            if last || found.len() >= page.total.min(STREAM_NAMES_MAX) {
                found.truncate(STREAM_NAMES_MAX);
                return Ok(found);
            }
        }
    }

    /// Takes every message below a position out of a stream for ever; the rest stays.
    ///
    /// # Errors
    /// See [`ApiError`]; after a time-out they may be gone. Asking again is harmless.
    pub async fn purge_below(&self, stream: &str, sequence: u64) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct Purged {}
        // The server takes 0 for "all of it".
        let request = json!({ "seq": sequence.max(1) });
        self.call::<Purged>(&format!("STREAM.PURGE.{stream}"), request.to_string().into())
            .await
            .map(drop)
    }

    /// Takes one message out of a stream for ever; one that is not there is no mistake.
    ///
    /// # Errors
    /// See [`ApiError`]; after a time-out it may be gone. Asking again is harmless.
    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct Deleted {}
        // Overwriting what lies on disk is for secrets, and costs a rewrite of the block.
        let request = json!({ "seq": sequence, "no_erase": true }).to_string();
        let call = format!("STREAM.MSG.DELETE.{stream}");
        let deleted = self.call::<Deleted>(&call, request.into()).await;
        optional(deleted, code::NO_SEQUENCE).map(drop)
    }

    /// Reads one message from the stream's leader, so never an old answer; `None` if there is none.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn message(&self, stream: &str, at: At<'_>) -> Result<Option<StoredMessage>, ApiError> {
        let request = at.request()?.to_string();
        let got = self
            .call::<message::Got>(&format!("STREAM.MSG.GET.{stream}"), request.into())
            .await;
        optional(got, code::NO_MESSAGE)?
            .map(StoredMessage::try_from)
            .transpose()
    }

    /// Reads one message from any replica, cheaply; it may be some milliseconds behind. `None` if there is none.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn direct(&self, stream: &str, at: At<'_>) -> Result<Option<StoredMessage>, ApiError> {
        let request = at.request()?.to_string();
        let answer = self
            .request(&format!("DIRECT.GET.{stream}"), request.into())
            .await?;
        match answer.status.filter(|_| !is_stored(&answer)) {
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(refusal(status.as_u16(), &answer).into()),
            None => StoredMessage::from_direct(answer).map(Some),
        }
    }

    /// Reads the last message of a subject (wildcards allowed) from any replica.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn direct_last(&self, stream: &str, subject: &str) -> Result<Option<StoredMessage>, ApiError> {
        self.direct(stream, At::Last(subject)).await
    }

    /// Reads up to `batch` messages from a position on, from any replica. Cheap without a filter; with one the server
    /// walks the stream's tail and ingest waits for it, so only over short distances.
    ///
    /// # Errors
    /// See [`ApiError`]. An empty filter is refused here, because the server would take it for "all".
    ///
    /// # Cancel safety
    /// Safe; the inbox goes with the future.
    pub async fn direct_batch(
        &self,
        stream: &str,
        from_seq: u64,
        batch: usize,
        filter: Option<&str>,
    ) -> Result<Batch, ApiError> {
        let mut request = json!({ "seq": from_seq.max(1), "batch": batch.max(1) });
        if let Some(filter) = filter {
            request["next_by_subj"] = some_subject(filter)?.into();
        }
        self.batch(stream, &request).await
    }

    /// The same without a filter, within about `bytes_max` bytes: the message that reaches them is the last.
    ///
    /// # Errors
    /// See [`ApiError`].
    ///
    /// # Cancel safety
    /// Safe; the inbox goes with the future.
    pub async fn direct_portion(
        &self,
        stream: &str,
        from_seq: u64,
        batch: usize,
        bytes_max: usize,
    ) -> Result<Batch, ApiError> {
        let request = json!({ "seq": from_seq.max(1), "batch": batch.max(1), "max_bytes": bytes_max.max(1) });
        self.batch(stream, &request).await
    }

    /// Reads up to `batch` messages stored at or after an instant (Unix microseconds), from any replica.
    ///
    /// # Errors
    /// See [`ApiError`].
    ///
    /// # Cancel safety
    /// Safe; the inbox goes with the future.
    pub async fn direct_since(
        &self,
        stream: &str,
        since_micros: i64,
        batch: usize,
    ) -> Result<Batch, ApiError> {
        let since = jiff::Timestamp::from_microsecond(since_micros)
            .map_err(|error| ApiError::Client(error.to_string()))?;
        let request = json!({ "start_time": since.to_string(), "batch": batch.max(1) });
        let found = self.batch(stream, &request).await?;
        // Where nothing is as young, the server begins at the beginning.
        let none = |first: &StoredMessage| first.time_micros < since_micros;
        Ok(if found.messages.first().is_some_and(none) {
            Batch::default()
        } else {
            found
        })
    }

    async fn batch(&self, stream: &str, request: &Value) -> Result<Batch, ApiError> {
        match self.streamed(stream, request).await? {
            Streamed {
                status: status::NONE, ..
            } => Ok(Batch::default()),
            Streamed {
                status: status::END,
                messages,
                end,
            } => Ok(Batch {
                messages,
                pending: number(&end, "Nats-Num-Pending").unwrap_or(0),
            }),
            Streamed { status, end, .. } => Err(refusal(status, &end).into()),
        }
    }

    /// Reads the last message of each subject that matches one of `subjects` (wildcards allowed), all as of one
    /// moment: now, or the position `up_to`.
    ///
    /// # Errors
    /// See [`ApiError`]. No subjects, or an empty one, are refused here.
    ///
    /// # Cancel safety
    /// Safe; the inbox goes with the future.
    pub async fn multi_last(
        &self,
        stream: &str,
        subjects: &[&str],
        up_to: Option<u64>,
    ) -> Result<LastMessages, ApiError> {
        some_subject(subjects.first().copied().unwrap_or_default())?;
        subjects
            .iter()
            .try_for_each(|subject| some_subject(subject).map(drop))?;
        let mut request = json!({ "multi_last": subjects });
        if let Some(up_to) = up_to {
            request["up_to_seq"] = up_to.into();
        }
        let Streamed {
            messages,
            status,
            end,
        } = self.streamed(stream, &request).await?;
        match status {
            status::END if number(&end, "Nats-Num-Pending").unwrap_or(0) == 0 => Ok(LastMessages::Messages {
                messages,
                up_to: number(&end, "Nats-UpTo-Sequence").or(up_to),
            }),
            // With some left over, they are more than the server sends at once.
            status::END | status::TOO_MANY => Ok(LastMessages::TooMany),
            status::NONE if messages.is_empty() && end.description.as_deref() == Some(NO_RESULTS) => {
                Ok(LastMessages::Messages { messages, up_to })
            }
            // One that was found is gone before it was read; the next answer is another one.
            status::NONE => Err(ApiError::Timeout),
            status => Err(refusal(status, &end).into()),
        }
    }

    /// [`JetStream::multi_last`] that counts only where the replica has everything that the leader had when this was asked. `all` matches
    /// every message of the stream.
    ///
    /// # Errors
    /// See [`ApiError`]. No subjects, or an empty one, are refused here.
    ///
    /// # Cancel safety
    /// Safe; the inbox goes with the future.
    pub async fn newest(&self, stream: &str, all: &str, subjects: &[&str]) -> Result<Newest, ApiError> {
        some_subject(subjects.first().copied().unwrap_or_default())?;
        let Some(last) = self.message(stream, At::Last(all)).await? else {
            return Ok(Newest::Messages(Vec::new()));
        };
        // A replica that has nothing of these says nothing else than one that is behind; so it is asked for the last message, too.
        let mut subjects = subjects.to_vec();
        subjects.push(&last.subject);
        Ok(match self.multi_last(stream, &subjects, None).await? {
            LastMessages::TooMany => Newest::TooMany,
            LastMessages::Messages { messages, up_to } => {
                let newest = messages.last().map_or(0, |message| message.sequence);
                match up_to.unwrap_or(0).max(newest) >= last.sequence {
                    true => Newest::Messages(messages),
                    false => Newest::Behind,
                }
            }
        })
    }

    /// Stores one message and waits for the acknowledgement. For many, use a [`Publisher`].
    ///
    /// # Errors
    /// See [`PublishError`]; without a connection `NoResponders`, at once.
    ///
    /// # Cancel safety
    /// Dropped, it is as after a time-out: the outcome is unknown.
    pub async fn publish(
        &self,
        subject: impl Into<String>,
        headers: HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<PubAck, PublishError> {
        connected(&self.client)?;
        let request = Request::new().headers(headers).payload(payload).timeout(None);
        let answer = tokio::time::timeout(timeout, self.client.send_request(subject.into(), request));
        ack::read(&answer.await??)
    }

    /// Calls the API and reads a JSON answer.
    async fn call<T: DeserializeOwned>(&self, operation: &str, payload: Bytes) -> Result<T, ApiError> {
        #[derive(Deserialize)]
        struct Failed {
            error: Option<Refusal>,
        }
        let answer = self.request(operation, payload).await?;
        let malformed = |error: serde_json::Error| ApiError::Malformed(error.to_string());
        if let Failed { error: Some(refusal) } = serde_json::from_slice(&answer.payload).map_err(malformed)? {
            return Err(refusal.into());
        }
        serde_json::from_slice(&answer.payload).map_err(malformed)
    }

    async fn request(&self, operation: &str, payload: Bytes) -> Result<Message, ApiError> {
        let subject = format!("{}.{operation}", self.api_prefix);
        let request = Request::new().payload(payload).timeout(None);
        let answer = tokio::time::timeout(self.timeout, self.client.send_request(subject, request));
        Ok(answer.await??)
    }

    /// Sends a direct get that answers with many messages and collects them up to the status that ends them.
    ///
    /// A list with a hole is [`ApiError::Timeout`]: what the server sends while the connection is lost is missed, and what comes after
    /// it does not show that. Each message names the one before it, and the end the last one.
    async fn streamed(&self, stream: &str, request: &Value) -> Result<Streamed, ApiError> {
        tokio::time::timeout(self.timeout * STREAMED_TIMEOUTS, self.collect(stream, request)).await?
    }

    async fn collect(&self, stream: &str, request: &Value) -> Result<Streamed, ApiError> {
        let mut answers = tokio::time::timeout(self.timeout, self.ask(stream, request)).await??;
        let mut messages: Vec<StoredMessage> = Vec::new();
        loop {
            let answer = tokio::time::timeout(self.timeout, answers.next()).await?;
            let answer = answer.ok_or_else(|| ApiError::Client("the connection was closed".to_owned()))?;
            let status = answer.status.filter(|_| !is_stored(&answer));
            let last = messages.last().map_or(0, |message| message.sequence);
            let whole = number(&answer, "Nats-Last-Sequence") == Some(last);
            match status {
                Some(StatusCode::NO_RESPONDERS) => return Err(ApiError::NoResponders),
                Some(status) if whole || status.as_u16() != status::END => {
                    return Ok(Streamed {
                        messages,
                        status: status.as_u16(),
                        end: answer,
                    });
                }
                None if whole => messages.push(StoredMessage::from_direct(answer)?),
                Some(_) | None => return Err(ApiError::Timeout),
            }
        }
    }

    /// Sends a direct get whose answers come to an inbox of its own.
    async fn ask(&self, stream: &str, request: &Value) -> Result<Subscriber, ApiError> {
        let client = |error: String| ApiError::Client(error);
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let answers = subscribed.map_err(|error| client(error.to_string()))?;
        let subject = format!("{}.DIRECT.GET.{stream}", self.api_prefix);
        let sent = self
            .client
            .publish_with_reply(subject, inbox, request.to_string().into());
        sent.await.map_err(|error| client(error.to_string()))?;
        Ok(answers)
    }

    /// A text nobody else has: the last token of a new inbox, 22 characters.
    fn unique(&self) -> String {
        let inbox = self.client.new_inbox();
        inbox.rsplit('.').next().unwrap_or(&inbox).to_owned()
    }

    /// A batch is as much work as many publishes, so it gets as long as a streamed read.
    fn batch_timeout(&self) -> Duration {
        self.timeout * STREAMED_TIMEOUTS
    }
}

/// What a direct get of many messages answered.
struct Streamed {
    messages: Vec<StoredMessage>,
    status: u16,
    end: Message,
}

/// Turns the server's "there is none" into `None`.
fn optional<T>(answer: Result<T, ApiError>, none: u64) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.err_code() == Some(none) => Ok(None),
        Err(error) => Err(error),
    }
}

fn refusal(status: u16, message: &Message) -> Refusal {
    let description = message.description.clone().unwrap_or_default();
    Refusal {
        code: status,
        err_code: 0,
        description,
    }
}

fn number(message: &Message, name: &str) -> Option<u64> {
    message
        .headers
        .as_ref()?
        .get_last(name)
        .map(HeaderValue::as_str)?
        .parse()
        .ok()
}

/// Refuses what would wait in the client's queue for a connection: that may come after the stream has forgotten the id, and a message
/// that had been stored before would then be stored again.
fn connected(client: &Client) -> Result<(), PublishError> {
    match client.connection_state() {
        State::Connected => Ok(()),
        State::Pending | State::Disconnected => Err(PublishError::NoResponders),
    }
}
