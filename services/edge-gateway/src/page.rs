//! The page, embedded: `clients/dashboard` as it was built when this binary was, or a page that says how to build it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::RustEmbed;

/// The built page; empty when it was not built.
#[derive(RustEmbed)]
#[folder = "../../clients/dashboard/dist"]
#[allow_missing = true]
struct Files;

/// What is served instead of a page that was not built.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Roomcast</title>\n\
<h1>Roomcast runs</h1>\n<p>The page was not built when this gateway was. Build it and the gateway again:</p>\n\
<pre>make page\ncargo build -p roomcast-edge-gateway</pre>\n<p>Or all of it, with data: <code>make demo</code>.</p></html>\n";

/// The page and what it is told.
#[derive(Clone, Debug)]
pub struct Page {
    config: Option<Bytes>,
    policy: HeaderValue,
    /// Files in gzip, by their tags: as many as there are files.
    packed: Arc<Mutex<HashMap<String, Bytes>>>,
}

impl Page {
    /// `config` is what `/page.json` answers.
    #[must_use]
    pub fn new(config: Option<&serde_json::Value>) -> Self {
        // The page may publish to an ingest that stands elsewhere; nothing else is asked of another origin.
        let ingest = config
            .and_then(|config| config.get("ingest"))
            .and_then(serde_json::Value::as_str);
        // And, for operators, the admin ports that let it: their addresses by kind of service.
        let admin = config
            .and_then(|config| config.get("admin")?.as_object())
            .into_iter()
            .flat_map(|kinds| kinds.values())
            .filter_map(serde_json::Value::as_array)
            .flatten()
            .filter_map(serde_json::Value::as_str);
        let others: Vec<&str> = ingest
            .into_iter()
            .chain(admin)
            .filter(|url| is_plain(url))
            .collect();
        let policy = format!(
            "default-src 'self'; connect-src 'self' ws: wss: {}; img-src 'self' data:; media-src 'self' data: blob:; \
             style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            others.join(" ")
        );
        Self {
            config: config.map(|config| config.to_string().into()),
            policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'")),
            packed: Arc::default(),
        }
    }

    /// What was kept of the file with this tag.
    pub(crate) fn packed(&self, tag: &str) -> Option<Bytes> {
        let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.get(tag).cloned()
    }

    /// Keeps the file with this tag, which one of [`Page::file`]'s answers had, in gzip.
    pub(crate) fn keep_packed(&self, tag: String, bytes: Bytes) {
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.insert(tag, bytes);
    }

    /// What `/page.json` answers; `None`: nothing is there.
    #[must_use]
    pub fn config(&self) -> Option<Response> {
        let config = self.config.clone()?;
        let mut response = Response::new(Body::from(config));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(response)
    }

    /// The file at a path; `None`: nothing is there. `/` is the page itself.
    #[must_use]
    pub fn file(&self, path: &str, request: &HeaderMap) -> Option<Response> {
        let name = match path {
            "/" | "/index.html" => "index.html",
            other => other.strip_prefix('/')?,
        };
        let (bytes, tag) = match Files::get(name) {
            Some(file) => (file.data, file.metadata.sha256_hash()),
            None if name == "index.html" => (NOT_BUILT.as_bytes().into(), [0; 32]),
            None => return None,
        };
        let tag = format!(
            "\"{}\"",
            tag[..12]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        );
        let known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let unchanged = known
            .flat_map(|value| value.split(','))
            .any(|known| known.trim().trim_start_matches("W/") == tag);
        let mut response = Response::new(if unchanged {
            Body::empty()
        } else {
            Body::from(bytes.into_owned())
        });
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        // The build puts a hash of the content into the names below /assets; other names stay the same for ever.
        let cache = if name.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(ETAG, tag);
        }
        Some(response)
    }
}

/// Whether an address says nothing more in a header than where it leads.
fn is_plain(url: &str) -> bool {
    url.bytes()
        .all(|b| b.is_ascii_graphic() && !b";,'\"".contains(&b))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_there_built_or_not_and_is_not_sent_twice() {
        let page = Page::new(Some(&serde_json::json!({
            "ingest": "http://127.0.0.1:8081",
            "admin": { "gateway": ["http://127.0.0.1:9080", "x; y", 7], "ingest": 7 }
        })));
        let first = page.file("/", &HeaderMap::new()).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let policy = first.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.contains("connect-src 'self' ws: wss: http://127.0.0.1:8081 http://127.0.0.1:9080;")
                && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        let again = HeaderMap::from_iter([(IF_NONE_MATCH, first.headers()[ETAG].clone())]);
        assert_eq!(page.file("/", &again).unwrap().status(), StatusCode::NOT_MODIFIED);
        for path in [
            "/nothing",
            "/assets/../../../Cargo.toml",
            "/..",
            "//etc/passwd",
            "/assets",
        ] {
            assert!(page.file(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }

    #[test]
    fn a_config_cannot_break_out_of_the_security_policy() {
        let page = Page::new(Some(&serde_json::json!({"ingest": "http://x; script-src *"})));
        let first = page.file("/", &HeaderMap::new()).unwrap();
        assert!(
            !first.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("script-src *")
        );
        assert!(page.config().is_some() && Page::new(None).config().is_none());
    }
}
