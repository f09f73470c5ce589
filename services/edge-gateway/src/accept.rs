//! The listener: limits before a byte is parsed, one request head at a time, and the way of a socket to its shard.
//!
//! A new socket goes to its shard at once, which answers the usual request for a WebSocket itself. All other requests
//! come back from there with their first bytes and are served here: own loop over hyper, because `axum::serve` keeps
//! silent and half-finished requests for ever. A connection lives in a task only until it is upgraded.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioTimer;
use roomcast_proto::frame::Encoding;
use roomcast_proto::refusal::{Code, Refusal};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Ledger, Place, Stranger, TooMany};
use crate::error::problem;
use crate::gate::{self, Admitted};
use crate::http::{self as routes, Desk};
use crate::settings::Head;
use crate::shard::{Arrival, Caller, Handle, Newcomer};
use crate::upgrade::{self, SOCKET_PATH};

mod io;

use io::Io;

/// Bytes the kernel may hold for a client that does not read, beside its outbox. The kernel doubles it for itself.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes of it that may be unsent. What waits there can no longer give way to something newer, so a slow client is kept
/// on the newest state by keeping it short; what is on its way does not count, so a fast one is not held up.
const UNSENT_BYTES: u32 = 32 * 1024;
/// After this time without an acknowledgement of sent bytes the kernel gives a connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Turned-away sockets that are kept open so long that their answer arrives: closing at once would reset it away.
const TURNED_AWAY_MAX: usize = 128;
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);
/// The same for a request that was refused while its head was still coming.
const LAST_BYTES: usize = 256 * 1024;
const LAST_BYTES_FOR: Duration = Duration::from_millis(500);

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What the listener works with.
#[derive(Debug)]
pub struct Door {
    /// Who is in.
    pub ledger: Ledger,
    /// The routes' own things; the gate and the origins among them.
    pub desk: Desk,
    /// Limits of a request's head.
    pub head: Head,
    /// Where sockets go, in turn.
    pub shards: Vec<Handle>,
    /// How long running requests may go on after shutdown began.
    pub drain: Duration,
    next: AtomicUsize,
    started: Instant,
}

impl Door {
    /// A door with nobody in.
    #[must_use]
    pub fn new(ledger: Ledger, desk: Desk, head: Head, shards: Vec<Handle>, drain: Duration) -> Self {
        Self {
            ledger,
            desk,
            head,
            shards,
            drain,
            next: AtomicUsize::new(0),
            started: Instant::now(),
        }
    }

    /// The shard whose turn it is.
    fn next_shard(&self) -> Option<&Handle> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards.get(next % self.shards.len().max(1))
    }
}

/// Sets what every accepted socket inherits (Linux copies a listener's options): no delay, a bounded send buffer, an
/// end for peers that vanished. Saves three system calls per connection.
///
/// # Errors
/// Where the system refuses one of them.
pub fn tune(listener: &TcpListener) -> std::io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    }
    Ok(())
}

/// Serves a listener until `shutdown`, then lets running requests finish. Sockets that were upgraded are the shards'.
///
/// # Cancel safety
/// Dropping the future stops accepting and cuts the requests.
pub async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    mut callers: Receiver<Caller>,
    shutdown: CancellationToken,
) {
    // A socket that is accepted through tokio's own listener would be registered with tokio, and taken out again.
    let listener = listener.into_std().map(mio::net::TcpListener::from_std);
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; a listener of mio's keeps its descriptor as long as it lives"
    )]
    let watched = listener.and_then(|listener| AsyncFd::with_interest(listener, Interest::READABLE));
    let listener = match watched {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener cannot be watched: {error}"),
    };
    let router = routes::router(door.desk.clone());
    let tasks = TaskTracker::new();
    let mut turned_away: VecDeque<(Instant, mio::net::TcpStream)> = VecDeque::new();
    let mut tick = tokio::time::interval(TURNED_AWAY_FOR);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.async_io(Interest::READABLE, |listener| listener.accept()) => accepted,
            Some(caller) = callers.recv() => {
                match Guest::new(caller) {
                    Ok(guest) => drop(tasks.spawn(guest.served(Arc::clone(&door), router.clone(), shutdown.clone()))),
                    Err(error) => tracing::warn!(%error, "a socket cannot be watched: {error}"),
                }
                continue;
            }
            _ = tick.tick(), if !turned_away.is_empty() => {
                while turned_away.front().is_some_and(|(since, _)| since.elapsed() >= TURNED_AWAY_FOR) {
                    turned_away.pop_front();
                }
                continue;
            }
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed: {error}");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let now = u64::try_from(door.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        match door.ledger.enter(peer.ip(), now) {
            Ok((place, stranger)) => {
                let newcomer = Newcomer {
                    socket,
                    place,
                    stranger,
                    accepted: Instant::now(),
                };
                if let Some(shard) = door.next_shard() {
                    shard.receive(newcomer);
                }
            }
            Err(limit) => {
                turn_away(&door, &socket, limit);
                if turned_away.len() >= TURNED_AWAY_MAX {
                    turned_away.pop_front();
                }
                turned_away.push_back((Instant::now(), socket));
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(door.drain, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "requests did not finish in time");
    }
}

fn turn_away(door: &Door, socket: &impl AsFd, limit: TooMany) {
    door.desk
        .metrics
        .turned_away
        .with_label_values(&[limit.as_str()])
        .inc();
    say_last(socket, if limit.is_callers() { TOO_MANY } else { BUSY });
}

/// Ends a socket that was silent for too long.
pub(crate) fn too_late(socket: &impl AsFd) {
    say_last(socket, TOO_LATE);
}

/// Writes a short answer past tokio, which has not heard yet that a new socket can be written to. The send buffer holds
/// nothing, so it fits; who is gone misses nothing.
fn say_last(socket: &impl AsFd, answer: &[u8]) {
    let socket = SockRef::from(socket);
    let _ = socket.send(answer);
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// A connection on its way in.
struct Guest {
    stream: Arc<TcpStream>,
    first: Bytes,
    held: Arc<Mutex<Held>>,
    accepted: Instant,
}

/// What was agreed: the upgrade under way, the user, how frames are written.
type Agreed = (OnUpgrade, Option<Admitted>, Encoding);

/// What the connection holds, and what was agreed when it asked for a WebSocket.
struct Held {
    place: Option<Place>,
    stranger: Option<Stranger>,
    agreed: Option<Agreed>,
}

impl Guest {
    fn new(Caller { newcomer, first }: Caller) -> std::io::Result<Self> {
        let held = Held {
            place: Some(newcomer.place),
            stranger: Some(newcomer.stranger),
            agreed: None,
        };
        Ok(Self {
            stream: Arc::new(TcpStream::from_std(newcomer.socket.into())?),
            first: first.into(),
            held: Arc::new(Mutex::new(held)),
            accepted: newcomer.accepted,
        })
    }

    async fn served(self, door: Arc<Door>, router: Router, shutdown: CancellationToken) {
        let ended = self.requests(&door, router, &shutdown).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended: {error}");
            if error.is_timeout() {
                too_late(&*self.stream);
            }
            return last_bytes(&self.stream).await;
        }
        let agreed = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .agreed
            .take();
        if let Some(agreed) = agreed
            && let Some(arrival) = self.arrival(agreed).await
            && let Some(shard) = door.next_shard()
        {
            shard.arrive(arrival);
        }
    }

    /// Serves requests until the connection ends or is to be a WebSocket.
    async fn requests(
        &self,
        door: &Arc<Door>,
        router: Router,
        shutdown: &CancellationToken,
    ) -> Result<(), hyper::Error> {
        let service = service_fn(|request: Request<Incoming>| {
            let (door, router, held) = (Arc::clone(door), router.clone(), Arc::clone(&self.held));
            async move { Ok::<_, Infallible>(answer(&door, router, &held, request).await) }
        });
        // Its first byte may have taken a part of the time.
        let waited = self.accepted.elapsed();
        let within = door.head.within.saturating_sub(waited).max(ACCEPT_REST);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(within)
            .max_buf_size(door.head.bytes_max)
            .max_headers(door.head.fields_max)
            .serve_connection(Io(Arc::clone(&self.stream), self.first.clone()), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// The socket, taken out of hyper and tokio.
    async fn arrival(self, (upgrade, admitted, encoding): Agreed) -> Option<Arrival> {
        let upgraded = upgrade.await.ok()?;
        let parts = upgraded.downcast::<Io>().ok()?;
        drop(self.stream);
        // Hyper's half was the last one beside ours.
        let stream = Arc::try_unwrap(parts.io.0).ok()?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arrival {
            socket: mio::net::TcpStream::from_std(stream.into_std().ok()?),
            watched: false,
            early: parts.read_buf.to_vec(),
            stranger: held.stranger.take().filter(|_| admitted.is_none()),
            admitted,
            encoding,
            place: held.place.take()?,
            accepted: self.accepted,
        })
    }
}

async fn answer(door: &Door, router: Router, held: &Mutex<Held>, mut request: Request<Incoming>) -> Response {
    if request.uri().path() != SOCKET_PATH {
        // A whole head has come: who asks like this does not sit here to take up room.
        drop(
            held.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .stranger
                .take(),
        );
        return routes::answer(&door.desk, router, request).await;
    }
    let agreed = agree(door, &request);
    let outcome = agreed
        .as_ref()
        .map_or_else(|refusal| refusal.code.as_str(), |_| "switched");
    door.desk.metrics.upgrades.with_label_values(&[outcome]).inc();
    match agreed {
        Err(refusal) => refused(&refusal),
        Ok((agreed, admitted)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            let encoding = agreed.encoding.unwrap_or_default();
            held.lock().unwrap_or_else(PoisonError::into_inner).agreed = Some((upgrade, admitted, encoding));
            switched(&agreed)
        }
    }
}

/// Decides about a request for a WebSocket; a token that came with it is verified before anything is promised.
fn agree(door: &Door, request: &Request<Incoming>) -> Result<(upgrade::Upgrade, Option<Admitted>), Refusal> {
    let desk = &door.desk;
    let agreed = upgrade::check(
        request.method(),
        request.version(),
        request.uri(),
        request.headers(),
        &desk.origins,
    )?;
    desk.hub.accepting().map_err(|wait| {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Refusal::new(
            Code::Unavailable,
            "this gateway takes no connections at the moment",
        )
        .retry_after_ms(millis)
    })?;
    let Some(token) = &agreed.token else {
        return Ok((agreed, None));
    };
    let admitted = desk.gate.admit(token, routes::unix_secs());
    let outcome = admitted
        .as_ref()
        .map_or_else(|error| error.reason(), |_| "accepted");
    desk.metrics.tokens.with_label_values(&[outcome]).inc();
    let admitted = admitted.map_err(gate::refusal)?;
    Ok((agreed, Some(admitted)))
}

fn switched(agreed: &upgrade::Upgrade) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&agreed.accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(encoding) = agreed.encoding {
        let name = HeaderValue::from_static(encoding.subprotocol());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}

/// The same as bytes, for a shard that answers by itself.
pub(crate) fn switched_head(agreed: &upgrade::Upgrade) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in switched(agreed).headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A refused upgrade ends the connection: what follows such a request is not to be trusted.
fn refused(refusal: &Refusal) -> Response {
    let mut response = problem(refusal);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if refusal.code.temporary() && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Reads away what is still coming, for a moment, so that the last answer arrives before the connection is reset.
async fn last_bytes(stream: &TcpStream) {
    let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let reading = async {
        let (mut scratch, mut total) = ([0_u8; 4096], 0);
        while total < LAST_BYTES && stream.readable().await.is_ok() {
            match stream.try_read(&mut scratch) {
                Ok(0) => return,
                Ok(count) => total += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // Who takes longer has had its answer.
    let _ = tokio::time::timeout(LAST_BYTES_FOR, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn accepted_sockets_inherit_what_the_listener_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SEND_BUFFER_BYTES);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
