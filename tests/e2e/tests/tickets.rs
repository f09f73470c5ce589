//! Tickets: for browsers that cannot set a header. Given at one gateway, good once at any, for what they name and nothing else.

use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::stack::Stack;
use roomcast_harness::stream::Stream;
use serde_json::{Value, json};

use crate::world::{calm, publish};

const SOON: Duration = Duration::from_secs(25);

async fn ask(stack: &Stack, gateway: usize, token: &str, body: Value) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}/v1/tickets", stack.gateways()[gateway]);
    let answer = stack
        .http
        .post(&url, token, "application/json", body.to_string())
        .await?;
    Ok((answer.status, answer.json()))
}

async fn ticket(stack: &Stack, token: &str, rooms: &[&str]) -> anyhow::Result<String> {
    let (status, answer) = ask(stack, 0, token, json!({ "rooms": rooms })).await?;
    ensure!(
        status == 200 && answer["goodForSeconds"] == 30,
        "{status} {answer}"
    );
    Ok(answer["ticket"].as_str().unwrap_or_default().to_owned())
}

/// How a stream is refused; the whole answer without its clock.
async fn refused(stack: &Stack, gateway: usize, query: &str, more: &[String]) -> anyhow::Result<String> {
    let path = format!("/v1/sse?{query}");
    match Stream::open(&stack.gateways()[gateway], &path, None, more).await {
        Ok(stream) => anyhow::bail!("{query} {more:?} is let in: {}", stream.head),
        Err(error) => {
            let said = error.to_string();
            let lines = said.lines().filter(|line| !line.starts_with("date: "));
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

#[test]
fn a_ticket_opens_one_stream_at_any_gateway_and_never_another() {
    calm(|stack| async move {
        let token = stack.signer.token("ticketed", &["user"]);
        let one = ticket(stack, &token, &["lobby", "vault"]).await?;
        let path = format!("/v1/sse?ticket={one}");
        let mut stream = Stream::open(&stack.gateways()[1], &path, None, &[]).await?;
        let first = stream.caught_up(&["lobby"]).await?;
        let connected = &first[0]["connected"];
        ensure!(connected["user"] == "ticketed", "{connected}");
        let rooms = connected["rooms"].as_array().cloned().unwrap_or_default();
        let named: Vec<&Value> = rooms.iter().map(|room| &room["room"]).collect();
        ensure!(named[..2] == ["lobby", "vault"], "{named:?}");
        ensure!(rooms[1]["error"]["code"] == "forbidden", "{connected}");
        let id = format!("ticketed-{}", uuid::Uuid::new_v4());
        publish(
            stack,
            &json!({ "id": id, "room": "lobby", "type": "t", "data": {} }),
        )
        .await?;
        stream
            .until("live", SOON, |frame| frame["event"]["event"]["id"] == *id)
            .await?;

        // Taken: like no ticket at all, at both gateways.
        let none = refused(stack, 0, "ticket=main.AAAAAAAAAAAAAAAAAAAAAA", &[]).await?;
        ensure!(none.starts_with("HTTP/1.1 401 "), "{none}");
        for gateway in [0, 1] {
            for query in [
                format!("ticket={one}"),
                "ticket=nonsense".to_owned(),
                "ticket=".to_owned(),
                format!("ticket={}", "x".repeat(2_000)),
                "ticket=GW.AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
                "ticket=acme.AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
                "room=lobby".to_owned(),
            ] {
                let said = refused(stack, gateway, &query, &[]).await?;
                ensure!(said == none, "{query}: {said}");
            }
        }

        // Of ten that show it at the same moment, at two gateways, one comes in.
        let raced = ticket(stack, &token, &["lobby"]).await?;
        let path = format!("/v1/sse?ticket={raced}");
        let gateways = stack.gateways();
        let tries = (0..10).map(|n| Stream::open(&gateways[n % 2], &path, None, &[]));
        let tries = futures_util::future::join_all(tries).await;
        let won = tries.iter().filter(|tried| tried.is_ok()).count();
        ensure!(won == 1, "{won} came in with one ticket");
        Ok(())
    });
}

#[test]
fn a_ticket_is_bound_to_its_rooms_and_to_pages_of_its_origin() {
    calm(|stack| async move {
        let token = stack.signer.token("bound", &["user"]);
        let rooms = ["lobby", "depth"];
        let one = ticket(stack, &token, &rooms).await?;
        let other_room = refused(stack, 1, &format!("ticket={one}&room=lobby&room=flood"), &[]).await?;
        ensure!(other_room.contains("\"forbidden\""), "{other_room}");
        let one = ticket(stack, &token, &rooms).await?;
        let absent = refused(stack, 1, &format!("ticket={one}&room=floox"), &[]).await?;
        ensure!(absent == other_room, "{absent}");
        // A part of them, from a cursor: how a page comes back.
        let one = ticket(stack, &token, &rooms).await?;
        let path = format!("/v1/sse?ticket={one}&room=depth&cursor=x");
        let mut stream = Stream::open(&stack.gateways()[1], &path, None, &[]).await?;
        let first = stream.caught_up(&["depth"]).await?;
        ensure!(
            first[0]["connected"]["rooms"][0]["reason"] == "epoch",
            "{}",
            first[0]
        );

        // What is wrong with a request does not cost its ticket.
        let one = ticket(stack, &token, &rooms).await?;
        let header = format!("Authorization: Bearer {token}");
        let both = refused(stack, 0, &format!("ticket={one}"), &[header]).await?;
        ensure!(both.contains("\"bad_request\""), "{both}");
        let twice = refused(stack, 0, &format!("ticket={one}&ticket={one}"), &[]).await?;
        ensure!(twice.contains("\"bad_request\""), "{twice}");
        // A page from elsewhere: this ticket was asked for by no page.
        let origin = format!("Origin: {}", stack.gateways()[0]);
        let page = refused(stack, 0, &format!("ticket={one}"), &[origin]).await?;
        let none = refused(stack, 0, "ticket=nonsense", &[]).await?;
        ensure!(
            page.contains("\"bad_origin\"") || page.lines().last() == none.lines().last(),
            "{page}"
        );

        // Nor does it open anything but a stream.
        let one = ticket(stack, &token, &rooms).await?;
        let poll = format!("{}/v1/poll?room=lobby&wait=0&ticket={one}", stack.gateways()[0]);
        ensure!(stack.http.get(&poll, None).await?.status == 401);
        let url = format!("{}/v1/sse?ticket={one}", stack.gateways()[0]);
        let head = stack.http.call("HEAD", &url, &token).await?;
        ensure!(head.status == 400, "{}", head.status);
        Stream::open(&stack.gateways()[0], &format!("/v1/sse?ticket={one}"), None, &[]).await?;
        Ok(())
    });
}

#[test]
fn who_asks_for_tickets_is_told_what_is_wrong() {
    calm(|stack| async move {
        let token = stack.signer.token("asker", &["user"]);
        let many: Vec<String> = (0..200).map(|n| format!("room-{n}")).collect();
        let large = "x".repeat(70_000);
        for (body, status, code) in [
            (json!({ "rooms": ["vault"] }), 403, "forbidden"),
            (json!({ "rooms": ["vaulx"] }), 403, "forbidden"),
            (json!({ "rooms": ["*"] }), 403, "forbidden"),
            (json!({ "rooms": many }), 429, "limit"),
            (json!({}), 400, "bad_json"),
            (json!([]), 400, "bad_json"),
            (json!({ "rooms": [1] }), 400, "bad_json"),
            (json!({ "rooms": [], "for": "ever" }), 400, "bad_json"),
            (json!({ "rooms": [large] }), 413, "too_large"),
        ] {
            let (found, answer) = ask(stack, 0, &token, body.clone()).await?;
            let shown: String = body.to_string().chars().take(60).collect();
            ensure!(
                found == status && answer["code"] == code,
                "{shown}: {found} {answer}"
            );
        }
        let (status, _) = ask(stack, 0, "nonsense", json!({ "rooms": [] })).await?;
        ensure!(status == 401);
        Ok(())
    });
}
