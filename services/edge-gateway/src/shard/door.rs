//! The door of a shard: its own listening socket, and limits before a byte is parsed.
//!
//! Every shard listens on the gateway's address and the kernel deals new connections out, so a socket never changes its
//! thread on the way in. Who is not let in is told why over HTTP and kept for a moment, because closing at once would
//! reset the answer away; while the gateway goes down that is everybody.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use super::Shard;
use super::inbox::Newcomer;
use crate::accept::{self, Away};

/// The listener among the keys of connections.
pub(super) const LISTENER: Token = Token(usize::MAX - 1);
/// How long accepting rests when the process is out of file descriptors, milliseconds.
pub(super) const REST_MILLIS: u64 = 50;
/// Turned-away sockets that are kept open so long that their answer arrives.
const TURNED_AWAY_MAX: usize = 128;
const TURNED_AWAY_MILLIS: u64 = 1_000;

/// What a shard keeps of its door.
#[derive(Debug, Default)]
pub(super) struct Door {
    listener: Option<TcpListener>,
    /// The system keeps quiet about who comes.
    pub(super) is_unheard: bool,
    /// More may be waiting than were taken: the kernel does not say so again.
    pub(super) more: bool,
    /// Nothing is accepted before this instant.
    pub(super) rests_until: u64,
    /// Nobody is let in any more.
    pub(super) shut: bool,
    turned_away: VecDeque<(u64, TcpStream)>,
    /// A file descriptor kept back for the moment when there is no other: with it somebody is told so.
    spare: Option<File>,
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

impl Shard {
    /// Begins to accept.
    pub(super) fn open_door(&mut self, mut listener: TcpListener) {
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut listener, LISTENER, Interest::READABLE) {
            return tracing::error!(%error, "the listener cannot be watched: {error}");
        }
        self.door.listener = Some(listener);
        self.door.spare = spare();
        self.door.more = true;
    }

    /// Has the system say who comes, or keep quiet about it. Who came meanwhile is told of as soon as it is asked again.
    pub(super) fn hear_door(&mut self, heard: bool) {
        let Some(listener) = &mut self.door.listener else {
            return;
        };
        if self.door.is_unheard != heard {
            return;
        }
        // A listener never is writable; and what is watched for something keeps its place among what is watched.
        let interest = if heard {
            Interest::READABLE
        } else {
            Interest::WRITABLE
        };
        match self.poll.registry().reregister(listener, LISTENER, interest) {
            Ok(()) => self.door.is_unheard = !heard,
            Err(error) => tracing::error!(%error, "the listener cannot be watched: {error}"),
        }
    }

    /// Closes those who have had time to read why they were turned away.
    pub(super) fn forget_turned_away(&mut self) {
        let now = self.now.millis;
        let gone = |since: &u64| now >= since + TURNED_AWAY_MILLIS;
        while self
            .door
            .turned_away
            .front()
            .is_some_and(|(since, _)| gone(since))
        {
            self.door.turned_away.pop_front();
        }
    }

    /// Accepts one connection, if any waits; whether one was accepted, or may be by asking again.
    pub(super) fn answer_door(&mut self) -> bool {
        if !self.door.more || self.now.millis < self.door.rests_until {
            return false;
        }
        let accepted = self.door.listener.as_ref().map(TcpListener::accept);
        match accepted {
            Some(Ok((socket, peer))) => self.admit(socket, peer.ip()),
            None => self.door.more = false,
            Some(Err(error)) => match error.kind() {
                ErrorKind::WouldBlock => self.door.more = false,
                // It was gone before it was accepted.
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                _ if self.door.spare.is_some() => self.turn_away_one_more(&error),
                _ => {
                    tracing::warn!(%error, "accept failed: {error}");
                    self.door.rests_until = self.now.millis + REST_MILLIS;
                    self.door.spare = spare();
                }
            },
        }
        self.door.more && self.now.millis >= self.door.rests_until
    }

    fn admit(&mut self, socket: TcpStream, address: std::net::IpAddr) {
        if self.door.shut {
            self.count_away(accept::DRAIN);
            return self.turn_away(socket, Away::Busy);
        }
        let front = &self.shared.front;
        // One clock for all shards: they share the book.
        let millis = u64::try_from(front.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match front.ledger.enter(address, millis.saturating_add(1)) {
            Ok((place, stranger)) => self.receive(Newcomer {
                socket,
                watched: false,
                place,
                stranger,
                accepted: Instant::now(),
            }),
            Err(limit) => {
                self.count_away(limit.as_str());
                self.turn_away(socket, limit.into());
            }
        }
    }

    /// Accepts one connection where no descriptor is left for it, to tell it so; else it would wait in the kernel without a word.
    fn turn_away_one_more(&mut self, why: &std::io::Error) {
        self.door.spare = None;
        // Those who have had their answer go first.
        self.door.turned_away.clear();
        if let Some(Ok((mut socket, _))) = self.door.listener.as_ref().map(TcpListener::accept) {
            tracing::warn!(error = %why, "a connection is turned away: {why}");
            self.count_away(accept::DESCRIPTORS);
            accept::say_last(&socket, Away::Busy);
            // What it has sent already would reset the answer away.
            let _ = socket.read(&mut self.scratch);
        }
        self.door.spare = spare();
    }

    pub(super) fn count_away(&self, label: &str) {
        let counter = &self.shared.metrics.turned_away;
        counter.with_label_values(&[label]).inc();
    }

    /// Says why, and keeps the socket until that has arrived.
    pub(super) fn turn_away(&mut self, socket: TcpStream, why: Away) {
        accept::say_last(&socket, why);
        if self.door.turned_away.len() >= TURNED_AWAY_MAX {
            self.door.turned_away.pop_front();
        }
        self.door.turned_away.push_back((self.now.millis, socket));
    }

    /// Lets nobody in any more: whoever comes, and whoever has not asked for anything yet, finds the next gateway.
    pub(super) fn shut_door(&mut self) {
        self.door.shut = true;
        for silent in std::mem::take(&mut self.newcomers) {
            let mut socket = silent.1.into_socket();
            let _ = self.poll.registry().deregister(&mut socket);
            self.count_away(accept::DRAIN);
            self.turn_away(socket, Away::Busy);
        }
    }
}
