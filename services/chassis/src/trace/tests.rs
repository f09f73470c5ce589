use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use prost::Message;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::config::Environment;
use crate::process::Service;

const SERVICE: Service = Service {
    name: "roomcast-traced",
    about: "A test.",
    admin_port: 0,
    jetstream_api: "$JS.API",
};

/// What a collector was told, and what it answers.
#[derive(Clone)]
struct Collector {
    told: Arc<Mutex<Vec<Span>>>,
    answer: Arc<Mutex<StatusCode>>,
}

impl Collector {
    fn named(&self, name: &str) -> Option<Span> {
        let told = self.told.lock().unwrap();
        told.iter().find(|span| span.name == name).cloned()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let answer = *collector.answer.lock().unwrap();
    if answer == StatusCode::OK {
        let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
        collector
            .told
            .lock()
            .unwrap()
            .extend(spans.flat_map(|scope| scope.spans));
    }
    answer
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

fn headers(rows: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in rows {
        headers.insert(*name, *value);
    }
    headers
}

const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNKEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn read(rows: &[(&str, &str)]) -> Option<Trail> {
    let headers = headers(rows);
    Trail::read(|name| headers.get_last(name).map(async_nats::HeaderValue::as_str))
}

/// One test, because what is traced is the process's.
#[tokio::test]
async fn steps_are_taken_down_where_their_trace_is_kept_and_told_to_the_collector() {
    crate::process::install_crypto();
    assert!(read(&[(TRACE_PARENT, KEPT)]).is_none(), "nothing is traced yet");
    let nothing = Step::begin("nothing", SpanKind::Internal, None);
    assert!(nothing.trail().is_none() && !nothing.is_kept());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let collector = Collector {
        told: Arc::default(),
        answer: Arc::new(Mutex::new(StatusCode::OK)),
    };
    let router = Router::new()
        .route("/v1/traces", post(take))
        .with_state(collector.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let environment = Environment::from_pairs([
        ("ROOMCAST_NATS_URL", "nats://127.0.0.1:1"),
        ("ROOMCAST_TRACES_ENDPOINT", endpoint.as_str()),
        ("ROOMCAST_TRACES_SAMPLE", "0.000000001"),
    ]);
    let (common, (), _) = process::settings(&environment, &SERVICE, |_| ()).unwrap();
    let context = process::Context::new(&SERVICE, common).unwrap();
    let traces = open(&context).unwrap().unwrap();
    // Steps are made whatever is logged, and of what is no step of ours none.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::sink)
        .with_filter(EnvFilter::new("error"));
    let subscriber = tracing_subscriber::registry().with(lines).with(traces.layer());
    let _everybody = tracing::subscriber::set_default(subscriber);
    traces.run(&context);
    drop(tracing::error_span!("nobody's").entered());
    let counted = |outcome: &str| {
        let metrics = String::from_utf8(context.metrics.encode().unwrap()).unwrap();
        let line = format!("roomcast_trace_spans_total{{outcome=\"{outcome}\",service=\"traced\"}} ");
        let value = metrics.lines().find_map(|text| text.strip_prefix(&line));
        value.unwrap().parse::<u64>().unwrap()
    };

    // What is no context is none, and what is one too much of is left out.
    let long = format!("v={}", "x".repeat(600));
    let rows = [
        (&[(TRACE_PARENT, KEPT)][..], true, ""),
        (&[(TRACE_PARENT, KEPT), (TRACE_STATE, "a=1,b=2")], true, "a=1,b=2"),
        (&[(TRACE_PARENT, KEPT), (TRACE_STATE, long.as_str())], true, ""),
        (&[(TRACE_STATE, "a=1")], false, ""),
        (&[(TRACE_PARENT, "")], false, ""),
        (&[(TRACE_PARENT, &KEPT[1..])], false, ""),
        (
            &[(
                TRACE_PARENT,
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            )],
            false,
            "",
        ),
        (
            &[(
                TRACE_PARENT,
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            )],
            false,
            "",
        ),
        (
            &[(
                TRACE_PARENT,
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )],
            false,
            "",
        ),
        (
            &[(
                TRACE_PARENT,
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            )],
            false,
            "",
        ),
    ];
    for (given, is_one, state) in rows {
        let trail = read(given);
        assert_eq!(trail.is_some(), is_one, "{given:?}");
        let Some(trail) = trail else { continue };
        let mut written = HeaderMap::new();
        trail.write(&mut written);
        let text = |name| written.get_last(name).map_or("", async_nats::HeaderValue::as_str);
        assert_eq!((text(TRACE_PARENT), text(TRACE_STATE)), (KEPT, state));
    }
    assert!(Trail::kept(&headers(&[(TRACE_PARENT, KEPT)])).is_some());
    assert!(Trail::kept(&headers(&[(TRACE_PARENT, UNKEPT)])).is_none());

    // Not kept: no step, and the context goes on as it came. Without any context the sample decides, and nothing goes on.
    let unkept = read(&[(TRACE_PARENT, UNKEPT)]).unwrap();
    let step = Step::begin("unkept", SpanKind::Server, Some(&unkept));
    assert!(!step.is_kept());
    assert_eq!(step.trail(), Some(unkept));
    assert!(
        step.run(async { ids() }).await.is_some(),
        "log lines name it all the same"
    );
    assert!(Step::begin("by chance", SpanKind::Server, None).trail().is_none());

    // Kept: a step behind the other, with what it says; inside, it is the current one, and nowhere else.
    let kept = read(&[(TRACE_PARENT, KEPT)]).unwrap();
    let outer = Step::begin("outer", SpanKind::Server, Some(&kept));
    outer.set(|| messaging("publish", "EVENTS"));
    tracing::error!("what is logged is no part of a step");
    let inside = outer.run(async {
        tokio::task::yield_now().await;
        current()
    });
    assert_eq!(inside.await, outer.trail());
    assert_eq!(current(), None);
    let trail = outer.trail().unwrap();
    let inner =
        Step::begin("inner", SpanKind::Producer, Some(&trail)).and_behind(std::slice::from_ref(&kept));
    {
        let _entered = inner.enter();
        assert_eq!(current(), inner.trail());
    }
    assert_eq!(current(), None);
    inner.failed("unavailable");
    drop((inner, outer));
    eventually("both are told", || collector.told.lock().unwrap().len() == 2).await;
    let (outer, inner) = (
        collector.named("outer").unwrap(),
        collector.named("inner").unwrap(),
    );
    assert_eq!(
        outer.parent_span_id,
        [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]
    );
    assert_eq!(
        (&inner.parent_span_id, &inner.trace_id),
        (&outer.span_id, &outer.trace_id)
    );
    assert_eq!(
        (inner.links.len(), &inner.links[0].span_id),
        (1, &outer.parent_span_id)
    );
    assert_eq!((outer.kind(), inner.kind()), (Kind::Server, Kind::Producer));
    assert!(outer.start_time_unix_nano <= inner.start_time_unix_nano);
    assert!(inner.start_time_unix_nano <= inner.end_time_unix_nano);
    assert_eq!((outer.events.len(), inner.events.len()), (0, 0));
    assert_eq!(inner.status.unwrap().code, 2);
    let said: Vec<&str> = outer.attributes.iter().map(|said| said.key.as_str()).collect();
    assert_eq!(
        said,
        [
            "messaging.system",
            "messaging.operation.name",
            "messaging.operation.type",
            "messaging.destination.name"
        ]
    );
    eventually("they are counted", || counted("exported") == 2).await;

    // A collector that takes nothing costs the steps and nobody's time; what is too much is dropped.
    *collector.answer.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
    drop(Step::begin("lost", SpanKind::Internal, Some(&kept)));
    eventually("a step is lost", || counted("failed") == 1).await;
    for _ in 0..10_000 {
        drop(Step::begin("many", SpanKind::Internal, Some(&kept)));
    }
    eventually("all are accounted for", || {
        counted("failed") + counted("dropped") == 10_001
    })
    .await;
    assert!(counted("dropped") > 0);
    *collector.answer.lock().unwrap() = StatusCode::OK;

    // What is left at the end is told at the end.
    drop(Step::begin("last", SpanKind::Internal, Some(&kept)));
    assert!(context.shutdown.run(Duration::from_secs(20)).await);
    assert!(collector.named("last").is_some());
}
