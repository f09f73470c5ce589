//! gzip request bodies, unpacked step by step: what comes out is bounded before it is kept. Pure: bytes in, bytes out.
//!
//! Called by [`crate::body`] for each piece of a body. A small body can unpack to a thousand times its size, so both the step and
//! the ratio have a limit; how much may come out in all is the caller's to say.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use roomcast_proto::refusal::{Code, Refusal};

/// How many bytes may come out for one that went in, once [`RATIO_FREE_BYTES`] are out. Repetitive events pack 20 to 60 times; deflate
/// ends at 1,032 times.
pub const RATIO_MAX: u64 = 200;
/// Below this many bytes out the ratio says nothing: a thousand like events in one batch are no attack.
pub const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Bytes given to the decoder at once: at most 1 MiB comes of them.
const STEP_BYTES: usize = 1024;

/// Unpacks one body.
#[derive(Debug)]
pub struct Inflate {
    decoder: MultiGzDecoder<Vec<u8>>,
    input: Bytes,
    bytes_in: u64,
    bytes_out: u64,
    ended: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self {
            decoder: MultiGzDecoder::new(Vec::new()),
            input: Bytes::new(),
            bytes_in: 0,
            bytes_out: 0,
            ended: false,
        }
    }
}

impl Inflate {
    /// Gives it packed bytes; those before must be used up ([`Inflate::step`] gave `None`).
    pub fn feed(&mut self, packed: Bytes) {
        self.input = packed;
    }

    /// The next unpacked bytes, at most about 1 MiB; `None` when it needs more input.
    ///
    /// # Errors
    /// `bad_request` for what is not gzip, `too_large` beyond [`RATIO_MAX`].
    pub fn step(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.input.is_empty() {
            let given = &self.input[..self.input.len().min(STEP_BYTES)];
            let taken = self.decoder.write(given).map_err(|_| broken())?;
            if taken == 0 {
                return Err(broken());
            }
            let _ = self.input.split_to(taken);
            self.bytes_in = self.bytes_in.saturating_add(taken as u64);
            if let Some(out) = self.out()? {
                return Ok(Some(out));
            }
        }
        Ok(None)
    }

    /// The body has ended: the last bytes, once, then `None`.
    ///
    /// # Errors
    /// As [`Inflate::step`]; `bad_request` also where the body ends in the middle.
    pub fn end(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        // Also fails for no bytes at all, which is no gzip either.
        self.decoder.try_finish().map_err(|_| broken())?;
        self.out()
    }

    fn out(&mut self) -> Result<Option<Bytes>, Refusal> {
        let out = std::mem::take(self.decoder.get_mut());
        self.bytes_out = self.bytes_out.saturating_add(out.len() as u64);
        if self.bytes_out > RATIO_FREE_BYTES.max(self.bytes_in.saturating_mul(RATIO_MAX)) {
            let detail = format!("the body unpacks to more than {RATIO_MAX} times its size");
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }
}

fn broken() -> Refusal {
    Refusal::new(
        Code::BadRequest,
        "the body is not gzip, or not the whole of it: Content-Encoding says gzip",
    )
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Feeds pieces of `piece` bytes; all that came out and the largest step.
    fn run(packed: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut inflate, mut out, mut largest) = (Inflate::default(), Vec::new(), 0);
        let mut keep = |bytes: Bytes| {
            largest = largest.max(bytes.len());
            out.extend_from_slice(&bytes);
        };
        for piece in packed.chunks(piece) {
            inflate.feed(Bytes::copy_from_slice(piece));
            while let Some(bytes) = inflate.step()? {
                keep(bytes);
            }
        }
        while let Some(bytes) = inflate.end()? {
            keep(bytes);
        }
        Ok((out, largest))
    }

    #[test]
    fn what_was_packed_comes_out_whatever_the_pieces() {
        let text: Vec<u8> = (0..50_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
            .collect();
        let packed = gzip(&text);
        for piece in [1, 7, 1024, packed.len()] {
            assert!(run(&packed, piece).unwrap().0 == text, "pieces of {piece}");
        }
        let members = [gzip(b"one, "), gzip(b"two")].concat();
        assert_eq!(run(&members, 5).unwrap().0, b"one, two");
        assert_eq!(run(&gzip(b""), 3).unwrap().0, b"");
    }

    #[test]
    fn broken_bodies_are_refused() {
        let packed = gzip(&b"hello hello hello".repeat(100));
        let mut checksum = packed.clone();
        let at = checksum.len() - 6;
        checksum[at] ^= 1;
        let rows: [(&str, Vec<u8>); 6] = [
            ("empty", Vec::new()),
            ("no gzip", b"{\"type\":\"t\"}".to_vec()),
            ("cut in the header", packed[..5].to_vec()),
            ("cut in the middle", packed[..packed.len() / 2].to_vec()),
            ("cut in the trailer", packed[..packed.len() - 3].to_vec()),
            ("wrong checksum", checksum),
        ];
        for (name, bytes) in rows {
            for piece in [1, 4096] {
                let refusal = run(&bytes, piece).map(drop).unwrap_err();
                assert_eq!(refusal.code, Code::BadRequest, "{name}");
            }
        }
        let more = [packed, b"and more".to_vec()].concat();
        assert_eq!(run(&more, 4096).unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_bomb_goes_off_early() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        let mut inflate = Inflate::default();
        inflate.feed(Bytes::from(bomb));
        let mut out = 0;
        let refusal = loop {
            match inflate.step() {
                Ok(Some(bytes)) => {
                    out += bytes.len();
                    assert!(bytes.len() <= 2 << 20, "{}", bytes.len());
                }
                Ok(None) => panic!("all of it came out: {out}"),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.code, Code::TooLarge);
        assert!(out <= 2 << 20, "{out}");
    }
}
