//! The request that asks for a WebSocket: what is wrong with it, and what is agreed when nothing is.
//!
//! Called by `accept` with a parsed head and nothing else; decides before anything that grows is allocated. Pure.
//! No HTTP library checks these for us (key length, single headers, `Host`, `Origin`, a body with the upgrade).

use std::net::Ipv6Addr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Uri, Version};
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
    if (head.method?, head.path?, head.version?) != ("GET", path, 1) {
        return None;
    }
    let said = Said::read(head.headers)?;
    let listed = |list: &str, word: &str| list.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    let asks = is_host(said.host?)
        && listed(said.connection?, "upgrade")
        && listed(said.upgrade?, "websocket")
        && said.version? == "13";
    let known = |origin: &str| origins.0.iter().any(|known| known == origin);
    let key = said.key.filter(|key| asks && is_key(key))?;
    if !said.origin.is_none_or(known) {
        return None;
    }
    let encoding = match said.protocol.unwrap_or_default() {
        "" => None,
        // A token may be among them.
        names if names.contains(SUBPROTOCOL_BEARER) => return None,
        names => Some(
            names
                .split(',')
                .find_map(|name| Encoding::of_subprotocol(name.trim()))?,
        ),
    };
    let accept = accept_of(key);
    Some((
        Upgrade {
            accept,
            encoding,
            token: None,
        },
        end,
    ))
}

/// The fields of a head that decide whether it asks for a WebSocket and nothing else.
#[derive(Default)]
struct Said<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    upgrade: Option<&'a str>,
    connection: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    protocol: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// `None` where one of them stands twice or is no plain text, and where there is one that needs more than a look.
    fn read(fields: &[httparse::Header<'a>]) -> Option<Self> {
        let mut said = Self::default();
        for field in fields {
            let is = |name: &HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
            let slot = match field.name.len() {
                4 if is(&HOST) => &mut said.host,
                6 if is(&ORIGIN) => &mut said.origin,
                7 if is(&UPGRADE) => &mut said.upgrade,
                10 if is(&CONNECTION) => &mut said.connection,
                17 if is(&SEC_WEBSOCKET_KEY) => &mut said.key,
                21 if is(&SEC_WEBSOCKET_VERSION) => &mut said.version,
                22 if is(&SEC_WEBSOCKET_PROTOCOL) => &mut said.protocol,
                13..=17 if [AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(is) => return None,
                _ => continue,
            };
            let text = std::str::from_utf8(field.value).ok()?;
            if !text.is_ascii() || slot.replace(text.trim()).is_some() {
                return None;
            }
        }
        Some(said)
    }
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
            || is_jwt(value)
        {
            return Err(bad(
                "a token does not belong into a URL: send it as `Authorization: Bearer` or in `connect`",
            ));
        }
    }
    Ok(())
}

/// Whether a value can be a JWT. Its start alone is no sign: sealed cursors are random letters, and some begin so, too.
fn is_jwt(value: &str) -> bool {
    value.starts_with(JWT_START) && value.bytes().filter(|byte| *byte == b'.').count() >= 2
}

/// Exactly one `Host` that names one, as RFC 9112 §3.2 has it, and no other in an address that names its host itself.
///
/// # Errors
/// `bad_request`.
pub fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = match one(headers, &HOST)? {
        Some(host) if is_host(host) => host,
        _ => {
            return Err(bad(
                "expected one `Host`: a name or an address, and a port perhaps",
            ));
        }
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

/// A name or an address as browsers write them, and a port perhaps. No user, list or path: whoever stands before us may read those
/// otherwise.
fn is_host(text: &str) -> bool {
    let (is_named, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (!name.is_empty() && name.bytes().all(is_plain), port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    is_named
        && (port.is_empty() || port.len() == digits.len() + 1)
        && digits.bytes().all(|b| b.is_ascii_digit())
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
mod tests;
