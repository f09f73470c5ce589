//! Policies that change: tried, put in force, bad ones, in a file and in the bucket.

use super::*;

/// Text with one part of it replaced, which must be there.
fn replaced(text: &str, part: &str, by: &str) -> anyhow::Result<String> {
    ensure!(
        text.matches(part).count() == 1,
        "{part:?} stands once in the policy"
    );
    Ok(text.replace(part, by))
}

/// What is said about a policy before it is in force is what becomes of everybody afterwards; and nothing becomes of it.
async fn tried(stack: &Stack, policy: &str) -> anyhow::Result<()> {
    for gateway in [0, 1] {
        let ask = async |policy: &str| {
            let body = json!({ "policy": policy });
            let answer = stack
                .admin("gateway", gateway, "POST", "/admin/v1/policy/trial", Some(&body))
                .await?;
            ensure!(answer.status == 200, "{}", answer.text());
            anyhow::Ok(answer.json())
        };
        let outcome = ask(policy).await?;
        let of_clerk = |change: &&Value| change["user"] == "clerk";
        let change = outcome["changes"].as_array().into_iter().flatten().find(of_clerk);
        let change = change.with_context(|| format!("the clerk is listed: {outcome}"))?;
        ensure!(
            change["loses"] == json!([{ "room": "bookings", "closed": true }])
                // Another room asks for the same permission and does not open by itself.
                && change["gains"] == json!([{ "room": "vault", "opened": true }, { "room": "doings", "opened": false }]),
            "{change}"
        );
        let broken = ask(&policy[..policy.len() / 2]).await?;
        ensure!(
            broken["mistakes"][0]
                .as_str()
                .is_some_and(|mistake| mistake.starts_with("policy:")),
            "{broken}"
        );
    }
    say("    another policy, tried first: the clerk would lose bookings and gain vault");
    Ok(())
}

/// Puts a link to a file with this text in place of the policy, as a mounted ConfigMap does it.
fn linked(policy: &Path, text: &str, name: &str) -> anyhow::Result<()> {
    let (data, link) = (policy.with_extension(name), policy.with_extension("link"));
    std::fs::write(&data, text)?;
    std::os::unix::fs::symlink(&data, &link)?;
    std::fs::rename(&link, policy)?;
    Ok(())
}

pub(super) async fn policies(stack: &Stack, file: &Path) -> anyhow::Result<()> {
    let good = std::fs::read_to_string(file)?;
    let mut clients = both(stack, "clerk", &["staff"], &["lobby"]).await?;
    let everywhere = [("gateway", 0), ("gateway", 1), ("ingest", 0)];
    // Half a file, as an editor leaves it behind that dies.
    std::fs::write(file, &good[..good.len() / 2])?;
    for (service, index) in everywhere {
        wait_for("the broken policy is seen", 1.0, async || {
            metric(stack, service, index, "roomcast_policy_broken").await
        })
        .await?;
    }
    for client in &mut clients {
        first(
            client,
            Instant::now(),
            "an event under the old policy",
            is_event_of("bookings"),
        )
        .await?;
    }
    say("    a broken policy: counted on all services, the one before stays in force");

    // Another one by a link that is put in place of the old one.
    let other = replaced(
        &good,
        "[dashboard.view, bookings.view,",
        "[dashboard.view, vault.view,",
    )?;
    let (vault, opened) = (
        "subscribe: vault.view,         publish: events.publish",
        "subscribe: vault.view, publish: events.publish, auto_join: true",
    );
    let other = replaced(&other, vault, opened)?;
    let other = replaced(
        &other,
        "{ inherits: [staff], permissions: [",
        "{ inherits: [staff], permissions: [bookings.view, ",
    )?;
    tried(stack, &other).await?;
    in_time("another policy file", async |again| {
        if !again.is_empty() {
            linked(file, &good, "good")?;
            for client in &mut clients {
                let what = "the room is open again";
                first(client, Instant::now(), what, is_event_of("bookings")).await?;
            }
        }
        linked(file, &other, &format!("data{again}"))?;
        both_lose(&mut clients, Instant::now(), "bookings", "another policy file").await
    })
    .await?;
    for client in &mut clients {
        first(
            client,
            Instant::now(),
            "an event of the room that opened",
            is_event_of("vault"),
        )
        .await?;
    }
    // The bucket takes the file's place, and gives it back.
    let nats = stack.nats_admin().await;
    let hash = async |index| metric(stack, "gateway", index, "roomcast_policy_hash").await;
    let of_file = hash(0).await?;
    nats.publish("$KV.cfg.policy", good.clone().into()).await?;
    for (service, index) in everywhere {
        wait_for("the bucket's policy is in force", 1.0, async || {
            metric(stack, service, index, "roomcast_policy_from_cfg").await
        })
        .await?;
    }
    let of_bucket = metric(stack, "ingest", 0, "roomcast_policy_hash").await?;
    ensure!(of_bucket != of_file, "another policy");
    for index in [0, 1] {
        wait_for("the same policy everywhere", of_bucket, async || {
            hash(index).await
        })
        .await?;
    }
    let mut gone = async_nats::HeaderMap::new();
    gone.insert("KV-Operation", "DEL");
    nats.publish_with_headers("$KV.cfg.policy", gone, "".into())
        .await?;
    for index in [0, 1] {
        wait_for("the file is in force again", of_file, async || hash(index).await).await?;
    }
    say("    the cfg bucket took the file's place and gave it back");
    Ok(())
}
