//! Under which names the admin port may be asked: a page whose name was pointed at this machine must not reach it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Allowed names, lower case, without port.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    /// This machine's own names, the address that is listened on, and `more`.
    pub(crate) fn new(listen: IpAddr, more: &[String]) -> Self {
        let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "[::1]"]
            .into_iter()
            .map(str::to_owned)
            .chain(more.iter().map(|name| name.to_ascii_lowercase()))
            .collect();
        if !listen.is_unspecified() {
            names.insert(match listen {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            });
        }
        Self(names)
    }

    /// Whether a setting is a name without port.
    pub(crate) fn is_name(text: &str) -> bool {
        text.parse::<Authority>()
            .is_ok_and(|authority| authority.host() == text && !text.contains('@'))
    }

    /// Whether a request names an allowed host, and only such.
    pub(crate) fn allow(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let mut named = headers.get_all(HOST).iter();
        let (Some(only), None) = (named.next(), named.next()) else {
            return false;
        };
        let authority = only.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        let known = |authority: &Authority| {
            !authority.as_str().contains('@') && self.0.contains(&authority.host().to_ascii_lowercase())
        };
        authority.as_ref().is_some_and(known) && uri.authority().is_none_or(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_answered() {
        let hosts = Hosts::new("10.0.0.7".parse().unwrap(), &["Gate-0.gates".to_owned()]);
        #[track_caller]
        fn check(hosts: &Hosts, names: &[&str], uri: &str, expected: bool) {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(HOST, name.parse().unwrap());
            }
            assert_eq!(
                hosts.allow(&headers, &uri.parse().unwrap()),
                expected,
                "{names:?} {uri}"
            );
        }
        for good in [
            "localhost",
            "LOCALHOST:9080",
            "127.0.0.1:1",
            "[::1]:9080",
            "10.0.0.7",
            "gate-0.gates:9080",
        ] {
            check(&hosts, &[good], "/", true);
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "evil@localhost",
            "0.0.0.0",
            "10.0.0.8",
            "localhost:",
            "",
            "a b",
        ] {
            check(&hosts, &[bad], "/", bad == "localhost:");
        }
        check(&hosts, &[], "/", false);
        check(&hosts, &["localhost", "localhost"], "/", false);
        check(&hosts, &["localhost"], "http://localhost/", true);
        check(&hosts, &["localhost"], "http://evil.example/", false);
    }

    #[test]
    fn an_open_address_is_no_name() {
        let hosts = Hosts::new("0.0.0.0".parse().unwrap(), &[]);
        assert!(!hosts.0.contains("0.0.0.0"));
        assert!(Hosts::new("::1".parse().unwrap(), &[]).0.contains("[::1]"));
    }

    #[test]
    fn settings_are_names_without_port() {
        for (text, good) in [
            ("gateway-0", true),
            ("10.1.2.3", true),
            ("[::1]", true),
            ("gateway:9080", false),
            ("a@b", false),
            ("http://a", false),
            ("", false),
        ] {
            assert_eq!(Hosts::is_name(text), good, "{text}");
        }
    }
}
