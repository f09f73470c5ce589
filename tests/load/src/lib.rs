//! Instruments: the floor, the swarm of clients, CPU read from the kernel. `roomcast-load` puts them together.

pub mod cpu;
pub mod floor;
pub mod swarm;
