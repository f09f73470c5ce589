//! HTTP POST to an address that was judged before: one attempt, no redirects, an answer whose body nobody reads.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{FetchError, Url, connector, sent, unreachable};
use crate::build;

/// Of several addresses of a name the next one is tried after this: where one family of addresses leads nowhere, the other may.
const CONNECT_WITHIN: Duration = Duration::from_millis(1_500);

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// For how long it wants to be left alone, where it said so in seconds.
    pub retry_after: Option<Duration>,
}

/// Sends. Cheap to clone.
#[derive(Clone)]
pub struct Poster {
    within: Duration,
    tls: TlsConnector,
}

/// Shows the time.
impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

impl Poster {
    /// `within`: from the first packet to the head of the answer. `authorities`: certificates in PEM that are trusted beside the system's.
    ///
    /// # Errors
    /// There are no certificates to trust, or `authorities` holds something else.
    pub fn new(within: Duration, authorities: Option<&[u8]>) -> Result<Self, FetchError> {
        let more = CertificateDer::pem_slice_iter(authorities.unwrap_or_default())
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreachable)?;
        if authorities.is_some() && more.is_empty() {
            return Err(unreachable("there is no certificate in it"));
        }
        Ok(Self {
            within,
            tls: connector(more)?,
        })
    }

    /// Sends a body to the first of `addresses` that takes a connection; they are those that the name in `url` was found to have, and the
    /// certificate must be that name's.
    ///
    /// # Errors
    /// [`FetchError`]: nothing was heard, or not in time; the server may have taken it.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed; the server may have taken it.
    pub async fn post(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, FetchError> {
        tokio::time::timeout(self.within, self.exchange(url, addresses, headers, body))
            .await
            .unwrap_or(Err(FetchError::Slow(self.within)))
    }

    async fn exchange(
        &self,
        url: &Url,
        addresses: &[SocketAddr],
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, FetchError> {
        let stream = connect(addresses).await?;
        if !url.tls {
            return ask(stream, url, headers, body).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(unreachable)?;
        let stream = self.tls.connect(name, stream).await.map_err(unreachable)?;
        ask(stream, url, headers, body).await
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = unreachable("no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = unreachable(error),
            Err(_) => last = FetchError::Slow(CONNECT_WITHIN),
        }
    }
    Err(last)
}

async fn ask<S>(stream: S, url: &Url, headers: HeaderMap, body: Bytes) -> Result<Posted, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let agent = format!("{}/{}", env!("CARGO_PKG_NAME"), build::VERSION);
    let fixed = [
        (HOST, url.authority.clone()),
        (USER_AGENT, agent),
        (CONNECTION, "close".to_owned()),
        (CONTENT_LENGTH, body.len().to_string()),
    ];
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.path.parse().map_err(unreachable)?;
    *request.headers_mut() = headers;
    for (name, value) in fixed {
        let value = HeaderValue::from_str(&value).map_err(unreachable)?;
        request.headers_mut().insert(name, value);
    }
    // The body of the answer is not read: the connection ends with this future.
    let (response, _connection) = sent(stream, request).await?;
    let asked = response.headers().get(RETRY_AFTER);
    let seconds = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Ok(Posted {
        status: response.status(),
        retry_after: seconds.map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Longer than anything takes that is answered, on a machine that has much else to do.
    const LONG: Duration = Duration::from_secs(30);

    fn poster(within: Duration) -> Poster {
        crate::process::install_crypto();
        let authority = include_bytes!("../../../../proto/tests/tls/ca.pem");
        Poster::new(within, Some(authority)).unwrap()
    }

    /// Answers every connection with these bytes, or with nothing; what it read of the first one.
    async fn server(says: Option<&'static str>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let read = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut text, mut bytes) = (String::new(), [0; 4_096]);
            while !text.ends_with("hello") {
                let read = socket.read(&mut bytes).await.unwrap();
                text.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
            match says {
                Some(says) => socket.write_all(says.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
            text
        });
        (address, read)
    }

    #[tokio::test]
    async fn the_name_goes_into_the_request_and_the_connection_to_the_address() {
        let (address, read) = server(Some(
            "HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n",
        ))
        .await;
        // Nobody looks the name up again: it may lead elsewhere by now.
        let url = Url::parse("http://localhost/hook?a=1").unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut headers = HeaderMap::new();
        headers.insert("x-one", HeaderValue::from_static("1"));
        let posted = poster(LONG)
            .post(&url, &[nobody, address], headers, Bytes::from_static(b"hello"))
            .await
            .unwrap();
        assert_eq!(posted.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(posted.retry_after, Some(Duration::from_secs(7)));
        let text = read.await.unwrap();
        assert!(text.starts_with("POST /hook?a=1 HTTP/1.1\r\n"), "{text}");
        for part in [
            "\r\nhost: localhost\r\n",
            "\r\nx-one: 1\r\n",
            "\r\ncontent-length: 5\r\n",
        ] {
            assert!(text.to_ascii_lowercase().contains(part), "{part}: {text}");
        }
    }

    #[tokio::test]
    async fn silence_and_what_is_not_http_have_an_end() {
        let url = Url::parse("http://localhost/").unwrap();
        let post = async |address: SocketAddr, within: Duration| {
            let body = Bytes::from_static(b"hello");
            let posted = poster(within)
                .post(&url, &[address], HeaderMap::new(), body)
                .await;
            posted.unwrap_err().label()
        };
        assert_eq!(
            post(server(None).await.0, Duration::from_millis(300)).await,
            "slow"
        );
        assert_eq!(
            post(server(Some("nonsense\r\n\r\n")).await.0, LONG).await,
            "unreachable"
        );
        assert_eq!(
            post(SocketAddr::from(([127, 0, 0, 1], 1)), LONG).await,
            "unreachable"
        );
        assert!(Poster::new(Duration::from_secs(1), Some(b"no certificate")).is_err());
    }
}
