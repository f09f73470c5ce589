//! Where a trace goes on: W3C trace context, read from headers and written into them.

use async_nats::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::on;

/// The header that says in which trace a message stands, and behind which step.
pub const TRACE_PARENT: &str = "traceparent";
/// Its least length: versions to come may be longer.
const TRACE_PARENT_BYTES: usize = 55;
/// The header with what tracing systems add to it.
pub const TRACE_STATE: &str = "tracestate";
/// Longest [`TRACE_STATE`] that is passed on, bytes: as much as everybody has to.
const TRACE_STATE_BYTES_MAX: usize = 512;

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
        Self::of(context.span().span_context())
    }

    /// Reads it from a message, where its trace is kept.
    #[must_use]
    pub fn kept(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        Self::read(text).filter(Self::is_kept)
    }

    /// The trail behind a step; `None` where that is no step.
    pub(super) fn of(step: &SpanContext) -> Option<Self> {
        step.is_valid().then(|| Self(step.clone()))
    }

    /// Whether its trace is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_sampled()
    }

    /// Writes it into the headers of a message.
    pub fn write(&self, headers: &mut HeaderMap) {
        self.tell(|name, value| headers.insert(name, value));
    }

    /// Writes it into the headers of a request.
    pub fn write_http(&self, headers: &mut http::HeaderMap) {
        self.tell(|name, value| {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        });
    }

    /// What stands as `traceparent`.
    #[must_use]
    pub fn parent(&self) -> String {
        let mut parent = String::new();
        self.tell(|name, value| {
            if name == TRACE_PARENT {
                value.clone_into(&mut parent);
            }
        });
        parent
    }

    fn tell(&self, set: impl FnMut(&str, &str)) {
        TraceContextPropagator::new().inject_context(&self.context(), &mut Told(set));
    }

    /// The step before, for links to it.
    pub(super) fn step(&self) -> &SpanContext {
        &self.0
    }

    /// What a step behind it begins in.
    pub(super) fn context(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }

    /// Trace and step, as hexadecimal digits.
    pub(super) fn ids(&self) -> (String, String) {
        (self.0.trace_id().to_string(), self.0.span_id().to_string())
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

struct Told<F>(F);

impl<F: FnMut(&str, &str)> Injector for Told<F> {
    fn set(&mut self, key: &str, value: String) {
        // Without anything to add, there is no header for it.
        if !value.is_empty() {
            self.0(key, &value);
        }
    }
}
