//! HTTP accept: our own loop over hyper, with limits that hold before a request exists.
//!
//! `axum::serve` keeps silent and half-finished requests for ever. Here a header must be complete within 5 s,
//! fit 16 KiB and 64 fields; connections are bounded; upgrades work; shutdown lets running requests finish.
//! Used by the admin port, ingest and the gateway's HTTP side. What a request's body may cost is the handler's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{IntCounterVec, IntGaugeVec};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use crate::metrics::Metrics;

/// What one connection over the limit gets before it is closed.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// How long accepting rests when the process is out of file descriptors; the ones in use need time to go.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time from the first wait for a header to its end; also how long a kept connection may rest between requests.
    pub header_timeout: Duration,
    /// Bytes of one request line with its header block, and of the read buffer. At least 8,192.
    pub header_bytes_max: usize,
    /// Header fields in one request.
    pub headers_max: usize,
    /// Connections at the same time; one more gets 503 with `Retry-After`. Upgraded ones count no longer.
    pub connections_max: usize,
    /// How long running requests may go on after shutdown began.
    pub drain: Duration,
    /// After this time without an acknowledgement of sent bytes the kernel gives the connection up.
    pub unacknowledged: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            connections_max: 10_000,
            drain: Duration::from_secs(20),
            unacknowledged: Duration::from_secs(30),
        }
    }
}

/// The metrics of all listeners of a process; declared once, labelled by listener.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    errors: IntCounterVec,
}

impl HttpMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where they are declared already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let by_listener = &["listener"];
        Ok(Self {
            connections: metrics.gauge_vec("roomcast_http_connections", "Open HTTP connections.", by_listener)?,
            accepted: metrics.counter_vec(
                "roomcast_http_accepted_total",
                "HTTP connections accepted since the start.",
                by_listener,
            )?,
            refused: metrics.counter_vec(
                "roomcast_http_refused_total",
                "HTTP connections answered with 503 because the listener had its maximum.",
                by_listener,
            )?,
            errors: metrics.counter_vec(
                "roomcast_http_errors_total",
                "HTTP connections that ended badly: accept, header_timeout, header_too_large, malformed, broken, cut.",
                &["listener", "reason"],
            )?,
        })
    }

    /// What a listener counts exists from the start, so that a rate over it is never "no data".
    fn show_zeros(&self, listener: &str) {
        self.refused.with_label_values(&[listener]);
        for reason in [
            "accept",
            "header_timeout",
            "header_too_large",
            "malformed",
            "broken",
            "cut",
        ] {
            self.errors.with_label_values(&[listener, reason]);
        }
    }
}

/// Serves HTTP/1 on a listener until `shutdown`, then lets running requests finish within [`Limits::drain`].
///
/// `service` is an axum `Router` or any clonable tower service that never fails. Handlers find the peer as
/// `ConnectInfo<SocketAddr>`. `name` labels the metrics (`admin`, `public`). TCP_NODELAY is set on every
/// connection.
///
/// # Cancel safety
/// Dropping the future stops accepting and cuts the open connections.
pub async fn serve<S>(
    listener: TcpListener,
    name: &'static str,
    service: S,
    limits: Limits,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Unpin + 'static,
    S::Future: Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    metrics.show_zeros(name);
    // Cuts what is left when this future ends, whichever way it ends.
    let cut = CancellationToken::new();
    let _cut_at_end = cut.clone().drop_guard();
    let driver = Driver {
        name,
        limits: Arc::new(limits),
        metrics,
        shutdown: shutdown.clone(),
        cut,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                driver.error("accept");
                tracing::debug!(%error, listener = name, "accept failed: {error}");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                driver.metrics.accepted.with_label_values(&[name]).inc();
                connections.spawn(driver.clone().connection(stream, peer, service.clone(), place));
            }
            Err(_) => driver.refuse(&stream),
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(driver.limits.drain, connections.wait())
        .await
        .is_err()
    {
        let left = connections.len();
        tracing::warn!(
            listener = name,
            left,
            "cut {left} HTTP connections that did not finish in time"
        );
    }
}

/// What every connection of a listener shares.
#[derive(Clone)]
struct Driver {
    name: &'static str,
    limits: Arc<Limits>,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
    cut: CancellationToken,
}

impl Driver {
    async fn connection<S>(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        service: S,
        _place: OwnedSemaphorePermit,
    ) where
        S: Service<Request<Incoming>, Response = Response, Error = Infallible>
            + Clone
            + Send
            + Unpin
            + 'static,
        S::Future: Send + 'static,
    {
        let _open = Open::new(self.metrics.connections.with_label_values(&[self.name]));
        self.tune(&stream);
        let served = AtomicBool::new(false);
        let first = &served;
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            first.store(true, Relaxed);
            request.extensions_mut().insert(ConnectInfo(peer));
            service.clone().oneshot(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(self.limits.header_bytes_max)
            .max_headers(self.limits.headers_max)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut draining = false;
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                () = self.cut.cancelled() => return self.error("cut"),
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            let rested = || {
                connection
                    .into_parts()
                    .is_some_and(|parts| parts.read_buf.is_empty())
            };
            if error.is_timeout() && served.load(Relaxed) && rested() {
                // Kept after a request, with nothing of another one: that is how most connections end.
                return;
            }
            self.error(reason(&error));
            tracing::debug!(%error, listener = self.name, "connection ended: {error}");
        }
    }

    fn tune(&self, stream: &TcpStream) {
        // Neither can fail on an open socket; on one that is already gone the next read says so.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(self.limits.unacknowledged));
    }

    fn refuse(&self, stream: &TcpStream) {
        self.metrics.refused.with_label_values(&[self.name]).inc();
        // Sent past tokio, which has not yet learned that a new socket is writable. Its buffer is empty, so the short
        // answer always fits; who is gone misses nothing.
        let socket = SockRef::from(stream);
        let _ = socket.send(FULL);
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    fn error(&self, reason: &str) {
        self.metrics.errors.with_label_values(&[self.name, reason]).inc();
    }
}

fn reason(error: &hyper::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "header_timeout",
        error if error.is_parse_too_large() => "header_too_large",
        error if error.is_parse() => "malformed",
        _ => "broken",
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(prometheus::IntGauge);

impl Open {
    fn new(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
