//! What every service says of itself in its statistics.

use std::sync::Arc;
use std::time::Instant;

use roomcast_chassis::build;
use roomcast_chassis::process::Context;
use schemars::JsonSchema;
use serde::Serialize;

/// One process.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The service.
    pub service: &'static str,
    /// Host and admin port.
    pub instance: Arc<str>,
    /// The version that runs.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
}

/// The process as it began. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Running {
    service: &'static str,
    instance: Arc<str>,
    since: Instant,
}

impl Running {
    /// A process that starts now.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            service: context.service.name,
            instance: context.instance().into(),
            since: Instant::now(),
        }
    }

    /// The process now.
    #[must_use]
    pub fn now(&self) -> Instance {
        Instance {
            service: self.service,
            instance: Arc::clone(&self.instance),
            version: build::VERSION,
            uptime_seconds: self.since.elapsed().as_secs(),
        }
    }
}
