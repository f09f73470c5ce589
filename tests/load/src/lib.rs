//! Instruments: the floor, the swarm of clients, an issuer of tokens, CPU and memory read from the kernel. `roomcast-load` puts them
//! together.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a bench: positive and far below 2^52"
)]

pub mod cpu;
pub mod dashboard;
pub mod elsewhere;
pub mod floor;
pub mod heard;
pub mod histogram;
pub mod line;
pub mod swarm;
pub mod tokens;
pub mod wire;
