//! What nobody may read later: tokens, tickets, cookies, cursors, passwords and what events say are handed to every door, good and bad, with
//! everything logged; then all logs, metrics, admin answers, refusals and the audit record are searched for them.
//!
//! What may show it is left out by name: the administrator's look at a dead letter, which is what was sent.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use roomcast_harness::stream::Stream;
use roomcast_harness::{binary, eventually};
use serde_json::json;

use crate::world::{alone, options, own};

/// In what events say; every other canary has a name of its own.
const PAYLOAD: &str = "canary-payload-7f3a";
const COOKIE: &str = "canary-cookie-7f3a";
const CURSOR: &str = "canary-cursor-7f3a";
const BAD_TOKEN: &str = "canary-token-7f3a";
const SERVICES: [&str; 3] = ["ingest", "gateway", "aggregator"];

/// What must not be found, by what it is.
type Canaries = Vec<(&'static str, String)>;

#[test]
fn nothing_that_is_secret_is_said_anywhere() {
    alone(async {
        let env = [
            // All that we say, as detailed as it gets; libraries at what an operator would turn on.
            (
                "ROOMCAST_LOG",
                "debug,roomcast_ingest=trace,roomcast_edge_gateway=trace,roomcast_chassis=trace,async_nats=debug",
            ),
            ("ROOMCAST_LOG_FORMAT", "json"),
        ];
        let Some(stack) = own(options(&env)).await? else {
            return Ok(());
        };
        let mut canaries: Canaries = vec![
            ("a payload", PAYLOAD.to_owned()),
            ("a cookie", COOKIE.to_owned()),
            ("a cursor that is none", CURSOR.to_owned()),
            ("a token that is none", BAD_TOKEN.to_owned()),
        ];
        for user in ["publisher", "reader", "admin"] {
            canaries.push(("a password", stack.nats_password(user)));
        }
        let mut answers = through_the_doors(&stack, &mut canaries).await?;
        answers.extend(of_the_admin_ports(&stack).await?);
        eventually("calls are on record", Duration::from_secs(30), || async {
            stack
                .audit()
                .await
                .is_ok_and(|entries| entries.len() >= SERVICES.len())
        })
        .await;

        for service in SERVICES {
            let page = stack.admin_metrics(service, 0).await?;
            ensure!(page.contains("roomcast_build_info"), "{page}");
            answers.push((format!("metrics of {service}"), page));
        }
        for (sequence, entry) in stack.audit().await? {
            answers.push((format!("audit entry {sequence}"), entry.to_string()));
        }
        let log = stack.log();
        ensure!(log.contains("\"level\":\"DEBUG\""), "the log says little");
        // Dead letters are there: what was refused was kept, and where it may be read it is.
        ensure!(
            answers.iter().any(|(place, _)| place.starts_with("audit")),
            "nothing was recorded"
        );
        answers.push(("the log".to_owned(), log));
        for (place, text) in &answers {
            for (what, canary) in &canaries {
                let Some(at) = text.find(canary.as_str()) else {
                    continue;
                };
                let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
                let line = text[from..].lines().next().unwrap_or_default();
                anyhow::bail!("{place} shows {what}:\n{line}");
            }
        }
        Ok(())
    });
}

/// Hands them to every door; what was answered to what was refused.
async fn through_the_doors(stack: &Stack, canaries: &mut Canaries) -> anyhow::Result<Vec<(String, String)>> {
    let (gateway, ingest) = (stack.gateways()[0].clone(), stack.ingests()[0].clone());
    let (viewer, desk) = (
        stack.signer.token("viewer", &["admin"]),
        stack.signer.token("desk", &["desk"]),
    );
    // Its signature and what it says: no part that only a token has.
    for token in [&viewer, &desk] {
        let parts: Vec<String> = token.split('.').skip(1).map(str::to_owned).collect();
        canaries.extend(parts.into_iter().map(|part| ("a part of a token", part)));
    }
    let tampered = format!("{}AAAA", &viewer[..viewer.len() - 4]);
    let cookie = [("cookie", COOKIE)];
    let events = format!("{ingest}/v1/events");
    let json = "application/json";
    let event = |id: &str, room: &str| {
        json!({ "id": id, "room": room, "audience": "staff", "type": "booking:new",
                "data": { "customer": PAYLOAD, "amount": 1, "category": PAYLOAD } })
    };
    let mut answers = Vec::new();
    let (mut client, _) = Client::connect(&gateway, &viewer, &["bookings"], &HashMap::new()).await?;

    // Publishing: taken, taken again with other content, refused in each way, and as no one.
    let mut other = event("canary", "bookings");
    other["data"]["amount"] = json!(2);
    let broken = format!("{{\"id\":\"x\",\"data\":\"{PAYLOAD}");
    let deep = format!("{}\"{PAYLOAD}\"{}", "[".repeat(60), "]".repeat(60));
    let rows: [(&str, String, u16); 8] = [
        (&desk, event("canary", "bookings").to_string(), 200),
        (&desk, other.to_string(), 409),
        (&desk, event("canary-room", "nowhere.at.all").to_string(), 404),
        (&viewer, event("canary-right", "bookings").to_string(), 403),
        (&desk, broken, 400),
        (
            &desk,
            format!("{{\"type\":\"t\",\"room\":\"bookings\",\"data\":{deep}}}"),
            400,
        ),
        (&tampered, event("canary-bad", "bookings").to_string(), 401),
        (BAD_TOKEN, event("canary-none", "bookings").to_string(), 401),
    ];
    for (token, body, status) in rows {
        let answer = stack
            .http
            .post_with(&events, token, json, &cookie, body.clone())
            .await?;
        ensure!(
            (400..500).contains(&answer.status) || answer.status == status,
            "{}: {}",
            answer.status,
            answer.text()
        );
        ensure!(
            (status == 200) == (answer.status == 200),
            "{body}: {}",
            answer.text()
        );
        answers.push((format!("the answer {} of ingest", answer.status), answer.text()));
    }
    let nats = stack.nats("publisher").await;
    for body in [
        event("canary-nats", "bookings").to_string(),
        format!("{{\"data\":\"{PAYLOAD}\""),
    ] {
        let answer = nats.request("in.bookings.staff", body.into()).await?;
        answers.push((
            "an answer over NATS".to_owned(),
            String::from_utf8_lossy(&answer.payload).into_owned(),
        ));
    }

    // Reading: a socket with a good token, a ticket and its stream, polls, and all of it wrong.
    client
        .until("the event", Duration::from_secs(30), |frame| {
            frame["event"]["event"]["id"] == "canary"
        })
        .await?;
    let cursor = client.cursors.get("bookings").cloned();
    canaries.extend(cursor.map(|cursor| ("a cursor", cursor)));
    let bad = HashMap::from([("bookings".to_owned(), CURSOR.to_owned())]);
    let refused = Client::connect(&gateway, &viewer, &["bookings"], &bad).await;
    answers.push((
        "an answer to a bad cursor".to_owned(),
        format!("{:?}", refused.map(|(_, connected)| connected)),
    ));
    for token in [tampered.as_str(), BAD_TOKEN] {
        let refused = Client::connect(&gateway, token, &["bookings"], &HashMap::new()).await;
        let refused = refused.err().map(|error| format!("{error:#}"));
        ensure!(refused.is_some(), "a bad token is let in");
        // It shows the frame that was sent, too, so only what came counts.
        let said = refused.unwrap_or_default();
        answers.push((
            "the end of a socket".to_owned(),
            said.rsplit("not connected").next().unwrap_or_default().to_owned(),
        ));
    }
    let asked = json!({ "rooms": ["bookings"] }).to_string();
    let ticket = stack
        .http
        .post_with(&format!("{gateway}/v1/tickets"), &viewer, json, &cookie, asked)
        .await?;
    let ticket = ticket.json()["ticket"].as_str().unwrap_or_default().to_owned();
    ensure!(!ticket.is_empty(), "no ticket");
    let mut stream = Stream::open(&gateway, &format!("/v1/sse?ticket={ticket}"), None, &[]).await?;
    stream.caught_up(&["bookings"]).await?;
    canaries.push(("a ticket", ticket.clone()));
    for path in [
        format!("/v1/sse?ticket={ticket}"),
        format!("/v1/sse?token={BAD_TOKEN}"),
        format!("/v1/sse?ticket={BAD_TOKEN}"),
        format!("/v1/state?room=bookings&token={BAD_TOKEN}"),
        format!("/v1/history?room=bookings&before={CURSOR}"),
        format!("/v1/poll?rooms=bookings&cursor={CURSOR}"),
        format!("/v1/{BAD_TOKEN}"),
    ] {
        for token in [viewer.as_str(), tampered.as_str(), BAD_TOKEN] {
            let mut request = http::Request::get(format!("{gateway}{path}"));
            request = request
                .header("authorization", format!("Bearer {token}"))
                .header("cookie", COOKIE);
            // Streams that are let in have no end; a HEAD is answered as they would begin.
            let request = request.method(if path.contains("/sse") { "HEAD" } else { "GET" });
            let answer = stack.http.send(request.body(Default::default())?).await?;
            if answer.status >= 400 {
                answers.push((
                    format!("the answer {} of the gateway", answer.status),
                    format!("{:?}\n{}", answer.headers, answer.text()),
                ));
            }
        }
    }
    // The number that the event moved was published, so the aggregator has read it.
    client
        .until("a number", Duration::from_secs(30), |frame| {
            frame["event"]["room"] == "os_dashboard"
        })
        .await?;
    Ok(answers)
}

/// What administrators are told: everything that is asked for by an address alone, but for the letters.
async fn of_the_admin_ports(stack: &Stack) -> anyhow::Result<Vec<(String, String)>> {
    let mut answers = Vec::new();
    for service in SERVICES {
        let document = stack
            .admin(service, 0, "GET", "/openapi.json", None)
            .await?
            .json();
        let paths = document["paths"].as_object().cloned().unwrap_or_default();
        let asked = paths
            .iter()
            .filter(|(path, item)| item.get("get").is_some() && !path.contains('{'));
        for (path, _) in asked.filter(|(path, _)| !path.contains("dead-letters")) {
            let answer = stack.admin(service, 0, "GET", path, None).await?;
            answers.push((format!("{path} of {service}"), answer.text()));
        }
        let wrong = stack
            .http
            .get(
                &format!(
                    "{}{}",
                    stack.ready["admin"][service][0].as_str().unwrap_or_default(),
                    "/admin/v1/log"
                ),
                Some(BAD_TOKEN),
            )
            .await?;
        ensure!(wrong.status == 401, "{}", wrong.text());
        answers.push((format!("a refusal of the admin port of {service}"), wrong.text()));
    }
    ensure!(answers.len() > 10, "{answers:?}");
    Ok(answers)
}

/// A password in the wrong place is no reason to show it to everybody who reads the log.
#[test]
fn a_password_in_an_address_is_not_shown() {
    const PASSWORD: &str = "canary-password-7f3a";
    for service in [
        "roomcast-ingest",
        "roomcast-edge-gateway",
        "roomcast-metrics-aggregator",
    ] {
        for (variable, address) in [
            (
                "ROOMCAST_NATS_URL",
                format!("nats://user:{PASSWORD}@127.0.0.1:4222"),
            ),
            (
                "ROOMCAST_TRACES_ENDPOINT",
                format!("http://user:{PASSWORD}@127.0.0.1:4318"),
            ),
            (
                "ROOMCAST_CAPTURE_DATABASE",
                format!("postgres://user:{PASSWORD}@127.0.0.1/shop"),
            ),
        ] {
            for flag in ["--check-config", "--print-config"] {
                let mut command = Command::new(binary(service));
                for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMCAST_")) {
                    command.env_remove(name);
                }
                let output = command.arg(flag).env(variable, &address).output().unwrap();
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                assert!(said.contains(variable), "{service} {flag}: {said}");
                assert!(!said.contains(PASSWORD), "{service} {flag} {variable}: {said}");
            }
        }
    }
}
