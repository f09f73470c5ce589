//! All requests but the usual one for a WebSocket.
//!
//! Shards accept, and answer the usual request themselves. All others come from there with their first bytes and are
//! served here: own loop over hyper, because `axum::serve` keeps silent and half-finished requests for ever. A
//! connection lives in a task only until it is upgraded.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_LENGTH, DATE};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioTimer;
use roomcast_proto::refusal::Refusal;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Place, Stranger};
use crate::encoding::Encoding;
use crate::gate::{self, Admitted};
use crate::http::{self as routes, Desk, Following};
use crate::limit::Limit;
use crate::metrics::GatewayMetrics;
use crate::settings::Head;
use crate::shard::{Arrival, Caller, Handle, Stream};
use crate::upgrade::{self, SOCKET_PATH};

mod away;
mod head;
mod io;
mod listen;

pub(crate) use away::{Away, DESCRIPTORS, DRAIN, HEAD, say_last};
use away::{busy, last_bytes};
pub(crate) use head::switched_head;
use head::{date, head_of, refused, switched};
use io::Io;
pub use io::Pace;
pub use listen::{Sockets, listen};

/// A request whose first bytes took all of its time has at least this.
const REQUEST_AT_LEAST: Duration = Duration::from_millis(50);
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
    /// Whether a whole head has come.
    asked: AtomicBool,
    /// Whether bytes have come since the last were written.
    heard: Arc<AtomicBool>,
    /// What is written has to give way to others.
    cut: CancellationToken,
}

/// Why requests are served no longer.
enum Broken {
    /// The first head took too long.
    TooLate,
    /// Hyper gave up.
    Hyper(hyper::Error),
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among those without a token again, where another request gave it back.
    fn be_a_stranger(&self, metrics: &GatewayMetrics) -> Result<(), Refusal> {
        let mut held = self.held();
        if let (None, Some(place)) = (&held.stranger, &held.place) {
            let stranger = place.be_a_stranger().map_err(|limit| {
                metrics.turned_away.with_label_values(&[limit.as_str()]).inc();
                Away::from(limit).refusal()
            })?;
            held.stranger = Some(stranger);
        }
        Ok(())
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
                asked: AtomicBool::new(false),
                heard: Arc::new(AtomicBool::new(true)),
                cut: CancellationToken::new(),
            }),
            accepted: newcomer.accepted,
        })
    }

    async fn served(self, door: Arc<Door>, router: Router, shutdown: CancellationToken) {
        let ended = self.requests(&door, router, &shutdown).await;
        if let Err(broken) = ended {
            return self.broken(&door, broken).await;
        }
        let agreed = self.shared.held().agreed.take();
        if let Some(agreed) = agreed
            && let Some(arrival) = self.arrival(agreed).await
            && let Some(shard) = door.next_shard()
        {
            shard.arrive(arrival);
        }
    }

    /// Tells the other side why, where it waits for a word.
    async fn broken(&self, door: &Door, broken: Broken) {
        let metrics = &door.desk.metrics;
        let is_late = match &broken {
            Broken::TooLate => true,
            Broken::Hyper(error) => {
                tracing::debug!(%error, "a connection ended: {error}");
                if error.is_parse_too_large() {
                    metrics.limited(Limit::Head);
                }
                error.is_timeout()
            }
        };
        if is_late {
            if !self.shared.heard.load(Ordering::Relaxed) {
                // It was kept open, and nothing is asked: an answer now could be taken for one to a request that is under way.
                return;
            }
            metrics.turned_away.with_label_values(&[HEAD]).inc();
            say_last(&*self.stream, Away::TooLate);
        }
        last_bytes(&self.stream).await;
    }

    /// Serves requests until the connection ends, or its socket is wanted.
    async fn requests(
        &self,
        door: &Arc<Door>,
        router: Router,
        shutdown: &CancellationToken,
    ) -> Result<(), Broken> {
        let service = service_fn(|request: Request<Incoming>| {
            let (door, router, shared) = (Arc::clone(door), router.clone(), Arc::clone(&self.shared));
            async move { Ok::<_, Infallible>(answer(&door, router, &shared, request).await) }
        });
        let within = door.head.within;
        let heard = Arc::clone(&self.shared.heard);
        let io = Io::new(
            Arc::clone(&self.stream),
            self.first.clone(),
            Arc::clone(door),
            heard,
        );
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(within)
            .max_buf_size(door.head.bytes_max)
            .max_headers(door.head.fields_max)
            .serve_connection(io, service)
            .with_upgrades();
        // The first byte may have taken a part of the time; those that follow have all of it.
        let first_head = sleep(
            within
                .saturating_sub(self.accepted.elapsed())
                .max(REQUEST_AT_LEAST),
        );
        let (mut connection, mut first_head) = (std::pin::pin!(connection), std::pin::pin!(first_head));
        let (mut is_asked, mut is_draining) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(Broken::Hyper),
                // The connection is dropped and leaves the socket as it is: answers before this one are written.
                () = self.shared.wanted.notified() => return Ok(()),
                () = self.shared.cut.cancelled() => return Ok(()),
                () = first_head.as_mut(), if !is_asked => {
                    is_asked = self.shared.asked.load(Ordering::Relaxed);
                    if !is_asked {
                        return Err(Broken::TooLate);
                    }
                }
                () = shutdown.cancelled(), if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// The socket, taken out of hyper and tokio.
    async fn arrival(self, agreed: Agreed) -> Option<Arrival> {
        let (stream, early, admitted, encoding, asked) = match agreed {
            Agreed::Socket(upgrade, admitted, encoding) => {
                let upgraded = upgrade.await.ok()?;
                let parts = upgraded.downcast::<Io>().ok()?;
                drop(self.stream);
                let (stream, unread) = parts.io.into_parts();
                let early = [&*parts.read_buf, &*unread].concat();
                (stream, early, admitted, encoding, None)
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
            answer: Bytes::new(),
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
    shared.asked.store(true, Ordering::Relaxed);
    if request.uri().path() != SOCKET_PATH {
        // A whole head has come: who asks like this does not sit here to take up room.
        drop(shared.held().stranger.take());
        let mut response = routes::answer(&door.desk, router, request, &shared.cut).await;
        let Some(following) = response.extensions_mut().remove::<Following>() else {
            return response;
        };
        // The router took the empty body for all there will be; a stream lasts until the connection ends (RFC 9112 §6.3).
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().extend(date().map(|date| (DATE, date)));
        let head = head_of("200 OK", response.headers());
        shared.held().agreed = Some(Agreed::Stream(following, head.into()));
        shared.wanted.notify_one();
        // Whoever drives this takes the socket and drops it with the request.
        return std::future::pending().await;
    }
    let agreed = agree(door, &request).and_then(|agreed| {
        if agreed.1.is_none() {
            shared.be_a_stranger(&door.desk.metrics)?;
        }
        Ok(agreed)
    });
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
