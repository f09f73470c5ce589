//! What administrators do and what users are refused, on record.

use super::*;

#[test]
fn what_is_logged_can_be_changed_and_who_did_it_is_on_record() {
    calm(async |stack| {
        for service in SERVICES {
            let before = stack
                .admin(service, 0, "GET", "/admin/v1/log", None)
                .await?
                .json();
            let quiet = json!({ "filter": "info,hyper=warn" });
            let changed = stack
                .admin(service, 0, "PUT", "/admin/v1/log", Some(&quiet))
                .await?;
            ensure!(
                changed.status == 200 && changed.json() == quiet,
                "{}",
                changed.text()
            );
            let back = stack
                .admin(service, 0, "PUT", "/admin/v1/log", Some(&before))
                .await?;
            ensure!(back.json() == before, "{}", back.text());
            let mine = |entry: &Value| {
                entry["call"]["method"] == "PUT"
                    && entry["who"]["subject"] == "operator"
                    && entry["note"] == json!({ "from": before["filter"], "to": quiet["filter"] })
            };
            let mut entries = Vec::new();
            for _ in 0..100 {
                entries = stack.audit().await?;
                if entries.iter().any(|(_, entry)| mine(entry)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ensure!(
                entries.iter().any(|(_, entry)| mine(entry)),
                "{service}: {entries:?}"
            );
            let token = stack.dev_env("ROOMCAST_ADMIN_TOKEN");
            let secret = token.rsplit_once('.').map_or("", |(_, signature)| signature);
            ensure!(
                secret.len() > 40
                    && entries
                        .iter()
                        .all(|(_, entry)| !entry.to_string().contains(secret))
            );
        }
        Ok(())
    });
}

/// A silence is made at one aggregator, seen and ended at another, and both are on record with who, what and why.
#[test]
fn silences_are_those_of_all_aggregators_and_on_record() {
    calm(async |stack| {
        let call = async |index: usize, method: &str, path: &str, body: Option<&Value>| {
            let path = format!("/admin/v1/silences{path}");
            stack.admin("aggregator", index, method, &path, body).await
        };
        let until = "2099-01-01T00:00:00Z";
        for (body, code) in [
            (
                json!({ "until": "2020-01-01T00:00:00Z", "reason": "late" }),
                "bad_request",
            ),
            (json!({ "until": until, "reason": "far" }), "bad_request"),
            (
                json!({ "until": until, "reason": "no rule", "alert": "absent" }),
                "bad_request",
            ),
            (json!({ "until": until }), "bad_json"),
        ] {
            let refused = call(0, "POST", "", Some(&body)).await?;
            ensure!(refused.status == 400, "{body}: {}", refused.text());
            ensure!(refused.json()["code"] == code, "{body}: {}", refused.text());
        }
        let soon = std::time::SystemTime::now() + Duration::from_secs(3_600);
        let micros = soon.duration_since(std::time::UNIX_EPOCH)?.as_micros();
        let until = roomcast_proto::event::rfc3339(i64::try_from(micros)?);
        let made = call(
            0,
            "POST",
            "",
            Some(&json!({ "until": until, "reason": "we move house" })),
        )
        .await?;
        ensure!(made.status == 201, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap_or_default().to_owned();
        ensure!(
            made.json()["by"] == "operator" && !id.is_empty(),
            "{}",
            made.text()
        );
        let listed = call(1, "GET", "", None).await?;
        ensure!(
            listed.json()["silences"] == json!([made.json()]),
            "{}",
            listed.text()
        );
        ensure!(call(1, "DELETE", &format!("/{id}"), None).await?.status == 204);
        ensure!(call(0, "DELETE", &format!("/{id}"), None).await?.status == 404);
        let listed = call(0, "GET", "", None).await?;
        ensure!(listed.json()["silences"] == json!([]), "{}", listed.text());
        let recorded = |method: &str, entries: &[(u64, Value)]| {
            entries.iter().any(|(_, entry)| {
                entry["call"]["method"] == method
                    && entry["who"]["subject"] == "operator"
                    && entry["note"]["silence"] == id.as_str()
            })
        };
        for _ in 0..400 {
            let entries = stack.audit().await?;
            if recorded("POST", &entries) && recorded("DELETE", &entries) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the silence is not on record")
    });
}

/// What users ask for without the right to it is on record, once a minute, and before a gateway ends: over sockets and over HTTP.
#[test]
fn what_users_are_refused_is_on_record() {
    faulty(|stack| async move {
        let token = stack.signer.token("curious", &["user"]);
        let gateway = stack.gateways()[0].clone();
        let (mut client, _) =
            Client::connect(&gateway, &token, &["no.such.room"], &Default::default()).await?;
        for body in [json!({ "room": "no.such.room" }), json!({ "room": "a.secret" })] {
            let answer = client.request("subscribe", body).await?;
            ensure!(answer["error"]["code"] == "forbidden", "{answer}");
        }
        let publish = json!({ "room": "no.such.room", "type": "t", "data": 1 });
        let answer = client.request("publish", publish).await?;
        ensure!(answer["error"]["code"] == "forbidden", "{answer}");
        let url = format!("{gateway}/v1/rooms/no.such.room/events");
        ensure!(stack.http.get(&url, Some(&token)).await?.status == 403);
        stack.signal("gateway-1", "TERM");
        let counted = |entries: &[(u64, Value)], what: &str| {
            let refused = entries.iter().filter(|(_, entry)| entry["kind"] == "refused");
            let said = refused.flat_map(|(_, entry)| entry["note"]["refused"].as_array().cloned());
            let of = said
                .flatten()
                .filter(|one| one["what"] == what && one["user"] == "curious");
            of.filter_map(|one| one["count"].as_u64()).sum::<u64>()
        };
        let mut entries = Vec::new();
        for _ in 0..1_800 {
            entries = stack.audit().await?;
            if counted(&entries, "history") > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let found = ["subscribe", "publish", "history"].map(|what| counted(&entries, what));
        ensure!(found == [3, 1, 1], "{found:?} of {entries:?}");
        Ok(())
    });
}
