//! Questions that every server of a cluster answers for itself, as operators ask them through the system account.

use std::time::Duration;

use async_nats::{Client, StatusCode};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use crate::jetstream::ApiError;

/// Nobody else answers after such a pause: routes between servers of one cluster take milliseconds.
const SILENCE: Duration = Duration::from_millis(300);
/// The asking takes at most this long, and so does the first answer.
const FIRST: Duration = Duration::from_secs(1);
/// Answers that are read: more servers than any cluster of ours has.
const ANSWERS_MAX: usize = 64;

/// What one server said of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerAnswer {
    /// `server_name` of its configuration.
    pub name: String,
    /// The answer.
    pub data: Value,
}

#[derive(Deserialize)]
struct Answered {
    server: Server,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Server {
    name: String,
}

/// Asks every server that can be reached, with `options` as its own documentation says; ends with the first pause, or when `enough` says so of the answers there are.
///
/// # Errors
/// `NoResponders`: this account does not import the question. `Timeout`: nobody answered, or the user may not ask. `Client`: not
/// connected.
///
/// # Cancel safety
/// Safe; the inbox goes with the future.
pub async fn ask_servers(
    client: &Client,
    subject: &str,
    options: &Value,
    enough: impl Fn(&[ServerAnswer]) -> bool,
) -> Result<Vec<ServerAnswer>, ApiError> {
    let failed = |error: String| ApiError::Client(error);
    let ask = async {
        let inbox = client.new_inbox();
        let subscribed = client.subscribe(inbox.clone()).await;
        let replies = subscribed.map_err(|error| failed(error.to_string()))?;
        let asked = client.publish_with_reply(subject.to_owned(), inbox, options.to_string().into());
        asked.await.map_err(|error| failed(error.to_string()))?;
        Ok::<_, ApiError>(replies)
    };
    let mut replies = tokio::time::timeout(FIRST, ask).await??;
    let mut answers: Vec<ServerAnswer> = Vec::new();
    while answers.len() < ANSWERS_MAX && !enough(&answers) {
        let patience = if answers.is_empty() { FIRST } else { SILENCE };
        let reply = match tokio::time::timeout(patience, replies.next()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(failed("the connection was closed".to_owned())),
            Err(_) if answers.is_empty() => return Err(ApiError::Timeout),
            Err(_) => break,
        };
        if reply.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(ApiError::NoResponders);
        }
        let Answered { server, data } =
            serde_json::from_slice(&reply.payload).map_err(|error| ApiError::Malformed(error.to_string()))?;
        answers.push(ServerAnswer {
            name: server.name,
            data,
        });
    }
    Ok(answers)
}
