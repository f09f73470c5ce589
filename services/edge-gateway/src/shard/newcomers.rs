//! Sockets that have not asked for anything yet.
//!
//! Nearly all of them ask for a WebSocket, with a head that arrives in one piece and no token in it: that is answered
//! here, and the socket never meets the HTTP library or its runtime. Whatever else the first bytes are (a page, half a
//! head, a token to be verified, something to be refused) goes to `accept` with them, and is decided there alone.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mio::net::TcpStream;
use tokio::sync::mpsc::Sender;

use super::Shard;
use super::inbox::{Arrival, Caller, Newcomer};
use crate::accept::{self, Away};
use crate::admission::Ledger;
use crate::settings::Head;
use crate::upgrade::{self, Origins};

/// Marks keys of newcomers among keys of connections, in the wheel and in the poll.
pub(super) const NEWCOMER: u32 = 1 << 31;

/// How the first request of a socket is taken.
#[derive(Clone, Debug)]
pub struct Front {
    /// Who is in.
    pub ledger: Ledger,
    /// The origin of the ledger's clock.
    pub started: Instant,
    /// The pages that may connect.
    pub origins: Arc<Origins>,
    /// Limits of a request's head.
    pub head: Head,
    /// Where requests go that are not answered here; has room for all strangers that are let in.
    pub callers: Sender<Caller>,
    /// Whether messages are sent back on `/v1/echo`.
    #[cfg(all(feature = "echo", debug_assertions))]
    pub echo: bool,
}

/// A newcomer and the end of patience, milliseconds of the shard's clock.
#[derive(Debug)]
pub(super) struct Silent {
    /// The socket and what it holds.
    pub(super) newcomer: Newcomer,
    due: u64,
}

impl Silent {
    /// Its socket; what it held of the book is given back.
    pub(super) fn into_socket(self) -> TcpStream {
        self.newcomer.socket
    }
}

fn first_read(socket: &mut TcpStream, scratch: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.read(scratch) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl Shard {
    /// Takes the first bytes of a socket, which are often there already, or waits for them.
    pub(super) fn receive(&mut self, mut newcomer: Newcomer) {
        let mut scratch = std::mem::take(&mut self.scratch);
        match first_read(&mut newcomer.socket, &mut scratch) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(newcomer),
            Ok(0) | Err(_) => {}
            Ok(count) => self.first_bytes(newcomer, &scratch[..count]),
        }
        self.scratch = scratch;
    }

    fn wait(&mut self, newcomer: Newcomer) {
        let entry = self.newcomers.vacant_entry();
        let key = u32::try_from(entry.key()).unwrap_or(u32::MAX) | NEWCOMER;
        self.strangers.watch_later(key);
        let within = self.shared.front.head.within.as_millis();
        let due = self
            .now
            .millis
            .saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
        entry.insert(Silent { newcomer, due });
        self.wheel.insert(key, due);
    }

    /// Reads the first bytes.
    pub(super) fn hear(&mut self, key: u32) {
        let Some(silent) = self.newcomers.get_mut(key as usize) else {
            return;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        match first_read(&mut silent.newcomer.socket, &mut scratch) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => drop(self.newcomers.try_remove(key as usize)),
            Ok(count) => {
                if let Some(silent) = self.newcomers.try_remove(key as usize) {
                    self.first_bytes(silent.newcomer, &scratch[..count]);
                }
            }
        }
        self.scratch = scratch;
    }

    fn first_bytes(&mut self, newcomer: Newcomer, bytes: &[u8]) {
        #[cfg(all(feature = "echo", debug_assertions))]
        let Some(newcomer) = self.echo_newcomer(newcomer, bytes) else {
            return;
        };
        let front = &self.shared.front;
        let plain = upgrade::plain(bytes, front.head.fields_max, &front.origins)
            .filter(|(_, end)| *end <= front.head.bytes_max && self.shared.hub.accepting().is_ok());
        let mut newcomer = newcomer;
        let Some((agreed, end)) = plain else {
            // The queue has room for all of them until the process ends, and then the socket may go.
            if newcomer.watched {
                let _ = self.poll.registry().deregister(&mut newcomer.socket);
            }
            let first = bytes.to_vec();
            return drop(front.callers.try_send(Caller { newcomer, first }));
        };
        self.shared.metrics.switched.inc();
        let head = accept::switched_head(&agreed);
        let early = bytes.get(end..).unwrap_or_default().to_vec();
        let answer = if early.is_empty() {
            // Nothing was written before, so it fits; who is gone misses nothing.
            if !matches!(newcomer.socket.write(&head), Ok(written) if written == head.len()) {
                return;
            }
            Bytes::new()
        } else {
            // Who has said more already hears everything at once.
            head.into()
        };
        self.arrive(Arrival {
            socket: newcomer.socket,
            watched: newcomer.watched,
            answer,
            early,
            admitted: None,
            encoding: agreed.encoding.unwrap_or_default().into(),
            stream: None,
            place: newcomer.place,
            stranger: Some(newcomer.stranger),
            accepted: newcomer.accepted,
        });
    }

    /// Ends a newcomer that has said nothing for too long.
    pub(super) fn lose_patience(&mut self, key: u32) {
        let now = self.now.millis;
        // The key may have passed to another one since.
        if self
            .newcomers
            .get(key as usize)
            .is_some_and(|silent| silent.due <= now)
            && let Some(silent) = self.newcomers.try_remove(key as usize)
        {
            self.count_away(accept::HEAD);
            accept::say_last(&silent.newcomer.socket, Away::TooLate);
        }
    }
}
