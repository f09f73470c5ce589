//! HTTP with bounds on everything: time, size, where it goes. For documents that other people's servers publish, for what is handed to a
//! collector, and for what is sent to an address that the caller has judged ([`Poster`]).
//!
//! HTTP/1.1, one connection per fetch, TLS with the system's certificates (`SSL_CERT_FILE`, `SSL_CERT_DIR`), no redirects, no
//! cookies, no proxy. The address comes from a setting; whoever takes one from a request has misunderstood this module.

mod post;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::build;

pub use post::{Posted, Poster};

/// Longest address, bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Largest head of an answer, bytes, and most fields in it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;

/// An address that may be fetched from: `https`, or `http` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        Self::read(text, false)
    }

    /// Reads an address that may be `http` anywhere: a part of the operator's own, like a collector, that is told nothing secret.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn near(text: &str) -> Result<Self, &'static str> {
        Self::read(text, true)
    }

    fn read(text: &str, near: bool) -> Result<Self, &'static str> {
        if text.len() > URL_BYTES_MAX {
            return Err("longer than 2048 bytes");
        }
        let uri: Uri = text.parse().map_err(|_| "not an address")?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("an address begins with https://");
        };
        if authority.as_str().contains('@') {
            return Err("an address has no user or password");
        }
        if text.contains('#') {
            return Err("an address has no fragment");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = match scheme {
            "https" => true,
            "http" if loopback || near => false,
            "http" => return Err("http is for this machine (127.0.0.1, ::1, localhost); use https"),
            _ => return Err("an address begins with https://"),
        };
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", http::uri::PathAndQuery::as_str)
                .to_owned(),
        })
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Scheme, host and port where it is not the usual one.
    #[must_use]
    pub fn origin(&self) -> String {
        let (scheme, usual) = if self.tls { ("https", 443) } else { ("http", 80) };
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_ascii_lowercase(),
        };
        match self.port == usual {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{host}:{}", self.port),
        }
    }

    /// Whether it is fetched over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Bounds of one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the look-up of the name to the last byte.
    pub within: Duration,
    /// Bytes of the body.
    pub bytes_max: usize,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, no TLS, or it broke off.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Not finished in time.
    #[error("did not answer in {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// Another status than 200; redirects among them.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// A body over the limit.
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    /// An encoding nobody asked for.
    #[error("answered in an encoding that was not asked for")]
    Encoded,
}

impl FetchError {
    /// A label for a counter.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Slow(_) => "slow",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::Encoded => "encoded",
        }
    }
}

/// Fetches. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    limits: Limits,
    tls: Option<TlsConnector>,
}

impl Fetcher {
    /// A fetcher; `tls`: whether any address will need it, because reading the system's certificates takes a moment.
    ///
    /// # Errors
    /// TLS is needed and the system has no certificates to trust.
    pub fn new(limits: Limits, tls: bool) -> Result<Self, FetchError> {
        Ok(Self {
            limits,
            tls: if tls { Some(connector(Vec::new())?) } else { None },
        })
    }

    /// A fetcher with TLS that trusts `more` authorities besides the system's.
    ///
    /// # Errors
    /// There is none to trust at all.
    pub fn trusting(limits: Limits, more: Vec<CertificateDer<'static>>) -> Result<Self, FetchError> {
        let tls = Some(connector(more)?);
        Ok(Self { limits, tls })
    }

    /// Fetches the body of a 200.
    ///
    /// # Errors
    /// [`FetchError`]; try again later, another time is all that helps.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        self.within(url, request(url, Method::GET).body(Full::default()))
            .await
    }

    /// Posts a body with what `headers` say of it, and fetches that of a 200.
    ///
    /// # Errors
    /// [`FetchError`]; whether it was taken is not known.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: Bytes) -> Result<Bytes, FetchError> {
        let mut request = request(url, Method::POST).body(Full::new(body));
        if let Ok(request) = &mut request {
            request.headers_mut().extend(headers);
        }
        self.within(url, request).await
    }

    async fn within(
        &self,
        url: &Url,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<Bytes, FetchError> {
        let request = request.map_err(unreachable)?;
        tokio::time::timeout(self.limits.within, self.exchange(url, request))
            .await
            .unwrap_or(Err(FetchError::Slow(self.limits.within)))
    }

    async fn exchange(&self, url: &Url, request: Request<Full<Bytes>>) -> Result<Bytes, FetchError> {
        let stream = TcpStream::connect((url.host.as_str(), url.port))
            .await
            .map_err(unreachable)?;
        if !url.tls {
            return self.ask(stream, request).await;
        }
        let Some(tls) = &self.tls else {
            return Err(FetchError::Unreachable(
                "this fetcher was made without TLS".to_owned(),
            ));
        };
        let name = ServerName::try_from(url.host.clone()).map_err(unreachable)?;
        let stream = tls.connect(name, stream).await.map_err(unreachable)?;
        self.ask(stream, request).await
    }

    async fn ask<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (response, _connection) = sent(stream, request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(FetchError::Encoded);
        }
        let mut body = Limited::new(response.into_body(), self.limits.bytes_max);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    FetchError::TooLarge(self.limits.bytes_max)
                } else {
                    FetchError::Unreachable(error.to_string())
                }
            })?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes.freeze())
    }
}

/// Shows the limits.
impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Sends a request. What drives the connection comes with the head of the answer: dropped, the connection is closed.
async fn sent<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, JoinSet<hyper::Result<()>>), FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(unreachable)?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(unreachable)?;
    Ok((response, driver))
}

fn unreachable(error: impl fmt::Display) -> FetchError {
    FetchError::Unreachable(error.to_string())
}

fn request(url: &Url, method: Method) -> http::request::Builder {
    let agent = format!("{}/{}", env!("CARGO_PKG_NAME"), build::VERSION);
    Request::builder()
        .method(method)
        .uri(&url.path)
        .header(HOST, &url.authority)
        .header(USER_AGENT, agent)
        .header(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"))
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .header(CONNECTION, HeaderValue::from_static("close"))
}

/// Trusts the system's authorities and `more`.
fn connector(more: Vec<CertificateDer<'static>>) -> Result<TlsConnector, FetchError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs.into_iter().chain(more));
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(FetchError::Unreachable(format!(
            "the system has no certificates to trust; SSL_CERT_FILE names others ({})",
            reasons.join("; ")
        )));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unreachable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
