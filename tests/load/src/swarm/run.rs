//! The thread of a swarm: one poll over all its sockets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket as RawSocket, Type};

use super::{Conduct, Order, Plan, Wave, now_micros};
use crate::dashboard::Tally;
use crate::line::Line;
use crate::{heard, wire};

/// Sockets whose upgrade is under way at a time when all come at once: more would overflow the listener's queue and measure the
/// kernel's repeats, a second each.
const UNDER_WAY_MAX: usize = 1_000;
/// Who is told "later", or whose connection has ended, comes again after a second, give or take a quarter.
const LATER: Duration = Duration::from_secs(1);
/// Who lost its server comes back after a time from the first of these to both together: the full jitter of our clients' first attempt.
const JITTER_FROM: Duration = Duration::from_millis(50);
const JITTER: Duration = Duration::from_millis(950);
/// The smallest receive buffer that the kernel gives.
const NARROW_BYTES: usize = 4_096;

#[derive(PartialEq, Eq, Clone, Copy)]
enum Phase {
    Connecting,
    Asked,
    Open,
    /// Will not be answered otherwise the next time.
    Refused,
}

struct Socket {
    line: Line,
    phase: Phase,
    /// An incomplete frame, between reads.
    rest: Vec<u8>,
}

pub(super) struct Run {
    plan: Plan,
    tally: Arc<Tally>,
    wave: Arc<Wave>,
    poll: Poll,
    sockets: Vec<Option<Socket>>,
    /// Clients that are to connect, in order.
    due: VecDeque<usize>,
    /// Clients that come again, and when.
    later: VecDeque<(Instant, usize)>,
    under_way: usize,
    /// New sockets a second, and since when; `None`: at once.
    pace: Option<(usize, Instant, usize)>,
    born: Instant,
}

impl Run {
    pub(super) fn new(plan: Plan, tally: Arc<Tally>, wave: Arc<Wave>) -> anyhow::Result<Self> {
        let clients = plan.dashboards.len();
        Ok(Self {
            pace: plan.rate.map(|rate| (rate, Instant::now(), 0)),
            poll: Poll::new()?,
            sockets: (0..clients).map(|_| None).collect(),
            due: (0..clients).collect(),
            later: VecDeque::new(),
            under_way: 0,
            born: Instant::now(),
            plan,
            tally,
            wave,
        })
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(4096);
        let mut scratch = vec![0_u8; 256 * 1024];
        loop {
            match orders.try_recv() {
                Ok(Order::Reset) => self.reset(),
                Ok(Order::Return) => self.come_back(),
                Ok(Order::ReturnTo(server)) => self.come_to(server),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.connect()?;
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::from_millis(2)))
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.ask(index);
                }
                let goes_on = match self.plan.conduct {
                    _ if !event.is_readable() => true,
                    Conduct::NeverReads => self.look_away(index),
                    Conduct::Reads | Conduct::Silent => self.read(index, &mut scratch),
                };
                if !goes_on {
                    self.ended(index);
                }
            }
        }
    }

    /// Opens what is due by the pace and by what is under way.
    fn connect(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.later.front().is_some_and(|(at, _)| *at <= now) {
            self.due.extend(self.later.pop_front().map(|(_, index)| index));
        }
        let mut may = UNDER_WAY_MAX.saturating_sub(self.under_way);
        if let Some((rate, since, opened)) = &mut self.pace {
            let allowed = (since.elapsed().as_secs_f64() * *rate as f64) as usize + 1;
            may = may.min(allowed.saturating_sub(*opened));
        }
        while may > 0
            && let Some(index) = self.due.pop_front()
        {
            if self.wave.began.load(Relaxed) == 0 {
                self.wave.began.store(self.micros(), Relaxed);
            }
            let stream = open(self.plan.address, self.plan.conduct)?;
            let mut line = Line::new(stream, self.plan.tls.as_ref())?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut line.tcp, Token(index), interest)?;
            self.sockets[index] = Some(Socket {
                line,
                phase: Phase::Connecting,
                rest: Vec::new(),
            });
            self.under_way += 1;
            may -= 1;
            if let Some((_, _, opened)) = &mut self.pace {
                *opened += 1;
            }
        }
        Ok(())
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The socket is connected: sends the request.
    fn ask(&mut self, index: usize) {
        let Some(socket) = self.sockets[index].as_mut() else {
            return;
        };
        if socket.phase != Phase::Connecting {
            return;
        }
        socket.phase = Phase::Asked;
        let mut said = match &self.plan.host {
            Some(host) => wire::request(host, self.plan.encoding),
            None => wire::request(self.plan.address, self.plan.encoding),
        }
        .into_bytes();
        if self.plan.conduct == Conduct::NeverReads {
            // In one piece: it will not hear when it may go on, nor whether it was let in.
            said.extend(self.plan.dashboards[index].hello(self.plan.encoding));
        }
        let _ = socket.line.write(&said);
        let _ = self
            .poll
            .registry()
            .reregister(&mut socket.line.tcp, Token(index), Interest::READABLE);
        if self.plan.conduct == Conduct::NeverReads {
            self.look_away(index);
        }
    }

    /// Agrees upon TLS, if any, and reads nothing from then on; false when the socket ended.
    fn look_away(&mut self, index: usize) -> bool {
        let Some(socket) = self.sockets[index].as_mut() else {
            return true;
        };
        if socket.phase == Phase::Open {
            return true;
        }
        match socket.line.agree() {
            Ok(()) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        let _ = self.poll.registry().deregister(&mut socket.line.tcp);
        socket.phase = Phase::Open;
        self.under_way -= 1;
        self.opened();
        true
    }

    fn opened(&self) {
        self.tally.open.fetch_add(1, Relaxed);
        self.wave.ended.store(self.micros(), Relaxed);
    }

    /// Reads what is there; false when the socket ended.
    fn read(&mut self, index: usize, scratch: &mut [u8]) -> bool {
        loop {
            let Some(socket) = self.sockets[index].as_mut() else {
                return true;
            };
            let n = match socket.line.read(scratch) {
                Ok(0) => return false,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            if socket.rest.is_empty() && socket.phase == Phase::Open {
                let used = self.frames(index, &scratch[..n]);
                if let Some(socket) = self.sockets[index].as_mut() {
                    socket.rest.extend_from_slice(&scratch[used..n]);
                }
                continue;
            }
            let mut held = std::mem::take(&mut socket.rest);
            held.extend_from_slice(&scratch[..n]);
            if socket.phase == Phase::Asked {
                let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
                    socket.rest = held;
                    continue;
                };
                if !held.starts_with(b"HTTP/1.1 101") {
                    let later = held.starts_with(b"HTTP/1.1 503") || held.starts_with(b"HTTP/1.1 429");
                    if !later {
                        self.tally.refused.fetch_add(1, Relaxed);
                        socket.phase = Phase::Refused;
                        self.under_way -= 1;
                    }
                    return false;
                }
                socket.phase = Phase::Open;
                if self.plan.conduct == Conduct::Reads {
                    let hello = self.plan.dashboards[index].hello(self.plan.encoding);
                    let _ = socket.line.write(&hello);
                }
                self.under_way -= 1;
                held.drain(..end + 4);
                self.opened();
            }
            let used = self.frames(index, &held);
            held.drain(..used);
            if let Some(socket) = self.sockets[index].as_mut() {
                socket.rest = held;
            }
        }
    }

    /// Takes in whole frames of `bytes` and returns how many bytes they took.
    fn frames(&mut self, index: usize, bytes: &[u8]) -> usize {
        let tally = &*self.tally;
        let dashboard = &mut self.plan.dashboards[index];
        let (mut used, mut events) = (0, 0);
        let (now, back) = (now_micros(), tally.back.load(Relaxed));
        while let Some((header, length)) = wire::head(&bytes[used..]) {
            let Some(payload) = bytes.get(used + header..used + header + length) else {
                break;
            };
            let control = bytes[used] & 0x08 != 0;
            used += header + length;
            if control {
                continue;
            }
            let heard = heard::hear(self.plan.encoding, payload);
            if matches!(heard, heard::Heard::Event { .. }) {
                events += 1;
                tally.event_bytes.fetch_add((header + length) as u64, Relaxed);
            }
            let answer = dashboard.hear(heard, now, self.plan.encoding, tally);
            if let (Some(answer), Some(socket)) = (answer, self.sockets[index].as_mut()) {
                let _ = socket.line.write(&answer);
            }
        }
        if events > 0 {
            tally.reads.fetch_add(1, Relaxed);
        }
        if tally.back.load(Relaxed) > back {
            self.wave.ended.store(self.micros(), Relaxed);
        }
        used
    }

    /// The other side has ended a socket: before the upgrade it comes again, after it only where that was asked for.
    fn ended(&mut self, index: usize) {
        let Some(socket) = self.sockets[index].take() else {
            return;
        };
        match socket.phase {
            Phase::Refused => return,
            Phase::Open => {
                self.tally.ended.fetch_add(1, Relaxed);
                if !self.plan.returns {
                    return;
                }
            }
            Phase::Connecting | Phase::Asked => {
                self.under_way -= 1;
                self.tally.turned_away.fetch_add(1, Relaxed);
            }
        }
        // Spread by the client's number, so that they do not come as one again.
        let spread = LATER * 3 / 4 + LATER / 2 * u32::try_from(index % 64).unwrap_or(0) / 64;
        let at = Instant::now() + spread;
        let place = self.later.partition_point(|(other, _)| *other <= at);
        self.later.insert(place, (at, index));
    }

    fn reset(&mut self) {
        for socket in &mut self.sockets {
            if let Some(socket) = socket.take() {
                // A close without lingering is a reset.
                let _ = SockRef::from(&socket.line.tcp).set_linger(Some(Duration::ZERO));
            }
        }
        self.due.clear();
        self.later.clear();
        self.under_way = 0;
        self.tally.open.store(0, Relaxed);
    }

    fn come_back(&mut self) {
        self.pace = None;
        self.due = (0..self.sockets.len()).collect();
        self.wave.began.store(0, Relaxed);
    }

    fn come_to(&mut self, server: SocketAddr) {
        (self.plan.address, self.pace) = (server, None);
        self.wave.began.store(0, Relaxed);
        let (now, clients) = (Instant::now(), self.sockets.len().max(1));
        // A prime step visits all places once, so the times are spread evenly and neighbours lie apart.
        let of = |index: usize| {
            JITTER * u32::try_from(index * 7_919 % clients).unwrap_or(0) / u32::try_from(clients).unwrap_or(1)
        };
        let mut later: Vec<_> = (0..self.sockets.len())
            .map(|index| (now + JITTER_FROM + of(index), index))
            .collect();
        later.sort_unstable();
        self.later = later.into();
    }
}

fn open(address: SocketAddr, conduct: Conduct) -> std::io::Result<TcpStream> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if conduct == Conduct::NeverReads {
        socket.set_recv_buffer_size(NARROW_BYTES)?;
    }
    match socket.connect(&address.into()) {
        // EINPROGRESS, which the standard library has no name for.
        Err(error) if error.raw_os_error() != Some(115) && error.kind() != ErrorKind::WouldBlock => {
            Err(error)
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
