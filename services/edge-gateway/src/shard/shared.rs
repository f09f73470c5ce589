//! What shards are started with.

use std::sync::Arc;
use std::time::Duration;

use super::Front;
use crate::allowance::Allowance;
use crate::asking::Asking;
use crate::backlog::Backlog;
use crate::bells_driver::BellDesk;
use crate::bucket::Rate;
use crate::gate::Gate;
use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::presence_driver::RollCall;
use crate::{beat, outbox, session, ws};

/// What one shard allows each of its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages from clients.
    pub ws: ws::Limits,
    /// Frames to clients.
    pub outbox: outbox::Limits,
    /// Requests and rooms.
    pub session: session::Limits,
    /// Bytes from a client.
    pub ingress: Rate,
    /// Time in which a connection must have shown a token.
    pub authenticate_within: Duration,
    /// Bytes of one answer; what is longer is given in pages.
    pub answer_bytes_max: usize,
    /// A stream that has nothing to say gets a comment this often.
    pub comment_every: Duration,
    /// Bytes may wait so long without the socket taking any.
    pub write_timeout: Duration,
    /// How clients are asked whether they are still there.
    pub beat: beat::Pace,
    /// Missed events sent before the outbox must be empty again.
    pub page_events: usize,
    /// A quiet room's members are told a newer cursor this often.
    pub quiet_every: Duration,
    /// Events of a busy room wait so long for each other.
    pub flush_window: Duration,
}

/// What all shards share.
#[derive(Clone)]
pub struct Shared {
    /// Where rooms are recovered.
    pub hub: Arc<Hub>,
    /// Keys and policy.
    pub gate: Arc<Gate>,
    /// How often users may do what.
    pub allowance: Allowance,
    /// Where counts are added.
    pub metrics: GatewayMetrics,
    /// What is allowed.
    pub limits: Limits,
    /// What waits in all outboxes.
    pub backlog: Backlog,
    /// How the first request of a socket is taken.
    pub front: Front,
    /// Who is asked for what clients want of others.
    pub asking: Arc<Asking>,
    /// Who is in which room.
    pub roll_call: RollCall,
    /// Who counts what users have not read.
    pub bells: BellDesk,
    /// Where that waits.
    pub runtime: tokio::runtime::Handle,
}
