//! Metrics: one registry per process, every metric declared once, in the crate that moves it.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use crate::build;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every metric says by itself.
const SERVICE: &str = "service";

/// The registry of this process. Every metric carries the label `service`. Cheap to clone.
///
/// Each method declares one metric: its name (`roomcast_<part>_<what>_<unit>`), and the help text, which is the
/// metric's only documentation. Labels come from closed enums, never from rooms, users, tokens or addresses.
///
/// All of them fail only where the name is already declared or malformed, which is a mistake in the code and ends
/// the start with exit code 70.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Makes the registry with `roomcast_build_info` and, on Linux, the process's own figures
    /// (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` …).
    ///
    /// # Errors
    /// Where `service` is no valid label value for prometheus.
    pub fn new(service: &str) -> Result<Self, prometheus::Error> {
        let labels = HashMap::from([(SERVICE.to_owned(), service.to_owned())]);
        let metrics = Self {
            registry: Registry::new_custom(None, Some(labels))?,
        };
        metrics
            .gauge_vec(
                "roomcast_build_info",
                "The build that runs; the value is always 1.",
                &["version", "commit"],
            )?
            .with_label_values(&[build::VERSION, build::COMMIT])
            .set(1);
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// Declares a counter; the name ends in `_total`.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    /// Declares a counter with labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), own(labels)?)?)
    }

    /// Declares a gauge of whole numbers.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    /// Declares a gauge of whole numbers with labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), own(labels)?)?)
    }

    /// Declares a gauge of fractions, e.g. seconds.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new(name, help)?)
    }

    /// Declares a histogram with these upper bounds, in base units (seconds, bytes).
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    /// Declares a histogram with labels.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, own(labels)?)?)
    }

    /// Registers any other collector and gives it back.
    ///
    /// # Errors
    /// See [`Metrics`].
    pub fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// Everything as prometheus reads it, of type [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Where a collector gives what the text format cannot say.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The labels of a metric, none of which is the registry's own: Prometheus throws a whole scrape away for one label that is there twice.
fn own<'a>(labels: &'a [&'a str]) -> Result<&'a [&'a str], prometheus::Error> {
    if labels.contains(&SERVICE) {
        return Err(prometheus::Error::Msg(format!(
            "the label {SERVICE} is every metric's already"
        )));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_there_twice() {
        let metrics = Metrics::new("test").unwrap();
        for (name, labels, taken) in [
            ("a_total", &["outcome", "asked"][..], true),
            ("b_total", &["service", "outcome"], false),
        ] {
            assert_eq!(metrics.counter_vec(name, "Help.", labels).is_ok(), taken);
            assert_eq!(
                metrics
                    .gauge_vec(&format!("{name}_gauge"), "Help.", labels)
                    .is_ok(),
                taken
            );
            let histogram = metrics.histogram_vec(&format!("{name}_seconds"), "Help.", &[1.0], labels);
            assert_eq!(histogram.is_ok(), taken);
        }
    }
}
