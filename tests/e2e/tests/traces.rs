//! One trace from the publisher's request to the sockets, also by way of a number, as a collector is told of it; and none where the
//! publisher keeps none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use roomcast_harness::client::Client;
use roomcast_harness::collector::{Collector, Told};
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};

use crate::world::{alone, options, own};

/// How long anything may take on a machine that has much else to do.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// The publisher's own step, and its traces: one that is kept, one that is not, and those of events in one request.
pub(crate) const PUBLISHER: &str = "00f067aa0ba902b7";
const KEPT: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const UNKEPT: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
const OWN: &str = "6bf92f3577b34da6a3ce929d0e0e4736";
const OVER_NATS: &str = "7bf92f3577b34da6a3ce929d0e0e4736";
const QUEUED: &str = "8bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn an_event_is_one_trace_from_its_publisher_to_the_sockets() {
    alone(async {
        let collector = Collector::start().await;
        let env = [
            ("ROOMCAST_TRACES_ENDPOINT", collector.url.as_str()),
            // Without a context nothing here is traced.
            ("ROOMCAST_TRACES_SAMPLE", "0.000000001"),
            (
                "ROOMCAST_LOG",
                "info,roomcast_ingest=debug,roomcast_edge_gateway=debug,roomcast_metrics_aggregator=debug",
            ),
            ("ROOMCAST_LOG_FORMAT", "json"),
        ];
        let Some(stack) = own(options(&env)).await? else {
            return Ok(());
        };
        let token = stack.signer.token("looker", &["admin"]);
        let rooms = ["bookings", "os_dashboard"];
        let (mut client, _) = Client::connect(&stack.gateways()[0], &token, &rooms, &HashMap::new()).await?;

        // One that is not kept goes first: what the others' traces leave behind is not its.
        publish(&stack, &event("unkept"), &context(UNKEPT, false)).await?;
        publish(&stack, &event("kept"), &context(KEPT, true)).await?;
        let mut own = event("own");
        own["traceparent"] = json!(context(OWN, true));
        publish(&stack, &json!([own, event("other")]), &context(UNKEPT, false)).await?;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("traceparent", context(OVER_NATS, true).as_str());
        let nats = stack.nats("publisher").await;
        let body = event("nats").to_string();
        nats.request_with_headers("in.bookings.staff", headers, body.into())
            .await?;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("traceparent", context(QUEUED, true).as_str());
        let body = event("queued").to_string();
        nats.publish_with_headers("inq.publisher.bookings.staff", headers, body.into())
            .await?;
        for id in ["unkept", "kept", "own", "other", "nats", "queued"] {
            client
                .until(id, WITHIN, |frame| frame["event"]["event"]["id"] == id)
                .await?;
        }

        // ingest: the request behind the publisher's step, the publish behind the request.
        let trace = whole(
            &collector,
            KEPT,
            &["POST /v1/events", "publish EVENTS", "process EVENTS", "deliver"],
        )
        .await;
        let request = one(&trace, "roomcast-ingest", "POST /v1/events");
        assert_eq!(
            (request.parent.as_str(), request.kind),
            (PUBLISHER, SpanKind::Server)
        );
        says(
            request,
            &[
                ("http.request.method", "POST"),
                ("http.route", "/v1/events"),
                ("http.response.status_code", "200"),
            ],
        );
        let publish = one(&trace, "roomcast-ingest", "publish EVENTS");
        assert_eq!((&publish.parent, publish.kind), (&request.id, SpanKind::Producer));
        says(
            publish,
            &[
                ("messaging.system", "nats"),
                ("messaging.operation.name", "publish"),
                ("messaging.operation.type", "send"),
                ("messaging.destination.name", "EVENTS"),
                ("cloudevents.event_id", "kept"),
            ],
        );
        assert_eq!(
            publish.attributes["messaging.message.id"].len(),
            22,
            "{publish:?}"
        );
        // The gateway: behind the publish; its shard behind that.
        let received = one(&trace, "roomcast-edge-gateway", "process EVENTS");
        assert_eq!(
            (&received.parent, received.kind),
            (&publish.id, SpanKind::Consumer)
        );
        says(
            received,
            &[
                ("messaging.system", "nats"),
                ("messaging.operation.type", "process"),
                ("messaging.destination.name", "EVENTS"),
                ("roomcast.room", "bookings"),
            ],
        );
        let delivered = of(&trace, "roomcast-edge-gateway", "deliver");
        let delivered = delivered.into_iter().find(|step| step.parent == received.id);
        let delivered = delivered.expect("the event was written to a socket");
        assert_eq!(delivered.kind, SpanKind::Internal);
        says(
            delivered,
            &[("roomcast.deliveries", "1"), ("roomcast.transport", "websocket")],
        );

        // The number that the event moved: aggregator behind the publish, its value behind that, and the gateway behind the value.
        let trace = whole(&collector, KEPT, &["publish STATE", "process STATE"]).await;
        let counted: Vec<&Told> = of(&trace, "roomcast-metrics-aggregator", "process EVENTS");
        assert!(
            counted
                .iter()
                .all(|step| step.parent == publish.id && step.kind == SpanKind::Consumer),
            "{counted:?}"
        );
        let value = of(&trace, "roomcast-metrics-aggregator", "publish STATE");
        let value = value.first().expect("a value is published in the trace");
        assert!(counted.iter().any(|step| step.id == value.parent), "{trace:#?}");
        says(
            value,
            &[
                ("messaging.operation.type", "send"),
                ("messaging.destination.name", "STATE"),
            ],
        );
        let shown = of(&trace, "roomcast-edge-gateway", "process STATE");
        assert!(shown.iter().any(|step| step.parent == value.id), "{trace:#?}");

        // An event's own context counts before that of its request, which keeps none.
        let trace = whole(&collector, OWN, &["publish EVENTS", "process EVENTS", "deliver"]).await;
        assert_eq!(one(&trace, "roomcast-ingest", "publish EVENTS").parent, PUBLISHER);
        assert!(
            of(&trace, "roomcast-ingest", "POST /v1/events").is_empty(),
            "{trace:#?}"
        );
        for (id, first) in [(OVER_NATS, "process in"), (QUEUED, "process inq")] {
            let trace = whole(&collector, id, &[first, "process EVENTS", "deliver"]).await;
            let first = one(&trace, "roomcast-ingest", first);
            assert_eq!(
                (first.parent.as_str(), first.kind),
                (PUBLISHER, SpanKind::Consumer),
                "{trace:#?}"
            );
            assert!(!first.failed, "{first:?}");
        }

        // What is not kept stays so, everywhere; nothing began by itself.
        let known = [KEPT, OWN, OVER_NATS, QUEUED];
        let others: Vec<Told> = collector.all();
        let others = others.iter().filter(|told| !known.contains(&told.trace.as_str()));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&Told>::new());

        // All three say in their logs of what they did for it; of the unkept one too, but for those behind NATS, who did not look.
        let log = stack.log();
        for service in ["ingest", "gateway", "aggregator"] {
            let lines = log.lines().filter(|line| line.contains(service));
            let named = lines.filter(|line| line.contains(&format!("\"trace_id\":\"{KEPT}\"")));
            assert!(
                named.count() > 0,
                "{service} says nothing of the trace:\n{}",
                stack.log_tail(40)
            );
        }
        assert!(
            log.contains(&format!("\"trace_id\":\"{UNKEPT}\"")),
            "{}",
            stack.log_tail(40)
        );
        for service in ["ingest", "gateway", "aggregator"] {
            let metrics = stack.admin_metrics(service, 0).await?;
            let count = |outcome: &str| {
                let name = "roomcast_trace_spans_total";
                let line = metrics
                    .lines()
                    .find(|line| line.starts_with(name) && line.contains(outcome));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            };
            assert!(count("exported") > Some(0), "{service}: {metrics}");
            assert_eq!(
                (count("dropped"), count("failed")),
                (Some(0), Some(0)),
                "{service}"
            );
        }
        Ok(())
    });
}

fn event(id: &str) -> Value {
    json!({
        "id": id, "room": "bookings", "audience": "staff", "type": "booking:new", "data": { "customer": id, "amount": 1 },
    })
}

pub(crate) fn context(trace: &str, kept: bool) -> String {
    format!("00-{trace}-{PUBLISHER}-0{}", u8::from(kept))
}

async fn publish(stack: &Stack, body: &Value, context: &str) -> anyhow::Result<()> {
    let url = format!("{}/v1/events", stack.ingests()[0]);
    let kind = if body.is_array() {
        "application/cloudevents-batch+json"
    } else {
        "application/json"
    };
    let token = stack.signer.token("desk", &["desk"]);
    let headers = [("traceparent", context)];
    let answer = stack
        .http
        .post_with(&url, &token, kind, &headers, body.to_string())
        .await?;
    anyhow::ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

/// The steps of a trace, once it has one of each name.
pub(crate) async fn whole(collector: &Collector, trace: &str, names: &[&str]) -> Vec<Told> {
    let until = Instant::now() + WITHIN;
    loop {
        let told = collector.of(trace);
        let missing = |name: &&&str| !told.iter().any(|told| told.name == **name);
        match names.iter().find(missing) {
            None => return told,
            Some(name) => assert!(Instant::now() < until, "no {name} in {told:#?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn of<'a>(trace: &'a [Told], service: &str, name: &str) -> Vec<&'a Told> {
    trace
        .iter()
        .filter(|told| told.service == service && told.name == name)
        .collect()
}

pub(crate) fn one<'a>(trace: &'a [Told], service: &str, name: &str) -> &'a Told {
    match of(trace, service, name).as_slice() {
        [one] => one,
        other => panic!("one {name} of {service}, not {other:#?}, in {trace:#?}"),
    }
}

pub(crate) fn says(told: &Told, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        let said = told.attributes.get(*name).map(String::as_str);
        assert_eq!(said, Some(*value), "{name} of {told:#?}");
    }
}
