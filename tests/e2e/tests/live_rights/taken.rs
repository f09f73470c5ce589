//! Roles, tokens and connections that are taken away: how long until the last byte.

use super::polls::HeldPoll;
use super::*;

/// A role is granted and taken away; how long it took until the room was closed again.
async fn granted_and_taken(stack: &Stack, user: &str) -> anyhow::Result<Duration> {
    let mut clients = both(stack, user, &["user"], &["lobby"]).await?;
    let grant = json!({ "user": user, "role": "staff" });
    let start = Instant::now();
    let entry = admin(stack, "POST", "/admin/v1/grants", grant).await?;
    let acknowledged = Instant::now();
    for (index, client) in clients.iter_mut().enumerate() {
        let after = first(
            client,
            acknowledged,
            "an event of the new room",
            is_event_of("bookings"),
        )
        .await?;
        ensure!(
            client
                .raw
                .iter()
                .any(|raw| raw.contains(r#""roles":{"roles":["staff","user"]"#)),
            "told its roles"
        );
        say(&format!(
            "    a role granted ({:?} to store): first event of the new room after {after:?}, gateway {}",
            acknowledged - start,
            index + 1
        ));
    }
    let key = entry["key"].as_str().context("a key")?.to_owned();
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    both_lose(&mut clients, Instant::now(), "bookings", "a role taken away").await
}

/// The same with a stream on each gateway: the last byte of the room, and when it came.
async fn granted_and_taken_from_streams(stack: &Stack, user: &str) -> anyhow::Result<Duration> {
    let token = token(stack, user, &["user"]);
    let mut streams = Vec::new();
    for gateway in stack.gateways() {
        streams.push(Stream::follow(&gateway, &token, &["lobby"], None).await?);
    }
    let grant = json!({ "user": user, "role": "staff" });
    let entry = admin(stack, "POST", "/admin/v1/grants", grant).await?;
    for stream in &mut streams {
        stream
            .until("an event of the new room", PATIENCE, is_event_of("bookings"))
            .await?;
    }
    let key = entry["key"].as_str().context("a key")?.to_owned();
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    let taken = Instant::now();
    let mut ends = Vec::new();
    for stream in &mut streams {
        let closed = |frame: &Value| frame["unsubscribed"]["room"] == "bookings";
        stream.until("the room is lost", PATIENCE, closed).await?;
        ends.push(taken.elapsed());
    }
    for stream in &mut streams {
        let before = stream.raw.len();
        // The room's traffic goes on, and so does that of the room that is left.
        for _ in 0..20 {
            stream
                .until("the other room", PATIENCE, is_event_of("lobby"))
                .await?;
        }
        let after = &stream.raw[before..];
        ensure!(
            !after.contains("traffic in bookings"),
            "after the room was closed: {after}"
        );
    }
    say(&format!(
        "    a role taken away, streams: the room is closed and silent after {:?} on one gateway, {:?} on the other",
        ends[0], ends[1]
    ));
    Ok(ends[0].max(ends[1]))
}

/// Of a room that stays open, the values that were for the role that is taken away are withdrawn, and what holds without them is shown.
async fn values_of_a_role_taken_away(stack: &Stack) -> anyhow::Result<()> {
    let user = "demoted";
    let publisher = desk(stack);
    let publish = async |key: &str, audience: &str, value: u32| {
        let event = json!({
            "room": "lobby", "type": "t", "delivery": "state", "statekey": key, "audience": audience, "data": { "value": value },
        });
        let answer = stack.publish(0, &publisher, &event).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        anyhow::Ok(())
    };
    publish("taken/all", "all", 1).await?;
    publish("taken/both", "all", 2).await?;
    publish("taken/both", "staff", 3).await?;
    publish("taken/staff", "staff", 4).await?;
    let (key, token) = granted(stack, user, "staff").await?;
    let (mut client, _) = Client::connect(&stack.gateways()[0], &token, &["lobby"], &HashMap::new()).await?;
    let shown = |frames: &[Value]| {
        let events = frames.iter().map(|frame| &frame["event"]["event"]);
        let events = events.filter(|event| {
            event["statekey"]
                .as_str()
                .is_some_and(|key| key.starts_with("taken/"))
        });
        let mut shown: Vec<String> = events
            .map(|event| match event["withdrawn"].as_bool() {
                Some(true) => format!("{} gone", event["statekey"].as_str().unwrap_or_default()),
                _ => format!(
                    "{} {}",
                    event["statekey"].as_str().unwrap_or_default(),
                    event["data"]["value"]
                ),
            })
            .collect();
        shown.sort();
        shown
    };
    let first = client.caught_up("lobby").await?;
    ensure!(
        shown(&first) == ["taken/all 1", "taken/both 3", "taken/staff 4"],
        "{:?}",
        shown(&first)
    );
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    let gone = |frame: &Value| frame["event"]["event"]["withdrawn"] == true;
    let after = client.until("a value is withdrawn", PATIENCE, gone).await?;
    ensure!(
        shown(&after) == ["taken/all 1", "taken/both 2", "taken/staff gone"],
        "{:?}",
        shown(&after)
    );
    Ok(())
}

/// Bytes of one event's filling in the room that is lost, and how much of it must wait in the gateway.
const FILLING: usize = 16 * 1024;
const WAITS: f64 = 400_000.0;

/// What waits for a client that reads slowly when it loses the room is never sent: it is told to come back, or cut off in the middle of a frame.
async fn waiting_bytes_are_not_sent(stack: &Stack) -> anyhow::Result<()> {
    let user = "dozes";
    let grant = json!({ "user": user, "role": "owner" });
    let entry = admin(stack, "POST", "/admin/v1/grants", grant).await?;
    let claims = json!({ "property_ids": ["dozing"] });
    let token = stack.signer.token_with(user, &["user"], 3600, &claims);
    let mut client = Client::open_narrow(&stack.gateways()[0]).await?;
    let begun = async || {
        let url = format!("{}/v1/state?room=property.dozing", stack.gateways()[0]);
        Ok(stack.http.get(&url, Some(&token)).await?.status)
    };
    wait_for("granted", 200, begun).await?;
    client
        .begin(&token, &["property.dozing"], &HashMap::new())
        .await?;
    client.caught_up("property.dozing").await?;
    let waiting = async || metric(stack, "gateway", 0, "roomcast_gateway_outbox_bytes").await;
    let publisher = stack.signer.token_with("desk", &["desk"], 3600, &claims);
    let filling = "x".repeat(FILLING);
    let (mut sent, begun) = (0_u32, Instant::now());
    while waiting().await? < WAITS {
        ensure!(begun.elapsed() < PATIENCE, "{sent} events fill nothing");
        let event = json!({ "id": format!("doze-{sent}"), "room": "property.dozing", "type": "t", "data": { "filling": filling } });
        let answer = stack.publish(0, &publisher, &event).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        sent += 1;
    }
    let waits = waiting().await?;
    let key = entry["key"].as_str().context("a key")?.to_owned();
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    wait_for("what waits is dropped", true, async || {
        Ok(waiting().await? < FILLING as f64 * 2.0)
    })
    .await?;
    let mut read = 0_u32;
    let mut last = Value::Null;
    while let Some(frame) = client.next(PATIENCE).await? {
        read += u32::from(frame["event"]["room"] == "property.dozing");
        last = frame;
    }
    let code = client.closed.as_ref().map(|(code, _)| *code);
    let told = last["disconnect"]["code"] == 4005 && code == Some(4005);
    // Half a frame was out: nothing can be said behind it.
    let cut = code == Some(1006) && last["disconnect"].is_null();
    ensure!(told || cut, "{:?} after {last}", client.closed);
    // A frame is a little longer than its filling.
    let dropped = (waits / (FILLING as f64 + 1_024.0)).floor();
    ensure!(
        dropped >= 10.0 && f64::from(read) + dropped <= f64::from(sent),
        "{read} of {sent} came, {dropped} waited"
    );
    say(&format!(
        "    a right lost with {waits} bytes waiting: {read} of {sent} events had left, the other {} never did; {}",
        sent - read,
        if told { "told 4005" } else { "cut off in a frame" }
    ));
    Ok(())
}

/// A revocation ends every connection of a user, and lets none begin; how long it took until the last one had ended.
async fn revoked(stack: &Stack, user: &str, body: Value) -> anyhow::Result<Duration> {
    let mut clients = both(stack, user, &["staff"], &["lobby"]).await?;
    let held = token(stack, user, &["staff"]);
    let mut stream = Stream::follow(&stack.gateways()[0], &held, &["lobby"], None).await?;
    let poll = HeldPoll::begin(stack, &token(stack, user, &["user"]), &["floor"]).await?;
    admin(stack, "POST", "/admin/v1/revocations", body).await?;
    let revoked = Instant::now();
    let [one, two] = &mut clients;
    let streaming = async {
        ends_with(&mut stream, 4501).await?;
        anyhow::Ok(revoked.elapsed())
    };
    let (one, two, streamed, (polled, status, said)) = tokio::try_join!(
        end_of(one, revoked),
        end_of(two, revoked),
        streaming,
        poll.answered(revoked)
    )?;
    ensure!(
        status == 401 && said["code"] == "unauthenticated",
        "{user}: {status} {said}"
    );
    for (after, code) in [one, two] {
        ensure!(code == 4501, "{user}: {code} after {after:?}");
    }
    say(&format!(
        "    {user}: closed with 4501 after {:?} on one gateway, {:?} on the other, a stream after {streamed:?}, a held poll answered 401 after {polled:?}",
        one.0, two.0
    ));
    let token = token(stack, user, &["staff"]);
    for gateway in stack.gateways() {
        let mut back = Client::open(&gateway).await?;
        ensure!(
            back.begin(&token, &[], &HashMap::new()).await.is_err(),
            "{user} came back"
        );
        let (_, code) = end_of(&mut back, Instant::now()).await?;
        ensure!(code == 4501, "{user}: {code}");
        for path in READS {
            let answer = stack.http.get(&format!("{gateway}{path}"), Some(&token)).await?;
            ensure!(answer.status == 401, "{user} {path}: {}", answer.text());
        }
    }
    let answer = stack
        .publish(0, &token, &json!({ "room": "lobby", "type": "t", "data": 1 }))
        .await?;
    ensure!(answer.status == 401, "{user}: {}", answer.text());
    Ok(one.0.max(two.0).max(streamed).max(polled))
}

/// A kick ends every connection of a user, who may come back; how long it took until the last one had ended.
async fn kicked(stack: &Stack, user: &str) -> anyhow::Result<Duration> {
    let mut clients = both(stack, user, &["staff"], &["lobby"]).await?;
    let held = token(stack, user, &["staff"]);
    let mut stream = Stream::follow(&stack.gateways()[1], &held, &["lobby"], None).await?;
    admin(stack, "POST", "/admin/v1/kicks", json!({ "user": user })).await?;
    let kicked = Instant::now();
    let [one, two] = &mut clients;
    let (one, two, streamed) = tokio::try_join!(end_of(one, kicked), end_of(two, kicked), async {
        ends_with(&mut stream, 4007).await?;
        anyhow::Ok(kicked.elapsed())
    })?;
    for (_, code) in [one, two] {
        ensure!(code == 4007, "{code}");
    }
    both(stack, user, &["staff"], &["lobby"])
        .await
        .context("who was kicked may come back")?;
    say(&format!(
        "    kicked: closed with 4007 after {:?} on one gateway, {:?} on the other, a stream after {streamed:?}; and back",
        one.0, two.0
    ));
    Ok(one.0.max(two.0).max(streamed))
}

pub(super) async fn grants_and_revocations(stack: &Stack) -> anyhow::Result<()> {
    in_time("a role taken away", async |again| {
        granted_and_taken(stack, &format!("climber{again}")).await
    })
    .await?;
    in_time("a role taken away from streams", async |again| {
        granted_and_taken_from_streams(stack, &format!("streamer{again}")).await
    })
    .await?;
    values_of_a_role_taken_away(stack).await?;
    waiting_bytes_are_not_sent(stack).await?;
    in_time("a user revoked", async |again| {
        let user = format!("banned{again}");
        revoked(stack, &user, json!({ "user": user })).await
    })
    .await?;
    in_time("a token revoked", async |again| {
        let user = format!("stolen{again}");
        revoked(stack, &user, json!({ "token": format!("token-of-{user}") })).await
    })
    .await?;
    in_time("older tokens revoked", async |again| {
        let user = format!("older{again}");
        let before = roomcast_harness::token::now() - 30;
        revoked(stack, &user, json!({ "user": user, "issuedBefore": before })).await
    })
    .await?;
    in_time("kicked", async |again| {
        kicked(stack, &format!("kicked{again}")).await
    })
    .await
}
