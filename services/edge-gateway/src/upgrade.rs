//! The request that asks for a WebSocket: what is wrong with it, and what is agreed when nothing is.
//!
//! Called by `accept` with a parsed head and nothing else; decides before anything that grows is allocated. Pure.
//! No HTTP library checks these for us (key length, single headers, `Host`, `Origin`, a body with the upgrade).

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use roomcast_proto::frame::{Encoding, SUBPROTOCOL_BEARER, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTOBUF};
use roomcast_proto::refusal::{Code, Refusal};

/// Header fields of a request that [`plain`] looks at; browsers send about fifteen.
const PLAIN_FIELDS_MAX: usize = 32;
/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Names under which tokens are put into query strings elsewhere.
const TOKEN_PARAMETERS: [&str; 8] = [
    "token",
    "access_token",
    "auth",
    "authorization",
    "bearer",
    "jwt",
    "id_token",
    "auth_token",
];
/// How every JWT begins: `{"` in base64url.
const JWT_START: &str = "eyJ";

/// The origins whose pages may speak to this gateway, compared byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Checks a configured list: `scheme://host[:port]`, lower case, no path, never `null` or `*`.
    ///
    /// # Errors
    /// The first entry that is not an origin as browsers write it.
    pub fn new(list: Vec<String>) -> Result<Self, String> {
        match list.iter().find(|origin| !is_origin(origin)) {
            Some(bad) => Err(bad.clone()),
            None => Ok(Self(list)),
        }
    }

    /// Whether the request may go on. A browser always says where a page is from; a program that is none says nothing
    /// and shows a token instead.
    ///
    /// # Errors
    /// `bad_origin` for any origin that is not in the list, `null` among them, and for two.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(None);
        };
        let known = self.0.iter().find(|known| known.as_bytes() == origin.as_bytes());
        match known.filter(|_| origins.next().is_none()) {
            Some(known) => Ok(Some(known)),
            None => Err(Refusal::new(
                Code::BadOrigin,
                "pages of this origin may not connect here",
            )),
        }
    }
}

fn is_origin(text: &str) -> bool {
    let Some(rest) = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
    else {
        return false;
    };
    let host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    !rest.is_empty() && rest.bytes().all(host)
}

/// A request that may be answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The encoding to name in the answer; `None` when the client named none and so gets JSON.
    pub encoding: Option<Encoding>,
    /// The token that came with the request, to be verified before 101.
    pub token: Option<String>,
}

/// Checks a request for a WebSocket; `url_bytes_max`: as [`check_url`].
///
/// # Errors
/// The [`Refusal`] to answer with; the connection is closed after it.
pub fn check(
    method: &Method,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    origins: &Origins,
    url_bytes_max: usize,
) -> Result<Upgrade, Refusal> {
    check_url(uri, url_bytes_max)?;
    if *method != Method::GET {
        return Err(Refusal::new(
            Code::MethodNotAllowed,
            "a WebSocket begins with GET",
        ));
    }
    if version != Version::HTTP_11 {
        return Err(bad("a WebSocket begins with HTTP/1.1"));
    }
    check_host(uri, headers)?;
    origins.check(headers)?;
    check_no_body(headers)?;
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(bad("expected `Connection: Upgrade` and `Upgrade: websocket`"));
    }
    if one(headers, &SEC_WEBSOCKET_VERSION)? != Some("13") {
        return Err(bad("expected `Sec-WebSocket-Version: 13`"));
    }
    let key = one(headers, &SEC_WEBSOCKET_KEY)?.filter(|key| is_key(key));
    let key = key.ok_or_else(|| bad("expected one `Sec-WebSocket-Key` of 16 bytes in base64"))?;
    let (encoding, offered) = choose(headers)?;
    let token = match (bearer(headers)?, offered) {
        (Some(_), Some(_)) => return Err(bad("two tokens: one in `Authorization`, one as a subprotocol")),
        (header, offered) => header.or(offered).map(str::to_owned),
    };
    Ok(Upgrade {
        accept: accept_of(key),
        encoding,
        token,
    })
}

/// The path of the WebSocket.
pub const SOCKET_PATH: &str = "/v1/ws";

/// Reads `bytes` as the head of a request for a WebSocket and answers what is agreed, and where the head ends.
///
/// `None` for everything that needs more than a look: a head that is not whole, a token, another path, anything to be
/// refused. What is answered here is what [`check`] answers.
#[must_use]
pub fn plain(bytes: &[u8], fields_max: usize, origins: &Origins) -> Option<(Upgrade, usize)> {
    plain_at(SOCKET_PATH, bytes, fields_max, origins)
}

/// The same for a path of the caller's.
pub(crate) fn plain_at(
    path: &str,
    bytes: &[u8],
    fields_max: usize,
    origins: &Origins,
) -> Option<(Upgrade, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; PLAIN_FIELDS_MAX];
    let fields = fields.get_mut(..fields_max.min(PLAIN_FIELDS_MAX))?;
    let mut head = httparse::Request::new(fields);
    let httparse::Status::Complete(end) = head.parse(bytes).ok()? else {
        return None;
    };
    let version = match head.version? {
        1 => Version::HTTP_11,
        _ => return None,
    };
    let uri = head.path.filter(|asked| *asked == path)?.parse().ok()?;
    let method = Method::from_bytes(head.method?.as_bytes()).ok()?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    // The path is known, so it is not too long.
    let agreed = check(&method, version, &uri, &headers, origins, path.len()).ok()?;
    agreed.token.is_none().then_some((agreed, end))
}

/// The bearer token of `Authorization`, for every door that takes one.
///
/// # Errors
/// `bad_request` for two headers, another scheme or an empty token.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = one(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    let token = value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token.map(|(_, token)| token.trim()) {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(bad("expected `Authorization: Bearer <token>`")),
    }
}

/// The length of the URL (path with query, bytes), and that no token stands in it: URLs end up in logs, histories and `Referer`.
///
/// # Errors
/// `headers_too_large` or `bad_request`.
pub fn check_url(uri: &Uri, bytes_max: usize) -> Result<(), Refusal> {
    let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > bytes_max {
        return Err(Refusal::new(
            Code::HeadersTooLarge,
            format!("a URL has at most {bytes_max} bytes"),
        ));
    }
    let parameters = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    for (name, value) in parameters {
        let name = percent_decoded(name);
        if TOKEN_PARAMETERS
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            || value.starts_with(JWT_START)
        {
            return Err(bad(
                "a token does not belong into a URL: send it as `Authorization: Bearer` or in `connect`",
            ));
        }
    }
    Ok(())
}

/// Exactly one `Host`, as RFC 9112 §3.2 has it, and no other in an address that names its host itself.
///
/// # Errors
/// `bad_request`.
pub fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = match one(headers, &HOST)? {
        Some(host) if !host.is_empty() => host,
        _ => return Err(bad("expected one `Host`")),
    };
    // Whoever stands before us may have looked at the one and we at the other.
    match uri.authority() {
        Some(other) if !other.as_str().eq_ignore_ascii_case(host) => Err(bad(
            "the request names one host in its address and another in `Host`",
        )),
        _ => Ok(()),
    }
}

/// That a body, if there is one, ends where everybody who reads the request thinks it ends.
///
/// # Errors
/// `bad_request` for a length beside `Transfer-Encoding`, and for a `Transfer-Encoding` where no body belongs.
pub fn check_framing(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("a body has a `Content-Length` or a `Transfer-Encoding`"));
    }
    if *method != Method::POST {
        return Err(bad("only a POST has a body"));
    }
    Ok(())
}

/// Undoes percent-encoding; what is no encoding stays as it is.
#[must_use]
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let decoded = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    out
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

/// A header that may stand there once; two of them are an attempt to be read differently by two readers.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(bad(format!("expected one `{name}` of visible characters"))),
    }
}

fn check_no_body(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("an upgrade has no `Transfer-Encoding`"));
    }
    match one(headers, &CONTENT_LENGTH)? {
        None | Some("0") => Ok(()),
        Some(_) => Err(bad("an upgrade has no body")),
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// 16 bytes in base64, written as RFC 4648 §4 writes them.
fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Chooses the subprotocol, the first of those offered that is spoken here, and finds the token that may be offered beside it.
fn choose(headers: &HeaderMap) -> Result<(Option<Encoding>, Option<&str>), Refusal> {
    let mut names = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let text = value
            .to_str()
            .map_err(|_| bad("`Sec-WebSocket-Protocol` holds names"))?;
        names.extend(text.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }
    let mut tokens = names
        .iter()
        .filter_map(|name| name.strip_prefix(SUBPROTOCOL_BEARER));
    let (token, second) = (tokens.next(), tokens.next());
    if second.is_some() || token == Some("") {
        return Err(bad("expected one token as `bearer.<token>`"));
    }
    if names.is_empty() {
        return Ok((None, None));
    }
    match names.iter().find_map(|name| Encoding::of_subprotocol(name)) {
        Some(encoding) => Ok((Some(encoding), token)),
        None => Err(bad(format!(
            "none of the subprotocols is spoken here; offer `{SUBPROTOCOL_JSON}` or `{SUBPROTOCOL_PROTOBUF}`"
        ))),
    }
}

fn accept_of(key: &str) -> String {
    let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sum.update(key.as_bytes());
    sum.update(ACCEPT_GUID);
    STANDARD.encode(sum.finish())
}

#[cfg(test)]
mod tests {
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
}
