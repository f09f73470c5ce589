//! Thousands of dashboards in one thread: sockets that open at a pace or all at once, are reset and come back, or never read.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use roomcast_proto::frame::Encoding;
use socket2::{Domain, SockRef, Socket as RawSocket, Type};

use crate::dashboard::{Dashboard, Tally};
use crate::line::{Line, Tls};
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

/// What the clients of a swarm do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// They say hello and read all they are sent.
    Reads,
    /// They say hello and never read a byte, not even the answer to their upgrade.
    NeverReads,
    /// They say nothing after the upgrade (clients of the floor).
    Silent,
}

/// What to open.
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// What it is called there; `None`: by its address.
    pub host: Option<String>,
    /// TLS to it, if any.
    pub tls: Option<Tls>,
    /// The clients.
    pub dashboards: Vec<Dashboard>,
    /// New sockets a second; `None`: all at once.
    pub rate: Option<usize>,
    /// How messages are written.
    pub encoding: Encoding,
    /// What they do.
    pub conduct: Conduct,
    /// Whether a client whose connection the server ends comes again with its cursors, as ours do.
    pub returns: bool,
}

impl Plan {
    /// Clients for the floor: they open and read.
    #[must_use]
    pub fn floor(address: SocketAddr, sockets: usize, rate: usize) -> Self {
        Self {
            address,
            host: None,
            tls: None,
            dashboards: (0..sockets).map(|_| Dashboard::default()).collect(),
            rate: Some(rate),
            encoding: Encoding::Json,
            conduct: Conduct::Silent,
            returns: false,
        }
    }
}

enum Order {
    Reset,
    /// All at once, to where they were.
    Return,
    /// Each after a time of its own, to another server.
    ReturnTo(SocketAddr),
}

/// A running swarm; ends when dropped.
pub struct Swarm {
    /// What it has seen.
    pub tally: Arc<Tally>,
    clients: u64,
    conduct: Conduct,
    wave: Arc<Wave>,
    orders: Sender<Order>,
    /// The thread's number, by which the system knows it.
    number: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

/// When the present wave of clients began, and when the last of them was there; microseconds since the swarm began.
#[derive(Debug, Default)]
struct Wave {
    began: AtomicU64,
    ended: AtomicU64,
}

impl Swarm {
    /// Starts opening sockets; [`Swarm::ready`] waits for all of them.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let (orders, taken) = channel();
        let (tally, wave) = (Arc::new(Tally::default()), Arc::new(Wave::default()));
        let (clients, conduct) = (plan.dashboards.len() as u64, plan.conduct);
        let shared = (Arc::clone(&tally), Arc::clone(&wave));
        let number = Arc::new(OnceLock::new());
        let own = Arc::clone(&number);
        let thread = std::thread::spawn(move || {
            let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
            let _ = own.set(
                link.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
            let run = Run::new(plan, shared.0, shared.1).and_then(|run| run.run(&taken));
            if let Err(error) = run {
                eprintln!("swarm: {error}");
            }
        });
        Self {
            tally,
            clients,
            conduct,
            wave,
            orders,
            number,
            thread: Some(thread),
        }
    }

    /// Lets everything else on this machine go first: where the clients' own work is not what is measured, and they would be on other
    /// machines. The lowest priority that there is (`SCHED_IDLE`): whoever else wakes up takes the processor from it at once, where
    /// a thread that is only nice would keep it to the end of its slice, some milliseconds.
    ///
    /// # Errors
    /// When there is no `chrt`.
    pub fn give_way(&self) -> anyhow::Result<()> {
        let number = self.number.wait();
        let chrt = Command::new("chrt")
            .args(["--idle", "--pid", "0", number])
            .output()?;
        anyhow::ensure!(chrt.status.success(), "{}", String::from_utf8_lossy(&chrt.stderr));
        Ok(())
    }

    /// How many clients it has.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients
    }

    fn there(&self) -> u64 {
        match self.conduct {
            Conduct::Reads => self.tally.back.load(Relaxed),
            Conduct::Silent | Conduct::NeverReads => self.tally.open.load(Relaxed),
        }
    }

    /// Waits until every client is there: has heard `caughtUp` from all its rooms, or, where it says or reads nothing, is open.
    /// Returns how long the wave took, from its first socket to its last client.
    ///
    /// # Errors
    /// After `within`, with what was reached.
    pub fn ready(&self, within: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let there = self.there();
            if there >= self.clients {
                let [began, ended] = [&self.wave.began, &self.wave.ended].map(|at| at.load(Relaxed));
                return Ok(Duration::from_micros(ended.saturating_sub(began)));
            }
            let said = |count: &AtomicU64| count.load(Relaxed);
            anyhow::ensure!(
                start.elapsed() < within && self.alive(),
                "{there} of {} clients are there after {within:?}; {} open, {} connected, {} refused, {} turned away, {} ended",
                self.clients,
                said(&self.tally.open),
                said(&self.tally.connected),
                said(&self.tally.refused),
                said(&self.tally.turned_away),
                said(&self.tally.ended)
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends every socket with a reset, as a process that is killed behind a balancer does, and waits until that is done.
    ///
    /// # Errors
    /// When the swarm's thread does not do it within 10 s.
    pub fn reset(&self) -> anyhow::Result<()> {
        self.order(Order::Reset)?;
        let start = Instant::now();
        while self.tally.open.load(Relaxed) > 0 {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "the swarm hangs");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets all come back at once, each with its cursors; [`Swarm::ready`] waits for them.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub fn come_back(&self) -> anyhow::Result<()> {
        self.tally.back.store(0, Relaxed);
        self.order(Order::Return)
    }

    /// Waits until the server's death has reached every client.
    ///
    /// # Errors
    /// When it has not within `within`.
    pub fn lost(&self, within: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.tally.ended.load(Relaxed) < self.clients {
            anyhow::ensure!(
                start.elapsed() < within,
                "{} of {} sockets ended",
                self.tally.ended.load(Relaxed),
                self.clients
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets all whose server is gone come to another one, each with its cursors, and each after a random time, as our clients do.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub fn come_to(&self, server: SocketAddr) -> anyhow::Result<()> {
        for count in [&self.tally.back, &self.tally.open, &self.tally.ended] {
            count.store(0, Relaxed);
        }
        self.order(Order::ReturnTo(server))
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders
            .send(order)
            .map_err(|_| anyhow::anyhow!("the swarm has ended"))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // The end of the orders is the order to end.
        self.orders = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

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

struct Run {
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
    fn new(plan: Plan, tally: Arc<Tally>, wave: Arc<Wave>) -> anyhow::Result<Self> {
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

    fn run(mut self, orders: &Receiver<Order>) -> anyhow::Result<()> {
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
}

impl Run {
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

/// Unix time in microseconds.
#[must_use]
pub fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
