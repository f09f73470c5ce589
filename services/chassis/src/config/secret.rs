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
/// who reads the log. A password may hold a comma, and the scheme may be forgotten: so what is hidden ends at the last `@` before the next
/// address with a scheme, not at the next comma.
pub(super) fn without_credentials(text: &str) -> String {
    let begins = |(scheme_end, _)| {
        let begin = text[..scheme_end].rfind([',', ' ']).map_or(0, |end| end + 1);
        let scheme = &text[begin..scheme_end];
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
        scheme.chars().all(fits).then_some(begin)
    };
    let begins = text.match_indices("://").filter_map(begins);
    let mut from = 0;
    let parts = begins.chain([text.len()]).map(|begin| {
        let address = &text[from..begin];
        from = begin;
        let host = address.find("://").map_or(0, |end| end + "://".len());
        match address[host..].rsplit_once('@') {
            Some((credentials, rest)) if host > 0 || credentials.contains(':') => {
                format!("{}***@{rest}", &address[..host])
            }
            _ => address.to_owned(),
        }
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
            ("app:s3cret@nats:4222", "***@nats:4222"),
            ("app:s3cret@a:4222,nats://b:4222", "***@a:4222,nats://b:4222"),
            ("a:4222,app:s3,cret@b:4222", "***@b:4222"),
            ("nats://u:p,w@h", "nats://***@h"),
            (
                "nats://a:1,nats://u:p, w@h, nats://b:2",
                "nats://a:1,nats://***@h, nats://b:2",
            ),
            ("someone@example.org", "someone@example.org"),
            ("a:4222,b:4222", "a:4222,b:4222"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(text), shown, "{text}");
        }
    }
}
