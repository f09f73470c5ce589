//! A column's value as JSON: exact, or as PostgreSQL writes it. Pure.
//!
//! Numbers that JavaScript would round come as text: `numeric` always, `bigint` beyond 2^53. Times are RFC 3339, bytes are base64, JSON is
//! itself, arrays are arrays. Every other type, also those that a database defines for itself, is the text PostgreSQL writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How the values of a type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Flag,
    /// A whole number.
    Whole,
    /// A number of limited precision; NaN and infinity are text.
    Float,
    /// JSON as it is.
    Json,
    /// Bytes.
    Binary,
    /// A time with its offset.
    Instant,
    /// A time without one.
    Local,
    /// Text.
    Text,
}

/// A type: one value, or an array of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// The kind of the value, or of each element.
    pub kind: Kind,
    /// Whether it is an array.
    pub array: bool,
}

/// Largest whole number that JavaScript holds exactly.
const WHOLE_MAX: u64 = (1 << 53) - 1;
/// Deepest nesting of an array; PostgreSQL has 6 dimensions.
const DEPTH_MAX: u32 = 6;

impl Type {
    /// The type behind PostgreSQL's number. Source: `pg_type.dat`; these numbers never change.
    #[must_use]
    pub fn of(oid: u32) -> Self {
        let one = |kind| Self { kind, array: false };
        let many = |kind| Self { kind, array: true };
        match oid {
            16 => one(Kind::Flag),
            17 => one(Kind::Binary),
            20 | 21 | 23 | 26 => one(Kind::Whole),
            114 | 3802 => one(Kind::Json),
            700 | 701 => one(Kind::Float),
            1114 => one(Kind::Local),
            1184 => one(Kind::Instant),
            1000 => many(Kind::Flag),
            1001 => many(Kind::Binary),
            1005 | 1007 | 1016 | 1028 => many(Kind::Whole),
            199 | 3807 => many(Kind::Json),
            1021 | 1022 => many(Kind::Float),
            1115 => many(Kind::Local),
            1185 => many(Kind::Instant),
            // name, text, bpchar, varchar, char, date, time, timetz, interval, numeric, uuid, inet, cidr, macaddr
            1003 | 1009 | 1014 | 1015 | 1002 | 1182 | 1183 | 1270 | 1187 | 1231 | 2951 | 1041 | 651
            | 1040 => many(Kind::Text),
            _ => one(Kind::Text),
        }
    }

    /// Writes a value as JSON. What does not look like its type is written as text.
    pub fn write(self, text: &str, out: &mut Vec<u8>) {
        if !self.array {
            return write_one(self.kind, text, out);
        }
        let start = out.len();
        if write_array(self.kind, text, out).is_none() {
            out.truncate(start);
            write_text(text, out);
        }
    }
}

/// Writes a text as JSON.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Into memory it cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_one(kind: Kind, text: &str, out: &mut Vec<u8>) {
    match kind {
        Kind::Flag if text == "t" => out.extend_from_slice(b"true"),
        Kind::Flag if text == "f" => out.extend_from_slice(b"false"),
        Kind::Whole if is_safe(text) => out.extend_from_slice(text.as_bytes()),
        Kind::Float if is_number(text) => out.extend_from_slice(text.as_bytes()),
        Kind::Json => out.extend_from_slice(text.as_bytes()),
        Kind::Binary => match unhex(text) {
            Some(bytes) => write_text(&STANDARD.encode(bytes), out),
            None => write_text(text, out),
        },
        Kind::Instant => write_time(text, "+00", "Z", out),
        Kind::Local => write_time(text, "", "", out),
        _ => write_text(text, out),
    }
}

fn is_safe(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u64>().is_ok_and(|number| number <= WHOLE_MAX)
}

fn is_number(text: &str) -> bool {
    let first = text.strip_prefix('-').unwrap_or(text).bytes().next();
    first.is_some_and(|byte| byte.is_ascii_digit())
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| {
        pairs
            .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
            .collect()
    })?
}

/// `2026-11-21 17:00:00.5+00` as RFC 3339. Years of more or fewer than four digits, BC and infinity stay as they are.
fn write_time(text: &str, ending: &str, instead: &str, out: &mut Vec<u8>) {
    let usual = text
        .strip_suffix(ending)
        .filter(|rest| rest.as_bytes().get(10) == Some(&b' ') && !rest.ends_with("BC"));
    match usual {
        Some(rest) => {
            out.push(b'"');
            out.extend_from_slice(&rest.as_bytes()[..10]);
            out.push(b'T');
            out.extend_from_slice(&rest.as_bytes()[11..]);
            out.extend_from_slice(instead.as_bytes());
            out.push(b'"');
        }
        None => write_text(text, out),
    }
}

/// `{1,NULL,"a,b",{2}}`, perhaps after bounds such as `[0:1]=`, as JSON; `None` if it is not an array.
fn write_array(kind: Kind, text: &str, out: &mut Vec<u8>) -> Option<()> {
    let text = match text.strip_prefix('[') {
        Some(bounds) => bounds.split_once("]=").map(|(_, rest)| rest)?,
        None => text,
    };
    let mut rest = text;
    element(kind, &mut rest, out, 0)?;
    (rest.is_empty() && text.starts_with('{')).then_some(())
}

fn element(kind: Kind, rest: &mut &str, out: &mut Vec<u8>, depth: u32) -> Option<()> {
    if let Some(inside) = rest.strip_prefix('{') {
        if depth == DEPTH_MAX {
            return None;
        }
        *rest = inside;
        out.push(b'[');
        if let Some(after) = rest.strip_prefix('}') {
            *rest = after;
        } else {
            loop {
                element(kind, rest, out, depth + 1)?;
                let (sign, after) = (rest.bytes().next()?, rest.get(1..)?);
                *rest = after;
                match sign {
                    b',' => out.push(b','),
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        out.push(b']');
        return Some(());
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        loop {
            match chars.next()? {
                (at, '"') => {
                    *rest = &quoted[at + 1..];
                    write_one(kind, &value, out);
                    return Some(());
                }
                (_, '\\') => value.push(chars.next()?.1),
                (_, other) => value.push(other),
            }
        }
    }
    let end = rest.find([',', '}'])?;
    let (value, after) = rest.split_at(end);
    *rest = after;
    if value.is_empty() {
        return None;
    }
    if value == "NULL" {
        out.extend_from_slice(b"null");
    } else {
        write_one(kind, value, out);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(oid: u32, text: &str, expected: &str) {
        let mut out = Vec::new();
        Type::of(oid).write(text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{oid} {text}");
    }

    #[test]
    fn common_types_are_exact() {
        check(16, "t", "true");
        check(16, "f", "false");
        check(23, "-7", "-7");
        check(20, "9007199254740991", "9007199254740991");
        check(20, "9007199254740992", "\"9007199254740992\"");
        check(20, "-9223372036854775808", "\"-9223372036854775808\"");
        check(1700, "12345678901234567890.10", "\"12345678901234567890.10\"");
        check(1700, "NaN", "\"NaN\"");
        check(701, "0.1", "0.1");
        check(701, "1e+300", "1e+300");
        check(701, "NaN", "\"NaN\"");
        check(701, "-Infinity", "\"-Infinity\"");
        check(25, "a \"b\"\n", r#""a \"b\"\n""#);
        check(3802, r#"{"a": [1, 2.50]}"#, r#"{"a": [1, 2.50]}"#);
        check(114, "null", "null");
        check(
            2950,
            "0190163d-8694-739b-aea5-966c26f8ad91",
            "\"0190163d-8694-739b-aea5-966c26f8ad91\"",
        );
        check(17, "\\x00ff10", "\"AP8Q\"");
        check(17, "\\x", "\"\"");
        check(17, "abc", "\"abc\"");
        check(1184, "2026-11-21 17:00:00.5+00", "\"2026-11-21T17:00:00.5Z\"");
        check(1184, "infinity", "\"infinity\"");
        check(1184, "0044-03-15 00:00:00+00 BC", "\"0044-03-15 00:00:00+00 BC\"");
        check(1184, "12026-11-21 17:00:00+00", "\"12026-11-21 17:00:00+00\"");
        check(1114, "2026-11-21 17:00:00", "\"2026-11-21T17:00:00\"");
        check(1114, "0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\"");
        check(1082, "2026-11-21", "\"2026-11-21\"");
        check(1186, "P1DT2H", "\"P1DT2H\"");
        check(600, "(1,2)", "\"(1,2)\"");
        check(99_999, "of their own", "\"of their own\"");
    }

    #[test]
    fn arrays_are_arrays() {
        check(1007, "{1,2,NULL}", "[1,2,null]");
        check(1007, "{}", "[]");
        check(1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]");
        check(1007, "[0:1]={5,6}", "[5,6]");
        check(
            1009,
            r#"{a,"b,c","d\"e","NULL",NULL,""}"#,
            r#"["a","b,c","d\"e","NULL",null,""]"#,
        );
        check(1231, "{1.50,2}", r#"["1.50","2"]"#);
        check(1000, "{t,f}", "[true,false]");
        check(3807, r#"{"{\"a\": 1}",NULL}"#, r#"[{"a": 1},null]"#);
        check(
            1185,
            r#"{"2026-11-21 17:00:00+00"}"#,
            r#"["2026-11-21T17:00:00Z"]"#,
        );
        check(1001, r#"{"\\x01"}"#, r#"["AQ=="]"#);
        for wrong in ["", "{", "{1", "{1,}", "1,2", "{1}x", "{{{{{{{1}}}}}}}", "[0:1"] {
            check(1007, wrong, &format!("{wrong:?}"));
        }
    }

    /// As PostgreSQL writes an array of texts.
    fn array(elements: &[Option<String>]) -> String {
        let quoted = elements.iter().map(|element| match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        });
        format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn every_value_becomes_json(oid in prop::sample::select(vec![16, 17, 20, 23, 700, 1184, 1114, 1700, 25, 1007, 1009, 1185, 1001]), text in ".{0,20}") {
            let mut out = Vec::new();
            Type::of(oid).write(&text, &mut out);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        }

        #[test]
        fn arrays_of_any_texts_come_back(elements in proptest::collection::vec(proptest::option::of(".{0,8}"), 0..6)) {
            let mut out = Vec::new();
            Type::of(1009).write(&array(&elements), &mut out);
            let read: Vec<Option<String>> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, elements);
        }
    }
}
