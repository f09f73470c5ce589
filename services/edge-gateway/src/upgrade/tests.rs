use http::HeaderValue;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const URL_BYTES_MAX: usize = 4096;

type Changes<'a> = &'a [(&'a str, Option<&'a str>)];

/// A good request with some headers replaced (`None` removes) or added (`+name`).
fn request(changes: Changes<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let good = [
        ("host", "localhost:8080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];
    for (name, value) in good {
        headers.insert(name, value.parse().unwrap());
    }
    for (name, value) in changes {
        let plain: HeaderName = name.trim_start_matches('+').parse().unwrap();
        match value {
            Some(value) if name.starts_with('+') => drop(headers.append(plain, value.parse().unwrap())),
            Some(value) => drop(headers.insert(plain, value.parse().unwrap())),
            None => drop(headers.remove(plain)),
        }
    }
    headers
}

fn ask(uri: &str, changes: Changes<'_>) -> Result<Upgrade, Code> {
    let origins = Origins::new(vec!["https://desk.example".into()]).unwrap();
    check(
        &Method::GET,
        Version::HTTP_11,
        &uri.parse().unwrap(),
        &request(changes),
        &origins,
        URL_BYTES_MAX,
    )
    .map_err(|refusal| refusal.code)
}

#[test]
fn the_accept_value_is_the_one_of_the_rfc() {
    let agreed = ask("/v1/ws", &[]).unwrap();
    assert_eq!(
        agreed,
        Upgrade {
            accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(),
            encoding: None,
            token: None
        }
    );
}

#[test]
fn bad_requests_are_refused() {
    let bad: &[Changes<'_>] = &[
        &[("host", None)],
        &[("host", Some(""))],
        &[("+host", Some("other"))],
        &[("host", Some("a b"))],
        &[("host", Some("a,b"))],
        &[("host", Some("a/x"))],
        &[("host", Some("u@a"))],
        &[("host", Some(":80"))],
        &[("host", Some("a:b"))],
        &[("host", Some("a:80:81"))],
        &[("host", Some("::1"))],
        &[("host", Some("[::1"))],
        &[("host", Some("[::1]80"))],
        &[("host", Some("[desk]"))],
        &[("connection", None)],
        &[("connection", Some("keep-alive"))],
        &[("upgrade", None)],
        &[("upgrade", Some("h2c"))],
        &[("sec-websocket-version", None)],
        &[("sec-websocket-version", Some("8"))],
        &[("+sec-websocket-version", Some("13"))],
        &[("sec-websocket-key", None)],
        &[("sec-websocket-key", Some("abc"))],
        &[("sec-websocket-key", Some("AAAAAAAAAAAAAAAAAAAAAA"))],
        &[("sec-websocket-key", Some("AAAAAAAAAAAAAAAAAAAA"))],
        &[("+sec-websocket-key", Some(KEY))],
        &[("transfer-encoding", Some("chunked"))],
        &[("content-length", Some("5"))],
        &[("+content-length", Some("0")), ("+content-length", Some("0"))],
        &[("authorization", Some("Basic abc"))],
        &[("authorization", Some("Bearer "))],
        &[
            ("+authorization", Some("Bearer a")),
            ("+authorization", Some("Bearer b")),
        ],
        &[("sec-websocket-protocol", Some("bearer.abc"))],
        &[("sec-websocket-protocol", Some("roomcast.v1.Protobuf"))],
        &[("sec-websocket-protocol", Some("roomcast.v1.protobuf; q=1"))],
        &[("sec-websocket-protocol", Some("roomcast.v1.json, bearer."))],
        &[(
            "sec-websocket-protocol",
            Some("roomcast.v1.json, bearer.a, bearer.b"),
        )],
        &[("sec-websocket-protocol", Some("graphql-ws"))],
        &[
            ("sec-websocket-protocol", Some("roomcast.v1.json, bearer.a")),
            ("authorization", Some("Bearer a")),
        ],
    ];
    for changes in bad {
        assert_eq!(ask("/v1/ws", changes), Err(Code::BadRequest), "{changes:?}");
    }
}

#[test]
fn hosts_are_names_or_addresses_with_a_port_perhaps() {
    for host in [
        "desk",
        "desk.example.",
        "gate_0:8080",
        "127.0.0.1:",
        "[::1]",
        "[fe80::1]:8080",
    ] {
        assert!(ask("/v1/ws", &[("host", Some(host))]).is_ok(), "{host}");
    }
}

#[test]
fn tokens_do_not_belong_into_urls() {
    for query in [
        "token=x",
        "a=1&ACCESS_TOKEN=x",
        "jwt",
        "%74oken=x",
        "x=eyJhbGciOiJFZERTQSJ9.e30.x",
    ] {
        assert_eq!(
            ask(&format!("/v1/ws?{query}"), &[]),
            Err(Code::BadRequest),
            "{query}"
        );
    }
    assert!(ask("/v1/ws?client=desk", &[]).is_ok());
    // A sealed cursor may begin like a JWT.
    assert!(ask("/v1/ws?cursor=eyJx-Q_9f3kTqWvMzB1n0aZ4", &[]).is_ok());
    assert_eq!(
        ask(&format!("/v1/ws?x={}", "y".repeat(URL_BYTES_MAX)), &[]),
        Err(Code::HeadersTooLarge)
    );
}

#[test]
fn origins_are_compared_exactly() {
    assert!(ask("/v1/ws", &[("origin", Some("https://desk.example"))]).is_ok());
    for origin in [
        "null",
        "https://desk.example.evil",
        "http://desk.example",
        "https://DESK.example",
        "https://desk.example/",
        "",
    ] {
        assert_eq!(
            ask("/v1/ws", &[("origin", Some(origin))]),
            Err(Code::BadOrigin),
            "{origin}"
        );
    }
    let two = [
        ("origin", Some("https://desk.example")),
        ("+origin", Some("https://desk.example")),
    ];
    assert_eq!(ask("/v1/ws", &two), Err(Code::BadOrigin));
    for bad in [
        "*",
        "null",
        "desk.example",
        "https://",
        "https://a/b",
        "https://A",
    ] {
        assert!(Origins::new(vec![bad.into()]).is_err(), "{bad}");
    }
    assert!(Origins::new(vec!["http://127.0.0.1:8080".into(), "http://[::1]:80".into()]).is_ok());
}

#[test]
fn subprotocol_and_token_are_found_wherever_they_may_stand() {
    let (json, protobuf) = (Some(Encoding::Json), Some(Encoding::Protobuf));
    let rows: [(Changes<'_>, Option<Encoding>, Option<&str>); 8] = [
        (
            &[("sec-websocket-protocol", Some("roomcast.v1.protobuf"))],
            protobuf,
            None,
        ),
        (
            &[(
                "sec-websocket-protocol",
                Some("roomcast.v2, bearer.a, roomcast.v1.protobuf,roomcast.v1.json"),
            )],
            protobuf,
            Some("a"),
        ),
        (
            &[
                ("+sec-websocket-protocol", Some("roomcast.v1.json")),
                ("+sec-websocket-protocol", Some("roomcast.v1.protobuf")),
            ],
            json,
            None,
        ),
        (
            &[("sec-websocket-protocol", Some("roomcast.v1.json"))],
            json,
            None,
        ),
        (
            &[(
                "sec-websocket-protocol",
                Some("x, roomcast.v1.json, bearer.a.b.c"),
            )],
            json,
            Some("a.b.c"),
        ),
        (
            &[
                ("+sec-websocket-protocol", Some("bearer.t")),
                ("+sec-websocket-protocol", Some("roomcast.v1.json")),
            ],
            json,
            Some("t"),
        ),
        (&[("authorization", Some("bearer abc"))], None, Some("abc")),
        (
            &[
                ("authorization", Some("Bearer abc")),
                ("sec-websocket-protocol", Some("roomcast.v1.json")),
            ],
            json,
            Some("abc"),
        ),
    ];
    for (changes, encoding, token) in rows {
        let agreed = ask("/v1/ws", changes).unwrap();
        assert_eq!(
            (agreed.encoding, agreed.token.as_deref()),
            (encoding, token),
            "{changes:?}"
        );
    }
}

#[test]
fn only_get_and_http_1_1_begin_a_socket() {
    let origins = Origins::default();
    let uri: Uri = "/v1/ws".parse().unwrap();
    let ask = |method: &Method, version| {
        check(method, version, &uri, &request(&[]), &origins, URL_BYTES_MAX).unwrap_err()
    };
    let post = ask(&Method::POST, Version::HTTP_11);
    let old = ask(&Method::GET, Version::HTTP_10);
    assert_eq!((post.code, old.code), (Code::MethodNotAllowed, Code::BadRequest));
}

#[test]
fn only_whole_good_heads_without_a_token_are_plain() {
    let origins = Origins::new(vec!["https://desk.example".into()]).unwrap();
    let fields = format!(
        "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let head = format!("GET /v1/ws HTTP/1.1\r\n{fields}\r\n");
    let early = format!("{head}\u{1}early");
    let (agreed, end) = plain(early.as_bytes(), 64, &origins).unwrap();
    assert_eq!(end, head.len());
    assert_eq!(agreed.accept, accept_of(KEY));
    for cut in 0..head.len() {
        assert_eq!(plain(&head.as_bytes()[..cut], 64, &origins), None, "{cut}");
    }
    let others = [
        head.replace("GET", "POST"),
        head.replace("/v1/ws", "/v1/ws?x=1"),
        head.replace("/v1/ws", "/"),
        head.replace("HTTP/1.1", "HTTP/1.0"),
        head.replace("13", "12"),
        head.replace("Host: x", "Host: x\r\nHost: y"),
        head.replace("Host: x", "Host: x\r\nOrigin: https://else.example"),
        head.replace("Host: x", "Host: x\r\nAuthorization: Bearer a.b.c"),
        head.replace(
            "Host: x",
            "Host: x\r\nSec-WebSocket-Protocol: roomcast.v1.json, bearer.a",
        ),
        head.replace("Host: x", "Host: x\r\nContent-Length: 5"),
        head.replace("Host: x", "Host: x\r\n folded"),
        head.replace("Host: x", "Host : x"),
        head.replace("Host: x", "Host: u@x"),
        head.replace("Host: x", &format!("Host: x\r\n{}", "A: b\r\n".repeat(40))),
    ];
    for other in others {
        assert_eq!(plain(other.as_bytes(), 64, &origins), None, "{other}");
    }
    assert_eq!(
        plain(head.as_bytes(), 4, &origins),
        None,
        "more fields than allowed"
    );
}

/// A head with these fields, as [`check`] sees it.
fn checked(fields: &[(String, String)], origins: &Origins) -> Option<Upgrade> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        headers.append(name.parse::<HeaderName>().ok()?, value);
    }
    let uri = SOCKET_PATH.parse().unwrap();
    check(
        &Method::GET,
        Version::HTTP_11,
        &uri,
        &headers,
        origins,
        URL_BYTES_MAX,
    )
    .ok()
}

proptest::proptest! {
    /// A look never agrees to anything else than a check would, and misses nothing that browsers say.
    #[test]
    fn what_is_plain_is_what_a_check_agrees_to(
        picks in proptest::collection::vec((0_usize..27, proptest::bool::ANY), 0..4),
        usual in proptest::bool::weighted(0.9),
    ) {
        let origins = Origins::new(vec!["https://desk.example".into()]).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut fields = vec![
            pair("Host", "x"),
            pair("Connection", "keep-alive, Upgrade"),
            pair("upgrade", "WebSocket"),
            pair("SEC-WEBSOCKET-VERSION", "13"),
            pair("Sec-WebSocket-Key", KEY),
        ];
        let others = [
            pair("Origin", "https://desk.example"),
            pair("Origin", "https://else.example"),
            pair("Origin", "null"),
            pair("Sec-WebSocket-Protocol", "roomcast.v1.json"),
            pair("Sec-WebSocket-Protocol", " other , roomcast.v1.protobuf"),
            pair("Sec-WebSocket-Protocol", "roomcast.v1.json, bearer.a.b.c"),
            pair("Sec-WebSocket-Protocol", "bearer."),
            pair("Sec-WebSocket-Protocol", "other"),
            pair("Sec-WebSocket-Protocol", ""),
            pair("Sec-WebSocket-Protocol", " , "),
            pair("Authorization", "Bearer a.b.c"),
            pair("Content-Length", "0"),
            pair("Content-Length", "7"),
            pair("Transfer-Encoding", "chunked"),
            pair("Host", "y"),
            pair("Host", ""),
            pair("Host", "[::1]:8080"),
            pair("Host", "u@x"),
            pair("Host", "x, y"),
            pair("Connection", "close"),
            pair("Upgrade", "h2c"),
            pair("Sec-WebSocket-Version", "12"),
            pair("Sec-WebSocket-Key", "short"),
            pair("User-Agent", "Mozilla/5.0 (\u{e9})"),
            pair("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
            pair("Accept-Encoding", "gzip, deflate"),
            pair("X-Forwarded-For", "203.0.113.7"),
        ];
        for (pick, takes_place) in picks {
            let other = others[pick].clone();
            if takes_place {
                fields.retain(|(name, _)| !name.eq_ignore_ascii_case(&other.0));
            }
            fields.push(other);
        }
        if !usual {
            fields.remove(0);
        }
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET {SOCKET_PATH} HTTP/1.1\r\n{lines}\r\n");
        let looked = plain(head.as_bytes(), 64, &origins).map(|(agreed, _)| agreed);
        let checked = checked(&fields, &origins).filter(|agreed| agreed.token.is_none());
        // What stands twice, or is no common field, is checked elsewhere.
        let is_usual = fields.iter().all(|(name, value)| {
            let times = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
            times == 1 && !name.eq_ignore_ascii_case("content-length") && value != " , "
        });
        if looked.is_some() || is_usual {
            proptest::prop_assert_eq!(looked, checked, "{}", head);
        }
    }
}
