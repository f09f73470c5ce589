//! The names of things: rooms, audiences, tenants, escaped tokens, event ids.
//!
//! Everything that ends up as a part of a NATS subject is made here, so that no unchecked text ever becomes one.
//! A *token* is one part of a subject between dots. Rooms and audiences are used as they are, because they are
//! tokens already; user ids, state keys and command names are free text and are escaped.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// Longest room name in bytes.
pub const ROOM_BYTES_MAX: usize = 200;
/// Most tokens in a room name.
pub const ROOM_TOKENS_MAX: usize = 8;
/// Longest plain token in bytes.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Longest escaped token in bytes; longer ones are replaced by their digest.
pub const ESCAPED_BYTES_MAX: usize = 96;
/// Number of partitions `pp` of the event and state subjects. Fixed for ever: it is part of every stored subject.
pub const PARTITIONS: u32 = 16;
/// Number of shards the metrics work is divided into. Fixed for ever: shard names are part of stored state keys.
pub const SHARDS: u32 = 16;
/// Account names that no tenant may have, because they are the accounts of Roomcast itself.
pub const RESERVED_TENANTS: [&str; 5] = ["GW", "AGG", "CORE", "SYS", "READER"];
/// First token of personal rooms.
pub const PERSONAL: &str = "user";
/// The audience that is everybody who may join the room.
pub const AUDIENCE_ALL: &str = "all";

/// A name that breaks the grammar, with the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {rule}")]
pub struct BadName {
    what: &'static str,
    rule: &'static str,
}

impl BadName {
    /// The rule that was broken, in words a publisher understands.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// Whether `text` is one plain token: 1–64 bytes of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_token_byte)
}

/// Whether `text` may stand as the second token of a personal room: 1–96 bytes of `[A-Za-z0-9_=-]`.
#[must_use]
pub fn is_escaped_token(text: &str) -> bool {
    (1..=ESCAPED_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| is_token_byte(b) || b == b'=')
}

/// Turns free text into one subject token.
///
/// Bytes outside `[A-Za-z0-9_-]` become `=HH` (upper-case hex). A result longer than 96 bytes becomes `==` and 32 hex
/// digits of the text's SHA-256; no ordinary escape begins with `==`, so the two forms never meet. Empty text becomes
/// the single token `=` (which no other text escapes to), because a subject may not hold an empty token.
#[must_use]
pub fn escape(text: &str) -> String {
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while !rest.is_empty() {
        // Bytes of tokens are ASCII, so a character begins behind them.
        let plain = rest.bytes().take_while(|b| is_token_byte(*b)).count();
        let (run, after) = rest.split_at(plain);
        out.push_str(run);
        let Some(other) = after.chars().next() else { break };
        let (other, after) = after.split_at(other.len_utf8());
        other.bytes().for_each(|b| push_hex(&mut out, b));
        rest = after;
    }
    if out.len() <= ESCAPED_BYTES_MAX {
        return out;
    }
    let sum = digest::digest(&digest::SHA256, text.as_bytes());
    let mut short = String::with_capacity(34);
    short.push_str("==");
    for b in &sum.as_ref()[..16] {
        short.push(char::from(HEX_LOWER[usize::from(b >> 4)]));
        short.push(char::from(HEX_LOWER[usize::from(b & 15)]));
    }
    short
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";
const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";

fn push_hex(out: &mut String, b: u8) {
    out.push('=');
    out.push(char::from(HEX_UPPER[usize::from(b >> 4)]));
    out.push(char::from(HEX_UPPER[usize::from(b & 15)]));
}

/// The text that [`escape`] was given, or `None` for a digest or for text that `escape` does not make.
#[must_use]
pub fn unescape(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let bytes = token.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'=' {
            let hex = token.get(at + 1..at + 3)?;
            if hex.bytes().any(|b| b.is_ascii_lowercase()) {
                return None;
            }
            out.push(u8::from_str_radix(hex, 16).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    let text = String::from_utf8(out).ok()?;
    (escape(&text) == token).then_some(text)
}

/// FNV-1a, 32 bits. Used for partitions and shards, so that every language can compute them.
#[must_use]
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| {
        (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

fn fnv_of_pair(tenant: &str, name: &str) -> u32 {
    let mut hash = fnv1a32(tenant.as_bytes());
    for b in std::iter::once(b'.').chain(name.bytes()) {
        hash = (hash ^ u32::from(b)).wrapping_mul(0x0100_0193);
    }
    hash
}

/// The partition `pp` of a room: `fnv1a32(tenant "." room) mod 16`.
#[must_use]
pub fn partition(tenant: &Tenant, room: &Room) -> u32 {
    fnv_of_pair(tenant.as_str(), room.as_str()) % PARTITIONS
}

/// The shard `ss` of a metric: `fnv1a32(tenant "." metric) mod 16`.
#[must_use]
pub fn shard(tenant: &Tenant, metric: &str) -> u32 {
    fnv_of_pair(tenant.as_str(), metric) % SHARDS
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }
    };
}

name_type! {
    /// A room: 1–8 tokens `[A-Za-z0-9_-]{1,64}` joined by dots, at most 200 bytes; or a personal room `user.<escaped id>`.
    Room
}
name_type! {
    /// An audience: one token, a role of the policy or `all`.
    Audience
}
name_type! {
    /// A tenant: one token that is not the name of one of our own accounts.
    Tenant
}

impl Room {
    /// Checks a room name.
    ///
    /// # Errors
    /// [`BadName`] with the rule that is broken; answer `bad_room`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |rule| BadName { what: "room", rule };
        if text.is_empty() {
            return Err(bad("a room needs a name"));
        }
        if text.len() > ROOM_BYTES_MAX {
            return Err(bad("at most 200 bytes"));
        }
        if let Some(rest) = text.strip_prefix(PERSONAL)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return match rest.strip_prefix('.') {
                Some(user) if is_escaped_token(user) => Ok(Self(text.into())),
                _ => Err(bad("`user` is reserved for personal rooms: user.<escaped id>")),
            };
        }
        // One walk: a client that comes in names several, and each is read before it is known to be one.
        let (mut tokens, mut token_bytes, mut are_tokens) = (1, 0, true);
        for b in text.bytes() {
            if b == b'.' {
                are_tokens &= (1..=TOKEN_BYTES_MAX).contains(&token_bytes);
                (tokens, token_bytes) = (tokens + 1, 0);
            } else {
                are_tokens &= is_token_byte(b);
                token_bytes += 1;
            }
        }
        if tokens > ROOM_TOKENS_MAX {
            return Err(bad("at most 8 tokens"));
        }
        if !are_tokens || !(1..=TOKEN_BYTES_MAX).contains(&token_bytes) {
            return Err(bad("tokens of 1 to 64 letters, digits, - or _ joined by dots"));
        }
        Ok(Self(text.into()))
    }

    /// The personal room of a user, whatever characters the id has.
    #[must_use]
    pub fn personal(user_id: &str) -> Self {
        Self([PERSONAL, ".", &escape(user_id)].concat().into())
    }

    /// Whether this is somebody's personal room.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        self.0.starts_with("user.")
    }

    /// The tokens between the dots, as bytes: the search in text does not pay for tokens this short, and whoever comes in asks for
    /// several rooms, several times each.
    pub fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        self.0.as_bytes().split(|byte| *byte == b'.')
    }
}

impl Audience {
    /// Checks an audience name.
    ///
    /// # Errors
    /// [`BadName`]; answer `unknown_audience`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if is_token(text) {
            Ok(Self(text.into()))
        } else {
            Err(BadName {
                what: "audience",
                rule: "one token of 1 to 64 letters, digits, - or _",
            })
        }
    }

    /// The audience `all`.
    #[must_use]
    pub fn all() -> Self {
        Self(AUDIENCE_ALL.into())
    }

    /// Whether this is the audience `all`.
    #[must_use]
    pub fn is_all(&self) -> bool {
        &*self.0 == AUDIENCE_ALL
    }
}

impl Tenant {
    /// Checks a tenant name.
    ///
    /// # Errors
    /// [`BadName`] for anything but one token, and for the names of our own accounts.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if !is_token(text) {
            return Err(BadName {
                what: "tenant",
                rule: "one token of 1 to 64 letters, digits, - or _",
            });
        }
        if RESERVED_TENANTS.contains(&text) {
            return Err(BadName {
                what: "tenant",
                rule: "GW, AGG, CORE, SYS and READER are names of our own accounts",
            });
        }
        Ok(Self(text.into()))
    }
}

impl Default for Tenant {
    /// `main`, the tenant of an installation that has only one.
    fn default() -> Self {
        Self("main".into())
    }
}

/// A new event id: UUIDv7, so that ids sort by time and tell their age.
#[must_use]
pub fn new_event_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The id of an event that was given none, made from a name of its own: a UUIDv7 of that instant, the same each time.
///
/// `millis`: Unix milliseconds; what is beyond 48 bits is cut.
#[must_use]
pub fn event_id_of(millis: u64, name: &str) -> String {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let mut rest = [0_u8; 10];
    for (to, from) in rest.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_unix_timestamp_millis(millis & 0xffff_ffff_ffff, &rest)
        .into_uuid()
        .to_string()
}

/// The instant an id carries, in milliseconds since the Unix epoch: UUIDv7 and ULID do, other ids give `None`.
#[must_use]
pub fn time_of_id(id: &str) -> Option<i64> {
    match id.len() {
        36 => {
            let uuid = uuid::Uuid::try_parse(id).ok()?;
            if uuid.get_version_num() != 7 {
                return None;
            }
            let (secs, nanos) = uuid.get_timestamp()?.to_unix();
            i64::try_from(
                secs.checked_mul(1000)?
                    .checked_add(u64::from(nanos / 1_000_000))?,
            )
            .ok()
        }
        26 => time_of_ulid(id),
        _ => None,
    }
}

/// First ten characters of a ULID are milliseconds in Crockford's base 32 (ULID specification).
fn time_of_ulid(id: &str) -> Option<i64> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |b: u8| ALPHABET.iter().position(|a| *a == b.to_ascii_uppercase());
    if !id.bytes().all(|b| digit(b).is_some()) || digit(id.as_bytes()[0])? > 7 {
        return None;
    }
    let mut millis: i64 = 0;
    for b in &id.as_bytes()[..10] {
        millis = millis * 32 + i64::try_from(digit(*b)?).ok()?;
    }
    Some(millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rooms_follow_the_grammar() {
        let token64 = "a".repeat(64);
        let rows: [(&str, bool); 22] = [
            ("bookings", true),
            ("property.42", true),
            ("a.b.c.d.e.f.g.h", true),
            ("a.b.c.d.e.f.g.h.i", false),
            (&token64, true),
            (&"a".repeat(65), false),
            (&[&*token64, &token64, &token64, "abcde"].join("."), true),
            (&[&*token64, &token64, &token64, "abcdef"].join("."), false),
            ("", false),
            (".", false),
            ("a.", false),
            (".a", false),
            ("a..b", false),
            ("a b", false),
            ("a*", false),
            (">", false),
            ("é", false),
            ("user", false),
            ("user.u1", true),
            ("user.u=401", true),
            ("user.u1.x", false),
            ("user.", false),
        ];
        for (text, good) in rows {
            assert_eq!(Room::parse(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn tenants_may_not_take_our_accounts() {
        for (text, good) in [
            ("main", true),
            ("acme-2", true),
            ("GW", false),
            ("SYS", false),
            ("a.b", false),
        ] {
            assert_eq!(Tenant::parse(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn escapes_are_the_documented_ones() {
        let rows = [
            ("Lager Süd/7.2>*", "Lager=20S=C3=BCd=2F7=2E2=3E=2A"),
            ("plain-Token_9", "plain-Token_9"),
            ("=", "=3D"),
            ("", "="),
        ];
        for (text, token) in rows {
            assert_eq!(escape(text), token);
            assert_eq!(unescape(token).as_deref(), Some(text));
        }
        let long = escape(&"x".repeat(97));
        assert!(long.starts_with("==") && long.len() == 34, "{long}");
        for wrong in ["=2e", "=2", "=41", "==", "=FF"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn partitions_and_shards_never_move() {
        // Written down once; a change here moves stored data.
        let tenant = Tenant::default();
        let rows = [("bookings", 6), ("os_dashboard", 15), ("property.42", 13)];
        for (room, pp) in rows {
            let room = Room::parse(room).unwrap();
            assert_eq!(partition(&tenant, &room), pp, "{room}");
            assert_eq!(fnv1a32(format!("main.{room}").as_bytes()) % 16, pp);
        }
        assert_eq!(fnv1a32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a32(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn ids_tell_their_age_when_they_can() {
        let rows = [
            ("01890a5d-ac96-774b-bcce-b302099a8057", Some(1_688_096_058_518)),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(1_469_922_850_259)),
            ("b0b6b6c2-3b9e-4d59-9d0a-7f5f9c6f3d11", None),
            ("order-17", None),
            ("81ARZ3NDEKTSV4RRFFQ69G5FAV", None),
        ];
        for (id, millis) in rows {
            assert_eq!(time_of_id(id), millis, "{id}");
        }
        assert!(time_of_id(&new_event_id()).is_some());
    }

    #[test]
    fn a_made_id_is_the_same_each_time_and_anothers_is_another() {
        let id = event_id_of(1_700_000_000_123, "life.7.0");
        assert_eq!(time_of_id(&id), Some(1_700_000_000_123));
        assert_eq!(id, event_id_of(1_700_000_000_123, "life.7.0"));
        assert_ne!(id, event_id_of(1_700_000_000_123, "life.7.1"));
        assert!(time_of_id(&event_id_of(u64::MAX, "x")).is_some());
    }

    proptest! {
        #[test]
        fn escape_is_injective_and_makes_tokens(text in ".{0,200}") {
            let token = escape(&text);
            prop_assert!(is_escaped_token(&token));
            match unescape(&token) {
                Some(back) => prop_assert_eq!(back, text),
                None => prop_assert!(token.starts_with("==")),
            }
        }

        #[test]
        fn unescape_never_panics(token in ".{0,120}") {
            let _ = unescape(&token);
        }
    }
}
