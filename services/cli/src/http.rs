//! A small HTTP client for ingest and the admin ports: plain HTTP/1.1, connections kept, every request with a time-out.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Largest answer read: a page of five hundred connections has some two hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    /// The address or a header cannot be used; trying again would not help.
    #[error("{0}")]
    Request(String),
    /// Nobody answered, or not in time; trying again may help.
    #[error("{0}")]
    Unreachable(String),
}

/// The client. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Http {
    /// A client whose requests take at most `timeout` each.
    pub(crate) fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        // A request leaves in several writes; the last must not wait 40 ms for the acknowledgement of the first.
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout,
        }
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// [`HttpError`]. An answer with an error status is an answer.
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        let request = Request::get(url)
            .body(Full::default())
            .map_err(|error| unusable(url, &error))?;
        self.send(url, request).await
    }

    /// Fetches a page with a bearer token.
    ///
    /// # Errors
    /// [`HttpError`]. An answer with an error status is an answer.
    pub(crate) async fn get_as(&self, url: &str, token: &str) -> Result<Answer, HttpError> {
        let request = Request::get(url)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .map_err(|error| unusable(url, &error))?;
        self.send(url, request).await
    }

    /// Posts a body with a bearer token.
    ///
    /// # Errors
    /// [`HttpError`]. An answer with an error status is an answer.
    pub(crate) async fn post(
        &self,
        url: &str,
        token: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let request = Request::post(url)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", kind)
            .body(Full::new(body))
            .map_err(|error| unusable(url, &error))?;
        self.send(url, request).await
    }

    async fn send(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        if request.uri().scheme_str() != Some("http") || request.uri().host().is_none() {
            return Err(HttpError::Request(format!("{url} is not an http:// address")));
        }
        let answering = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| unreachable(url, &error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body
                .map_err(|error| HttpError::Unreachable(format!("{url}: the answer broke off: {error}")))?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(self.timeout, answering)
            .await
            .unwrap_or_else(|_| {
                Err(HttpError::Unreachable(format!(
                    "{url}: no answer within {:?}",
                    self.timeout
                )))
            })
    }
}

fn unusable(url: &str, error: &http::Error) -> HttpError {
    HttpError::Request(format!("cannot ask {}: {error}", crate::terminal::harmless(url)))
}

/// The innermost cause: "connection refused" rather than "client error (Connect)".
fn unreachable(url: &str, error: &(dyn std::error::Error + 'static)) -> HttpError {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    HttpError::Unreachable(format!("{url}: {cause}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that gives these answers, one after the other, and what it is asked: method, path, and body. Status 0: it hangs up.
    pub(crate) async fn server(answers: Vec<(u16, String)>) -> (String, Receiver<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (hears, heard) = channel();
        tokio::spawn(async move {
            for (status, answer) in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut text = String::new();
                let is_whole = |text: &str| match text.starts_with("GET") {
                    true => text.ends_with("\r\n\r\n"),
                    false => text.ends_with([']', '}']),
                };
                while !is_whole(&text) {
                    let mut piece = [0; 4_096];
                    let count = socket.read(&mut piece).await.unwrap();
                    assert!(count > 0, "{text}");
                    text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
                }
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let asked = head.split(" HTTP/").next().unwrap();
                // Who has read enough does not listen.
                let _ = hears.send(format!("{asked} {body}").trim_end().to_owned());
                let head = format!(
                    "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                if status > 0 {
                    socket.write_all((head + &answer).as_bytes()).await.unwrap();
                }
            }
        });
        (url, heard)
    }

    #[tokio::test]
    async fn what_cannot_work_is_told_from_what_may_work_later() {
        let http = Http::new(Duration::from_secs(2));
        for url in ["", "ftp://x", "https://127.0.0.1:1", "/v1/events", "http://a b"] {
            assert!(matches!(http.get(url).await, Err(HttpError::Request(_))), "{url}");
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = http.get(&format!("http://{free}/")).await.unwrap_err();
        assert!(
            matches!(&error, HttpError::Unreachable(text) if text.contains("refused")),
            "{error}"
        );
    }
}
