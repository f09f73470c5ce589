//! Answers in gzip for those who take it: what is long enough to be worth it, and is text.
//!
//! Streams and sockets are not packed: they would need a compressor each, or lose most of what it brings.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::page::Page;

/// Shorter ones are not worth it: the head of an answer is as long.
const BYTES_MIN: u64 = 1_024;
/// What is longer is packed beside the threads that answer: 64 KiB take a millisecond.
const AT_ONCE_MAX: usize = 64 * 1024;
/// Bytes of padding at most. An answer may hold what others wrote beside what only its reader may see: who writes, and sees how long
/// answers are on the reader's line, could guess at it. Random lengths make that a matter of thousands of answers for each letter, which
/// rates forbid (heal-the-breach; Django packs so, too).
const PADDING_MAX: usize = 100;

/// Whether whoever asks takes gzip.
pub(super) fn is_taken(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let mut named = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    named.any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0))
        };
        is_gzip && !parts.any(is_refused)
    })
}

/// An answer in gzip, where that is worth it; else as it was. For those who have shown a token: it costs more than the answer did. It is
/// counted until it is written, as what it was made of is until it is made.
pub(super) async fn answer(desk: &Desk, response: Response, whose: u64, cut: &CancellationToken) -> Response {
    if !is_worth_it(&response) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // It was made in memory: nothing can fail, and nothing is longer than it was.
    let plain = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let body = match plain.len() {
        0..=AT_ONCE_MAX => padded(&plain),
        _ => {
            let plain = plain.clone();
            let packing = tokio::task::spawn_blocking(move || padded(&plain)).await;
            packing.ok().flatten()
        }
    };
    let Some(body) = body else {
        return Response::from_parts(head, Body::from(plain));
    };
    says_so(&mut head.headers);
    drop(plain);
    let body = desk.unwritten.hold_anyway(body, whose, cut, Instant::now());
    Response::from_parts(head, Body::from(body))
}

/// The head alone of what would be in gzip: how long that would be is known to nobody (RFC 9110 §8.6). `is_file`: as [`file`], not as
/// [`answer`].
pub(super) fn head(mut response: Response, is_file: bool) -> Response {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let may_be = !is_file || response.headers().contains_key(ETAG);
    if may_be && is_worth_it_of(&response, length.unwrap_or(0)) {
        says_so(response.headers_mut());
    }
    response
}

/// A file of the page in gzip; each is packed once, for everybody.
pub(super) async fn file(page: &Arc<Page>, response: Response) -> Response {
    let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
    let Some(tag) = tag.filter(|_| is_worth_it(&response)).map(str::to_owned) else {
        return response;
    };
    let (mut head, body) = response.into_parts();
    if let Some(kept) = page.packed(&tag) {
        says_so(&mut head.headers);
        return Response::from_parts(head, Body::from(kept));
    }
    let plain = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let (page, whole) = (Arc::clone(page), plain.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let packed = gzip(GzBuilder::new(), &whole, Compression::best())?;
        page.keep_packed(tag, packed.clone());
        Some(packed)
    });
    let packed = packing.await.ok().flatten();
    if packed.is_some() {
        says_so(&mut head.headers);
    }
    Response::from_parts(head, Body::from(packed.unwrap_or(plain)))
}

fn says_so(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    // The same content in other bytes: a strong tag would say that the bytes are the same.
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok());
    let strong = tag.filter(|tag| !tag.starts_with("W/"));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::try_from(format!("W/{tag}")).ok()) {
        headers.insert(ETAG, weak);
    }
}

fn is_worth_it(response: &Response) -> bool {
    is_worth_it_of(response, response.body().size_hint().exact().unwrap_or(0))
}

fn is_worth_it_of(response: &Response, bytes: u64) -> bool {
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let is_text = matches!(
        kind,
        "application/json"
            | "application/manifest+json"
            | "image/svg+xml"
            | "text/html"
            | "text/javascript"
            | "text/css"
    );
    response.status() == StatusCode::OK
        && is_text
        && bytes >= BYTES_MIN
        && !headers.contains_key(CONTENT_ENCODING)
}

fn padded(plain: &[u8]) -> Option<Bytes> {
    // What a name in the head says is for files; readers pass over it.
    let padding = vec![b'-'; fastrand::usize(1..=PADDING_MAX)];
    gzip(GzBuilder::new().filename(padding), plain, Compression::fast())
}

/// `None`: it could not be written, which memory always can.
fn gzip(builder: GzBuilder, plain: &[u8], level: Compression) -> Option<Bytes> {
    let mut packing = builder.write(Vec::with_capacity(plain.len() / 4), level);
    packing.write_all(plain).ok()?;
    packing.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip_says_so() {
        for (said, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["GZIP"], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["deflate, gzip;q=0.5"], true),
            (&["br", "gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip ; Q=0"], false),
            (&["br, identity"], false),
            (&["x-gzip-not"], false),
            (&["*"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for one in said {
                headers.append(ACCEPT_ENCODING, one.parse().unwrap());
            }
            assert_eq!(is_taken(&headers), expected, "{said:?}");
        }
    }

    #[test]
    fn lengths_of_the_same_answer_differ() {
        let lengths: std::collections::HashSet<usize> =
            (0..100).map(|_| padded(&[b'x'; 5_000]).unwrap().len()).collect();
        assert!(lengths.len() > 20, "{lengths:?}");
    }
}
