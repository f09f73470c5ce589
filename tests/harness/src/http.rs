//! A small HTTP client: one request, the whole answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` when it is not.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A client with kept connections.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Http {
    /// One request, given 30 s.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off.
    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let whole = async {
            let answer = self.0.request(request).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(Duration::from_secs(30), whole).await?
    }

    /// `GET`, with a bearer token when there is one.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get(&self, url: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        let mut request = http::Request::get(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(Full::default())?).await
    }

    /// Any method, with a bearer token and no body.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn call(&self, method: &str, url: &str, token: &str) -> anyhow::Result<Answer> {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {token}"));
        self.send(request.body(Full::default())?).await
    }

    /// `POST` of a body with its content type and a bearer token.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn post(
        &self,
        url: &str,
        token: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        self.post_with(url, token, kind, &[], body).await
    }

    /// The same with more headers.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn post_with(
        &self,
        url: &str,
        token: &str,
        kind: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = http::Request::post(url)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", kind);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into()))?).await
    }
}
