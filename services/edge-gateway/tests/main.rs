//! The gateway with a real nats-server.

mod nats_side;
mod sockets;
