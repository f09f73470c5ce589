//! What reads strangers' bytes, and what must hold for any bytes at all.
//!
//! Each target is a function of bytes that panics when a promise is broken. `tests/smoke.rs` gives them the seeds and
//! some thousand mutations with every test run; `make fuzz TARGET=frame` lets libFuzzer look for hours. What either
//! finds goes into `corpus/<target>` and is tried for ever.
#![expect(clippy::expect_used, reason = "a broken promise ends the run, as in any test")]

pub mod cursor;
pub mod envelope;
pub mod frame;
pub mod mutation;
pub mod policy;
pub mod seeds;
pub mod subject;
pub mod token;
pub mod websocket;

/// A target: takes any bytes, panics when a promise is broken.
pub type Check = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Check); 7] = [
    ("cursor", cursor::check),
    ("envelope", envelope::check),
    ("frame", frame::check),
    ("policy", policy::check),
    ("subject", subject::check),
    ("token", token::check),
    ("websocket", websocket::check),
];
