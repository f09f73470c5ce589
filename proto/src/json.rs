//! Checks and pieces of JSON text that serde_json leaves to its callers.

use std::borrow::Cow;

use crate::frame::too_deep;
use crate::limits::JSON_DEPTH_MAX;
use crate::refusal::{Code, Refusal};

/// A JSON string, borrowed where it holds no escapes.
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> serde::de::Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// Checks what a JSON parser that skips values does not: UTF-8, depth, surrogates that stand alone.
///
/// # Errors
/// `bad_encoding`, `too_deep` or `bad_json`.
pub(crate) fn check(bytes: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Refusal::new(
            Code::BadEncoding,
            format!("not UTF-8 at byte {}", error.valid_up_to()),
        )
    })?;
    if too_deep(bytes) {
        return Err(Refusal::new(
            Code::TooDeep,
            format!("nested deeper than {JSON_DEPTH_MAX}"),
        ));
    }
    if lone_surrogate(bytes) {
        return Err(Refusal::new(
            Code::BadJson,
            "a \\u escape names half a character (a lone surrogate)",
        ));
    }
    Ok(text)
}

/// Whether a `\uD800`–`\uDFFF` escape stands without its other half. Such text is JSON by grammar, but no Unicode text, and the
/// readers of different languages disagree about it.
fn lone_surrogate(bytes: &[u8]) -> bool {
    let unit = |at: usize| -> Option<u16> {
        if bytes.get(at..at + 2)? != b"\\u" {
            return None;
        }
        u16::from_str_radix(std::str::from_utf8(bytes.get(at + 2..at + 6)?).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(at) {
            Some(0xd800..=0xdbff) => match unit(at + 6) {
                Some(0xdc00..=0xdfff) => at += 12,
                _ => return true,
            },
            Some(0xdc00..=0xdfff) => return true,
            Some(_) => at += 6,
            None => at += 2,
        }
    }
    false
}

/// A value of ours as JSON in ASCII, so that no name, whatever its letters, can end a header line. What cannot be written as JSON (a
/// map with odd keys) is empty.
#[must_use]
pub fn ascii_json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    let text = crate::refusal::to_json(value);
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// Appends `,"name":"value"`; `name` needs no escaping, `value` is escaped.
pub(crate) fn member(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    string(out, value);
}

/// Appends a JSON string. Most need no escapes, and are not made twice.
fn string(out: &mut String, value: &str) {
    let escapes = |byte| byte < 0x20 || byte == b'"' || byte == b'\\';
    // To the end, found or not: so many bytes are looked at together.
    if value.bytes().fold(false, |found, byte| found | escapes(byte)) {
        out.push_str(&crate::refusal::to_json(&value));
        return;
    }
    out.push('"');
    out.push_str(value);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ascii_json, string};

    proptest! {
        #[test]
        fn strings_are_written_as_serde_json_writes_them(text in prop_oneof![any::<String>(), "[a-z\"\\\\\u{0}-\u{1f}\u{7f}é]{0,20}"]) {
            let mut written = String::new();
            string(&mut written, &text);
            prop_assert_eq!(written, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn header_text_is_one_line_of_ascii_and_comes_back(text in any::<String>()) {
            let written = ascii_json(&text);
            prop_assert!(written.is_ascii() && !written.contains(['\r', '\n']));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
