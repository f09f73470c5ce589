//! Connections in the gateway's admin door: listed, looked at, put out.

use super::*;

/// Names of all connections that a query means, page after page.
async fn pages(stack: &Stack, query: &str, limit: usize) -> anyhow::Result<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/admin/v1/connections?{query}&limit={limit}{after}");
        let page = asked(stack, "gateway", &path).await?;
        let list = page["connections"].as_array().cloned().unwrap_or_default();
        ensure!(list.len() <= limit, "{page}");
        names.extend(
            list.iter()
                .filter_map(|one| Some(one["connection"].as_str()?.to_owned())),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(names),
        }
    }
}

#[test]
fn connections_are_listed_whole_whoever_comes_and_goes() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let connect = async |user: &str, role: &str, rooms: &[&str]| {
            let token = stack.signer.token(user, &[role]);
            Client::connect(gateway, &token, rooms, &HashMap::new()).await
        };
        let mut stay = Vec::new();
        for _ in 0..7 {
            stay.push(connect("listed", "staff", &["lobby"]).await?);
        }
        let names: BTreeSet<String> = stay
            .iter()
            .map(|(_, connected)| connected["connection"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure!(names.len() == 7);
        let (going, _) = connect("listed-too", "user", &[]).await?;
        for (query, limit) in [
            ("user=listed", 1),
            ("user=listed", 3),
            ("user=listed", 100),
            ("user=listed&slow=false", 3),
            ("user=listed&tenant=main&room=lobby&transport=websocket.json", 2),
        ] {
            let found = pages(stack, query, limit).await?;
            ensure!(found.len() == 7, "{query}: {found:?}");
            ensure!(found.into_iter().collect::<BTreeSet<_>>() == names, "{query}");
        }
        for query in [
            "user=nobody",
            "user=listed&tenant=acme",
            "user=listed&room=vault",
            "user=listed&transport=websocket.protobuf",
            "user=listed&slow=true",
        ] {
            ensure!(pages(stack, query, 10).await?.is_empty(), "{query}");
        }
        // Between two pages one goes and others come: who stays is seen once.
        let first = asked(stack, "gateway", "/admin/v1/connections?limit=3").await?;
        drop(going);
        let (_come, _) = connect("listed-three", "user", &[]).await?;
        let mut seen: Vec<String> = Vec::new();
        let mut page = first;
        loop {
            let list = page["connections"].as_array().cloned().unwrap_or_default();
            seen.extend(
                list.iter()
                    .filter_map(|one| Some(one["connection"].as_str()?.to_owned())),
            );
            let Some(next) = page["next"].as_str() else { break };
            page = asked(
                stack,
                "gateway",
                &format!("/admin/v1/connections?limit=3&after={next}"),
            )
            .await?;
        }
        let unique: BTreeSet<String> = seen.iter().cloned().collect();
        ensure!(unique.len() == seen.len() && names.is_subset(&unique), "{seen:?}");
        Ok(())
    });
}

#[test]
fn who_does_not_read_is_found() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("reads-nothing", &["user"]);
        let mut client = Client::open_narrow(gateway).await?;
        client.begin(&token, &[], &HashMap::new()).await?;
        let query = "user=reads-nothing&slow=true";
        ensure!(pages(stack, query, 10).await?.is_empty());
        // Less than an outbox holds, more than a socket does.
        let publisher = stack.signer.token("p", &["desk"]);
        let event = json!({ "type": "large", "users": "reads-nothing", "data": "x".repeat(40_000) });
        for _ in 0..20 {
            ensure!(stack.publish(0, &publisher, &event).await?.status == 200);
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let found = loop {
            let path = format!("/admin/v1/connections?{query}");
            let found = asked(stack, "gateway", &path).await?["connections"][0].clone();
            if found.is_object() || std::time::Instant::now() > deadline {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        ensure!(found["waitingBytes"].as_u64() >= Some(1), "{found}");
        ensure!(found["user"]["user"] == "reads-nothing", "{found}");
        let others = pages(stack, "user=reads-nothing&slow=false", 10).await?;
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    });
}

#[test]
fn a_connection_is_shown_put_out_of_a_room_and_ended() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("shown", &["staff"]);
        let (mut client, connected) = Client::connect(gateway, &token, &["lobby"], &HashMap::new()).await?;
        client.caught_up("lobby").await?;
        let name = connected["connection"].as_str().unwrap_or_default();
        let one = format!("/admin/v1/connections/{name}");
        let shown = asked(stack, "gateway", &one).await?;
        ensure!(
            shown["user"]["user"] == "shown" && shown["user"]["roles"] == json!(["staff"]),
            "{shown}"
        );
        ensure!(
            shown["transport"] == "websocket.json" && shown["address"] == "127.0.0.1",
            "{shown}"
        );
        let open = shown["open"].as_array().cloned().unwrap_or_default();
        let lobby = json!({ "room": "lobby", "requested": true, "recovering": false });
        ensure!(open.contains(&lobby), "{shown}");
        ensure!(
            open.iter()
                .any(|room| room["room"] == "notifications" && room["requested"] == false),
            "{shown}"
        );

        let out = stack
            .admin("gateway", 0, "DELETE", &format!("{one}/rooms/lobby"), None)
            .await?;
        ensure!(out.status == 200, "{}", out.text());
        let told = client
            .until("unsubscribed", Duration::from_secs(10), |frame| {
                frame.get("unsubscribed").is_some()
            })
            .await?;
        let told = told.last().cloned().unwrap_or_default();
        ensure!(told["unsubscribed"]["room"] == "lobby", "{told:?}");
        let again = stack
            .admin("gateway", 0, "DELETE", &format!("{one}/rooms/lobby"), None)
            .await?;
        ensure!(again.status == 404, "{}", again.text());
        // Out is out: an event goes by. In again is in again.
        let publisher = stack.signer.token("p", &["desk"]);
        let event = |n: u32| json!({ "type": "shown", "room": "lobby", "data": { "n": n } });
        let (mut other, _) = Client::connect(
            gateway,
            &stack.signer.token("beside", &["staff"]),
            &["lobby"],
            &HashMap::new(),
        )
        .await?;
        other.caught_up("lobby").await?;
        ensure!(stack.publish(0, &publisher, &event(1)).await?.status == 200);
        // What is subscribed to before the gateway has it would get it.
        other
            .until("the first, beside", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["data"]["n"] == 1
            })
            .await?;
        let back = client.request("subscribe", json!({ "room": "lobby" })).await?;
        ensure!(back.get("subscribed").is_some(), "{back:?}");
        ensure!(stack.publish(0, &publisher, &event(2)).await?.status == 200);
        client
            .until("the second", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["data"]["n"] == 2
            })
            .await?;
        ensure!(
            !client
                .raw
                .iter()
                .any(|text| text.contains("\"shown\"") && text.contains("\"n\":1"))
        );

        let ended = stack
            .admin("gateway", 0, "DELETE", &format!("{one}?reason=revoked"), None)
            .await?;
        ensure!(
            ended.status == 200 && ended.json()["code"] == 4501,
            "{}",
            ended.text()
        );
        while client.next(Duration::from_secs(10)).await?.is_some() {}
        ensure!(
            client.closed == Some((4501, "revoked".to_owned())),
            "{:?}",
            client.closed
        );
        let gone = stack.admin("gateway", 0, "GET", &one, None).await?;
        ensure!(gone.status == 404, "{}", gone.text());
        Ok(())
    });
}
