//! The contract against its golden vectors and a real server.

mod server;
mod vectors;
