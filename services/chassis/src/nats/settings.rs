//! Where NATS is and who we are there.

use std::path::PathBuf;

use async_nats::ServerAddr;

use crate::config::{Reader, Secret};

/// The settings of every NATS connection of a process.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Servers of one cluster, at least one; any of them will do.
    pub servers: Vec<ServerAddr>,
    /// The user, where the server asks for one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The secret half of its nkey (`SU…`), with which it signs the server's challenge; instead of the password.
    pub nkey: Option<Secret>,
    /// Certificate and key to show to a server that verifies its clients.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Prefix of reply subjects; the user's permissions name it, so that nobody reads another's replies.
    pub inbox_prefix: String,
    /// Prefix of the JetStream API as this account sees it: `$JS.API`, or an import such as `core.JS.API`.
    pub api_prefix: String,
    /// Messages one subscription may hold unread before the client drops, counted as `slow_consumer`.
    pub pending_max: usize,
    /// Publishes of one publisher that may wait for their acknowledgement at the same time.
    pub publish_window: usize,
}

impl NatsSettings {
    /// Reads `ROOMCAST_NATS_…`; `api_prefix` is the service's default.
    pub fn read(reader: &mut Reader<'_>, api_prefix: &str) -> Self {
        let urls = reader.list(
            "ROOMCAST_NATS_URL",
            "nats://127.0.0.1:4222",
            "NATS servers of one cluster, separated by commas.",
        );
        let servers: Vec<ServerAddr> = urls.iter().filter_map(|url| url.parse().ok()).collect();
        if servers.len() != urls.len() {
            reader.mistake(
                "ROOMCAST_NATS_URL",
                "addresses like nats://host:4222, separated by commas",
            );
        } else if servers.iter().any(ServerAddr::has_user_pass) {
            reader.mistake(
                "ROOMCAST_NATS_URL",
                "addresses without a user; that is ROOMCAST_NATS_USER and ROOMCAST_NATS_PASSWORD",
            );
        }
        let user = reader.optional_text("ROOMCAST_NATS_USER", "NATS user, where the server asks for one.");
        let password = reader.secret(
            "ROOMCAST_NATS_PASSWORD",
            "ROOMCAST_NATS_PASSWORD_FILE",
            "Password of the NATS user.",
        );
        let nkey = reader.secret(
            "ROOMCAST_NATS_NKEY",
            "ROOMCAST_NATS_NKEY_FILE",
            "Secret half of the user's nkey (SU…), where the server knows the user by a key instead of a password.",
        );
        if nkey.as_ref().is_some_and(|seed| !is_seed(seed.expose())) {
            reader.mistake(
                "ROOMCAST_NATS_NKEY",
                "the secret half of a user's nkey: SU and 56 more",
            );
        }
        let ways = usize::from(password.is_some()) + usize::from(nkey.is_some());
        if ways != usize::from(user.is_some()) {
            reader.mistake(
                "ROOMCAST_NATS_USER",
                "a user together with a password or an nkey, or none of them",
            );
        }
        let certificate = (
            reader.optional_path(
                "ROOMCAST_NATS_CERT_FILE",
                "Certificate (PEM) to show to a server that verifies its clients.",
            ),
            reader.optional_path("ROOMCAST_NATS_KEY_FILE", "Key (PEM) of the certificate above."),
        );
        let certificate = match certificate {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                reader.mistake(
                    "ROOMCAST_NATS_CERT_FILE",
                    "a certificate together with its key, or neither",
                );
                None
            }
        };
        let inbox_default = user
            .as_ref()
            .map_or_else(|| "_INBOX".to_owned(), |user| format!("_INBOX_{user}"));
        let inbox_prefix = reader.optional_text(
            "ROOMCAST_NATS_INBOX",
            "Prefix of reply subjects; not set: _INBOX_ and the user's name.",
        );
        let inbox_prefix = inbox_prefix.unwrap_or(inbox_default);
        if !is_prefix(&inbox_prefix) {
            reader.mistake(
                "ROOMCAST_NATS_INBOX",
                "a subject prefix without wildcards, spaces or empty parts",
            );
        }
        let api_prefix = reader.text(
            "ROOMCAST_NATS_API",
            api_prefix,
            "Prefix of the JetStream API as the NATS user's account sees it.",
        );
        if !is_prefix(&api_prefix) {
            reader.mistake(
                "ROOMCAST_NATS_API",
                "a subject prefix without wildcards, spaces or empty parts",
            );
        }
        Self {
            servers,
            user,
            password,
            nkey,
            certificate,
            inbox_prefix,
            api_prefix,
            pending_max: reader.number(
                "ROOMCAST_NATS_PENDING_MAX",
                131_072,
                // The aggregator has up to 6,000 events on their way.
                8_192..=4_194_304,
                "Messages one subscription may hold unread before some are dropped (and repaired).",
            ),
            publish_window: reader.number(
                "ROOMCAST_NATS_PUBLISH_WINDOW",
                1_024,
                1..=8_192,
                "Publishes that may wait for their acknowledgement at the same time.",
            ),
        }
    }

    /// The servers as one text, for logs and `/readyz`.
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{}:{}", server.host(), server.port()))
            .collect();
        addresses.join(", ")
    }
}

/// Whether it looks like the secret half of a user's nkey: base32 of two bytes that say so, 32 of the key and two of a check sum.
fn is_seed(text: &str) -> bool {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    text.len() == 58 && text.starts_with("SU") && text.bytes().all(base32)
}

/// Tokens joined by dots, nothing that a subject gives a meaning to.
fn is_prefix(text: &str) -> bool {
    let token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
    };
    text.split('.').all(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Result<&str, &[&str]>) {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let mut reader = Reader::new(&environment);
        let settings = NatsSettings::read(&mut reader, "core.JS.API");
        let found = reader
            .finish()
            .map(|_| format!("{} {}", settings.addresses(), settings.inbox_prefix));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(mistakes), Err(names)) => {
                let found: Vec<&str> = mistakes
                    .0
                    .iter()
                    .map(|mistake| mistake.variable.as_str())
                    .collect();
                assert_eq!(found, names);
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn settings_are_read_and_their_mistakes_found() {
        let (url, user, password) = (
            "ROOMCAST_NATS_URL",
            "ROOMCAST_NATS_USER",
            "ROOMCAST_NATS_PASSWORD",
        );
        check(&[], Ok("127.0.0.1:4222 _INBOX"));
        check(&[(url, "nats://a:1, b:2")], Ok("a:1, b:2 _INBOX"));
        check(&[(user, "gw"), (password, "x")], Ok("127.0.0.1:4222 _INBOX_gw"));
        check(
            &[(user, "gw"), (password, "x"), ("ROOMCAST_NATS_INBOX", "_R")],
            Ok("127.0.0.1:4222 _R"),
        );
        let seed = format!("SU{}", "A2".repeat(28));
        let (nkey, certificate) = ("ROOMCAST_NATS_NKEY", "ROOMCAST_NATS_CERT_FILE");
        check(&[(user, "gw"), (nkey, &seed)], Ok("127.0.0.1:4222 _INBOX_gw"));
        check(
            &[(certificate, "c.pem"), ("ROOMCAST_NATS_KEY_FILE", "k.pem")],
            Ok("127.0.0.1:4222 _INBOX"),
        );
        check(&[(nkey, &seed)], Err(&[user]));
        check(&[(user, "gw"), (nkey, &seed), (password, "x")], Err(&[user]));
        check(&[(user, "gw"), (nkey, "UA2")], Err(&[nkey]));
        check(&[(certificate, "c.pem")], Err(&[certificate]));
        check(&[(url, "nats://a:1,,b")], Err(&[url]));
        check(&[(url, "nats://u:p@a:1")], Err(&[url]));
        check(&[(url, "http://a:1")], Err(&[url]));
        check(&[(user, "gw")], Err(&[user]));
        check(&[(password, "x")], Err(&[user]));
        check(&[("ROOMCAST_NATS_INBOX", "a.>")], Err(&["ROOMCAST_NATS_INBOX"]));
        check(&[("ROOMCAST_NATS_API", "a..b")], Err(&["ROOMCAST_NATS_API"]));
        check(
            &[("ROOMCAST_NATS_PUBLISH_WINDOW", "0")],
            Err(&["ROOMCAST_NATS_PUBLISH_WINDOW"]),
        );
    }
}
