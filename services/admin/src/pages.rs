//! Which pages may ask the admin port: none, unless an operator names their origins. Compared exactly.
//!
//! A page needs an admin token all the same; being named only lets its browser ask and read the answer.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::problem::harden;

/// What a browser is told once: what it may ask with.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// Seconds for which a browser need not ask again.
const AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Origins whose pages may ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages(BTreeSet<String>);

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// No page: a program.
    Program,
    /// A page that may ask.
    Page(HeaderValue),
    /// A page that may not, or one that does not say once who it is.
    Stranger,
}

impl Pages {
    pub(crate) fn new(origins: &[String]) -> Self {
        Self(origins.iter().cloned().collect())
    }

    /// Whether a setting is an origin as browsers write it: scheme, host, perhaps a port, nothing else.
    pub(crate) fn is_origin(text: &str) -> bool {
        let Ok(uri) = text.parse::<Uri>() else {
            return false;
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return false;
        };
        matches!(scheme, "http" | "https")
            && text == format!("{scheme}://{authority}")
            && !text.contains('@')
            && text == text.to_ascii_lowercase()
    }

    /// Who asks.
    pub(crate) fn from(&self, headers: &HeaderMap) -> From {
        let mut named = headers.get_all(ORIGIN).iter();
        match (named.next(), named.next()) {
            (None, _) => From::Program,
            (Some(origin), None) if origin.to_str().is_ok_and(|origin| self.0.contains(origin)) => {
                From::Page(origin.clone())
            }
            _ => From::Stranger,
        }
    }
}

/// Whether a request only asks whether it may ask.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that, for a page that may.
pub(crate) fn granted(origin: &HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    harden(&mut response);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, AGE_SECONDS);
    let_read(&mut response, origin);
    response
}

/// Lets the page of `origin`, which was checked, read an answer.
pub(crate) fn let_read(response: &mut Response, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_named_are_known() {
        let pages = Pages::new(&[
            "https://desk.example".to_owned(),
            "http://127.0.0.1:8080".to_owned(),
        ]);
        #[track_caller]
        fn check(pages: &Pages, origins: &[&'static str], known: bool) {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            let from = pages.from(&headers);
            assert_eq!(matches!(from, From::Page(_)), known, "{origins:?}: {from:?}");
        }
        assert_eq!(pages.from(&HeaderMap::new()), From::Program);
        check(&pages, &["https://desk.example"], true);
        check(&pages, &["http://127.0.0.1:8080"], true);
        for bad in [
            &["http://desk.example"][..],
            &["https://desk.example:443"],
            &["https://desk.example."],
            &["https://evil.desk.example"],
            &["http://127.0.0.1:8081"],
            &["null"],
            &[""],
            &["https://desk.example", "https://desk.example"],
        ] {
            check(&pages, bad, false);
        }
        check(&Pages::default(), &["null"], false);
    }

    #[test]
    fn settings_are_origins_as_browsers_write_them() {
        for (text, good) in [
            ("https://desk.example", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("https://desk.example/", false),
            ("https://Desk.example", false),
            ("https://a@desk.example", false),
            ("desk.example", false),
            ("*", false),
            ("null", false),
            ("file:///x", false),
            ("", false),
        ] {
            assert_eq!(Pages::is_origin(text), good, "{text}");
        }
    }
}
