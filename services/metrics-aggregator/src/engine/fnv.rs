//! FNV-1a over 64 bits: names of stored things. Stable for ever, because what is stored is found by it.

/// The running hash.
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash, its bits well mixed (the finalizer of MurmurHash3), so that its upper bits can choose a chunk.
    #[must_use]
    pub fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// The hash of some bytes.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut fnv = Fnv::default();
    fnv.write(bytes);
    fnv.finish()
}

/// Mixes 64 bits.
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_never_move() {
        assert_eq!(super::hash(b""), super::mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(super::mix(1), 0xb456_bcfc_34c2_cb2c);
    }
}
