//! NATS: settings, connections that never give up, and the version gate that every one of them passes.

mod connect;
mod gate;
mod metrics;
mod servers;
mod settings;

pub use connect::{ConnectError, Connector, Nats, Status};
pub use gate::{API_LEVEL_MIN, Refused, VERSION_MIN};
pub use metrics::NatsMetrics;
pub use servers::{ServerAnswer, ask_servers};
pub use settings::NatsSettings;
