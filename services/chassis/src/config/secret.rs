//! A secret: a text that does not print itself.

use std::fmt;

/// A password or key. `Debug` and `Display` show `***`; only [`Secret::expose`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A setting as it may be shown: what stands in front of an `@` in an address is `***`.
///
/// An address has no place for a password here, and whoever writes one there reads in the answer that it was wrong, and so does everybody
/// who reads the log.
pub(super) fn without_credentials(text: &str) -> String {
    let parts = text.split_inclusive([',', ' ']).map(|address| {
        let credentials = address.split_once("://").and_then(|(scheme, rest)| {
            let (_, host) = rest.rsplit_once('@')?;
            Some(format!("{scheme}://***@{host}"))
        });
        credentials.unwrap_or_else(|| address.to_owned())
    });
    parts.collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        for (text, shown) in [
            ("nats://a:4222,nats://b:4222", "nats://a:4222,nats://b:4222"),
            (
                "nats://u:p@a:4222,nats://b:4222",
                "nats://***@a:4222,nats://b:4222",
            ),
            ("nats://u:p@a, tls://token@b", "nats://***@a, tls://***@b"),
            ("postgres://u:p/@x@db/shop", "postgres://***@db/shop"),
            ("someone@example.org", "someone@example.org"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(text), shown, "{text}");
        }
    }
}
