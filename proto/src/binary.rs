//! CloudEvents binary mode: attributes in `ce-…` headers, data as the body. Turned into the JSON format before anything else, so
//! that there is one way on which an event is read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::event::{bad, percent_decode};
use crate::json;
use crate::limits::EVENT_BYTES_MAX;
use crate::refusal::{Code, Refusal};

/// What the names of headers that carry attributes begin with.
pub const PREFIX: &str = "ce-";

/// Writes an event in binary mode as JSON for [`crate::event::Draft::parse`], which checks the rest.
///
/// `attributes`: names in lower case without [`PREFIX`], and the headers' values as they came. `content_type` becomes
/// `datacontenttype`. The body becomes `data`: byte for byte where the type is JSON or none is given, as a string where it is
/// `text/…` or XML in UTF-8; anything else becomes `data_base64`. An empty body is no data.
///
/// Source: HTTP Protocol Binding for CloudEvents 1.0.2 §3.1; JSON Event Format 1.0.2 §3.1.
///
/// # Errors
/// `bad_event` for a name or value that cannot be an attribute, `bad_encoding` and `bad_json` for a body that is not what its
/// type says, `too_large`.
pub fn structured<'a>(
    attributes: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    if body.len() > EVENT_BYTES_MAX {
        let detail = format!(
            "an event has at most {EVENT_BYTES_MAX} bytes, this one's data has {}",
            body.len()
        );
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    let mut out = String::with_capacity(256 + body.len());
    for (name, value) in attributes {
        check_name(name)?;
        let value = decoded(name, value)?;
        match (name, value.as_str()) {
            ("withdrawn", "true" | "false") => {
                out.push_str(",\"withdrawn\":");
                out.push_str(&value);
            }
            _ => json::member(&mut out, name, &value),
        }
    }
    if let Some(content_type) = content_type {
        json::member(&mut out, "datacontenttype", content_type);
    }
    put_data(&mut out, content_type, body)?;
    // Every member brought its comma.
    let mut text = out.into_bytes();
    match text.first_mut() {
        Some(comma) => *comma = b'{',
        None => text.push(b'{'),
    }
    text.push(b'}');
    Ok(text)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    match name {
        "data" | "data_base64" => Err(bad(name, "is the body in binary mode, not a header")),
        "datacontenttype" => Err(bad(name, "is Content-Type in binary mode")),
        _ if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) => {
            Err(bad(name, "attribute names are lower-case letters and digits"))
        }
        _ => Ok(()),
    }
}

/// A header's value as the attribute's: quotes of older senders taken off, then one round of percent-decoding.
fn decoded(name: &str, value: &[u8]) -> Result<String, Refusal> {
    let text = match value {
        [b'"', quoted @ .., b'"'] => unquoted(quoted).ok_or_else(|| bad(name, "holds a broken quoting"))?,
        _ => value.to_vec(),
    };
    percent_decode(&text).ok_or_else(|| bad(name, "is not percent-encoded UTF-8"))
}

/// The inside of a quoted string (RFC 9110 §5.6.4); `None` where a quote stands alone.
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next()?),
            b'"' => return None,
            _ => out.push(byte),
        }
    }
    Some(out)
}

fn put_data(out: &mut String, content_type: Option<&str>, body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() {
        return Ok(());
    }
    match (Media::of(content_type), std::str::from_utf8(body)) {
        (Media::Json, Ok(text)) => {
            // Looked at alone first: text that closes the object early must not become attributes.
            let data: &RawValue = serde_json::from_str(text)
                .map_err(|error| Refusal::new(Code::BadJson, format!("the data is not JSON: {error}")))?;
            out.push_str(",\"data\":");
            out.push_str(data.get());
        }
        (Media::Json, Err(error)) => {
            let detail = format!("the data is not UTF-8 at byte {}", error.valid_up_to());
            return Err(Refusal::new(Code::BadEncoding, detail));
        }
        (Media::Text, Ok(text)) => json::member(out, "data", text),
        (Media::Text | Media::Other, _) => json::member(out, "data_base64", &STANDARD.encode(body)),
    }
    Ok(())
}

enum Media {
    Json,
    Text,
    Other,
}

impl Media {
    fn of(content_type: Option<&str>) -> Self {
        let Some(given) = content_type else {
            // JSON Event Format §3.1: unspecified means JSON.
            return Self::Json;
        };
        let given = given.to_ascii_lowercase();
        let (media, parameters) = given.split_once(';').unwrap_or((&given, ""));
        let (kind, subtype) = media.trim().split_once('/').unwrap_or_default();
        if subtype == "json" || subtype.ends_with("+json") {
            return Self::Json;
        }
        let utf8 = parameters
            .split(';')
            .filter_map(|parameter| parameter.trim().strip_prefix("charset="))
            .all(|charset| matches!(charset.trim_matches('"'), "utf-8" | "us-ascii"));
        if utf8 && (kind == "text" || subtype == "xml" || subtype.ends_with("+xml")) {
            return Self::Text;
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Draft;

    #[test]
    fn values_are_unquoted_and_decoded_once() {
        #[track_caller]
        fn check(value: &[u8], expected: Option<&str>) {
            assert_eq!(
                decoded("subject", value).ok().as_deref(),
                expected,
                "{}",
                value.escape_ascii()
            );
        }
        check(
            b"Euro%20%E2%82%AC%20%f0%9F%98%80",
            Some("Euro \u{20ac} \u{1f600}"),
        );
        check(b"plain text", Some("plain text"));
        check(b"%41%2525", Some("A%25"));
        check(br#""a \"b\" \\""#, Some(r#"a "b" \"#));
        check(b"\"\"", Some(""));
        check(br#""a"b""#, None);
        check(br#""a\""#, None);
        check(b"%C0%A0", None);
        check(b"%", None);
        check(b"%4", None);
        check(b"%+1", None);
        check(b"\xff", None);
    }

    #[test]
    fn data_cannot_become_attributes() {
        let body = br#"1,"room":"other""#;
        let refusal = structured([("type", &b"t"[..])], None, body).unwrap_err();
        assert_eq!(refusal.code, Code::BadJson);
        let text = structured([("type", &b"t"[..])], Some("text/plain"), body).unwrap();
        assert!(Draft::parse(&text).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_one_json_object(value: Vec<u8>, kind in "[ -~]{0,20}", body: Vec<u8>) {
            if let Ok(text) = structured([("type", &b"t"[..]), ("subject", &value)], Some(&kind), &body) {
                let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
                proptest::prop_assert_eq!(&json["type"], "t");
                proptest::prop_assert_eq!(&json["datacontenttype"], &kind);
            }
        }
    }
}
