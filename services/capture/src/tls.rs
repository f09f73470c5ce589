//! TLS to a database, always with its certificate verified.
//!
//! The client's own TLS would bring a second crypto provider. So it connects to a door of ours on loopback, which is open for one
//! connection, and what goes through it goes on over TLS. Called by [`crate::session`] for each connection.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::database::Database;

/// What a client says first that wants TLS: its length, and the number that stands for it.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Time for our own client to come through the door.
const DOOR_OPEN: Duration = Duration::from_secs(20);

/// `sslmode=verify-full`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `sslrootcert`: certificates of authorities (PEM); `None`: the system's.
    pub authorities: Option<PathBuf>,
}

/// Why there is no TLS to a database; each says what to run or set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached at all.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The authorities cannot be read.
    #[error("sslrootcert {0}: {1}")]
    Authorities(String, String),
    /// It has none.
    #[error("it speaks no TLS; to mend it: ALTER SYSTEM SET ssl = on, with ssl_cert_file and ssl_key_file")]
    NotSpoken,
    /// It is not who it should be, or speaks something else.
    #[error("TLS: {0}; its certificate must be for {1}, by an authority of sslrootcert")]
    NotVerified(String, String),
}

/// Connects to the database over TLS and opens a door to that connection; gives the door's port on loopback.
///
/// # Errors
/// [`Error`].
///
/// # Cancel safety
/// Dropped, nothing is left.
pub(crate) async fn door(database: &Database, tls: &Tls) -> Result<u16, Error> {
    let connector = TlsConnector::from(Arc::new(config(tls)?));
    let not_verified =
        |error: &dyn std::fmt::Display| Error::NotVerified(error.to_string(), database.host.clone());
    let name = ServerName::try_from(database.host.clone()).map_err(|error| not_verified(&error))?;
    let mut plain = TcpStream::connect((database.host.as_str(), database.port)).await?;
    plain.set_nodelay(true)?;
    plain.write_all(&SSL_REQUEST).await?;
    // One byte and no more: whatever came with it would not have been said over TLS.
    if plain.read_u8().await? != b'S' {
        return Err(Error::NotSpoken);
    }
    let mut secured = connector
        .connect(name, plain)
        .await
        .map_err(|error| not_verified(&error))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let Ok(Ok((mut client, _))) = tokio::time::timeout(DOOR_OPEN, listener.accept()).await else {
            return;
        };
        drop(listener);
        let _ = client.set_nodelay(true);
        // Whichever side ends it, the other sees an end.
        let _ = copy_bidirectional(&mut client, &mut secured).await;
    });
    Ok(port)
}

fn config(tls: &Tls) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match &tls.authorities {
        Some(path) => {
            for found in read(path)? {
                roots.add(found).map_err(|error| wrong(path, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let path = tls.authorities.as_deref().unwrap_or(Path::new("of the system"));
        return Err(wrong(path, &"there is no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Error::Io(std::io::Error::other(error)))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))?;
    found
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Authorities(path.display().to_string(), error.to_string())
}
