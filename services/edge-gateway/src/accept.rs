//! The listeners, and all requests but the usual one for a WebSocket.
//!
//! Shards accept, and answer the usual request themselves. All others come from there with their first bytes and are
//! served here: own loop over hyper, because `axum::serve` keeps silent and half-finished requests for ever. A
//! connection lives in a task only until it is upgraded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioTimer;
use mio::net::TcpListener;
use roomcast_proto::refusal::{Code, Refusal};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Place, Stranger, TooMany};
use crate::encoding::Encoding;
use crate::error::problem;
use crate::gate::{self, Admitted};
use crate::http::{self as routes, Desk, Following};
use crate::limit::Limit;
use crate::settings::Head;
use crate::shard::{Arrival, Caller, Handle, Stream};
use crate::upgrade::{self, SOCKET_PATH};

mod io;

use io::Io;
pub use io::Pace;

/// Bytes of it that may be unsent. What waits there can no longer give way to something newer, so a slow client is kept
/// on the newest state by keeping it short; what is on its way does not count, so a fast one is not held up. The kernel says
/// that there is room when half of it is sent: 8 KiB within the 5 s of a write are 13 kbit/s.
const UNSENT_BYTES: u32 = 16 * 1024;
/// A request whose first bytes took all of its time has at least this.
const REQUEST_AT_LEAST: Duration = Duration::from_millis(50);
/// Connections that wait in the kernel for a shard; the system has its own cap. A burst of returning clients queues
/// there instead of being refused by it.
const BACKLOG: i32 = 4096;
/// How long a socket is read from after its request was refused while its head was still coming.
const LAST_BYTES: usize = 256 * 1024;
const LAST_BYTES_FOR: Duration = Duration::from_millis(500);

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// The gateway is full, or going down.
    Busy,
    /// The address holds as many connections as it may.
    Address,
    /// The address opens too many at once.
    AddressRate,
    /// Nothing was asked for in time.
    TooLate,
}

impl Away {
    /// The words in metric labels beside those of the limits.
    pub(crate) const LABELS: [&'static str; 3] = [DRAIN, DESCRIPTORS, HEAD];
}

/// Label: the gateway is going down.
pub(crate) const DRAIN: &str = "drain";
/// Label: the process has no file descriptor left.
pub(crate) const DESCRIPTORS: &str = "descriptors";
/// Label: nothing, or no whole request, came in time.
pub(crate) const HEAD: &str = "head";

impl From<TooMany> for Away {
    fn from(limit: TooMany) -> Self {
        match limit {
            TooMany::Connections | TooMany::Strangers | TooMany::Rate => Self::Busy,
            // Those of a tenant and a user are known later, and said over the socket.
            TooMany::Address | TooMany::AddressStrangers | TooMany::Tenant | TooMany::User => Self::Address,
            TooMany::AddressRate => Self::AddressRate,
        }
    }
}

impl Away {
    fn refusal(self) -> Refusal {
        match self {
            Self::Busy => busy(1_000),
            Self::Address => {
                Refusal::new(Code::Limit, "too many connections of this address").retry_after_ms(5_000)
            }
            Self::AddressRate => {
                Refusal::new(Code::Rate, "too many new connections of this address").retry_after_ms(5_000)
            }
            Self::TooLate => Refusal::new(Code::RequestTimeout, "the request took too long to arrive"),
        }
    }

    /// The whole answer, written once: it is said when there is no time to write it.
    fn answer(self) -> &'static [u8] {
        static ANSWERS: [LazyLock<Vec<u8>>; 4] = [
            LazyLock::new(|| Away::Busy.write()),
            LazyLock::new(|| Away::Address.write()),
            LazyLock::new(|| Away::AddressRate.write()),
            LazyLock::new(|| Away::TooLate.write()),
        ];
        &ANSWERS[self as usize]
    }

    fn write(self) -> Vec<u8> {
        let (refusal, body) = (self.refusal(), self.refusal().problem_json());
        let mut headers = problem(&refusal).headers().clone();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut answer = head_of(&status.to_string(), &headers);
        answer.extend_from_slice(body.as_bytes());
        answer
    }
}

fn busy(retry_after_ms: u64) -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "this gateway takes no connections at the moment",
    )
    .retry_after_ms(retry_after_ms)
}

/// What the kernel is told of every socket.
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    /// `ROOMCAST_SEND_BUFFER_BYTES`: what it may hold for a client that does not read, beside its outbox. It doubles it for itself.
    pub send_buffer_bytes: usize,
    /// `ROOMCAST_UNACKNOWLEDGED_SECONDS`: without an acknowledgement of sent bytes for so long it gives a connection up.
    pub unacknowledged: Duration,
}

/// What requests are served with.
#[derive(Debug)]
pub struct Door {
    /// The routes' own things; the gate and the origins among them.
    pub desk: Desk,
    /// Limits of a request's head.
    pub head: Head,
    /// Limits of a connection's bytes, both ways.
    pub pace: Pace,
    /// Where sockets go, in turn.
    pub shards: Vec<Handle>,
    /// How long running requests may go on after shutdown began.
    pub drain: Duration,
    next: AtomicUsize,
}

impl Door {
    /// A door before the first request.
    #[must_use]
    pub fn new(desk: Desk, head: Head, pace: Pace, shards: Vec<Handle>, drain: Duration) -> Self {
        Self {
            desk,
            head,
            pace,
            shards,
            drain,
            next: AtomicUsize::new(0),
        }
    }

    /// The shard whose turn it is.
    fn next_shard(&self) -> Option<&Handle> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.shards.get(next % self.shards.len().max(1))
    }
}

/// Opens `count` listeners on one address, among which the kernel deals new connections out.
///
/// # Errors
/// The address is taken, also by another process of ours, or is not this machine's.
pub fn listen(address: SocketAddr, count: usize, sockets: Sockets) -> std::io::Result<Vec<TcpListener>> {
    let domain = Domain::for_address(address);
    let bound = |address: SocketAddr, shared: bool| {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        Ok::<_, std::io::Error>(socket)
    };
    // Sockets that share a port may join others that do; this one may not, so it finds out whether the port is free.
    let alone = bound(address, false)?;
    alone.listen(1)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(address, true)?;
        tune(&socket, sockets)?;
        socket.set_nonblocking(true)?;
        listeners.push(socket);
    }
    // All at once: one that listened before the others would get what comes in between.
    for socket in &listeners {
        socket.listen(BACKLOG)?;
    }
    let into_mio = |socket: Socket| TcpListener::from_std(socket.into());
    Ok(listeners.into_iter().map(into_mio).collect())
}

/// Sets what every accepted socket inherits (Linux copies a listener's options): no delay, a bounded send buffer, an
/// end for peers that vanished. Saves system calls per connection.
fn tune(socket: &Socket, limits: Sockets) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(limits.send_buffer_bytes)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        socket.set_tcp_user_timeout(Some(limits.unacknowledged))?;
    }
    Ok(())
}

/// Serves the requests that shards do not answer themselves until `shutdown`; then lets running ones finish, while
/// shards let nobody in any more. Sockets that were upgraded are the shards'.
///
/// # Cancel safety
/// Dropping the future cuts the requests.
pub async fn serve(door: Arc<Door>, mut callers: Receiver<Caller>, shutdown: CancellationToken) {
    let router = routes::router(door.desk.clone());
    let tasks = TaskTracker::new();
    loop {
        let caller = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            caller = callers.recv() => caller,
        };
        match caller.map(Guest::new) {
            Some(Ok(guest)) => {
                let served = guest.served(Arc::clone(&door), router.clone(), shutdown.clone());
                drop(tasks.spawn(served));
            }
            Some(Err(error)) => tracing::warn!(%error, "a socket cannot be watched: {error}"),
            None => break,
        }
    }
    door.shards.iter().for_each(Handle::shut);
    tasks.close();
    if tokio::time::timeout(door.drain, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "requests did not finish in time");
    }
}

/// Writes a last answer past whoever reads and writes the socket otherwise. The send buffer holds nothing, so it fits;
/// who is gone misses nothing.
pub(crate) fn say_last(socket: &impl AsFd, why: Away) {
    let socket = SockRef::from(socket);
    let _ = socket.send(why.answer());
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// A connection on its way in.
struct Guest {
    stream: Arc<TcpStream>,
    first: Bytes,
    shared: Arc<Shared>,
    accepted: Instant,
}

/// What was agreed on.
enum Agreed {
    /// A WebSocket: the upgrade under way, the user, how frames are written.
    Socket(OnUpgrade, Option<Admitted>, Encoding),
    /// A stream of server-sent events, to be answered by a shard.
    Stream(Following, Bytes),
}

/// What the connection holds, and what was agreed when it asked for more than an answer.
struct Held {
    place: Option<Place>,
    stranger: Option<Stranger>,
    agreed: Option<Agreed>,
}

/// What one connection's task and its requests share.
struct Shared {
    held: Mutex<Held>,
    /// A stream was agreed on: the socket is wanted back from hyper.
    wanted: Notify,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            shared: Arc::new(Shared {
                held: Mutex::new(held),
                wanted: Notify::new(),
            }),
            accepted: newcomer.accepted,
        })
    }

    async fn served(self, door: Arc<Door>, router: Router, shutdown: CancellationToken) {
        let ended = self.requests(&door, router, &shutdown).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended: {error}");
            if error.is_parse_too_large() {
                door.desk.metrics.limited(Limit::Head);
            }
            if error.is_timeout() {
                door.desk.metrics.turned_away.with_label_values(&[HEAD]).inc();
                say_last(&*self.stream, Away::TooLate);
            }
            return last_bytes(&self.stream).await;
        }
        let agreed = self.shared.held().agreed.take();
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
            let (door, router, shared) = (Arc::clone(door), router.clone(), Arc::clone(&self.shared));
            async move { Ok::<_, Infallible>(answer(&door, router, &shared, request).await) }
        });
        // Its first byte may have taken a part of the time.
        let waited = self.accepted.elapsed();
        let within = door.head.within.saturating_sub(waited).max(REQUEST_AT_LEAST);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(within)
            .max_buf_size(door.head.bytes_max)
            .max_headers(door.head.fields_max)
            .serve_connection(
                Io::new(Arc::clone(&self.stream), self.first.clone(), Arc::clone(door)),
                service,
            )
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            // The connection is dropped and leaves the socket as it is: answers before this one are written.
            () = self.shared.wanted.notified() => return Ok(()),
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// The socket, taken out of hyper and tokio.
    async fn arrival(self, agreed: Agreed) -> Option<Arrival> {
        let (stream, early, admitted, encoding, asked) = match agreed {
            Agreed::Socket(upgrade, admitted, encoding) => {
                let upgraded = upgrade.await.ok()?;
                let parts = upgraded.downcast::<Io>().ok()?;
                drop(self.stream);
                let early = parts.read_buf.to_vec();
                (parts.io.into_stream(), early, admitted, encoding, None)
            }
            Agreed::Stream(mut following, head) => {
                let resident = following.take_resident();
                if let (Some(place), Some(resident)) = (&mut self.shared.held().place, resident) {
                    place.hold(resident);
                }
                let Following {
                    admitted, request, ..
                } = following;
                let asked = Box::new(Stream { head, request });
                (
                    self.stream,
                    Vec::new(),
                    Some(admitted),
                    Encoding::Sse,
                    Some(asked),
                )
            }
        };
        // Hyper's half was the last one beside ours.
        let stream = Arc::try_unwrap(stream).ok()?;
        let mut held = self.shared.held();
        Some(Arrival {
            socket: mio::net::TcpStream::from_std(stream.into_std().ok()?),
            watched: false,
            early,
            stranger: held.stranger.take().filter(|_| admitted.is_none()),
            admitted,
            encoding,
            stream: asked,
            place: held.place.take()?,
            accepted: self.accepted,
        })
    }
}

async fn answer(door: &Door, router: Router, shared: &Shared, mut request: Request<Incoming>) -> Response {
    if request.uri().path() != SOCKET_PATH {
        // A whole head has come: who asks like this does not sit here to take up room.
        drop(shared.held().stranger.take());
        let mut response = routes::answer(&door.desk, router, request).await;
        let Some(following) = response.extensions_mut().remove::<Following>() else {
            return response;
        };
        // The router took the empty body for all there will be; a stream lasts until the connection ends (RFC 9112 §6.3).
        response.headers_mut().remove(CONTENT_LENGTH);
        let head = head_of("200 OK", response.headers());
        shared.held().agreed = Some(Agreed::Stream(following, head.into()));
        shared.wanted.notify_one();
        // Whoever drives this takes the socket and drops it with the request.
        return std::future::pending().await;
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
            let encoding = agreed.encoding.unwrap_or_default().into();
            shared.held().agreed = Some(Agreed::Socket(upgrade, admitted, encoding));
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
        door.head.url_bytes_max,
    )
    .inspect_err(|refusal| routes::count_url(desk, refusal))?;
    desk.hub.accepting().map_err(|wait| {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        busy(millis)
    })?;
    let Some(token) = &agreed.token else {
        return Ok((agreed, None));
    };
    let admitted = desk.gate.admit(token, routes::unix_secs());
    Ok((agreed, Some(admitted.map_err(gate::refusal)?)))
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
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    head.extend_from_slice(agreed.accept.as_bytes());
    if let Some(encoding) = agreed.encoding {
        head.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        head.extend_from_slice(encoding.subprotocol().as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

fn head_of(status: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
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
    if refusal.code == Code::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
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

    const SOCKETS: Sockets = Sockets {
        send_buffer_bytes: 64 * 1024,
        unacknowledged: Duration::from_secs(7),
    };

    #[cfg(target_os = "linux")]
    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_told() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 1, SOCKETS).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (socket, _) = listeners[0].accept().unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SOCKETS.send_buffer_bytes);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SOCKETS.unacknowledged));
    }

    #[test]
    fn the_shards_share_a_port_and_no_second_gateway_joins_them() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 4, SOCKETS).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let taken = listen(address, 2, SOCKETS).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let clients: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let waiting = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        let dealt: Vec<usize> = listeners.iter().map(waiting).collect();
        assert_eq!(dealt.iter().sum::<usize>(), clients.len());
        #[cfg(target_os = "linux")]
        assert!(dealt.iter().all(|count| *count > 10), "{dealt:?}");
    }

    #[test]
    fn both_ways_to_switch_say_the_same() {
        use roomcast_proto::frame::Encoding;
        for encoding in [None, Some(Encoding::Json), Some(Encoding::Protobuf)] {
            let agreed = upgrade::Upgrade {
                accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
                encoding,
                token: None,
            };
            let written = head_of("101 Switching Protocols", switched(&agreed).headers());
            assert_eq!(
                String::from_utf8(switched_head(&agreed)).unwrap(),
                String::from_utf8(written).unwrap()
            );
        }
    }

    #[test]
    fn last_answers_are_problems_with_a_hint() {
        for (why, status, code, hint) in [
            (
                Away::Busy,
                "503 Service Unavailable",
                "unavailable",
                "retry-after: 1\r\n",
            ),
            (
                Away::Address,
                "429 Too Many Requests",
                "limit",
                "retry-after: 5\r\n",
            ),
            (
                Away::AddressRate,
                "429 Too Many Requests",
                "rate",
                "retry-after: 5\r\n",
            ),
            (
                Away::TooLate,
                "408 Request Timeout",
                "request_timeout",
                "connection: close\r\n",
            ),
        ] {
            let answer = std::str::from_utf8(why.answer()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let head = format!("{head}\r\n");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            assert!(
                head.contains(hint) && head.contains("content-type: application/problem+json\r\n"),
                "{head}"
            );
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len())),
                "{head}"
            );
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["code"], code);
        }
    }
}
