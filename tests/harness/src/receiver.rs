//! Where webhooks and pushes go: other people's servers, over TLS, good, failing, silent, leading elsewhere. And a device of a user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::secured::certificate;

/// What is answered on a path.
#[derive(Debug, Clone)]
pub enum Says {
    /// This status, with these header lines.
    Status(u16, &'static str),
    /// 201 after a while.
    After(Duration),
    /// Nothing, for ever.
    Silence,
}

/// A request that came whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// Its headers, with lower-case names.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// A server for `localhost` and `127.0.0.1`, with the certificate of [`crate::secured`]. Gone when dropped.
#[derive(Debug)]
pub struct Receiver {
    /// Its port on loopback.
    pub port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    says: Mutex<HashMap<String, Says>>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Opens it; every path answers 201.
    ///
    /// # Panics
    /// When loopback has no port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let [chain, key] = certificate();
        let chain = CertificateDer::pem_file_iter(chain).expect("a certificate");
        let chain = chain.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, served) = (acceptor.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        served.serve(stream).await;
                    }
                });
            }
        });
        Self {
            port,
            shared,
            task: task.abort_handle(),
        }
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Changes what a path answers from now on.
    pub fn say(&self, path: &str, says: Says) {
        let mut all = self.shared.says.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(path.to_owned(), says);
    }

    /// What came on a path, in its order.
    #[must_use]
    pub fn received(&self, path: &str) -> Vec<Received> {
        let all = self
            .shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|one| one.path == path).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let Some(request) = read(&mut stream).await else {
            return;
        };
        let says = {
            let all = self.says.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&request.path).cloned()
        };
        {
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            received.push(request);
        }
        let (status, lines) = match says.unwrap_or(Says::Status(201, "")) {
            Says::Status(status, lines) => (status, lines),
            Says::After(pause) => {
                tokio::time::sleep(pause).await;
                (201, "")
            }
            Says::Silence => return std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n{lines}\r\n");
        // Who has gone away does not hear it.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Received> {
    let mut bytes = Vec::new();
    let (head, end) = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&bytes[..end]).into_owned(), end + 4);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        path,
        headers,
        body: bytes[end..end + length].to_vec(),
    })
}

/// A browser that has subscribed to pushes.
#[derive(Debug)]
pub struct Device {
    key: PrivateKey,
    auth: [u8; 16],
    endpoint: String,
}

impl Device {
    /// One with this endpoint.
    ///
    /// # Panics
    /// Without random numbers.
    #[must_use]
    pub fn new(endpoint: String) -> Self {
        let mut auth = [0; 16];
        aws_lc_rs::rand::fill(&mut auth).expect("random numbers");
        Self {
            key: PrivateKey::generate(&ECDH_P256).expect("a key"),
            auth,
            endpoint,
        }
    }

    fn point(&self) -> Vec<u8> {
        let point = self.key.compute_public_key().expect("a public key");
        point.as_ref().to_vec()
    }

    /// What `PushSubscription.toJSON()` says.
    #[must_use]
    pub fn subscription(&self) -> Value {
        let keys = json!({
            "p256dh": URL_SAFE_NO_PAD.encode(self.point()),
            "auth": URL_SAFE_NO_PAD.encode(self.auth),
        });
        json!({ "endpoint": self.endpoint, "expirationTime": null, "keys": keys })
    }

    /// What a push says, decrypted as RFC 8291 has a browser do it; `None`: it is not for this device.
    #[must_use]
    pub fn read(&self, body: &[u8]) -> Option<Value> {
        let (salt, rest) = body.split_at_checked(16)?;
        let (head, rest) = rest.split_at_checked(5)?;
        let (theirs, record) = rest.split_at_checked(usize::from(*head.last()?))?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let ours = self.point();
        let input = agreement::agree(&self.key, peer, (), |shared| {
            let info = [b"WebPush: info\0", ours.as_slice(), theirs].concat();
            Ok(derived(&self.auth, shared, &info))
        });
        let input = input.ok()?;
        let key = derived(salt, &input, b"Content-Encoding: aes128gcm\0");
        let nonce = derived(salt, &input, b"Content-Encoding: nonce\0");
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.get(..16)?).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(nonce.get(..12)?).ok()?;
        let mut record = record.to_vec();
        let plain = key.open_in_place(nonce, Aad::empty(), &mut record).ok()?;
        // The record's end is marked.
        serde_json::from_slice(plain.strip_suffix(&[2])?).ok()
    }
}

/// One block of HKDF (RFC 5869), written out, so that it is not the code under test.
fn derived(salt: &[u8], input: &[u8], info: &[u8]) -> Vec<u8> {
    let mac = |key: &[u8], text: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text).as_ref().to_vec()
    };
    mac(&mac(salt, input), &[info, &[1]].concat())
}
