//! The floor: one epoll thread, one `write(2)` of a ready frame per delivery, and nothing else. Nothing that keeps its promises can
//! be cheaper, so budgets are ratios to it, measured in the same run. It understands nothing of what it reads.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket as Socket2, Type};

/// Sockets that may wait to be accepted.
const BACKLOG: i32 = 4_096;
const LISTENER: Token = Token(usize::MAX);
/// What it answers to a hello says these rooms, whoever asks.
pub const ROOMS: [&str; 3] = ["load.0", "load.17", "load.34"];
/// About as long as a gateway's answer to as many rooms, bytes.
const CONNECTED_BYTES: usize = 500;

/// Serves until killed: answers any request with an upgrade and whatever comes then with one ready answer, and writes one frame of
/// `frame_bytes` to every socket, `rate` times a second. Rate 0: holds connections and writes nothing by itself.
///
/// # Errors
/// When the address is taken.
pub fn run(listen: SocketAddr, rate: u32, frame_bytes: usize) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let socket = Socket2::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    // The gateway's: with a shorter queue a storm would measure the kernel's repeats.
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut sockets: Slab<Socket> = Slab::new();
    let mut events = Events::with_capacity(1024);
    let (frame, welcome) = (frame(frame_bytes), welcome());
    let mut next = (rate > 0).then(|| Instant::now() + Duration::from_secs(1) / rate);
    loop {
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = poll.poll(&mut events, wait)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut sockets)?;
            } else {
                read(&mut sockets, event.token().0, &welcome);
            }
        }
        if let Some(at) = next
            && Instant::now() >= at
        {
            for (_, socket) in &mut sockets {
                if socket.upgraded {
                    // A socket that does not take it all is not what the floor measures; the client counts what arrives.
                    let _ = socket.stream.write(&frame);
                }
            }
            next = Some(at + Duration::from_secs(1) / rate);
        }
    }
}

struct Socket {
    stream: TcpStream,
    upgraded: bool,
}

fn accept(poll: &Poll, listener: &TcpListener, sockets: &mut Slab<Socket>) -> anyhow::Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.set_nodelay(true);
        let entry = sockets.vacant_entry();
        poll.registry()
            .register(&mut stream, Token(entry.key()), Interest::READABLE)?;
        entry.insert(Socket {
            stream,
            upgraded: false,
        });
    }
    Ok(())
}

fn read(sockets: &mut Slab<Socket>, key: usize, welcome: &[u8]) {
    let mut scratch = [0_u8; 4096];
    let Some(socket) = sockets.get_mut(key) else {
        return;
    };
    loop {
        match socket.stream.read(&mut scratch) {
            Ok(0) => {
                sockets.remove(key);
                return;
            }
            Ok(_) if !socket.upgraded => {
                socket.upgraded = true;
                let _ = socket.stream.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: floor\r\n\r\n",
                );
            }
            Ok(_) => {
                let _ = socket.stream.write(welcome);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => {
                sockets.remove(key);
                return;
            }
        }
    }
}

/// A text frame that looks like an event to the swarm.
fn frame(bytes: usize) -> Vec<u8> {
    text_frame(&filled("{\"event\":{\"room\":\"floor\",\"fill\":\"", bytes))
}

/// What a client waits for that said hello: an answer, and that it has caught up with its rooms.
fn welcome() -> Vec<u8> {
    let caught_up = ROOMS
        .map(|room| text_frame(format!(r#"{{"caughtUp":{{"room":"{room}","cursor":"1.0"}}}}"#).as_bytes()));
    let mut frames = text_frame(&filled("{\"answer\":{\"fill\":\"", CONNECTED_BYTES));
    frames.extend(caught_up.concat());
    frames
}

/// An object in an object that ends with a text which fills it up to `bytes`.
fn filled(start: &str, bytes: usize) -> Vec<u8> {
    let mut payload = start.as_bytes().to_vec();
    payload.resize(bytes.saturating_sub(3).max(payload.len()), b'x');
    payload.extend_from_slice(b"\"}}");
    payload
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(u8::try_from(short).unwrap_or(125)),
        Ok(long) => {
            frame.push(126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}
