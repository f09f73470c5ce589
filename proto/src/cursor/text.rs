//! How a cursor becomes text, and text a cursor: plain where there is one tenant, sealed where there are several.
//!
//! Positions are those of streams that all tenants share, so a plain cursor tells one tenant how much the others publish. A sealed one
//! is the cursor under AES-256-GCM-SIV (RFC 8452) with a fixed nonce, which makes it deterministic: the same place is the same text on
//! every gateway and in ingest, and a frame is encoded once for all. The tenant is authenticated with it, so a cursor of one tenant is
//! none in another and equal places of two tenants do not look equal. What remains visible: whether two cursors of one tenant are
//! the same place.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Cursor, Epoch, NotACursor, Position, read_plain};
use crate::ids::Tenant;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Keys read at most: the one in use, and those of a rotation.
const KEYS_MAX: usize = 4;
/// Epoch, `seq`, `rev`, time bits.
const BODY_BYTES: usize = 4 + 8 + 8 + 2;
/// The authentication tag.
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = BODY_BYTES + TAG_BYTES;
/// Base64 without padding.
const SEALED_TEXT_BYTES: usize = (SEALED_BYTES * 4).div_ceil(3);
/// The longest text written: a plain cursor has at most 8 + 20 + 20 + 4 digits and three dots.
const TEXT_BYTES_MAX: usize = 56;

/// The keys cursors are sealed with, or none. Shared by gateways and ingest; the same for the life of a process.
#[derive(Clone, Copy, Default)]
pub struct Cursors {
    /// The first one writes, all of them read. Made once at start and never freed, so that every frame's maker can hold them for nothing.
    keys: Option<&'static [LessSafeKey]>,
}

/// Keys that cannot be used. Says nothing about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// A line is not 64 hexadecimal digits.
    #[error("line {0} is not 64 hexadecimal digits (`openssl rand -hex 32` makes such a key)")]
    Line(usize),
    /// No key, or too many.
    #[error("one to {KEYS_MAX} keys, one a line")]
    Count,
    /// The same key twice: a rotation that changes nothing.
    #[error("line {0} repeats a key")]
    Twice(usize),
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_sealed() { "sealed" } else { "plain" })
    }
}

impl Cursors {
    /// Cursors in plain text: one tenant.
    #[must_use]
    pub const fn plain() -> Self {
        Self { keys: None }
    }

    /// Cursors sealed with the first of these keys; those sealed with any of them are read. One key a line, 64 hexadecimal digits.
    ///
    /// Leaks a few hundred bytes for the life of the process; to be called once at start.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn sealed(text: &str) -> Result<Self, BadKeys> {
        let mut seen: Vec<[u8; KEY_BYTES]> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let key = unhex(line).ok_or(BadKeys::Line(number))?;
            if seen.contains(&key) {
                return Err(BadKeys::Twice(number));
            }
            seen.push(key);
        }
        if seen.is_empty() || seen.len() > KEYS_MAX {
            return Err(BadKeys::Count);
        }
        let made = seen.iter().map(|key| UnboundKey::new(&AES_256_GCM_SIV, key));
        let keys: Result<Vec<LessSafeKey>, _> = made.map(|key| key.map(LessSafeKey::new)).collect();
        let keys: &'static [LessSafeKey] = Vec::leak(keys.map_err(|_| BadKeys::Count)?);
        Ok(Self { keys: Some(keys) })
    }

    /// Whether more than one tenant may be served.
    #[must_use]
    pub fn is_sealed(self) -> bool {
        self.keys.is_some()
    }

    /// The text for clients and publishers of `tenant`. Allocates nothing; under a microsecond when sealed.
    #[must_use]
    pub fn write(self, tenant: &Tenant, cursor: &Cursor) -> CursorText {
        // Both fit: a plain one by its digits, a sealed one by its length.
        let Some(key) = self.keys.and_then(<[LessSafeKey]>::first) else {
            return CursorText::plain(cursor);
        };
        let mut text = CursorText::default();
        text.seal(key, tenant, cursor);
        text
    }

    /// The cursor that a client of `tenant` came with.
    ///
    /// # Errors
    /// [`NotACursor`]: garbage, a cursor of another tenant or under another key, a plain one where they are sealed. Answer like a cursor of
    /// another epoch, or as a bad request where there is no such answer.
    pub fn read(self, tenant: &Tenant, text: &str) -> Result<Cursor, NotACursor> {
        let Some(keys) = self.keys else {
            return read_plain(text);
        };
        if text.len() != SEALED_TEXT_BYTES {
            return Err(NotACursor);
        }
        let mut sealed = [0; SEALED_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut sealed) {
            Ok(SEALED_BYTES) => {}
            _ => return Err(NotACursor),
        }
        let opened = keys.iter().find_map(|key| open(key, tenant, sealed));
        opened.ok_or(NotACursor)
    }
}

fn unhex(line: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if line.len() != 2 * KEY_BYTES || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(line.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn open(key: &LessSafeKey, tenant: &Tenant, mut sealed: [u8; SEALED_BYTES]) -> Option<Cursor> {
    let aad = Aad::from(tenant.as_str().as_bytes());
    let body: [u8; BODY_BYTES] = key
        .open_in_place(nonce(), aad, &mut sealed)
        .ok()?
        .try_into()
        .ok()?;
    let (epoch, rest) = body.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (rev, bits) = rest.split_first_chunk::<8>()?;
    Some(Cursor {
        epoch: Epoch(u32::from_be_bytes(*epoch)),
        position: Position {
            seq: u64::from_be_bytes(*seq),
            rev: u64::from_be_bytes(*rev),
        },
        time_bits: u16::from_be_bytes(*bits.first_chunk::<2>()?),
    })
}

/// A cursor's text, on the stack.
#[derive(Clone, Copy)]
pub struct CursorText {
    bytes: [u8; TEXT_BYTES_MAX],
    len: usize,
}

impl Default for CursorText {
    fn default() -> Self {
        Self {
            bytes: [0; TEXT_BYTES_MAX],
            len: 0,
        }
    }
}

impl CursorText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// The text where there is one tenant: `epoch.seq.rev.bits`. Digit by digit, because a client that comes in is told eight of them, and
    /// the machinery of formats costs several times as much.
    pub(super) fn plain(cursor: &Cursor) -> Self {
        let mut text = Self::default();
        text.put_number::<16>(cursor.epoch.0.into(), 8);
        text.put(b'.');
        text.put_number::<10>(cursor.position.seq, 1);
        text.put(b'.');
        text.put_number::<10>(cursor.position.rev, 1);
        text.put(b'.');
        text.put_number::<16>(cursor.time_bits.into(), 1);
        text
    }

    fn put(&mut self, byte: u8) {
        // There is room for the longest text.
        if let Some(at) = self.bytes.get_mut(self.len) {
            *at = byte;
            self.len += 1;
        }
    }

    fn put_number<const BASE: u64>(&mut self, mut number: u64, digits_min: usize) {
        let begin = self.len;
        while number > 0 || self.len < begin + digits_min {
            let digit = usize::try_from(number % BASE).unwrap_or_default();
            self.put(b"0123456789abcdef"[digit]);
            number /= BASE;
        }
        self.bytes[begin..self.len].reverse();
    }

    fn seal(&mut self, key: &LessSafeKey, tenant: &Tenant, cursor: &Cursor) {
        let mut sealed = [0; SEALED_BYTES];
        let fields: [&[u8]; 4] = [
            &cursor.epoch.0.to_be_bytes(),
            &cursor.position.seq.to_be_bytes(),
            &cursor.position.rev.to_be_bytes(),
            &cursor.time_bits.to_be_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            sealed[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let (body, tag) = sealed.split_at_mut(BODY_BYTES);
        let aad = Aad::from(tenant.as_str().as_bytes());
        // Fails only for texts of gigabytes; an empty cursor is none, so nothing would be given away.
        if let Ok(made) = key.seal_in_place_separate_tag(nonce(), aad, body) {
            tag.copy_from_slice(made.as_ref());
            self.len = URL_SAFE_NO_PAD.encode_slice(sealed, &mut self.bytes).unwrap_or(0);
        }
    }
}

impl fmt::Display for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(digit: char) -> String {
        digit.to_string().repeat(2 * KEY_BYTES)
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    fn cursor(seq: u64) -> Cursor {
        Cursor {
            epoch: Epoch(7),
            position: Position { seq, rev: 9 },
            time_bits: 11,
        }
    }

    #[test]
    fn keys_are_lines_of_hexadecimal_digits() {
        let (a, b) = (key('a'), key('B'));
        let rows = [
            (a.clone(), Ok(())),
            (format!("{a}\n{b}\n"), Ok(())),
            (format!("\n  {a}  \n\n{b}"), Ok(())),
            (String::new(), Err(BadKeys::Count)),
            (" \n".to_owned(), Err(BadKeys::Count)),
            (
                ["1", "2", "3", "4", "5"].map(|d| d.repeat(64)).join("\n"),
                Err(BadKeys::Count),
            ),
            (format!("{a}\n{a}"), Err(BadKeys::Twice(2))),
            (a[1..].to_owned(), Err(BadKeys::Line(1))),
            (format!("{a}0"), Err(BadKeys::Line(1))),
            (format!("{a}\n{}g", &b[1..]), Err(BadKeys::Line(2))),
            (format!("+{}", &a[1..]), Err(BadKeys::Line(1))),
        ];
        for (text, expected) in rows {
            let made = Cursors::sealed(&text);
            assert_eq!(made.map(|made| assert!(made.is_sealed())), expected, "{text:?}");
        }
        assert_eq!(
            format!("{:?}", Cursors::sealed(&a).unwrap()),
            "sealed",
            "keys are not told"
        );
    }

    #[test]
    fn a_sealed_cursor_is_read_by_its_tenant_and_with_its_key_alone() {
        let (old, new) = (
            Cursors::sealed(&key('a')).unwrap(),
            Cursors::sealed(&key('b')).unwrap(),
        );
        let turning = Cursors::sealed(&format!("{}\n{}", key('b'), key('a'))).unwrap();
        let (acme, main) = (tenant("acme"), Tenant::default());
        let place = cursor(1_041);
        let text = old.write(&acme, &place).to_string();
        let plain = Cursors::plain().write(&acme, &place).to_string();
        let mut changed = text.clone().into_bytes();
        changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let rows = [
            (old, &acme, &text, true),
            (turning, &acme, &text, true),
            (new, &acme, &text, false),
            (old, &main, &text, false),
            (old, &acme, &plain, false),
            (old, &acme, &changed, false),
            (Cursors::plain(), &acme, &text, false),
            (Cursors::plain(), &main, &plain, true),
        ];
        for (cursors, tenant, text, good) in rows {
            let expected = if good { Ok(place) } else { Err(NotACursor) };
            assert_eq!(
                cursors.read(tenant, text),
                expected,
                "{cursors:?} {tenant} {text}"
            );
        }
        assert_eq!(
            turning.write(&acme, &place).as_str(),
            new.write(&acme, &place).as_str()
        );
        assert_eq!(
            text,
            old.write(&acme, &place).as_str(),
            "the same place is the same text"
        );
        assert_ne!(text, old.write(&main, &place).as_str(), "but not for two tenants");
        assert_eq!(text.len(), SEALED_TEXT_BYTES);
    }

    #[test]
    fn two_neighbours_share_nothing_that_shows() {
        let cursors = Cursors::sealed(&key('a')).unwrap();
        let texts: Vec<String> = (1_000..1_100)
            .map(|seq| cursors.write(&Tenant::default(), &cursor(seq)).to_string())
            .collect();
        for pair in texts.windows(2) {
            let same = pair[0]
                .bytes()
                .zip(pair[1].bytes())
                .filter(|(a, b)| a == b)
                .count();
            assert!(same < 15, "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_lead_back(epoch: u32, seq: u64, rev: u64, time_bits: u16, is_sealed: bool) {
            let cursors = if is_sealed { Cursors::sealed(&key('c')).unwrap() } else { Cursors::plain() };
            let place = Cursor { epoch: Epoch(epoch), position: Position { seq, rev }, time_bits };
            let text = cursors.write(&Tenant::default(), &place);
            prop_assert_eq!(cursors.read(&Tenant::default(), text.as_str()), Ok(place));
        }

        #[test]
        fn arbitrary_text_opens_nothing(text in "[A-Za-z0-9_.-]{0,60}") {
            prop_assert!(Cursors::sealed(&key('d')).unwrap().read(&Tenant::default(), &text).is_err());
        }
    }
}
