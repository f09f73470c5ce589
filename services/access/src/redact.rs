//! Taking fields out of an event before somebody sees it who may not.
//!
//! Called once per event and redaction class, on live events, history and state alike. Works on the event's own bytes:
//! what stays is copied as it was, so numbers keep their digits; what cannot be read is not delivered.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Most tokens in a pointer; an event's data is never deeper than 32.
pub const POINTER_TOKENS_MAX: usize = 32;
/// Longest pointer in bytes.
pub const POINTER_BYTES_MAX: usize = 256;
/// Most redaction rules in one policy: a class is the set of them that applies, as bits.
pub const RULES_MAX: usize = 128;

/// A JSON pointer (RFC 6901) into an event's `data`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    tokens: Vec<Box<str>>,
}

/// Which redaction rules of a policy apply, together with a mark of that policy: two holders of equal classes see the
/// same bytes of an event, also across a change of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RedactionClass {
    pub(crate) policy: u64,
    pub(crate) rules: u128,
}

impl RedactionClass {
    /// Nothing is taken out.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.rules == 0
    }
}

/// The bytes are not a JSON object, so nothing can be taken out of them: they must not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event cannot be read, so nothing can be taken out of it")]
pub struct Unreadable;

impl Pointer {
    /// Reads a pointer such as `/customer/email`.
    ///
    /// # Errors
    /// The rule that is broken, in words for the author of the policy.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a pointer begins with / and points into data, such as /customer/email");
        };
        if text.len() > POINTER_BYTES_MAX {
            return Err("a pointer has at most 256 bytes");
        }
        let tokens: Vec<Box<str>> = rest
            .split('/')
            .map(unescape)
            .collect::<Option<_>>()
            .ok_or("~ must be written ~0 and / inside a name ~1")?;
        if tokens.len() > POINTER_TOKENS_MAX {
            return Err("a pointer has at most 32 parts");
        }
        Ok(Self { tokens })
    }

    /// Whether it takes out a member of `data`, something in it, or something it is in.
    pub(crate) fn touches(&self, names: &[String]) -> bool {
        self.tokens
            .iter()
            .zip(names)
            .all(|(token, name)| **token == **name)
    }
}

/// Shows the pointer as it is written.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

fn unescape(token: &str) -> Option<Box<str>> {
    let mut parts = token.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        if let Some(rest) = part.strip_prefix('0') {
            out.push('~');
            out.push_str(rest);
        } else {
            out.push('/');
            out.push_str(part.strip_prefix('1')?);
        }
    }
    Some(out.into())
}

/// Takes what `pointers` name out of the `data` of an event in JSON.
///
/// Members and list elements are removed; what is not there is no mistake. Every member of a name goes, if it appears
/// twice. `data_base64` goes whole, because no pointer reaches into it. Bytes that stay are copied as they are; an event in which nothing is
/// to be removed is returned as it was, without a copy. Cost: one pass over the event and over each list or object on
/// the way of a pointer.
///
/// # Errors
/// [`Unreadable`]: not a JSON object; the event must then not be delivered to this class.
pub fn apply<'a>(event: &'a [u8], pointers: &[Pointer]) -> Result<Cow<'a, [u8]>, Unreadable> {
    if pointers.is_empty() {
        return Ok(Cow::Borrowed(event));
    }
    let paths: Vec<&[Box<str>]> = pointers.iter().map(|pointer| &*pointer.tokens).collect();
    let Members(members) = serde_json::from_slice(event).map_err(|_| Unreadable)?;
    let mut changed = false;
    let mut kept: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(members.len());
    for (name, value) in &members {
        match name.as_str() {
            "data_base64" => changed = true,
            "data" => {
                let data = without(value, &paths)?;
                changed |= matches!(data, Cow::Owned(_));
                kept.push((name, data));
            }
            _ => kept.push((name, Cow::Borrowed(value.get()))),
        }
    }
    if !changed {
        return Ok(Cow::Borrowed(event));
    }
    Ok(Cow::Owned(write_object(&kept)?.into_bytes()))
}

/// `value` without what the paths name; borrowed if they name nothing in it. Recursion is as deep as the longest path.
fn without<'a>(value: &'a RawValue, paths: &[&[Box<str>]]) -> Result<Cow<'a, str>, Unreadable> {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(value.get()).map_err(|_| Unreadable)?;
            let kept = keep(members.iter().map(|(name, value)| (name.as_str(), *value)), paths)?;
            kept.map_or(Ok(Cow::Borrowed(value.get())), |kept| {
                write_object(&kept).map(Cow::Owned)
            })
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| Unreadable)?;
            let indexes: Vec<String> = (0..items.len()).map(|index| index.to_string()).collect();
            let kept = keep(indexes.iter().map(String::as_str).zip(items), paths)?;
            Ok(kept.map_or(Cow::Borrowed(value.get()), |kept| {
                let items: Vec<&str> = kept.iter().map(|(_, item)| &**item).collect();
                Cow::Owned(format!("[{}]", items.join(",")))
            }))
        }
        _ => Ok(Cow::Borrowed(value.get())),
    }
}

type Kept<'n, 'a> = Vec<(&'n str, Cow<'a, str>)>;

/// The members or items that stay, or `None` when nothing changes.
fn keep<'n, 'a>(
    parts: impl Iterator<Item = (&'n str, &'a RawValue)>,
    paths: &[&[Box<str>]],
) -> Result<Option<Kept<'n, 'a>>, Unreadable> {
    let mut changed = false;
    let mut kept = Vec::new();
    for (name, value) in parts {
        let rest: Vec<&[Box<str>]> = paths
            .iter()
            .filter_map(|path| {
                path.split_first()
                    .filter(|(first, _)| &***first == name)
                    .map(|(_, rest)| rest)
            })
            .collect();
        if rest.iter().any(|rest| rest.is_empty()) {
            changed = true;
        } else if rest.is_empty() {
            kept.push((name, Cow::Borrowed(value.get())));
        } else {
            let part = without(value, &rest)?;
            changed |= matches!(part, Cow::Owned(_));
            kept.push((name, part));
        }
    }
    Ok(changed.then_some(kept))
}

fn write_object(members: &[(&str, Cow<'_, str>)]) -> Result<String, Unreadable> {
    let mut out = String::from("{");
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::to_string(name).map_err(|_| Unreadable)?);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    Ok(out)
}

/// The members of an object in their order, values unread, doubles kept.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: de::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        reader.deserialize_map(Object).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn check(event: &str, pointers: &[&str], expected: &str) {
        let pointers: Vec<Pointer> = pointers
            .iter()
            .map(|text| Pointer::parse(text).unwrap())
            .collect();
        let out = apply(event.as_bytes(), &pointers).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected, "{event}");
    }

    #[test]
    fn named_fields_go_and_all_else_stays_as_it_was() {
        let money = r#"{"id":"1","data":{"amount":4250.50,"customer":{"email":"a@b","name":"A"},"n":1e2}}"#;
        check(
            money,
            &["/amount"],
            r#"{"id":"1","data":{"customer":{"email":"a@b","name":"A"},"n":1e2}}"#,
        );
        check(
            money,
            &["/customer/email", "/n"],
            r#"{"id":"1","data":{"amount":4250.50,"customer":{"name":"A"}}}"#,
        );
        check(
            money,
            &["/customer/email", "/customer"],
            r#"{"id":"1","data":{"amount":4250.50,"n":1e2}}"#,
        );
        check(money, &["/absent", "/amount/deeper"], money);
        check(r#"{ "data" : {"a": 1} }"#, &["/b"], r#"{ "data" : {"a": 1} }"#);
        check(
            r#"{"data":[{"a":1,"b":2},3]}"#,
            &["/0/a", "/1"],
            r#"{"data":[{"b":2}]}"#,
        );
        check(
            r#"{"data":{"a/b":1,"m~n":2,"x":3}}"#,
            &["/a~1b", "/m~0n"],
            r#"{"data":{"x":3}}"#,
        );
        check(r#"{"data":{"a":1,"a":2,"\u0061":3}}"#, &["/a"], r#"{"data":{}}"#);
        check(
            r#"{"data":{"a":1},"d\u0061ta":{"a":2}}"#,
            &["/a"],
            r#"{"data":{},"data":{}}"#,
        );
        check(r#"{"data_base64":"aGk=","id":"1"}"#, &["/a"], r#"{"id":"1"}"#);
        check(r#"{"data":"text"}"#, &["/a"], r#"{"data":"text"}"#);
        check(
            r#"{"amount":1,"data":{"amount":1}}"#,
            &["/amount"],
            r#"{"amount":1,"data":{}}"#,
        );
        check(r#"{"data":{"":1,"b":2}}"#, &["/"], r#"{"data":{"b":2}}"#);
    }

    #[test]
    fn what_cannot_be_read_is_not_delivered() {
        let pointers = [Pointer::parse("/a").unwrap()];
        for event in [
            &b""[..],
            b"[]",
            b"{",
            b"\"x\"",
            b"{\"data\":{\"a\":}}",
            b"{\"data\":\"\xff\"}",
            b"{} {}",
        ] {
            assert_eq!(
                apply(event, &pointers),
                Err(Unreadable),
                "{}",
                String::from_utf8_lossy(event)
            );
        }
        assert_eq!(apply(b"anything", &[]).as_deref(), Ok(&b"anything"[..]));
    }

    #[test]
    fn pointers_follow_the_grammar() {
        let long = format!("/{}", "a".repeat(256));
        let deep = "/a".repeat(33);
        for (text, good) in [
            ("/amount", true),
            ("/a/b/0", true),
            ("/", true),
            ("/a~0b~1c", true),
            ("", false),
            ("amount", false),
            ("$.amount", false),
            ("/a~", false),
            ("/a~2", false),
            (&long, false),
            (&deep, false),
        ] {
            let pointer = Pointer::parse(text);
            assert_eq!(pointer.is_ok(), good, "{text:?}");
            if let Ok(pointer) = pointer {
                assert_eq!(pointer.to_string(), text);
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[a-c~/]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c~/]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The same in the plainest words: mark what the pointers name, then rebuild without it.
    fn model(value: &Value, paths: &[Vec<String>]) -> Value {
        let below = |name: &str| -> Vec<Vec<String>> {
            paths
                .iter()
                .filter(|p| p.first().is_some_and(|f| f == name))
                .map(|p| p[1..].to_vec())
                .collect()
        };
        let gone = |name: &str| below(name).iter().any(Vec::is_empty);
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .filter(|(name, _)| !gone(name))
                    .map(|(name, value)| (name.clone(), model(value, &below(name))))
                    .collect(),
            ),
            Value::Array(list) => Value::Array(
                list.iter()
                    .enumerate()
                    .filter(|(at, _)| !gone(&at.to_string()))
                    .map(|(at, value)| model(value, &below(&at.to_string())))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_plain_model_does(
            data in value(),
            paths in prop::collection::vec(prop::collection::vec("[a-c~/]{0,2}|[0-3]", 1..4), 0..4),
        ) {
            let pointers: Vec<Pointer> = paths
                .iter()
                .map(|path| Pointer { tokens: path.iter().map(|token| token.as_str().into()).collect() })
                .collect();
            for pointer in &pointers {
                prop_assert_eq!(&Pointer::parse(&pointer.to_string()).unwrap(), pointer);
            }
            let event = json!({ "id": "1", "data": data, "type": "x" }).to_string();
            let out = apply(event.as_bytes(), &pointers).unwrap();
            let out: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&out["data"], &model(&data, &paths));
            prop_assert_eq!(&out["id"], "1");
        }

        #[test]
        fn no_bytes_make_it_panic(event in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = apply(&event, &[Pointer::parse("/a/b").unwrap()]);
        }
    }
}
