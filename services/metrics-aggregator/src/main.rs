//! `roomcast-metrics-aggregator`: see the library.

use std::process::ExitCode;

use roomcast_metrics_aggregator::{SERVICE, Settings, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    roomcast_chassis::process::run(&SERVICE, Settings::read, Settings::check, serve)
}
