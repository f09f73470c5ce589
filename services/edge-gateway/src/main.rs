//! `roomcast-edge-gateway`: see the library.

use std::process::ExitCode;

use roomcast_chassis::process;
use roomcast_edge_gateway::serve::serve;
use roomcast_edge_gateway::settings::{SERVICE, Settings};

/// Returns freed memory to the system, and keeps small blocks together: what a connection costs is what is promised.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static THIS: process::Service = SERVICE;

fn main() -> ExitCode {
    process::run(&THIS, Settings::read, Settings::check, serve)
}
