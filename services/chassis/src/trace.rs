//! Traces: which steps a request or an event took through all services, and how long each took.
//!
//! W3C trace context comes in with requests and messages and goes out with messages; steps go to an OpenTelemetry collector
//! ([`export`]). Whoever is first decides whether a trace is kept: a publisher, else [`TraceSettings::sample`]. Everybody behind
//! follows, so that who finds no context on a message does nothing at all. Names and attributes are those of the semantic conventions.
//!
//! Off without an address of a collector: then every call here is one look at a variable.

mod export;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::SystemTime;

use async_nats::HeaderMap;
pub use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{FutureExt, Link, SpanContext, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use crate::build;
use crate::config::Reader;
use crate::fetch::Url;
use crate::process::{self, Failure};
use crate::shutdown::Stage;

/// The header that says in which trace a message stands, and behind which step.
pub const TRACE_PARENT: &str = "traceparent";
/// Its least length: versions to come may be longer.
const TRACE_PARENT_BYTES: usize = 55;
/// The header with what tracing systems add to it.
pub const TRACE_STATE: &str = "tracestate";
/// Longest [`TRACE_STATE`] that is passed on, bytes: as much as everybody has to.
const TRACE_STATE_BYTES_MAX: usize = 512;

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

/// What makes steps; nothing before [`start`], and nothing ever where traces are off.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Begins to trace, where there is a collector. A second call changes nothing.
///
/// # Errors
/// The system's certificates cannot be read, and the collector's address needs them.
pub(crate) fn start(context: &process::Context) -> Result<(), Failure> {
    let counters = export::Counters::new(&context.metrics)?;
    let TraceSettings { endpoint, sample } = &*context.common.traces;
    let (Some(endpoint), sample) = (endpoint.clone(), *sample) else {
        return Ok(());
    };
    let resource = Resource::builder()
        .with_service_name(context.service.name)
        .with_attributes([
            KeyValue::new("service.namespace", "roomcast"),
            KeyValue::new("service.version", build::VERSION),
            KeyValue::new("service.instance.id", context.instance().to_owned()),
        ])
        .build();
    let (queue, exporter) = export::queue(endpoint.clone(), &resource, counters)
        .map_err(|error| Failure::unavailable(format!("traces cannot be sent to {endpoint}: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
        .with_span_processor(queue)
        .build();
    if TRACER.set(provider.tracer("roomcast")).is_ok() {
        let stage = context.shutdown.stage(Stage::Close);
        stage.spawn(exporter.run(stage.token()));
        tracing::info!(%endpoint, sample, "traces go to {endpoint}");
    }
    Ok(())
}

/// Whether steps are taken down at all.
#[must_use]
pub fn on() -> bool {
    TRACER.get().is_some()
}

/// Where a trace goes on: the step that comes before, as it stands in headers.
#[derive(Clone, Debug, PartialEq)]
pub struct Trail(SpanContext);

impl Trail {
    /// Reads it from the headers of a request or a message; `None` where traces are off and where it is absent or malformed.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        if !on() {
            return None;
        }
        let given = Given {
            parent: header(TRACE_PARENT).filter(|parent| parent.len() >= TRACE_PARENT_BYTES)?,
            state: header(TRACE_STATE),
        };
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &given);
        let trail = context.span().span_context().clone();
        trail.is_valid().then_some(Self(trail))
    }

    /// Reads it from a message, where its trace is kept.
    #[must_use]
    pub fn kept(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        Self::read(text).filter(Self::is_kept)
    }

    /// Whether its trace is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_sampled()
    }

    /// Writes it into the headers of a message.
    pub fn write(&self, headers: &mut HeaderMap) {
        let context = Context::new().with_remote_span_context(self.0.clone());
        TraceContextPropagator::new().inject_context(&context, &mut Written(headers));
    }
}

struct Given<'a> {
    parent: &'a str,
    state: Option<&'a str>,
}

impl Extractor for Given<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACE_PARENT => Some(self.parent),
            TRACE_STATE => self.state.filter(|state| state.len() <= TRACE_STATE_BYTES_MAX),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACE_PARENT, TRACE_STATE]
    }
}

struct Written<'a>(&'a mut HeaderMap);

impl Injector for Written<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Without anything to add, there is no header for it.
        if !value.is_empty() {
            self.0.insert(key, value.as_str());
        }
    }
}

/// A step under way. Dropped, it ends. Of what is not kept it is nothing, or only the context that is passed on.
#[derive(Debug, Default)]
pub struct Step(Option<Context>);

impl Step {
    /// Begins a step behind `trail`; without one, the sample decides whether it begins a trace.
    ///
    /// `name` has few values: an operation and where, never an id.
    #[must_use]
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind, trail: Option<&Trail>) -> Self {
        Self::begun(name.into(), kind, trail, None, &[])
    }

    /// The same for a step that began earlier, and that follows from others besides.
    #[must_use]
    pub fn since(
        begun: SystemTime,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        trail: &Trail,
        others: &[Trail],
    ) -> Self {
        Self::begun(name.into(), kind, Some(trail), Some(begun), others)
    }

    fn begun(
        name: Cow<'static, str>,
        kind: SpanKind,
        trail: Option<&Trail>,
        begun: Option<SystemTime>,
        others: &[Trail],
    ) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let parent = match trail {
            Some(Trail(trail)) if !trail.is_sampled() => {
                // Passed on as it came, so that nobody behind decides anew.
                return Self(Some(Context::new().with_remote_span_context(trail.clone())));
            }
            Some(Trail(trail)) => Context::new().with_remote_span_context(trail.clone()),
            None => Context::new(),
        };
        let mut builder = tracer.span_builder(name).with_kind(kind);
        builder.start_time = begun;
        if !others.is_empty() {
            builder.links = Some(
                others
                    .iter()
                    .map(|other| Link::with_context(other.0.clone()))
                    .collect(),
            );
        }
        let span = tracer.build_with_context(builder, &parent);
        let kept = opentelemetry::trace::Span::is_recording(&span);
        Self(kept.then(|| Context::new().with_span(span)))
    }

    /// Whether it is taken down.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|context| context.span().is_recording())
    }

    /// Says more of it, if it is taken down.
    pub fn set<const N: usize>(&self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if let Some(context) = self.0.as_ref().filter(|context| context.span().is_recording()) {
            context.span().set_attributes(attributes());
        }
    }

    /// It went wrong: `error` is a closed word, like a code of refusal.
    pub fn failed(&self, error: &'static str) {
        self.set(|| [KeyValue::new("error.type", error)]);
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(""));
        }
    }

    /// What follows from it; `None` where there is no trace.
    #[must_use]
    pub fn trail(&self) -> Option<Trail> {
        let context = self.0.as_ref()?;
        Some(Trail(context.span().span_context().clone()))
    }

    /// Runs a future as a part of it: [`current`] and the log lines in it name the step.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.with_context(self.0.clone().unwrap_or_else(Context::current))
    }

    /// The same for what follows on this thread until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Option<ContextGuard> {
        Some(self.0.clone()?.attach())
    }
}

/// The step that runs here.
#[must_use]
pub fn current() -> Option<Trail> {
    if !on() {
        return None;
    }
    Context::map_current(|context| {
        let trail = context.span().span_context().clone();
        trail.is_valid().then_some(Trail(trail))
    })
}

/// Trace and step that run here, as hexadecimal digits; for log lines.
pub(crate) fn ids() -> Option<(String, String)> {
    let Trail(trail) = current()?;
    Some((trail.trace_id().to_string(), trail.span_id().to_string()))
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
