//! Notifications that leave the house: as web pushes to users' devices and as webhooks to operators' systems.
//!
//! Here is everything that is not NATS: what the operator's file says ([`config`]), which addresses may be spoken to ([`address`]), what of
//! a notification is sent ([`notice`]), how a push is encrypted ([`push`]) and signed ([`vapid`]), how a webhook is signed ([`webhook`]),
//! how one is sent and what the answer means ([`send`]), and when another attempt makes sense ([`attempt`]). Ingest runs it: what is to be
//! sent waits in a stream there.

pub mod address;
pub mod attempt;
pub mod config;
pub mod notice;
pub mod push;
pub mod send;
pub mod vapid;
pub mod webhook;
