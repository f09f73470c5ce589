//! Small changes to bytes, as a fuzzer without coverage makes them.

/// Pieces that mean something to one of the readers.
const PIECES: [&[u8]; 32] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"\\u0000",
    b"\\ud800",
    b"1e999",
    b"-0",
    b"{}",
    b"\"id\":1,",
    b"\"room\":\"a\"",
    b"\"type\":\"t\"",
    b".",
    b"*",
    b">",
    b"=",
    b"==",
    b"$",
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
    b"\n  ",
    b"- ",
    b": &a *a",
    b"\x81\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x08\x01",
    b"18446744073709551616",
];
/// No input grows beyond this.
const BYTES_MAX: usize = 128 * 1024;

/// Changes `bytes` in one to four places; `other` lends it parts.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        let most = at + random.usize(1..=64);
        let end = random.usize(at..=bytes.len().min(most));
        match random.u8(0..8) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end, random.choice(PIECES).unwrap_or_default().iter().copied())),
            2 => {
                let piece: Vec<u8> = bytes.get(at..end).unwrap_or_default().to_vec();
                drop(bytes.splice(at..at, piece));
            }
            3 => {
                let from = random.usize(0..=other.len());
                let to = random.usize(from..=other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            4 => bytes.truncate(at),
            5 => bytes.insert(at, random.u8(..)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(0..8);
                }
            }
        }
    }
    bytes.truncate(BYTES_MAX);
}
