//! Waits until what was started is ready, and no longer than it makes sense to.

use std::future::Future;
use std::time::{Duration, Instant};

use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::User;
use roomcast_proto::stream::Sizing;

use super::child::Spec;
use super::family::Family;
use crate::duration::shown;
use crate::http::Http;
use crate::streams::{self, ApplyError, Outcome, QueueOwner};
use crate::terminal::{Colour, Stream, harmless, say};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// When somebody who waits wants to know why.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// After this nobody believes in it any more. A gateway with a full ring to warm takes 5 s, on a busy machine several times that.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// One line per step: what, where, how long it took.
pub(super) fn step(what: &str, detail: &str, since: Instant) {
    let tick = Stream::Error.paint(Colour::Green, "✓");
    let took = Stream::Error.paint(Colour::Dim, &shown(since.elapsed()));
    say(&format!("{tick} {what:<24} {detail:<44} {took}"));
}

/// Waits for something, unless a process dies first: then nothing else counts.
///
/// # Errors
/// The something's own, or why the process died.
pub(crate) async fn unless_died<T>(
    family: &mut Family,
    waiting: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        // A death explains a failure, so it is looked at first.
        biased;
        died = family.died() => Err(died.failure()),
        outcome = waiting => outcome,
    }
}

/// Connects to NATS as soon as it listens.
///
/// # Errors
/// 69: not within [`GIVE_UP_AFTER`].
pub(crate) async fn nats(url: &str, admin: &User) -> Result<async_nats::Client, Failure> {
    let since = Instant::now();
    loop {
        match streams::connect(url, Some((&admin.name, &admin.password))).await {
            Ok(client) => return Ok(client),
            Err(failure) if since.elapsed() > GIVE_UP_AFTER => return Err(failure),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Creates and verifies the streams as soon as JetStream answers: three nodes choose a leader first.
///
/// # Errors
/// 69: they differ, or JetStream does not answer within [`GIVE_UP_AFTER`].
pub(crate) async fn streams(
    client: &async_nats::Client,
    sizing: &Sizing,
    queues: &[QueueOwner],
) -> Result<Vec<(String, Outcome)>, Failure> {
    let since = Instant::now();
    loop {
        match streams::apply(client, sizing, queues, true).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(ApplyError::Unanswered(_)) if since.elapsed() < GIVE_UP_AFTER => {
                tokio::time::sleep(LOOK_EVERY).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts the instances of a service and waits until each says that it is ready.
///
/// # Errors
/// One died, with its reason; or 69: one is not ready within [`GIVE_UP_AFTER`], with what it waits for.
pub(crate) async fn start(what: &str, family: &mut Family, specs: Vec<Spec>) -> Result<(), Failure> {
    let since = Instant::now();
    for spec in &specs {
        family.start(spec.clone())?;
    }
    for spec in &specs {
        unless_died(family, ready(spec, since)).await?;
        let public = setting(spec, "ROOMCAST_LISTEN").map(|address| format!("http://{address}, "));
        let admin = setting(spec, "ROOMCAST_ADMIN_LISTEN").unwrap_or_default();
        let name = if specs.len() == 1 {
            what.to_owned()
        } else {
            spec.name()
        };
        step(
            &name,
            &format!("{}admin {admin}", public.unwrap_or_default()),
            since,
        );
    }
    Ok(())
}

fn setting<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.environment
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
}

async fn ready(spec: &Spec, since: Instant) -> Result<(), Failure> {
    let http = Http::new(Duration::from_secs(1));
    let url = format!(
        "http://{}/readyz",
        setting(spec, "ROOMCAST_ADMIN_LISTEN").unwrap_or_default()
    );
    let mut said = String::new();
    loop {
        let why = match http.get(&url).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => harmless(String::from_utf8_lossy(&answer.body).trim()),
            Err(error) => error.to_string(),
        };
        if since.elapsed() > GIVE_UP_AFTER {
            let waited = GIVE_UP_AFTER.as_secs();
            return Err(Failure::unavailable(format!(
                "{} is not ready after {waited} s: {why}",
                spec.name()
            )));
        }
        if since.elapsed() > SAY_AFTER && said != why {
            say(&format!("  waiting for {}: {why}", spec.name()));
            said = why;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
