//! Each way of publishing, from the publisher's own command to the frame in a client's hand.

use std::process::Stdio;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use roomcast_harness::{eventually, repository};
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use crate::world::{calm, cursors};

/// How long an answer may take on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);

/// The event of a type that comes next, as one client saw it.
async fn next_booking(client: &mut Client) -> anyhow::Result<Value> {
    let is_booking = |frame: &Value| {
        frame["event"]["event"]["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("booking:"))
    };
    let frames = client.until("a booking", SOON, is_booking).await?;
    Ok(frames
        .last()
        .map(|frame| frame["event"]["event"].clone())
        .unwrap_or_default())
}

async fn watcher(stack: &Stack, gateway: usize) -> anyhow::Result<Client> {
    let token = stack.signer.token("watcher", &["staff"]);
    let (mut client, _) = Client::connect(
        &stack.gateways()[gateway],
        &token,
        &["bookings"],
        &Default::default(),
    )
    .await?;
    client.caught_up("bookings").await?;
    Ok(client)
}

/// `clients/publish/<language>/run.sh` finds `.roomcast/dev.env` where it is started, publishes a booking, and says so.
fn example_publishes(language: &'static str) {
    calm(|stack| async move {
        let script = repository().join("clients/publish").join(language).join("run.sh");
        anyhow::ensure!(script.is_file(), "{} is not there", script.display());
        let mut clients = [watcher(stack, 0).await?, watcher(stack, 1).await?];
        let run = tokio::process::Command::new("bash")
            .arg(&script)
            .current_dir(stack.folder())
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(SOON, run).await??;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        anyhow::ensure!(output.status.success(), "{language}: {}\n{said}", output.status);
        // Other tests publish bookings too; this publisher's is the one that its answer names.
        let mut ids = Vec::new();
        for client in &mut clients {
            loop {
                let event = next_booking(client).await?;
                let id = event["id"].as_str().unwrap_or_default().to_owned();
                if said.contains(&id) {
                    assert_eq!(event["room"], "bookings", "{event}");
                    assert!(event["data"]["id"].is_string(), "{event}");
                    ids.push(id);
                    break;
                }
            }
        }
        assert_eq!(ids[0], ids[1], "both gateways deliver the same event");
        Ok(())
    });
}

#[test]
fn a_booking_from_the_shell_reaches_a_client() {
    example_publishes("shell");
}

#[test]
fn a_booking_from_python_reaches_a_client() {
    example_publishes("python");
}

#[test]
fn a_booking_from_node_reaches_a_client() {
    example_publishes("node");
}

/// The backend that sends triggers may ask who is connected: all gateways answer, in all and for one room.
#[test]
fn a_backend_hears_who_is_connected_to_all_gateways() {
    calm(|stack| async move {
        let connect = async |user: &str, gateway: usize, rooms: &[&str]| {
            let token = stack.signer.token(user, &["staff"]);
            let gateway = &stack.gateways()[gateway];
            let (mut client, _) = Client::connect(gateway, &token, rooms, &Default::default()).await?;
            client.caught_up("bookings").await?;
            anyhow::Ok(client)
        };
        let _clients = [
            connect("counted-1", 0, &["bookings", "floor"]).await?,
            connect("counted-1", 1, &["bookings"]).await?,
            connect("counted-2", 1, &["bookings"]).await?,
        ];
        let ask = async |query: &str| {
            let url = format!("{}/v1/triggers{query}", stack.ingests()[0]);
            let answer = stack.http.get(&url, Some(&crate::world::desk(stack))).await?;
            anyhow::Ok((answer.status, answer.json()))
        };
        // On a busy machine an answer may come too late; `gateways` says so.
        let deadline = tokio::time::Instant::now() + SOON;
        let whole = async |query: &str| {
            loop {
                let (status, said) = ask(query).await?;
                if status == 200 && said["gateways"] == 2 {
                    return anyhow::Ok(said);
                }
                anyhow::ensure!(tokio::time::Instant::now() < deadline, "{status} {said}");
            }
        };
        let all = whole("").await?;
        assert_eq!(
            (&all["users"]["counted-1"], &all["users"]["counted-2"]),
            (&json!(2), &json!(1))
        );
        assert!(
            all["rooms"]["bookings"]["connections"].as_u64() >= Some(3),
            "{all}"
        );
        assert_eq!(all["complete"], true);
        let floor = whole("?room=floor").await?;
        assert_eq!(
            (&floor["users"]["counted-1"], &floor["users"]["counted-2"]),
            (&json!(1), &Value::Null)
        );
        assert_eq!(
            floor["rooms"].as_object().map(serde_json::Map::len),
            Some(1),
            "{floor}"
        );
        Ok(())
    });
}

/// The publishers' page says after each call what its answer says: run as it stands, that is so.
#[test]
fn what_the_page_says_of_repeats_is_what_happens() {
    calm(|stack| async move {
        let page = std::fs::read_to_string(repository().join("clients/publish/README.md"))?;
        let script = page
            .split_once("```sh\n")
            .and_then(|(_, rest)| Some(rest.split_once("```")?.0))
            .unwrap_or_default();
        let expected: Vec<&str> = script
            .lines()
            .filter(|line| line.starts_with("publish ") && !line.starts_with("publish()"))
            .filter_map(|line| Some(line.split_once(" # ")?.1))
            .collect();
        anyhow::ensure!(expected.len() == 5, "{script}");
        let run = tokio::process::Command::new("bash")
            .args(["-c", script])
            .current_dir(stack.folder())
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(SOON, run).await??;
        let said = String::from_utf8_lossy(&output.stdout);
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said.len(), expected.len(), "{output:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said}, and not {expected}");
        }
        Ok(())
    });
}

#[test]
fn a_nats_request_reaches_a_client() {
    calm(|stack| async move {
        let mut client = watcher(stack, 0).await?;
        let nats = stack.nats("publisher").await;
        // Spaces, order and number format of data are the publisher's; they arrive byte for byte.
        let data = r#"{ "id":"bk-nats",  "amount": 12.50, "z":1, "a":[1.0,1e2] }"#;
        let body = format!(r#"{{"id":"nats-1","type":"booking:new","data":{data}}}"#);
        let answer = nats.request("in.bookings.staff", body.into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        assert_eq!(answer["status"], "stored", "{answer}");
        assert_eq!(answer["dedupSeconds"], 120, "{answer}");
        client
            .until("the event", SOON, |frame| {
                frame["event"]["event"]["id"] == "nats-1"
            })
            .await?;
        let text = client
            .raw
            .iter()
            .find(|text| text.contains("nats-1"))
            .cloned()
            .unwrap_or_default();
        assert!(text.contains(data), "data passes byte for byte: {text}");
        // What the acknowledgement names is what the stream holds.
        let cursor = cursors().read(&Tenant::default(), answer["cursor"].as_str().unwrap_or_default())?;
        let place = cursor.position.seq;
        assert!(
            stack
                .stored("bookings")
                .await?
                .iter()
                .any(|(sequence, event)| *sequence == place && event["id"] == "nats-1")
        );
        Ok(())
    });
}

#[test]
fn a_batch_with_one_bad_event_stores_the_others() {
    calm(|stack| async move {
        let mut client = watcher(stack, 1).await?;
        let event = |id: &str, room: &str| json!({ "id": id, "room": room, "audience": "staff", "type": "booking:new", "data": {} });
        let batch = json!([
            event("batch-1", "bookings"),
            event("batch-2", "no room at all"),
            event("batch-3", "bookings")
        ]);
        let answer = stack.publish(0, &crate::world::desk(stack), &batch).await?;
        let said = answer.json();
        assert_eq!(answer.status, 200, "{said}");
        assert_eq!(
            (said["stored"].as_u64(), said["refused"].as_u64()),
            (Some(2), Some(1)),
            "{said}"
        );
        assert_eq!(said["results"][1]["status"], "refused", "{said}");
        assert_eq!(said["results"][1]["code"], "bad_room", "{said}");
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let id = next_booking(&mut client).await?["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if id.starts_with("batch-") {
                seen.push(id);
            }
        }
        assert_eq!(seen, ["batch-1", "batch-3"]);
        Ok(())
    });
}

#[test]
fn who_may_not_publish_is_refused_and_nothing_is_stored() {
    calm(|stack| async move {
        let event = json!({ "id": "intruder", "room": "bookings", "audience": "staff", "type": "booking:new", "data": {} });
        for (token, status) in [
            (stack.signer.token("u", &["staff"]), 403),
            ("x".to_owned(), 401),
            (String::new(), 401),
        ] {
            let answer = stack.publish(0, &token, &event).await?;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        let nats = stack.nats("reader").await;
        // The reader's user may not publish at all; the server tells it nothing, and nobody hears it.
        let asked = tokio::time::timeout(
            Duration::from_millis(500),
            nats.request("in.bookings.staff", event.to_string().into()),
        )
        .await;
        assert!(!matches!(asked, Ok(Ok(_))), "{asked:?}");
        crate::world::publish(stack, &json!({ "id": "after-intruder", "room": "bookings", "audience": "staff", "type": "t", "data": {} })).await?;
        eventually("the event after it is stored", SOON, || async {
            stack
                .stored("bookings")
                .await
                .is_ok_and(|all| all.iter().any(|(_, event)| event["id"] == "after-intruder"))
        })
        .await;
        assert!(
            !stack
                .stored("bookings")
                .await?
                .iter()
                .any(|(_, event)| event["id"] == "intruder")
        );
        Ok(())
    });
}
