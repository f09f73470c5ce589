//! Traces: which steps a request or an event took through all services, and how long each took.
//!
//! W3C trace context comes in with requests and messages and goes out with messages ([`Trail`]); a step ([`Step`]) is a span of `tracing`
//! that tracing-opentelemetry makes one of OpenTelemetry, and goes to a collector ([`export`]). Whoever is first decides whether a trace
//! is kept: a publisher, else [`TraceSettings::sample`]. Everybody behind follows, so that who finds no context on a message does nothing
//! at all. Names and attributes are those of the semantic conventions.
//!
//! Off without an address of a collector: then every call here is one look at a variable.

mod export;
mod step;
mod trail;

use std::sync::OnceLock;

use opentelemetry::Context;
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use crate::build;
use crate::config::Reader;
use crate::fetch::Url;
use crate::process::{self, Failure};
use crate::shutdown::Stage;

pub use step::{Entered, Step};
pub use trail::{TRACE_PARENT, TRACE_STATE, Trail};

/// The target of the spans that are steps: these go to the collector and nothing else does, and log lines do not show them.
pub(crate) const TARGET: &str = "roomcast::step";

/// Whether there are traces, and of what.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// `ROOMCAST_TRACES_ENDPOINT`: the collector, as OTLP over HTTP, e.g. `http://collector:4318`. `None`: no traces.
    pub endpoint: Option<Url>,
    /// `ROOMCAST_TRACES_SAMPLE`: the share of requests without a trace context that begin a trace, above 0, at most 1.
    pub sample: f64,
}

impl TraceSettings {
    /// Reads `ROOMCAST_TRACES_…`.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let endpoint = reader.parse(
            "ROOMCAST_TRACES_ENDPOINT",
            "",
            "an address like http://127.0.0.1:4318",
            "Where an OpenTelemetry collector takes traces as OTLP over HTTP; /v1/traces is added. Without it there are none.",
            |text| match text {
                "" => Some(None),
                text => Url::near(&format!("{}/v1/traces", text.trim_end_matches('/'))).ok().map(Some),
            },
        );
        let sample = reader.parse(
            "ROOMCAST_TRACES_SAMPLE",
            "0.01",
            "a number above 0, at most 1",
            "Share of the requests without a trace context that begin a trace; a context that comes decides for itself.",
            |text| text.parse().ok().filter(|sample| *sample > 0.0 && *sample <= 1.0),
        );
        Self {
            endpoint: endpoint.flatten(),
            sample: sample.unwrap_or(0.01),
        }
    }
}

/// The share of requests that begin a trace; nothing before [`Traces::run`], and nothing ever where traces are off.
static SAMPLE: OnceLock<f64> = OnceLock::new();

/// What makes steps out of spans, and what sends them; nothing happens before [`Traces::run`].
pub(crate) struct Traces {
    tracer: SdkTracer,
    exporter: export::Exporter,
    endpoint: Url,
    sample: f64,
}

/// Prepares to trace, where there is a collector.
///
/// # Errors
/// The system's certificates cannot be read, and the collector's address needs them; an `OTEL_…` variable asks for what is not there.
pub(crate) fn open(context: &process::Context) -> Result<Option<Traces>, Failure> {
    let counters = export::Counters::new(&context.metrics)?;
    let TraceSettings { endpoint, sample } = &*context.common.traces;
    let Some(endpoint) = endpoint.clone() else {
        return Ok(None);
    };
    let resource = Resource::builder()
        .with_service_name(context.service.name)
        .with_attributes([
            KeyValue::new("service.namespace", "roomcast"),
            KeyValue::new("service.version", build::VERSION),
            KeyValue::new("service.instance.id", context.instance().to_owned()),
        ])
        .build();
    let (queue, exporter) = export::queue(endpoint.clone(), &resource, counters)?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        // What is a span at all is kept: `Step` makes none of what is not.
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(queue)
        .build();
    Ok(Some(Traces {
        tracer: provider.tracer("roomcast"),
        exporter,
        endpoint,
        sample: *sample,
    }))
}

impl Traces {
    /// The part of the process's subscriber that makes steps of spans.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        // Our own spans alone, and no log lines: what a library says of itself is nobody's step, and the exporter's least of all.
        let steps = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == TARGET;
        OpenTelemetryLayer::new(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(steps).with_max_level_hint(LevelFilter::INFO))
    }

    /// Begins, where [`Traces::layer`] is a part of the subscriber. Ends with the process's last stage, when all is sent.
    pub(crate) fn run(self, context: &process::Context) {
        let Self { endpoint, sample, .. } = self;
        if SAMPLE.set(sample).is_ok() {
            let stage = context.shutdown.stage(Stage::Close);
            stage.spawn(self.exporter.run(stage.token()));
            tracing::info!(%endpoint, sample, "traces go to {endpoint}");
        }
    }
}

/// Whether steps are taken down at all.
#[must_use]
pub fn on() -> bool {
    SAMPLE.get().is_some()
}

/// The step that runs here.
#[must_use]
pub fn current() -> Option<Trail> {
    if !on() {
        return None;
    }
    Context::map_current(|context| Trail::of(context.span().span_context()))
}

/// Trace and step that run here, as hexadecimal digits; for log lines.
pub(crate) fn ids() -> Option<(String, String)> {
    current().map(|trail| trail.ids())
}

/// What every step that handles messages says: `operation` is one of `publish`, `process`, `receive`, and `destination` a name with few
/// values, like that of a stream.
#[must_use]
pub fn messaging(operation: &'static str, destination: &'static str) -> [KeyValue; 4] {
    let kind = if operation == "publish" { "send" } else { operation };
    [
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.name", destination),
    ]
}

#[cfg(test)]
mod tests;
