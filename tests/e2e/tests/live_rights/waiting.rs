//! What waits while rights are taken away: for the rest of a body, and behind a room that is being opened.

use roomcast_proto::cursor::{Cursors, Position};
use roomcast_proto::ids::Tenant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Everything that is posted to a gateway, with a body of its kind.
const POSTS: [(&str, &str); 7] = [
    ("/v1/commands/test.echo", r#"{"key":"k","data":1}"#),
    ("/v1/publish", r#"{"room":"chat","type":"t","data":1}"#),
    ("/v1/activity", r#"{"kind":"views","detail":"d"}"#),
    ("/v1/marks", r#"{"as":"read","ids":["n1"]}"#),
    ("/v1/preferences", r#"{}"#),
    ("/v1/tickets", r#"{"rooms":["lobby"]}"#),
    ("/v1/refresh", r#"{"connection":"c0123456789abcdef"}"#),
];

/// A request whose body lacks its last byte.
struct Unfinished {
    path: &'static str,
    last: u8,
    socket: TcpStream,
}

impl Unfinished {
    async fn begin(
        stack: &Stack,
        token: &str,
        (path, body): (&'static str, &'static str),
    ) -> anyhow::Result<Self> {
        let address = stack.gateways()[0].trim_start_matches("http://").to_owned();
        let mut socket = TcpStream::connect(&address).await?;
        let (last, first) = body.as_bytes().split_last().context("a body")?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(first).await?;
        Ok(Self {
            path,
            last: *last,
            socket,
        })
    }

    /// Sends the last byte; how it is answered.
    async fn end(mut self) -> anyhow::Result<String> {
        self.socket.write_all(&[self.last]).await?;
        let mut answer = String::new();
        self.socket.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

/// Who was let in by the head of a request is nobody any more when the last byte of its body comes.
async fn bodies_that_take_their_time(stack: &Stack) -> anyhow::Result<()> {
    let user = "slow-poster";
    let token = token(stack, user, &["staff"]);
    let mut unfinished = Vec::new();
    for post in POSTS {
        unfinished.push(Unfinished::begin(stack, &token, post).await?);
    }
    let url = format!("{}/v1/state?room=lobby", stack.gateways()[0]);
    let read = async || anyhow::Ok(stack.http.get(&url, Some(&token)).await?.status);
    ensure!(read().await? == 200, "let in");
    admin(stack, "POST", "/admin/v1/revocations", json!({ "user": user })).await?;
    wait_for("revoked", 401, async || read().await).await?;
    for post in unfinished {
        let path = post.path;
        let answer = post.end().await?;
        ensure!(
            answer.starts_with("HTTP/1.1 401 ") && answer.contains("unauthenticated"),
            "{path}: {answer}"
        );
    }
    Ok(())
}

/// What was asked behind a room that is being opened is not carried out under the rights of then: a cursor from ahead keeps the room waiting.
async fn asked_behind_a_room(stack: &Stack) -> anyhow::Result<()> {
    let user = "patient-asker";
    let own = format!("user.{user}");
    let (key, token) = granted(stack, user, "staff").await?;
    let (mut client, _) = Client::connect(&stack.gateways()[0], &token, &[], &HashMap::new()).await?;
    client.caught_up(&own).await?;
    let (plain, tenant) = (Cursors::plain(), Tenant::default());
    let mut ahead = plain.read(
        &tenant,
        client.cursors.get(&own).context("a place in its own room")?,
    )?;
    ahead.position = Position {
        seq: ahead.position.seq + 1_000_000,
        ..ahead.position
    };
    let ahead = plain.write(&tenant, &ahead).to_string();
    for frame in [
        json!({ "id": 9_001, "subscribe": { "room": own, "cursor": ahead } }),
        json!({ "id": 9_002, "publish": { "room": "chat", "type": "t", "eventId": "too-late", "data": 1 } }),
        json!({ "id": 9_003, "feed": {} }),
    ] {
        client.send_text(&frame.to_string()).await?;
    }
    // Behind everything that came before it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    for id in [9_002, 9_003] {
        let frames = client
            .until("an answer", PATIENCE, |frame| frame["id"] == id)
            .await?;
        let answer = frames.last().context("an answer")?;
        ensure!(
            answer["error"]["code"] == "unavailable" && answer["error"]["temporary"] == true,
            "{answer}"
        );
    }
    Ok(())
}

pub(super) async fn what_waits(stack: &Stack) -> anyhow::Result<()> {
    bodies_that_take_their_time(stack).await?;
    asked_behind_a_room(stack).await
}
