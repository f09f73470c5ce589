//! Certificates and keys for tests. Their secret halves are in the repository and protect nothing.

use std::path::PathBuf;

use async_nats::{Client, ConnectError, ConnectOptions};
use roomcast_proto::accounts::{Security, Tls, inbox_prefix};

use crate::repository;

/// The secret half of the key that [`security`] gives to `publisher`.
const PUBLISHER_SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
/// Its public half: the user's name, as the server has it.
pub const PUBLISHER_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

fn file(name: &str) -> PathBuf {
    repository().join("proto/tests/tls").join(name)
}

/// The authority whose certificate the server shows, for `localhost` and `127.0.0.1`.
#[must_use]
pub fn authority() -> PathBuf {
    file("ca.pem")
}

/// TLS or none; `publisher` has a key.
#[must_use]
pub fn security(tls: bool) -> Security {
    let path = |name: &str| file(name).display().to_string();
    Security {
        tls: tls.then(|| Tls {
            cert: path("cert.pem"),
            key: path("key.pem"),
            ca: Some(path("ca.pem")),
            verify: false,
        }),
        nkeys: [("publisher".to_owned(), PUBLISHER_KEY.to_owned())].into(),
    }
}

/// Connects as `publisher` with its key.
///
/// # Errors
/// When the server refuses.
pub async fn publisher(url: &str) -> Result<Client, ConnectError> {
    ConnectOptions::with_nkey(PUBLISHER_SEED.to_owned())
        .custom_inbox_prefix(inbox_prefix("publisher"))
        .connect(url)
        .await
}
