//! Instruments: the floor, the swarm of clients, CPU read from the kernel. `roomcast-load` puts them together.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a bench: positive and far below 2^52"
)]

pub mod cpu;
pub mod floor;
pub mod swarm;
