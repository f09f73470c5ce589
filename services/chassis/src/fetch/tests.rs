//! What other people's servers do.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[test]
fn addresses_are_https_or_on_this_machine() {
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Url::parse(text).map(|url| format!("{} {} {}", url.host, url.port, url.path));
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }
    check(
        "https://login.example/jwks?v=1",
        Ok("login.example 443 /jwks?v=1"),
    );
    check("https://login.example", Ok("login.example 443 /"));
    check("https://10.0.0.1:8443/a", Ok("10.0.0.1 8443 /a"));
    check("http://127.0.0.1:9/a", Ok("127.0.0.1 9 /a"));
    check("http://[::1]:9/a", Ok("::1 9 /a"));
    check("http://localhost/a", Ok("localhost 80 /a"));
    let plain = Err("http is for this machine (127.0.0.1, ::1, localhost); use https");
    check("http://login.example/jwks", plain);
    check("http://127.0.0.1.example/jwks", plain);
    check("http://10.0.0.1/jwks", plain);
    check("http://0.0.0.0/jwks", plain);
    check(
        "https://user:secret@login.example/",
        Err("an address has no user or password"),
    );
    check(
        "http://127.0.0.1@login.example/",
        Err("an address has no user or password"),
    );
    check("https://login.example/#keys", Err("an address has no fragment"));
    check("ftp://login.example/", Err("an address begins with https://"));
    check("file:///etc/passwd", Err("not an address"));
    check("/jwks", Err("an address begins with https://"));
    check("", Err("not an address"));
    check(
        &format!("https://login.example/{}", "a".repeat(2_048)),
        Err("longer than 2048 bytes"),
    );
}

const LIMITS: Limits = Limits {
    within: Duration::from_millis(500),
    bytes_max: 1_000,
};

/// A server that says `answer` to whoever comes and then closes, or stays silent for ever.
async fn fetch_from(answer: Vec<u8>, close: bool) -> Result<Bytes, FetchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = [0; 2_048];
        let read = socket.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
        // A client that has heard enough goes away in the middle.
        let _ = socket.write_all(&answer).await;
        if !close {
            std::future::pending::<()>().await;
        }
    });
    let fetcher = Fetcher::new(LIMITS, false).unwrap();
    let fetched = fetcher.get(&Url::parse(&url).unwrap()).await;
    server.abort();
    fetched
}

#[tokio::test]
async fn what_servers_answer() {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}").into_bytes();
    /// What; the answer, whether the server closes then; bytes or label.
    type Row = (&'static str, Vec<u8>, bool, Result<usize, &'static str>);
    let rows: [Row; 15] = [
        ("a length", ok("content-length: 2\r\n", "{}"), true, Ok(2)),
        (
            "chunks",
            ok("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            true,
            Ok(2),
        ),
        ("until the end", ok("", "{}"), true, Ok(2)),
        ("at the limit", ok("", &"a".repeat(1_000)), true, Ok(1_000)),
        ("over it", ok("", &"a".repeat(1_001)), true, Err("too_large")),
        (
            "10 MB",
            ok("content-length: 10000000\r\n", &"a".repeat(10_000_000)),
            true,
            Err("too_large"),
        ),
        (
            "a length that lies",
            ok("content-length: 10\r\n", "{}"),
            true,
            Err("unreachable"),
        ),
        (
            "a redirect",
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n".to_vec(),
            true,
            Err("status"),
        ),
        (
            "an error",
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            true,
            Err("status"),
        ),
        (
            "compressed",
            ok("content-encoding: gzip\r\n", "{}"),
            true,
            Err("encoded"),
        ),
        (
            "not HTTP",
            b"SSH-2.0-OpenSSH\r\n".to_vec(),
            true,
            Err("unreachable"),
        ),
        ("nothing", Vec::new(), true, Err("unreachable")),
        (
            "a huge head",
            ok(&format!("x: {}\r\n", "a".repeat(20_000)), "{}"),
            true,
            Err("unreachable"),
        ),
        ("silence", Vec::new(), false, Err("slow")),
        (
            "half a body",
            ok("content-length: 10\r\n", "{}"),
            false,
            Err("slow"),
        ),
    ];
    for (what, answer, close, expected) in rows {
        let fetched = fetch_from(answer, close).await;
        let found = fetched.map(|body| body.len()).map_err(|error| error.label());
        assert_eq!(found, expected, "{what}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let fetcher = Fetcher::new(LIMITS, false).unwrap();
    for (url, expected) in [
        ("http://127.0.0.1:1/", "unreachable"),
        ("https://127.0.0.1:1/", "unreachable"),
    ] {
        let error = fetcher.get(&Url::parse(url).unwrap()).await.unwrap_err();
        assert_eq!(error.label(), expected, "{error}");
    }
}
