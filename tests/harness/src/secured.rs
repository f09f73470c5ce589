//! Certificates and keys for tests. Their secret halves are in the repository and protect nothing.

use std::path::PathBuf;

use async_nats::{Client, ConnectError, ConnectOptions};
use roomcast_proto::accounts::{Security, Tls, inbox_prefix};

use crate::repository;

/// The secret half of the key that [`security`] gives to `publisher`.
const PUBLISHER_SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
/// Its public half: the user's name, as the server has it.
pub const PUBLISHER_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
/// The secret half of the key that [`verifying`] gives to `ingest`.
pub const INGEST_SEED: &str = "SUAOGIC3WGAR4VJNXSLIR2Z555ZXJDIR7ZDBK7N5R2AMJV5NNMFHBYCS4M";
const INGEST_KEY: &str = "UD6LPPL7PPPREO3MP37TNNNRN34QI4RYN2M6XT7GNHX2RXTPIJZJAPNA";

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

/// Certificate and key that a client may show: the server's own, which are good for both.
#[must_use]
pub fn certificate() -> [PathBuf; 2] {
    ["cert.pem", "key.pem"].map(file)
}

/// TLS for clients that show a certificate, too; `ingest` has a key.
#[must_use]
pub fn verifying() -> Security {
    let mut security = security(true);
    security.tls = security.tls.map(|tls| Tls { verify: true, ..tls });
    security.nkeys.insert("ingest".to_owned(), INGEST_KEY.to_owned());
    security
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
