//! Where an event stood in its queue. Pure.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::hex;

/// A place in a queue: named the same by whoever reads the queue, however often.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which queue, and which life of it: a stream made anew counts from 1 again.
    pub life: Arc<str>,
    /// The message's position in the stream.
    pub position: u64,
    /// Which element of a message that is an array.
    pub index: usize,
}

/// Names one life of a stream: 16 hexadecimal digits of a digest over its name and when it was created.
#[must_use]
pub fn life(stream: &str, created: &str) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, format!("{stream}\n{created}").as_bytes());
    hex(&digest.as_ref()[..8]).into()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.life, self.position, self.index)
    }
}

impl Place {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (life, position, index) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            life: life.into(),
            position: position.parse().ok()?,
            index: index.parse().ok()?,
        })
        .filter(|_| parts.next().is_none())
    }

    /// Whether it stood there, or before it in the same life of the same queue.
    #[must_use]
    pub fn is_not_after(&self, other: &Self) -> bool {
        self.life == other.life && (self.position, self.index) <= (other.position, other.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_ordered_within_one_life() {
        let place = |life: &str, position, index| Place {
            life: life.into(),
            position,
            index,
        };
        let one = place("a1", 7, 2);
        assert_eq!(one.to_string(), "a1.7.2");
        assert_eq!(Place::parse("a1.7.2"), Some(one.clone()));
        for bad in ["", "a1", "a1.7", "a1.7.x", "a1.-7.2", "a1.7.2.3"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        let rows = [
            (place("a1", 7, 2), true),
            (place("a1", 7, 3), true),
            (place("a1", 8, 0), true),
            (place("a1", 7, 1), false),
            (place("a1", 6, 9), false),
            (place("b2", 8, 0), false),
        ];
        for (other, expected) in rows {
            assert_eq!(one.is_not_after(&other), expected, "{other}");
        }
        assert_ne!(life("INQ_main_erp", "t1"), life("INQ_main_erp", "t2"));
        assert_ne!(life("INQ_main_erp", "t1"), life("INQ_main_crm", "t1"));
        assert_eq!(life("INQ_main_erp", "t1").len(), 16);
    }
}
