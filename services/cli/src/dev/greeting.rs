//! What is said about a running system: to people, to programs, and in `.roomcast/dev.env`.

use std::time::Instant;

use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::inbox_prefix;
use serde_json::json;

use super::family::Family;
use super::nats::Users;
use super::ready::step;
use super::system::System;
use crate::dev_env::{self, DevEnv, Written};
use crate::terminal::{Colour, Stream, print};
use crate::token::Claims;

impl System<'_> {
    pub(super) fn ingest(&self) -> String {
        self.ports
            .ingests
            .first()
            .map(|(port, _)| format!("http://127.0.0.1:{port}"))
            .unwrap_or_default()
    }

    pub(super) fn gateway(&self) -> String {
        self.ports
            .gateways
            .first()
            .map(|(port, _)| format!("http://127.0.0.1:{port}"))
            .unwrap_or_default()
    }

    pub(super) fn token(&self, subject: &str, role: &str) -> Result<String, Failure> {
        self.signer
            .sign(&self.claims(subject, role), jiff::Timestamp::now().as_second())
    }

    /// A token for the admin ports.
    pub(super) fn admin_token(&self, subject: &str) -> Result<String, Failure> {
        let mut claims = Claims::of(subject, "");
        claims.roles.clear();
        self.admin_signer
            .sign(&claims, jiff::Timestamp::now().as_second())
    }

    /// Addresses of all admin ports.
    fn admin_ports(&self) -> Vec<String> {
        let ports = &self.ports;
        let both = ports
            .gateways
            .iter()
            .chain(&ports.ingests)
            .map(|(_, admin)| admin);
        both.chain(&ports.aggregators)
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect()
    }

    /// The same by kind of service.
    pub(super) fn admin_by_kind(&self) -> serde_json::Value {
        let http = |port: &u16| format!("http://127.0.0.1:{port}");
        let admin = |pairs: &[(u16, u16)]| pairs.iter().map(|(_, admin)| http(admin)).collect::<Vec<_>>();
        let ports = &self.ports;
        let aggregators: Vec<String> = ports.aggregators.iter().map(http).collect();
        json!({ "ingest": admin(&ports.ingests), "aggregator": aggregators, "gateway": admin(&ports.gateways) })
    }

    /// A development user with the role our own scenarios know, or, under a policy that does not know it, with every role there is: a
    /// newcomer's first event is not to fail for a role's name.
    pub(super) fn claims(&self, subject: &str, role: &str) -> Claims {
        let mut claims = Claims::of(subject, role);
        if !self.roles.iter().any(|known| known == role) {
            claims.roles.clone_from(&self.roles);
        }
        claims.others.clone_from(&self.claims);
        claims
    }

    /// The page's address, signed in.
    pub(super) fn url(&self) -> Result<String, Failure> {
        Ok(format!(
            "{}/#token={}",
            self.gateway(),
            self.token("demo", "admin")?
        ))
    }

    /// What `.roomcast/dev.env` says, with new tokens.
    pub(super) fn env(&self) -> Result<DevEnv, Failure> {
        let publisher = &self.users.publisher;
        let mut env = DevEnv::default();
        env.set(dev_env::GATEWAY, self.gateway());
        env.set(dev_env::INGEST, self.ingest());
        env.set(dev_env::TOKEN, self.token("desk", "desk")?);
        env.set(dev_env::VIEWER_TOKEN, self.token("demo", "admin")?);
        env.set(dev_env::ADMIN, self.admin_ports().join(","));
        env.set(dev_env::ADMIN_TOKEN, self.admin_token("operator")?);
        env.set(dev_env::NATS, self.nats_url.clone());
        env.set(dev_env::NATS_USER, publisher.name.clone());
        env.set(dev_env::NATS_PASSWORD, publisher.password.clone());
        env.set(dev_env::NATS_INBOX, inbox_prefix(&publisher.name));
        let backend = &self.users.backend;
        env.set(dev_env::NATS_BACKEND_USER, backend.name.clone());
        env.set(dev_env::NATS_BACKEND_PASSWORD, backend.password.clone());
        let reader = &self.users.reader;
        env.set(dev_env::NATS_READER_USER, reader.name.clone());
        env.set(dev_env::NATS_READER_PASSWORD, reader.password.clone());
        Ok(env)
    }

    /// Says that all is ready: a line of JSON for programs, or what to do next for people.
    pub(super) fn announce(
        &self,
        family: &Family,
        written: &Written,
        (room, kind, audience): (&str, &str, &str),
        began: Instant,
    ) -> Result<(), Failure> {
        step("ready", "", began);
        if self.options.json {
            let line = self.ready_line(family, written)?;
            return if print(&line.to_string()) {
                Ok(())
            } else {
                Err(Failure::internal("nobody reads standard output"))
            };
        }
        let bold = |text: &str| Stream::Out.paint(Colour::Bold, text);
        print("");
        print(&format!(
            "{}  {}",
            bold("Open"),
            Stream::Out.paint(Colour::Cyan, &self.url()?)
        ));
        print(&format!(
            "      signed in as demo; addresses and credentials: {}",
            written.path().display()
        ));
        print(&format!(
            "{}  in a second terminal, from this folder:",
            bold("Then")
        ));
        let program = program();
        if self.options.scenario.is_some() {
            print("      clients/publish/shell/run.sh     (or python, node, go, java, rust, tcp)");
        } else {
            print(&format!(
                "      {program} publish --room {room} --audience {audience} --type {kind} --data '{{\"hello\":\"world\"}}'"
            ));
        }
        print(&format!("      {program} tail {room}"));
        print(&format!("{}  Ctrl-C", bold("End")));
        print("");
        Ok(())
    }

    pub(super) fn ready_line(
        &self,
        family: &Family,
        written: &Written,
    ) -> Result<serde_json::Value, Failure> {
        let http = |port: u16| format!("http://127.0.0.1:{port}");
        let first = |pairs: &[(u16, u16)]| pairs.iter().map(|(public, _)| http(*public)).collect::<Vec<_>>();
        let env_file = std::path::absolute(written.path()).unwrap_or_else(|_| written.path().to_owned());
        Ok(json!({
            "nats": self.nats_url,
            "nats_users": { "publisher": Users::login(&self.users.publisher), "backend": Users::login(&self.users.backend), "reader": Users::login(&self.users.reader) },
            "ingests": first(&self.ports.ingests),
            "gateways": first(&self.ports.gateways),
            "admin": self.admin_by_kind(),
            "pids": family.pids(),
            "token_key_file": self.key_file,
            "dir": self.home.path(),
            "dev_env": env_file,
            "url": self.url()?,
        }))
    }
}

/// This program as it was called, so that the hint can be pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "roomcast".to_owned())
}
