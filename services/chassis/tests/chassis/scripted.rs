//! Answers a real server gives only in bad moments: what the JetStream API makes of them.

use std::time::Duration;

use roomcast_chassis::jetstream::{ApiError, At, JetStream, LastMessages};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves one connection as a NATS server that calls itself this version. `answer`: what it says to any request, of the reply subject and
/// the number of the last subscription.
pub async fn serve(stream: TcpStream, version: &str, answer: impl Fn(&str, &str) -> String) {
    let info =
        json!({ "server_id": "x", "version": version, "proto": 1, "headers": true, "max_payload": 1 << 20 });
    let (read, mut write) = stream.into_split();
    write
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await
        .unwrap();
    let (mut lines, mut inbox) = (BufReader::new(read).lines(), String::new());
    while let Ok(Some(line)) = lines.next_line().await {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["PING", ..] => "PONG\r\n".to_owned(),
            ["SUB", _, id] => {
                inbox = id.to_owned();
                continue;
            }
            ["PUB", _, reply, _] => answer(reply, &inbox),
            _ => continue,
        };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Of a server that answers every request with these header blocks, each with the body `x`.
async fn jetstream(answers: &[String]) -> JetStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let answers = answers.to_vec();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let blocks = |reply: &str, inbox: &str| {
            let message = |block: &String| {
                let (head, all) = (block.len(), block.len() + 1);
                format!("HMSG {reply} {inbox} {head} {all}\r\n{block}x\r\n")
            };
            answers.iter().map(message).collect()
        };
        serve(stream, "2.15.1", blocks).await;
    });
    let client = async_nats::connect(url).await.unwrap();
    JetStream::new(client, "$JS.API").with_timeout(Duration::from_secs(5))
}

/// Message `sequence`, which follows `last` in the list, with a first line as its publisher wrote it.
fn message(line: &str, sequence: u64, last: u64) -> String {
    format!(
        "{line}\r\nNats-Stream: T\r\nNats-Subject: t.{sequence}\r\nNats-Sequence: {sequence}\r\n\
         Nats-Time-Stamp: 2026-11-20T10:00:00Z\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: {last}\r\n\r\n"
    )
}

/// The end of a list whose last message is `last`.
fn end(last: u64, pending: u64) -> String {
    format!(
        "NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\nNats-UpTo-Sequence: 9\r\n\r\n"
    )
}

fn status(words: &str) -> String {
    format!("NATS/1.0 {words}\r\n\r\n")
}

const PLAIN: &str = "NATS/1.0";

/// A read that spans a reconnect misses what was sent meanwhile; what comes after it may not make the list look whole.
#[tokio::test]
async fn a_list_with_a_hole_is_no_list() {
    let whole = [
        message(PLAIN, 2, 0),
        message(PLAIN, 5, 2),
        message(PLAIN, 6, 5),
        end(6, 3),
    ];
    let check = async |answers: &[String], expected: Result<&[u64], ApiError>| {
        let jetstream = jetstream(answers).await;
        let read = jetstream.direct_batch("T", 1, 9, None).await;
        let read = read.map(|batch| batch.messages.iter().map(|message| message.sequence).collect());
        let expected: Result<Vec<u64>, ApiError> = expected.map(<[u64]>::to_vec);
        assert_eq!(read, expected, "{answers:?}");
    };
    check(&whole, Ok(&[2, 5, 6])).await;
    for missed in 0..3 {
        let mut answers = whole.to_vec();
        answers.remove(missed);
        check(&answers, Err(ApiError::Timeout)).await;
    }
    check(&[end(6, 0)], Err(ApiError::Timeout)).await;
    check(&[status("404 Message Not Found")], Ok(&[])).await;
    check(&[status("503")], Err(ApiError::NoResponders)).await;
}

/// The status of a stored message is its publisher's; taken for the server's, it would hold up who reads the stream, for ever.
#[tokio::test]
async fn a_stored_message_is_one_whatever_its_status() {
    for line in ["NATS/1.0 404", "NATS/1.0 204 EOB", "NATS/1.0 413 x", PLAIN] {
        let jetstream_of = async |answers: &[String]| jetstream(answers).await;
        let direct = jetstream_of(&[message(line, 7, 0)]).await;
        let found = direct.direct("T", At::Sequence(7)).await.unwrap();
        assert_eq!(found.map(|message| message.sequence), Some(7), "{line}");
        let list = jetstream_of(&[message(line, 7, 0), message(PLAIN, 8, 7), end(8, 0)]).await;
        let found = list.direct_batch("T", 1, 9, None).await.unwrap();
        assert_eq!(found.messages.len(), 2, "{line}");
    }
    let none = jetstream(&[status("404 Message Not Found")]).await;
    assert_eq!(none.direct("T", At::Sequence(7)).await, Ok(None));
}

#[tokio::test]
async fn the_last_of_many_subjects_are_all_or_said_not_to_be() {
    let check = async |answers: &[String], expected: Result<Option<usize>, ApiError>| {
        let read = jetstream(answers).await.multi_last("T", &["t.>"], None).await;
        let read = read.map(|found| match found {
            LastMessages::Messages { messages, .. } => Some(messages.len()),
            LastMessages::TooMany => None,
        });
        assert_eq!(read, expected, "{answers:?}");
    };
    let found = |last: String| [message(PLAIN, 2, 0), message(PLAIN, 5, 2), last];
    check(&found(end(5, 0)), Ok(Some(2))).await;
    check(&[status("404 No Results")], Ok(Some(0))).await;
    // The server sends no more bytes at once.
    check(&found(end(5, 3)), Ok(None)).await;
    check(&[status("413 Too Many Results")], Ok(None)).await;
    // One has ended between being found and being read.
    check(&found(status("404 Message Not Found")), Err(ApiError::Timeout)).await;
    check(&[status("404 Message Not Found")], Err(ApiError::Timeout)).await;
    check(&found(end(6, 0)), Err(ApiError::Timeout)).await;
}
