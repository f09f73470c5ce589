//! The body of an HTTP request: what it is, and its bytes, unpacked, bounded and by a deadline.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header;
use http_body_util::BodyExt;
use roomcast_proto::refusal::{Code, Refusal};

use crate::binary_mode;
use crate::capacity::{Full, Place};
use crate::dead_letter::KEPT_BYTES_MAX;
use crate::inflate::Inflate;
use crate::intake::Shape;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// Time until its last byte is here.
    pub within: Duration,
}

/// What was read of a body.
#[derive(Debug)]
pub struct Read {
    /// All of it, unpacked; of one that is refused the beginning as it was sent.
    pub bytes: Bytes,
    /// How many bytes it has; more than `bytes` when that is the beginning only.
    pub original_bytes: usize,
    /// Why it is refused: too large, or not what `Content-Encoding` says. The connection should be closed then.
    pub refusal: Option<Refusal>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// There is no room for it now.
    Full(Full),
    /// It ended before it was whole.
    Broken,
    /// It did not arrive in time.
    Late,
}

/// Why there is no next piece of a body.
#[derive(Debug)]
pub enum Stop {
    /// It cannot be read on.
    Unread(Unread),
    /// It is refused.
    Refused(Refusal),
}

/// The pieces of a body, unpacked.
#[derive(Debug)]
pub struct Source {
    body: Body,
    inflate: Option<Inflate>,
    /// The beginning of a packed body as it came, for its dead letter.
    packed: BytesMut,
    bytes_in: usize,
    over: bool,
}

impl Source {
    /// Begins.
    #[must_use]
    pub fn new(body: Body, gzip: bool) -> Self {
        Self {
            body,
            inflate: gzip.then(Inflate::default),
            packed: BytesMut::new(),
            bytes_in: 0,
            over: false,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Stop`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            if let Some(inflate) = &mut self.inflate {
                let step = if self.over { inflate.end() } else { inflate.step() };
                if let Some(piece) = step.map_err(Stop::Refused)? {
                    return Ok(Some(piece));
                }
            }
            if self.over {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                self.over = true;
                continue;
            };
            let Ok(data) = frame.map_err(|_| Stop::Unread(Unread::Broken))?.into_data() else {
                continue;
            };
            self.bytes_in = self.bytes_in.saturating_add(data.len());
            let Some(inflate) = &mut self.inflate else {
                return Ok(Some(data));
            };
            let room = KEPT_BYTES_MAX - self.packed.len();
            self.packed.extend_from_slice(&data[..data.len().min(room)]);
            inflate.feed(data);
        }
    }

    /// Bytes held beside the pieces given out.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.packed.len()
    }

    /// The beginning of a packed body as it was sent, and how many bytes have come; `None` of one that was not packed.
    #[must_use]
    pub fn packed(&mut self) -> Option<(Bytes, usize)> {
        let packed = std::mem::take(&mut self.packed).freeze();
        self.inflate.as_ref().map(|_| (packed, self.bytes_in))
    }
}

/// Reads a body whole; of one that is refused only the beginning, for the dead letter. `place` covers the bytes before they
/// are kept.
///
/// # Errors
/// [`Unread`]; the connection should be closed then.
///
/// # Cancel safety
/// Dropped, what was read is lost.
pub async fn read(
    body: Body,
    headers: &HeaderMap,
    gzip: bool,
    limits: &BodyLimits,
    place: &mut Place,
) -> Result<Read, Unread> {
    let length = headers.get(header::CONTENT_LENGTH);
    let stated = length.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    let too_large = stated.is_some_and(|bytes| bytes > limits.bytes_max);
    let kept_max = if too_large {
        KEPT_BYTES_MAX.min(limits.bytes_max)
    } else {
        limits.bytes_max
    };
    // What is too large as it stands is not worth unpacking.
    let source = Source::new(body, gzip && !too_large);
    let reading = collect(source, stated, kept_max, limits.bytes_max, place);
    tokio::time::timeout(limits.within, reading)
        .await
        .unwrap_or(Err(Unread::Late))
}

async fn collect(
    mut source: Source,
    stated: Option<usize>,
    kept_max: usize,
    bytes_max: usize,
    place: &mut Place,
) -> Result<Read, Unread> {
    let mut bytes = BytesMut::new();
    if let Some(stated) = stated {
        place.cover(stated.min(kept_max)).map_err(Unread::Full)?;
        // A promise is not memory: at most this much is set aside before the bytes are here.
        bytes.reserve(stated.min(kept_max).min(64 * 1024));
    }
    let refusal = loop {
        let piece = match source.piece().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break None,
            Err(Stop::Unread(unread)) => return Err(unread),
            Err(Stop::Refused(refusal)) => break Some(refusal),
        };
        let fitting = &piece[..piece.len().min(kept_max - bytes.len())];
        let held = bytes.len() + fitting.len() + source.held_bytes();
        place.cover(held).map_err(Unread::Full)?;
        bytes.extend_from_slice(fitting);
        if fitting.len() < piece.len() || source.bytes_in > bytes_max {
            break Some(too_large(bytes_max));
        }
    };
    let bytes = bytes.freeze();
    let Some(refusal) = refusal else {
        let original_bytes = bytes.len();
        return Ok(Read {
            bytes,
            original_bytes,
            refusal: None,
        });
    };
    let stated = stated.unwrap_or(0);
    let (bytes, original_bytes) = match source.packed() {
        Some((packed, bytes_in)) => (packed, stated.max(bytes_in)),
        None => (bytes, stated.max(kept_max + 1)),
    };
    Ok(Read {
        bytes,
        original_bytes,
        refusal: Some(refusal),
    })
}

/// The refusal of a body, or of a line, over the limit.
#[must_use]
pub fn too_large(bytes_max: usize) -> Refusal {
    let detail = format!("a request's body has at most {bytes_max} bytes, unpacked");
    Refusal::new(Code::TooLarge, detail)
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Whether it is packed.
    pub gzip: bool,
    /// What it holds.
    pub media: Media,
}

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// One event or a JSON array of them.
    Json(Shape),
    /// One event a line.
    Lines,
    /// The data of the event that the `ce-…` headers are.
    Data,
}

/// What the body is, by its head.
///
/// # Errors
/// `unsupported_type`.
pub fn content(headers: &HeaderMap) -> Result<Content, Refusal> {
    let unsupported = |detail: &str| Refusal::new(Code::UnsupportedType, detail);
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let gzip = match (encodings.next(), encodings.next()) {
        (None, _) => false,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"identity") => false,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"gzip") => true,
        _ => {
            return Err(unsupported(
                "Content-Encoding is gzip, or the body is not encoded",
            ));
        }
    };
    let media = media(headers).map_err(unsupported)?;
    Ok(Content { gzip, media })
}

fn media(headers: &HeaderMap) -> Result<Media, &'static str> {
    let is_binary = binary_mode::is_meant(headers);
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let only = match (types.next(), types.next()) {
        (Some(only), None) => only,
        (None, _) if is_binary => return Ok(Media::Data),
        _ => {
            return Err(
                "one Content-Type is needed: application/json, application/x-ndjson or a CloudEvents one",
            );
        }
    };
    let text = only.to_str().unwrap_or_default().to_ascii_lowercase();
    let (media, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let media = match media.trim() {
        // In structured mode headers may repeat what the body says.
        "application/cloudevents+json" => Media::Json(Shape::One),
        "application/cloudevents-batch+json" => Media::Json(Shape::Batch),
        other if other.starts_with("application/cloudevents") => {
            return Err("of the CloudEvents formats JSON is accepted");
        }
        _ if is_binary => return Ok(Media::Data),
        "application/json" => Media::Json(Shape::OneOrBatch),
        "application/x-ndjson" | "application/ndjson" => Media::Lines,
        _ => {
            return Err(
                "application/json, application/x-ndjson, application/cloudevents+json and \
                 application/cloudevents-batch+json are accepted, others with the event's attributes in ce- headers",
            );
        }
    };
    let mut charsets = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charsets.any(|charset| charset.trim_matches('"') != "utf-8") {
        return Err("the charset must be utf-8");
    }
    Ok(media)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    #[test]
    fn the_head_says_what_the_body_is() {
        #[track_caller]
        fn check(lines: &[(&'static str, &str)], expected: Option<(bool, Media)>) {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            let expected = expected.map(|(gzip, media)| Content { gzip, media });
            assert_eq!(content(&headers).ok(), expected, "{lines:?}");
        }
        const TYPE: &str = "content-type";
        const ENCODING: &str = "content-encoding";
        const CE: (&str, &str) = ("ce-type", "t");
        let either = Some((false, Media::Json(Shape::OneOrBatch)));
        check(&[(TYPE, "application/json")], either);
        check(&[(TYPE, "Application/JSON; Charset=UTF-8")], either);
        check(
            &[
                (TYPE, "application/json; charset=\"utf-8\""),
                (ENCODING, "identity"),
            ],
            either,
        );
        let one = Some((false, Media::Json(Shape::One)));
        check(&[(TYPE, "application/cloudevents+json")], one);
        check(&[(TYPE, "application/cloudevents+json"), CE], one);
        let batch = Some((false, Media::Json(Shape::Batch)));
        check(
            &[(TYPE, "application/cloudevents-batch+json; charset=utf-8")],
            batch,
        );
        check(&[(TYPE, "application/cloudevents+avro"), CE], None);
        check(&[(TYPE, "application/json; charset=latin1")], None);
        check(
            &[(TYPE, "application/json"), (ENCODING, "gzip")],
            Some((true, Media::Json(Shape::OneOrBatch))),
        );
        check(&[(TYPE, "application/json"), (ENCODING, "br")], None);
        check(&[(TYPE, "application/json"), (ENCODING, "gzip, gzip")], None);
        check(
            &[(TYPE, "application/json"), (ENCODING, "gzip"), (ENCODING, "gzip")],
            None,
        );
        check(&[(TYPE, "application/x-ndjson")], Some((false, Media::Lines)));
        check(
            &[(TYPE, "application/ndjson"), (ENCODING, "GZIP")],
            Some((true, Media::Lines)),
        );
        let data = Some((false, Media::Data));
        check(&[(TYPE, "application/json"), CE], data);
        check(&[(TYPE, "text/plain; charset=latin1"), CE], data);
        check(&[CE], data);
        check(&[(TYPE, "text/plain"), (TYPE, "text/plain"), CE], None);
        check(&[(TYPE, "application/json"), (TYPE, "application/json")], None);
        check(&[(TYPE, "text/plain")], None);
        check(&[(TYPE, "application/x-www-form-urlencoded")], None);
        check(&[], None);
    }
}
