//! A step of a trace: a span of `tracing`, made only where its trace is kept.

use std::future::Future;

use futures_util::future::Either;
use opentelemetry::trace::{FutureExt, Status, TraceContextExt};
use opentelemetry::{Context, ContextGuard};
use tracing::span::EnteredSpan;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{KeyValue, SAMPLE, SpanKind, TARGET, Trail};

/// A step under way. Dropped, it ends. Of what is not kept it is nothing, or only the context that is passed on.
#[derive(Debug, Default)]
pub struct Step(What);

#[derive(Debug, Default)]
enum What {
    #[default]
    Nothing,
    /// A trace that is not kept: the context goes on as it came, so that nobody behind decides anew.
    Passed(Context),
    Kept(Span),
}

impl Step {
    /// Begins a step behind `trail`; without one, the sample decides whether it begins a trace.
    ///
    /// `name` has few values: an operation and where, never an id.
    #[must_use]
    pub fn begin(name: &'static str, kind: SpanKind, trail: Option<&Trail>) -> Self {
        let Some(sample) = SAMPLE.get() else {
            return Self::default();
        };
        match trail {
            Some(trail) if !trail.is_kept() => Self(What::Passed(trail.context())),
            // Drawn before there is a span: what is not kept costs a number.
            None if fastrand::f64() >= *sample => Self::default(),
            trail => Self::kept(name, kind, trail),
        }
    }

    fn kept(name: &'static str, kind: SpanKind, trail: Option<&Trail>) -> Self {
        // The layer takes the name and the kind of these two fields, because a span's own name is its place's in the code.
        let span =
            tracing::info_span!(target: TARGET, parent: None, "step", otel.name = name, otel.kind = ?kind);
        if let Some(trail) = trail
            && span.set_parent(trail.context()).is_err()
        {
            // Nobody takes spans here. The trace goes on without this step.
            return Self(What::Passed(trail.context()));
        }
        Self(if span.is_disabled() {
            What::Nothing
        } else {
            What::Kept(span)
        })
    }

    /// It follows from others besides.
    #[must_use]
    pub fn and_behind(self, others: &[Trail]) -> Self {
        if let What::Kept(span) = &self.0 {
            for other in others {
                span.add_link(other.step().clone());
            }
        }
        self
    }

    /// Whether it is taken down.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.0, What::Kept(_))
    }

    /// Says more of it, if it is taken down.
    pub fn set<const N: usize>(&self, attributes: impl FnOnce() -> [KeyValue; N]) {
        if let What::Kept(span) = &self.0 {
            for KeyValue { key, value, .. } in attributes() {
                span.set_attribute(key, value);
            }
        }
    }

    /// It went wrong: `error` is a closed word, like a code of refusal.
    pub fn failed(&self, error: &'static str) {
        if let What::Kept(span) = &self.0 {
            span.set_attribute("error.type", error);
            span.set_status(Status::error(""));
        }
    }

    /// What follows from it; `None` where there is no trace.
    #[must_use]
    pub fn trail(&self) -> Option<Trail> {
        match &self.0 {
            What::Nothing => None,
            What::Passed(context) => Trail::of(context.span().span_context()),
            What::Kept(span) => Trail::of(span.context().span().span_context()),
        }
    }

    /// Runs a future as a part of it: [`current`](super::current) and the log lines in it name the step.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            What::Nothing => Either::Left(future),
            What::Passed(context) => Either::Right(Either::Left(future.with_context(context.clone()))),
            What::Kept(span) => Either::Right(Either::Right(future.instrument(span.clone()))),
        }
    }

    /// The same for what follows on this thread until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Entered {
        match &self.0 {
            What::Nothing => Entered::Nothing,
            What::Passed(context) => Entered::Passed(context.clone().attach()),
            What::Kept(span) => Entered::Kept(span.clone().entered()),
        }
    }
}

/// As long as this is there, its [`Step`] is the current one of the thread.
#[derive(Debug)]
pub enum Entered {
    /// There is no step.
    Nothing,
    /// The context of a trace that is not kept.
    Passed(ContextGuard),
    /// A step.
    Kept(EnteredSpan),
}
