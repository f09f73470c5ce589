//! The one place that creates streams and buckets, and compares those that are there with what they must be.

use std::time::Duration;

use clap::{Args, Subcommand};
use roomcast_chassis::jetstream::{ApiError, JetStream};
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::{API_IN_CORE, inbox_prefix};
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::{Sizing, definitions, differences, queue};
use roomcast_proto::subject::queue_stream;

use crate::terminal::{Colour, Stream, print};

/// Creating a stream on three nodes elects a leader first.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates and verifies the streams and buckets on a NATS server.
///
/// Connects as the administrator of account CORE: ROOMCAST_NATS_USER and ROOMCAST_NATS_PASSWORD in the environment.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    ROOMCAST_NATS_USER=admin ROOMCAST_NATS_PASSWORD=… roomcast streams apply --nats nats://127.0.0.1:4222 --replicas 3 --queue main/erp")]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Create what is missing and verify the rest; what differs is named and left alone.
    Apply(Target),
    /// Verify only.
    Verify(Target),
}

#[derive(Args, Debug)]
struct Target {
    /// Address of NATS; several of one cluster separated by commas.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Copies of everything: 3, or 1 on one machine.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3))]
    replicas: u32,
    /// A publisher that has a queue (inq.), as in the NATS configuration; may be given several times.
    #[arg(long = "queue", value_name = "TENANT/PUBLISHER", value_parser = queue_owner)]
    queues: Vec<QueueOwner>,
}

/// Whose queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueOwner {
    pub(crate) tenant: Tenant,
    pub(crate) publisher: String,
}

fn queue_owner(text: &str) -> Result<QueueOwner, String> {
    let (tenant, publisher) = text
        .split_once('/')
        .ok_or("a tenant and one of its publishers, like main/erp")?;
    let tenant = Tenant::parse(tenant).map_err(|bad| bad.to_string())?;
    if queue_stream(&tenant, publisher).is_none() {
        return Err("the publisher's name is one token of letters, digits, - or _".to_owned());
    }
    Ok(QueueOwner {
        tenant,
        publisher: publisher.to_owned(),
    })
}

/// What became of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Created,
    Present,
}

/// Why streams are not as they must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Some differ or are missing; every difference is named. Waiting does not help.
    #[error("streams are not as they must be; change them with an administrator's tool, or start with an empty store:\n  {}", .0.join("\n  "))]
    Differ(Vec<String>),
    /// The server does not answer, or not yet.
    #[error("{0}")]
    Unanswered(String),
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        Self::unavailable(error)
    }
}

/// Runs the command.
///
/// # Errors
/// 69: NATS cannot be used, or a stream differs or is missing.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let (target, create) = match options.action {
        Action::Apply(target) => (target, true),
        Action::Verify(target) => (target, false),
    };
    let client = connect_from_environment(&target.nats).await?;
    let sizing = Sizing {
        replicas: target.replicas,
        ..if target.replicas == 1 {
            Sizing::DEVELOPMENT
        } else {
            Sizing::PRODUCTION
        }
    };
    for (name, outcome) in apply(&client, &sizing, &target.queues, create).await? {
        let word = match outcome {
            Outcome::Created => Stream::Out.paint(Colour::Green, "created"),
            Outcome::Present => Stream::Out.paint(Colour::Dim, "present"),
        };
        print(&format!("{word} {name}"));
    }
    Ok(())
}

/// Connects as the administrator that the environment names, once.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_from_environment(url: &str) -> Result<async_nats::Client, Failure> {
    let secret = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let login = secret("ROOMCAST_NATS_USER").zip(secret("ROOMCAST_NATS_PASSWORD"));
    let login = login.as_ref();
    connect(
        url,
        login.map(|(user, password)| (user.as_str(), password.as_str())),
    )
    .await
}

/// Connects as an administrator, once; with the certificate of `ROOMCAST_NATS_CERT_FILE` and `ROOMCAST_NATS_KEY_FILE`, where both are
/// set, as the services do.
///
/// # Errors
/// 69 with the address and the reason.
pub(crate) async fn connect(url: &str, login: Option<(&str, &str)>) -> Result<async_nats::Client, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::unavailable(format!("NATS at {url}: {error}"));
    let addresses: Vec<async_nats::ServerAddr> = url
        .split(',')
        .map(|one| one.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))?;
    let options = async_nats::ConnectOptions::new()
        .name("roomcast")
        .connection_timeout(CALL_TIMEOUT);
    let options = match login {
        Some((user, password)) => options
            .user_and_password(user.to_owned(), password.to_owned())
            .custom_inbox_prefix(inbox_prefix(user)),
        None => options,
    };
    let file = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let options = match (file("ROOMCAST_NATS_CERT_FILE"), file("ROOMCAST_NATS_KEY_FILE")) {
        (Some(certificate), Some(key)) => options.add_client_certificate(certificate, key),
        _ => options,
    };
    options
        .connect(&addresses[..])
        .await
        .map_err(|error| unusable(&error))
}

/// Creates what is missing (or, without `create`, calls that a difference) and verifies all of it.
///
/// # Errors
/// [`ApplyError`].
pub(crate) async fn apply(
    client: &async_nats::Client,
    sizing: &Sizing,
    queues: &[QueueOwner],
    create: bool,
) -> Result<Vec<(String, Outcome)>, ApplyError> {
    let jetstream = JetStream::new(client.clone(), API_IN_CORE).with_timeout(CALL_TIMEOUT);
    let mut outcomes = Vec::new();
    let mut wrong = Vec::new();
    let of_owner = |owner: &QueueOwner| queue(sizing, &owner.tenant, &owner.publisher);
    let wanted = definitions(sizing)
        .into_iter()
        .map(|definition| definition.config)
        .chain(queues.iter().filter_map(of_owner));
    for wanted in wanted {
        let name = wanted["name"].as_str().unwrap_or_default().to_owned();
        let failed = |error: ApiError| ApplyError::Unanswered(format!("stream {name}: {error}"));
        let (config, outcome) = match jetstream.stream_info(&name).await.map_err(failed)? {
            Some(found) => (found.config, Outcome::Present),
            None if create => (
                jetstream.create_stream(&wanted).await.map_err(failed)?.config,
                Outcome::Created,
            ),
            None => {
                wrong.push(format!("{name} is missing"));
                continue;
            }
        };
        wrong.extend(described(&name, &wanted, &config));
        outcomes.push((name, outcome));
    }
    if wrong.is_empty() {
        Ok(outcomes)
    } else {
        Err(ApplyError::Differ(wrong))
    }
}

fn described(name: &str, wanted: &serde_json::Value, config: &serde_json::Value) -> Vec<String> {
    differences(wanted, config)
        .iter()
        .map(|difference| format!("{name}: {difference}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_their_stream() {
        let events = definitions(&Sizing::DEVELOPMENT).remove(0).config;
        assert_eq!(described("EVENTS", &events, &events), Vec::<String>::new());
        let mut other = events.clone();
        other["num_replicas"] = 3.into();
        assert_eq!(
            described("EVENTS", &events, &other),
            ["EVENTS: num_replicas is 3, must be 1"]
        );
    }

    #[test]
    fn queues_are_named_by_tenant_and_publisher() {
        let erp = QueueOwner {
            tenant: Tenant::default(),
            publisher: "erp".to_owned(),
        };
        assert_eq!(queue_owner("main/erp"), Ok(erp));
        for bad in ["erp", "main/", "/erp", "GW/erp", "main/a.b", "main/*", "main/a/b"] {
            assert!(queue_owner(bad).is_err(), "{bad}");
        }
    }
}
