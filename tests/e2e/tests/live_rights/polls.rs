//! Held polls, which are answered when rights change.

use super::*;

/// A poll that a gateway holds, in rooms where nothing happens.
pub(super) struct HeldPoll(tokio::task::JoinHandle<anyhow::Result<(Instant, u16, Value)>>);

impl HeldPoll {
    /// Asks for what is there, then for more; comes back when that is held.
    pub(super) async fn begin(stack: &Stack, token: &str, rooms: &[&str]) -> anyhow::Result<Self> {
        let (gateway, http) = (stack.gateways()[1].clone(), stack.http.clone());
        let url = format!("{gateway}{}", path("poll", rooms, &[]));
        let first = http.get(&format!("{url}&wait=0"), Some(token)).await?.json();
        let cursor = first["cursor"].as_str().context("a cursor")?.to_owned();
        let polls = async || Ok(metric(stack, "gateway", 1, "roomcast_gateway_polls_held").await? >= 1.0);
        ensure!(!polls().await?, "another poll is held");
        let (url, token) = (format!("{url}&cursor={cursor}&wait=25"), token.to_owned());
        let held = tokio::spawn(async move {
            let answer = http.get(&url, Some(&token)).await?;
            Ok((Instant::now(), answer.status, answer.json()))
        });
        wait_for("the poll is held", true, polls).await?;
        Ok(Self(held))
    }

    /// How long after `start` it was answered, and how: long before its own time is over.
    pub(super) async fn answered(self, start: Instant) -> anyhow::Result<(Duration, u16, Value)> {
        let (at, status, said) = tokio::time::timeout(PATIENCE, self.0)
            .await
            .context("it is still held")???;
        Ok((at.saturating_duration_since(start), status, said))
    }
}

/// A held poll is answered when its rooms become others, with those it has now.
pub(super) async fn held_polls(stack: &Stack) -> anyhow::Result<()> {
    let claims = json!({ "property_ids": ["42"] });
    let token = stack.signer.token_with("tenant-of-42", &["user"], 3600, &claims);
    let owner = json!({ "user": "tenant-of-42", "role": "owner" });
    let room = |said: &Value, name: &str| {
        let rooms = said["rooms"].as_array().cloned().unwrap_or_default();
        rooms
            .into_iter()
            .find(|room| room["room"] == name)
            .unwrap_or_default()
    };

    let poll = HeldPoll::begin(stack, &token, &["floor", "property.42"]).await?;
    let entry = admin(stack, "POST", "/admin/v1/grants", owner).await?;
    let (after, status, said) = poll.answered(Instant::now()).await?;
    ensure!(
        status == 200 && room(&said, "property.42")["error"].is_null(),
        "{status} {said}"
    );
    say(&format!(
        "    a room gained: a held poll answered after {after:?}"
    ));

    let both = HeldPoll::begin(stack, &token, &["floor", "property.42"]).await?;
    let key = entry["key"].as_str().context("a key")?.to_owned();
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    let (after, status, said) = both.answered(Instant::now()).await?;
    ensure!(
        status == 200
            && room(&said, "property.42")["error"]["code"] == "forbidden"
            && room(&said, "floor")["recovery"] == "complete",
        "{status} {said}"
    );
    say(&format!(
        "    a room taken away: a held poll answered after {after:?}"
    ));

    // Nothing is left to follow.
    let owner = json!({ "user": "tenant-of-42", "role": "owner" });
    admin(stack, "POST", "/admin/v1/grants", owner).await?;
    let granted = async || {
        let url = format!("{}/v1/state?room=property.42", stack.gateways()[1]);
        Ok(stack.http.get(&url, Some(&token)).await?.status)
    };
    wait_for("granted again", 200, granted).await?;
    let alone = HeldPoll::begin(stack, &token, &["property.42"]).await?;
    admin(stack, "DELETE", &format!("/admin/v1/acl/{key}"), json!(null)).await?;
    let (_, status, said) = alone.answered(Instant::now()).await?;
    ensure!(status == 403 && said["code"] == "forbidden", "{status} {said}");
    Ok(())
}
