//! Which addresses are spoken to: public ones, and private ones that the operator lists.
//!
//! A name is looked up once for each attempt, and the connection goes to the very address that was judged: a name that answers another
//! one a moment later changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, `10.1.0.0/16` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u8,
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a range like 10.1.0.0/16";
        let (base, bits) = text.split_once('/').ok_or(WRONG)?;
        let base: IpAddr = base.parse().map_err(|_| WRONG)?;
        let bits: u8 = bits.parse().map_err(|_| WRONG)?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let range = Self { base, bits };
        // One whose other bits are set is a slip of the pen, and nobody knows of which.
        if bits == 0 || bits > most || masked(base, bits) != number(base) {
            return Err(WRONG);
        }
        Ok(range)
    }
}

impl Range {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = plain(address);
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.bits) == number(self.base)
    }
}

/// The address as left-aligned bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

fn masked(address: IpAddr, bits: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    number(address) & mask
}

/// An IPv4 address that came in the clothes of IPv6 is itself.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether it may be spoken to.
#[must_use]
pub fn may(address: IpAddr, listed: &[Range]) -> bool {
    is_public(address) || listed.iter().any(|range| range.contains(address))
}

/// Whether an address is of the public internet: nothing of this machine, of a private or local network, of documentation, of a
/// translation to any of them, and no group.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // What is given out to the public begins with 001; of that, protocols' own, documentation and 6to4, which leads to any IPv4 address.
    let given_out = a & 0xe000 == 0x2000;
    let apart = (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    given_out && !apart
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_public_internet_and_what_is_listed_is_spoken_to() {
        let listed: Vec<Range> = ["10.1.0.0/16", "fd12::/16", "127.0.0.1/32"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let rows = [
            ("8.8.8.8", true, true),
            ("1.1.1.1", true, true),
            ("223.255.255.254", true, true),
            ("2606:4700::1111", true, true),
            ("2a00:1450:4001::200e", true, true),
            ("10.1.2.3", false, true),
            ("::ffff:10.1.2.3", false, true),
            ("fd12::7", false, true),
            ("127.0.0.1", false, true),
            ("10.2.0.1", false, false),
            ("127.0.0.2", false, false),
            ("0.0.0.0", false, false),
            ("100.64.0.1", false, false),
            ("169.254.169.254", false, false),
            ("172.16.0.1", false, false),
            ("172.31.255.255", false, false),
            ("172.32.0.1", true, true),
            ("192.0.0.1", false, false),
            ("192.168.1.1", false, false),
            ("198.18.0.1", false, false),
            ("203.0.113.9", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::", false, false),
            ("::1", false, false),
            ("::ffff:127.0.0.2", false, false),
            ("::ffff:8.8.8.8", true, true),
            ("::127.0.0.1", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("fe80::1", false, false),
            ("fc00::1", false, false),
            ("ff02::1", false, false),
            ("2001:db8::1", false, false),
            ("2001::1", false, false),
            ("2002:7f00:1::", false, false),
        ];
        for (text, public, may_be) in rows {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(
                (is_public(address), may(address, &listed)),
                (public, may_be),
                "{text}"
            );
        }
    }

    #[test]
    fn a_range_says_exactly_what_it_means() {
        for text in ["10.1.0.0/16", "fd00::/8", "192.0.2.1/32", "::1/128"] {
            assert!(text.parse::<Range>().is_ok(), "{text}");
        }
        for text in [
            "10.1.0.0",
            "10.1.2.0/16",
            "10.0.0.0/0",
            "10.0.0.0/33",
            "x/8",
            "fd00::1/8",
            "",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    proptest! {
        /// In whichever clothes an address comes, what is said of it is the same; and whatever is not public is spoken to only where a
        /// range holds it.
        #[test]
        fn clothes_change_nothing(bits in any::<u32>(), base in any::<u32>(), length in 1_u8..=32) {
            let plain = Ipv4Addr::from(bits);
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            let mask = u32::MAX << (32 - u32::from(length));
            let range: Range = format!("{}/{length}", Ipv4Addr::from(base & mask)).parse().unwrap();
            prop_assert_eq!(is_public(plain.into()), is_public(mapped));
            prop_assert_eq!(range.contains(plain.into()), bits & mask == base & mask);
            prop_assert_eq!(range.contains(mapped), range.contains(plain.into()));
            prop_assert_eq!(may(mapped, &[range]), is_public(plain.into()) || bits & mask == base & mask);
            // Other ways to write an IPv4 address into an IPv6 one lead to it through translators, and are never public.
            let [a, b, c, d] = plain.octets().map(u16::from);
            for (first, second) in [(0x64, 0xff9b), (0, 0)] {
                let translated = Ipv6Addr::new(first, second, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
                prop_assert!(!is_public(translated.into()));
            }
            prop_assert!(!is_public(Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1).into()));
        }

        /// Only what is given out begins with 001.
        #[test]
        fn only_what_is_given_out_is_public(bits in any::<u128>()) {
            let address = Ipv6Addr::from(bits);
            if address.to_ipv4_mapped().is_none() && bits >> 125 != 1 {
                prop_assert!(!is_public(address.into()));
            }
        }
    }
}
