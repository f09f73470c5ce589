//! Traces that begin inside: what users ask gateways for, what rules say, what a database changes.

use std::collections::HashMap;
use std::time::Instant;

use futures_util::StreamExt as _;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use roomcast_harness::client::Client;
use roomcast_harness::collector::{Collector, Told};
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::{folder, postgres, repository};
use serde_json::json;

use crate::traces::{PUBLISHER, WITHIN, context, of, one, says, whole};
use crate::world::alone;

/// The traces of two commands of users: one that is kept, one that is not.
const KEPT: &str = "9af92f3577b34da6a3ce929d0e0e4736";
const UNKEPT: &str = "9bf92f3577b34da6a3ce929d0e0e4736";

/// A file of the scenario with a database, changed.
fn changed(name: &str, from: &str, to: &str, more: &str) -> String {
    let file = repository().join("deploy/scenarios/repair").join(name);
    let text = std::fs::read_to_string(file).expect("the scenario's file");
    assert!(text.contains(from), "{from} in {name}");
    text.replacen(from, to, 1) + more
}

#[test]
fn what_users_rules_and_databases_do_begins_a_trace() {
    alone(async {
        let database = postgres::is_installed();
        let collector = Collector::start().await;
        let folder = folder();
        let (policy, metrics) = (
            folder.path().join("policy.yaml"),
            folder.path().join("metrics.yaml"),
        );
        let room = "room: products,  subscribe: tickets.view,";
        let written = format!("{room} client_publish: tickets.view,");
        let commands = "commands:\n  - { command: test.echo, allow: tickets.view }\n";
        std::fs::write(&policy, changed("policy.yaml", room, &written, commands))?;
        let rules = "rules:\n  - { alert: open, when: active_repairs > 0, notify: { room: notifications, audience: technician, priority: high, title: some } }\n";
        std::fs::write(&metrics, changed("metrics.yaml", "metrics:", "metrics:", rules))?;
        let env = [
            ("ROOMCAST_TRACES_ENDPOINT", collector.url.as_str()),
            ("ROOMCAST_TRACES_SAMPLE", "1"),
        ];
        let options = Options {
            scenario: Some("repair".to_owned()),
            policy: Some(policy),
            metrics: Some(metrics),
            more: ["--speed", "5", "--history", "15m"].map(str::to_owned).into(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Options::default()
        };
        let Some(stack) = tokio::task::spawn_blocking(move || Stack::start(&options)).await? else {
            return Ok(());
        };
        let token = stack.signer.token("fixer", &["technician"]);
        let gateway = stack.gateways()[0].clone();

        // A command: behind the user's own step where it has one, and the backend is told to go on.
        let backend = stack.nats("backend").await;
        let mut asked = backend
            .queue_subscribe("cmd.test.echo", "backends".to_owned())
            .await?;
        backend.flush().await?;
        let url = format!("{gateway}/v1/commands/test.echo");
        for (key, trace, kept) in [("k1", KEPT, true), ("k2", UNKEPT, false)] {
            let body = json!({ "data": 1, "key": key }).to_string();
            let context = context(trace, kept);
            let headers = [("traceparent", context.as_str())];
            let answer = stack
                .http
                .post_with(&url, &token, "application/json", &headers, body);
            let heard = async {
                let message = asked.next().await.expect("the backend is asked");
                let headers = message.headers.unwrap_or_default();
                let heard = headers.get_last("traceparent").map(ToString::to_string);
                let reply = message.reply.expect("somebody waits");
                backend
                    .publish(reply, "1".into())
                    .await
                    .expect("NATS takes an answer");
                heard
            };
            let (answer, heard) = tokio::join!(answer, heard);
            let answer = answer?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if kept {
                let steps = whole(&collector, trace, &["command"]).await;
                let step = one(&steps, "roomcast-edge-gateway", "command");
                assert_eq!((step.parent.as_str(), step.kind), (PUBLISHER, SpanKind::Server));
                says(
                    step,
                    &[("roomcast.command", "test.echo"), ("roomcast.tenant", "main")],
                );
                assert_eq!(heard, Some(format!("00-{trace}-{}-01", step.id)));
            } else {
                assert_eq!(heard, Some(context));
                assert_eq!(collector.of(trace), []);
            }
        }

        // An event of a user's own, from the socket on.
        let (mut client, _) = Client::connect(&gateway, &token, &[], &HashMap::new()).await?;
        let said = json!({ "room": "products", "type": "note", "data": 1 });
        let answer = client.request("publish", said).await?;
        assert!(answer["published"].is_object(), "{answer}");
        let (trace, publish) = begun(&collector, "roomcast-edge-gateway", "publish").await;
        let names = ["process in", "publish EVENTS", "process EVENTS", "deliver"];
        let steps = whole(&collector, &trace, &names).await;
        let taken = one(&steps, "roomcast-ingest", "process in");
        assert_eq!(taken.parent, publish.id, "{steps:#?}");

        // What a rule says, to the value that bells show.
        let (trace, notice) = begun(&collector, "roomcast-metrics-aggregator", "notify").await;
        let steps = whole(
            &collector,
            &trace,
            &["process in", "publish STATE", "process STATE"],
        )
        .await;
        let taken = of(&steps, "roomcast-ingest", "process in");
        assert!(taken.iter().any(|step| step.parent == notice.id), "{steps:#?}");
        assert_eq!(notice.kind, SpanKind::Producer);

        // Rows that a database changed.
        if database {
            let (trace, changes) = begun(&collector, "roomcast-ingest", "process changes").await;
            says(&changes, &[("db.system.name", "postgresql")]);
            assert!(
                changes.attributes["roomcast.capture.lsn"].contains('/'),
                "{changes:?}"
            );
            let steps = whole(&collector, &trace, &["publish EVENTS"]).await;
            let stored = of(&steps, "roomcast-ingest", "publish EVENTS");
            assert!(stored.iter().all(|step| step.parent == changes.id), "{steps:#?}");
        }
        Ok(())
    });
}

/// The first step of this name that anybody tells of, and its trace.
async fn begun(collector: &Collector, service: &str, name: &str) -> (String, Told) {
    let until = Instant::now() + WITHIN;
    loop {
        let all = collector.all();
        if let Some(step) = of(&all, service, name).first() {
            return (step.trace.clone(), (*step).clone());
        }
        assert!(Instant::now() < until, "no {name} of {service}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
