//! `roomcast tenant reload`: every server reads its configuration again, and shows that it routes what a tenant publishes.
//!
//! A server (2.15.1) that reads of an account for the first time makes the account and its imports, but no subscriptions for them: on a
//! reload it renews those of accounts that it knew before (`configureAccounts` in its `server.go`). So the account can connect, and its
//! publishers are told that nobody is there, until the file is read once more. Here that is seen, and done.

use std::time::Duration;

use async_nats::{Client, Request};
use clap::Args;
use roomcast_chassis::process::Failure;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{TENANT_PROBES, server_question};
use serde::Deserialize;
use serde_json::json;

use crate::streams;
use crate::terminal::print;

/// Time for one question to a server; reading a configuration with many accounts is the longest.
const ANSWER: Duration = Duration::from_secs(10);

/// Which servers, and whose account they must route.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// A tenant that was added: each server has to route what its users publish.
    tenant: Option<String>,
    /// Addresses of all nodes, separated by commas: each is asked by itself.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
}

/// What a server says about itself.
#[derive(Deserialize)]
struct Said<T> {
    data: Option<T>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    description: String,
}

#[derive(Deserialize)]
struct Subscriptions {
    total: u64,
}

#[derive(Deserialize)]
struct Accounts {
    #[serde(default)]
    accounts: Vec<String>,
}

/// Asks one server after the other, so that never all of them read at once.
///
/// # Errors
/// 69: a server cannot be reached or asked, refuses its configuration, or has none with the tenant; the servers before it have read.
pub(super) async fn run(options: &Reload) -> Result<(), Failure> {
    let tenant = options.tenant.as_deref().map(super::tenant).transpose()?;
    for url in options.nats.split(',').map(str::trim) {
        let server = Server::connect(url).await?;
        server.reload().await?;
        if let Some(tenant) = &tenant {
            server.until_routed(tenant).await?;
        }
        let done = tenant.as_ref().map_or_else(
            || "has read its configuration".to_owned(),
            |tenant| format!("routes what {tenant} publishes"),
        );
        print(&format!("{url}: {done}"));
    }
    Ok(())
}

struct Server<'a> {
    url: &'a str,
    client: Client,
    id: String,
}

impl<'a> Server<'a> {
    async fn connect(url: &'a str) -> Result<Self, Failure> {
        let client = streams::connect_from_environment(url).await?;
        let id = client.server_info().server_id;
        Ok(Self { url, client, id })
    }

    /// Asks the server that this connection leads to.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        question: &serde_json::Value,
    ) -> Result<Option<T>, Failure> {
        let failed =
            |why: &dyn std::fmt::Display| Failure::unavailable(format!("NATS at {}: {why}", self.url));
        let subject = server_question(&self.id, what);
        let request = Request::new()
            .payload(question.to_string().into())
            .timeout(Some(ANSWER));
        let answer = self.client.send_request(subject, request).await.map_err(|error| {
            failed(&format!(
                "{error}; it answers users of the account SYS alone: set ROOMCAST_NATS_USER and ROOMCAST_NATS_PASSWORD"
            ))
        })?;
        let said: Said<T> = serde_json::from_slice(&answer.payload).map_err(|error| failed(&error))?;
        match said.error {
            Some(complaint) => Err(failed(&complaint.description)),
            None => Ok(said.data),
        }
    }

    async fn reload(&self) -> Result<(), Failure> {
        let _: Option<serde_json::Value> = self.ask("RELOAD", &json!({})).await?;
        Ok(())
    }

    async fn until_routed(&self, tenant: &Tenant) -> Result<(), Failure> {
        let wrong = |why: String| Err(Failure::unavailable(format!("NATS at {}: {why}", self.url)));
        let known: Option<Accounts> = self.ask("ACCOUNTZ", &json!({})).await?;
        if !known.is_some_and(|known| known.accounts.iter().any(|name| name == tenant.as_str())) {
            return wrong(format!(
                "its configuration has no account {tenant}: give it the one that `roomcast tenant add` has written, and run this again"
            ));
        }
        if self.routes(tenant).await? {
            return Ok(());
        }
        self.reload().await?;
        if self.routes(tenant).await? {
            return Ok(());
        }
        wrong(format!(
            "does not route what {tenant} publishes, also after it has read its configuration twice; restart it"
        ))
    }

    async fn routes(&self, tenant: &Tenant) -> Result<bool, Failure> {
        for subject in TENANT_PROBES {
            let question = json!({ "account": tenant.as_str(), "subscriptions": true, "test": subject });
            let found: Option<Subscriptions> = self.ask("SUBSZ", &question).await?;
            if found.is_none_or(|found| found.total == 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
