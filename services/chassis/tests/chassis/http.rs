//! The accept loop: what it answers to slow, large, many and well-behaved clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use roomcast_chassis::admin::{self, Admin};
use roomcast_chassis::http::{self, HttpMetrics, Limits};
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::readiness::Readiness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::eventually;

struct Listening {
    address: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

async fn start(limits: Limits) -> Listening {
    let router = Router::new()
        .route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
        )
        .route(
            "/slow",
            get(|| async { tokio::time::sleep(Duration::from_millis(300)).await }),
        )
        .route("/never", get(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, metrics, shutdown) = (
        listener.local_addr().unwrap(),
        Metrics::new("test").unwrap(),
        CancellationToken::new(),
    );
    let counted = HttpMetrics::new(&metrics).unwrap();
    let serving = tokio::spawn(http::serve(
        listener,
        "public",
        router,
        limits,
        counted,
        shutdown.clone(),
    ));
    Listening {
        address,
        metrics,
        shutdown,
        serving,
    }
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // A server that refuses early may close before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        read_all(stream).await
    }

    fn metric(&self, line: &str) -> String {
        let text = String::from_utf8(self.metrics.encode().unwrap()).unwrap();
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .unwrap_or("")
            .trim()
            .to_owned()
    }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn handlers_see_the_peer() {
    let listening = start(Limits::default()).await;
    let mut stream = listening.connect().await;
    let own = stream.local_addr().unwrap().to_string();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = read_all(stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(&own),
        "{answer}"
    );
}

#[tokio::test]
async fn header_blocks_over_16_kib_or_64_fields_get_431() {
    let listening = start(Limits::default()).await;
    let request = |headers: &str| format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    let check = async |headers: String, expected: &str| {
        let answer = listening.exchange(&request(&headers)).await;
        assert!(
            answer.starts_with(expected),
            "{} header bytes: {answer:?}",
            headers.len()
        );
    };
    check(format!("x: {}\r\n", "a".repeat(15 * 1024)), "HTTP/1.1 200").await;
    check(format!("x: {}\r\n", "a".repeat(17 * 1024)), "HTTP/1.1 431").await;
    check("x: a\r\n".repeat(62), "HTTP/1.1 200").await;
    check("x: a\r\n".repeat(63), "HTTP/1.1 431").await;
    check("no colon\r\n".to_owned(), "HTTP/1.1 400").await;
    let counted =
        "roomcast_http_errors_total{listener=\"public\",reason=\"header_too_large\",service=\"test\"}";
    eventually("both are counted", async || listening.metric(counted) == "2").await;
}

/// Most connections end so, and nobody has done anything wrong.
#[tokio::test]
async fn a_connection_that_rests_after_a_request_ends_without_being_counted() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let listening = start(limits).await;
    let counted =
        "roomcast_http_errors_total{listener=\"public\",reason=\"header_timeout\",service=\"test\"}";
    let check = async |sent: &str, errors: &str| {
        let answer = listening.exchange(sent).await;
        assert_eq!(
            answer.matches("200 OK").count(),
            sent.matches("\r\n\r\n").count(),
            "{sent:?}"
        );
        let open = "roomcast_http_connections{listener=\"public\",service=\"test\"}";
        eventually("it is gone", async || listening.metric(open) == "0").await;
        assert_eq!(listening.metric(counted), errors, "{sent:?}");
    };
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    check(request, "0").await;
    check(&request.repeat(2), "0").await;
    check("", "1").await;
    check("GET / HT", "2").await;
    check(&format!("{request}GET / HT"), "3").await;
}

/// The usual server keeps them for ever: 400 silent or half-finished requests held every place it had.
#[tokio::test]
async fn silent_and_slow_clients_are_dropped_after_the_time_out() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let listening = start(limits).await;
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let start = Instant::now();
        let mut stream = listening.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), read_all(stream))
            .await
            .unwrap();
        assert!(
            start.elapsed() >= Duration::from_millis(290),
            "{sent:?} after {:?}",
            start.elapsed()
        );
        assert!(!answer.contains("200"), "{answer}");
    }
    // One byte now and then does not prolong it.
    let mut stream = listening.connect().await;
    let (start, mut gone) = (Instant::now(), false);
    for byte in b"GET / HTTP/1.1\r\nhost: a-very-slow-client-indeed\r\n".chunks(1) {
        gone = stream.write_all(byte).await.is_err() || start.elapsed() > Duration::from_secs(3);
        if gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(gone || read_all(stream).await.is_empty());
    let open = "roomcast_http_connections{listener=\"public\",service=\"test\"}";
    eventually("no connection is left", async || listening.metric(open) == "0").await;
}

#[tokio::test]
async fn one_connection_too_many_gets_503_and_later_ones_get_in_again() {
    let listening = start(Limits {
        connections_max: 2,
        ..Limits::default()
    })
    .await;
    let (first, _second) = (listening.connect().await, listening.connect().await);
    let open = "roomcast_http_connections{listener=\"public\",service=\"test\"}";
    eventually("both are in", async || listening.metric(open) == "2").await;
    let refused = read_all(listening.connect().await).await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"),
        "{refused}"
    );
    assert_eq!(
        listening.metric("roomcast_http_refused_total{listener=\"public\",service=\"test\"}"),
        "1"
    );
    drop(first);
    eventually("a place is free", async || {
        listening
            .exchange("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_cuts_those_that_never_do() {
    let listening = start(Limits {
        drain: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (mut slow, mut never, idle) = (
        listening.connect().await,
        listening.connect().await,
        listening.connect().await,
    );
    slow.write_all(request("/slow").as_bytes()).await.unwrap();
    never.write_all(request("/never").as_bytes()).await.unwrap();
    let accepted = "roomcast_http_accepted_total{listener=\"public\",service=\"test\"}";
    eventually("all are in", async || listening.metric(accepted) == "3").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    listening.shutdown.cancel();
    let (slow, idle) = tokio::join!(read_all(slow), read_all(idle));
    assert!(slow.starts_with("HTTP/1.1 200"), "{slow}");
    assert_eq!(idle, "");
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(read_all(never).await, "");
    listening.serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(
        TcpStream::connect(listening.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn the_admin_port_says_whether_and_why_not() {
    let (metrics, readiness) = (Metrics::new("test").unwrap(), Readiness::new());
    let latch = readiness.latch("nats main", "cannot connect");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (admin, shutdown) = (Admin::new(metrics.clone(), readiness), CancellationToken::new());
    let counted = HttpMetrics::new(&metrics).unwrap();
    let serving = tokio::spawn(admin::serve(listener, admin.clone(), counted, shutdown.clone()));
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(stream).await
    };
    assert!(get("/livez").await.starts_with("HTTP/1.1 200"));
    let waiting = get("/readyz").await;
    assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
    assert!(
        waiting.contains(r#""waiting":{"nats main":"cannot connect"}"#),
        "{waiting}"
    );
    assert!(get("/startupz").await.starts_with("HTTP/1.1 503"));
    latch.ready();
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    latch.not_ready("lost");
    assert!(
        get("/startupz").await.starts_with("HTTP/1.1 200"),
        "started stays started"
    );
    let figures = get("/metrics").await;
    assert!(figures.contains("roomcast_build_info{commit="), "{figures}");
    assert!(figures.contains("process_resident_memory_bytes"), "{figures}");
    assert!(get("/admin/v1/hello").await.starts_with("HTTP/1.1 404"));
    assert!(
        admin
            .mount(Router::new().route("/admin/v1/hello", get_hello()))
            .is_ok()
    );
    assert!(get("/admin/v1/hello").await.ends_with("hello"));
    assert!(admin.mount(Router::new()).is_err(), "only once");
    shutdown.cancel();
    serving.await.unwrap();
}

fn get_hello() -> axum::routing::MethodRouter {
    get(|| async { "hello" })
}
