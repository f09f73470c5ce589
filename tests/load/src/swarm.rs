//! Thousands of dashboards in one thread: each opens a socket, says hello, counts what it is sent and answers pings.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What the swarm has seen, readable from any thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sockets upgraded.
    pub open: AtomicU64,
    /// `connected` frames.
    pub connected: AtomicU64,
    /// `event` frames.
    pub events: AtomicU64,
    /// Bytes of `event` frames.
    pub event_bytes: AtomicU64,
    /// Sockets that ended, by either side.
    pub ended: AtomicU64,
    /// Refusals: `error` frames and answers other than 101.
    pub refused: AtomicU64,
    /// Microseconds from `"sent":` in the event's data to the frame's arrival.
    latencies: Mutex<Vec<u32>>,
    stop: AtomicBool,
}

impl Tally {
    /// Takes the latencies noted since the last call, sorted, in microseconds.
    #[must_use]
    pub fn latencies(&self) -> Vec<u32> {
        let mut taken = self
            .latencies
            .lock()
            .map(|mut list| std::mem::take(&mut *list))
            .unwrap_or_default();
        taken.sort_unstable();
        taken
    }
}

/// A running swarm; ends when dropped.
pub struct Swarm {
    /// What it has seen.
    pub tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

/// What to open.
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// How many sockets.
    pub connections: usize,
    /// New sockets a second.
    pub rate: usize,
    /// The first message of connection `i`; `None`: says nothing (the floor).
    pub hello: Box<dyn Fn(usize) -> Option<String> + Send>,
}

impl Swarm {
    /// Starts opening sockets; [`Swarm::ready`] waits for all of them.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let tally = Arc::new(Tally::default());
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(&plan, &shared) {
                eprintln!("swarm: {error}");
            }
        });
        Self {
            tally,
            thread: Some(thread),
        }
    }

    /// Waits until `count` sockets are open and, where they said hello, connected.
    ///
    /// # Errors
    /// After `within`, with what was reached.
    pub fn ready(&self, count: u64, hello: bool, within: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let done = if hello {
                &self.tally.connected
            } else {
                &self.tally.open
            };
            let reached = done.load(Ordering::Relaxed);
            if reached >= count {
                return Ok(start.elapsed());
            }
            anyhow::ensure!(
                start.elapsed() < within,
                "{reached} of {count} connections after {within:?}; {} refused, {} ended",
                self.tally.refused.load(Ordering::Relaxed),
                self.tally.ended.load(Ordering::Relaxed)
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Socket {
    stream: TcpStream,
    upgraded: bool,
    requested: bool,
    /// An incomplete frame, between reads.
    rest: Vec<u8>,
}

fn run(plan: &Plan, tally: &Tally) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(4096);
    let mut sockets: Vec<Option<Socket>> = Vec::with_capacity(plan.connections);
    let mut scratch = vec![0_u8; 256 * 1024];
    let start = Instant::now();
    while !tally.stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * plan.rate as f64) as usize + 1;
        while sockets.len() < plan.connections.min(due) {
            let mut stream = TcpStream::connect(plan.address)?;
            let token = Token(sockets.len());
            poll.registry()
                .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            sockets.push(Some(Socket {
                stream,
                upgraded: false,
                requested: false,
                rest: Vec::new(),
            }));
        }
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_millis(2)))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            let index = event.token().0;
            let Some(socket) = sockets[index].as_mut() else {
                continue;
            };
            if event.is_writable() && !socket.requested {
                socket.requested = true;
                let _ = socket.stream.set_nodelay(true);
                let request = format!(
                    "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: roomcast.v1.json\r\n\r\n",
                    plan.address
                );
                let _ = socket.stream.write(request.as_bytes());
                poll.registry()
                    .reregister(&mut socket.stream, event.token(), Interest::READABLE)?;
            }
            if event.is_readable() && !read(plan, tally, index, socket, &mut scratch) {
                tally.ended.fetch_add(1, Ordering::Relaxed);
                sockets[index] = None;
            }
        }
    }
    Ok(())
}

/// Reads what is there; false when the socket ended.
fn read(plan: &Plan, tally: &Tally, index: usize, socket: &mut Socket, scratch: &mut [u8]) -> bool {
    loop {
        let n = match socket.stream.read(scratch) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        if socket.rest.is_empty() && socket.upgraded {
            let used = frames(tally, socket, &scratch[..n]);
            socket.rest.extend_from_slice(&scratch[used..n]);
            continue;
        }
        let mut held = std::mem::take(&mut socket.rest);
        held.extend_from_slice(&scratch[..n]);
        if !socket.upgraded {
            let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
                socket.rest = held;
                continue;
            };
            if !held.starts_with(b"HTTP/1.1 101") {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            socket.upgraded = true;
            tally.open.fetch_add(1, Ordering::Relaxed);
            held.drain(..end + 4);
            if let Some(hello) = (plan.hello)(index) {
                let _ = socket.stream.write(&masked(hello.as_bytes()));
            }
        }
        let used = frames(tally, socket, &held);
        held.drain(..used);
        socket.rest = held;
    }
}

/// Counts whole frames in `bytes` and returns how many bytes they took.
fn frames(tally: &Tally, socket: &mut Socket, bytes: &[u8]) -> usize {
    let mut used = 0;
    while let Some((header, length)) = head(&bytes[used..]) {
        let Some(payload) = bytes.get(used + header..used + header + length) else {
            break;
        };
        if payload.starts_with(b"{\"event\"") {
            tally.events.fetch_add(1, Ordering::Relaxed);
            tally
                .event_bytes
                .fetch_add((header + length) as u64, Ordering::Relaxed);
            if let Some(sent) = sent_at(payload) {
                let late = now_micros().saturating_sub(sent);
                if let Ok(mut list) = tally.latencies.lock() {
                    list.push(u32::try_from(late).unwrap_or(u32::MAX));
                }
            }
        } else if payload.starts_with(b"{\"ping\"") {
            let _ = socket.stream.write(&masked(b"{\"pong\":{}}"));
        } else if payload
            .windows(13)
            .take(16)
            .any(|w| w == b"\"connected\":{\"".split_at(13).0)
        {
            tally.connected.fetch_add(1, Ordering::Relaxed);
        } else if payload.windows(8).take(24).any(|w| w == b"\"error\":") {
            tally.refused.fetch_add(1, Ordering::Relaxed);
        }
        used += header + length;
    }
    used
}

/// Header and payload length of a server's frame.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? & 0x7f {
        126 => Some((
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        )),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            Some((10, usize::try_from(u64::from_be_bytes(length)).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}

fn sent_at(payload: &[u8]) -> Option<u64> {
    let name = b"\"sent\":";
    let at = payload.windows(name.len()).position(|w| w == name)? + name.len();
    let digits = payload[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0_u64, |n, b| n * 10 + u64::from(b - b'0')))
}

/// Unix time in microseconds.
#[must_use]
pub fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// A client's text frame; the mask is zero, which the protocol allows and costs nothing here.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | u8::try_from(short).unwrap_or(0)),
        Ok(long) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
