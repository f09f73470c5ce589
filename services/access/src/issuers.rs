//! The file that lists the issuers whose tokens are accepted, where there is more than one.
//!
//! ```yaml
//! - { issuer: "https://login.example", jwks_url: "https://login.example/jwks.json", tenants: [main, acme] }
//! - { issuer: back-office, keys_file: back-office.json, tenants: [main] }
//! ```
//! `tenants` is whom an issuer may speak for. Without it that is everybody, which only one issuer or only one tenant allows.
//! Read at start by the services; only understood here, nothing is opened.

use roomcast_proto::ids::Tenant;

use crate::policy::draft::{each, fields, text};
use crate::yaml::{self, Mistake, Mistakes, Node, Value};

/// Most issuers of one file: each of them may cost a signature check where key ids are the same.
pub const ISSUERS_MAX: usize = 16;
/// Most tenants of one issuer.
pub const TENANTS_MAX: usize = 1_024;
/// Longest `issuer`, bytes.
pub const ISSUER_BYTES_MAX: usize = 512;

/// One issuer and where its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What `iss` of its tokens is.
    pub issuer: String,
    /// Where its keys come from.
    pub source: Source,
    /// The tenants it may speak for; `None`: any.
    pub tenants: Option<Vec<Tenant>>,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A JWKS file, by path; `allow_hs`: it may hold shared secrets.
    File {
        /// The path as it is written.
        path: String,
        /// Whether HS256 is allowed for this issuer.
        allow_hs: bool,
    },
    /// The address of a JWKS.
    Url(String),
}

/// What the file may say, beyond its form.
pub struct Allowed<'a> {
    /// Whether the settings allow shared secrets at all.
    pub hs: bool,
    /// What is wrong with an address, in words.
    pub url: &'a dyn Fn(&str) -> Result<(), String>,
}

/// Reads the list from YAML or JSON. `file` is only the name that mistakes carry.
///
/// # Errors
/// Every mistake that can be found, in the order of the file.
pub fn parse(text: &str, file: &str, allowed: &Allowed<'_>) -> Result<Vec<Issuer>, Vec<Mistake>> {
    let (root, mut mistakes) = yaml::read(text, file)?;
    let list = each(&root, "a list of issuers", &mut mistakes, |node, mistakes| {
        issuer(node, allowed, mistakes).map(|issuer| (node.at, issuer))
    });
    if mistakes.is_empty() && !(1..=ISSUERS_MAX).contains(&list.len()) {
        mistakes.add(
            root.at,
            format!("expected 1 to {ISSUERS_MAX} issuers, found {}", list.len()),
        );
    }
    for (index, (at, issuer)) in list.iter().enumerate() {
        if list
            .iter()
            .take(index)
            .any(|(_, other)| other.issuer == issuer.issuer)
        {
            mistakes.add(*at, format!("the issuer {:?} stands here twice", issuer.issuer));
        }
    }
    if mistakes.is_empty() {
        Ok(list.into_iter().map(|(_, issuer)| issuer).collect())
    } else {
        Err(mistakes.finish())
    }
}

fn issuer(node: &Node, allowed: &Allowed<'_>, mistakes: &mut Mistakes<'_>) -> Option<Issuer> {
    const KEYS: [&str; 5] = ["issuer", "keys_file", "jwks_url", "allow_hs", "tenants"];
    let (mut name, mut path, mut url, mut allow_hs, mut tenants) = (None, None, None, None, None);
    for (key, node) in fields(node, "an issuer", &KEYS, &["issuer"], mistakes)? {
        match key {
            "issuer" => name = text(node, "an issuer's name", mistakes),
            "keys_file" => path = text(node, "a path", mistakes),
            "jwks_url" => url = text(node, "an address", mistakes),
            "tenants" => tenants = Some(read_tenants(node, mistakes)),
            _ => match node.value {
                Value::Flag(flag) => allow_hs = flag.then_some(node.at),
                _ => mistakes.add(
                    node.at,
                    format!(
                        "expected `allow_hs` as true or false, found {}",
                        node.value.kind()
                    ),
                ),
            },
        }
    }
    let name = name?;
    if !(1..=ISSUER_BYTES_MAX).contains(&name.text.len()) {
        mistakes.add(name.at, format!("an issuer has 1 to {ISSUER_BYTES_MAX} bytes"));
    }
    if let (Some(at), false) = (allow_hs, allowed.hs) {
        mistakes.add(at, "`allow_hs` needs ROOMCAST_JWT_ALLOW_HS=true as well");
    }
    let source = match (path, url) {
        (Some(path), None) => Source::File {
            path: path.text,
            allow_hs: allow_hs.is_some(),
        },
        (None, Some(url)) => {
            if let Some(at) = allow_hs {
                mistakes.add(at, "`allow_hs` is for `keys_file`: secrets are never fetched");
            }
            if let Err(wrong) = (allowed.url)(&url.text) {
                mistakes.add(url.at, format!("bad `jwks_url` {:?}: {wrong}", url.text));
            }
            Source::Url(url.text)
        }
        _ => {
            mistakes.add(node.at, "an issuer needs one of `keys_file` and `jwks_url`");
            return None;
        }
    };
    Some(Issuer {
        issuer: name.text,
        source,
        tenants,
    })
}

/// An empty list is a mistake: an issuer that may speak for nobody is one that should not stand here.
fn read_tenants(node: &Node, mistakes: &mut Mistakes<'_>) -> Vec<Tenant> {
    let tenants = each(node, "a list of tenants", mistakes, |node, mistakes| {
        let name = text(node, "a tenant", mistakes)?;
        let tenant = Tenant::parse(&name.text).ok();
        if tenant.is_none() {
            mistakes.add(node.at, format!("{:?} is no name of a tenant", name.text));
        }
        tenant
    });
    if matches!(&node.value, Value::List(list) if !(1..=TENANTS_MAX).contains(&list.len())) {
        mistakes.add(node.at, format!("expected 1 to {TENANTS_MAX} tenants"));
    }
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, hs: bool, expected: Result<&[&str], &[&str]>) {
        let url = |url: &str| match url.starts_with("https://") {
            true => Ok(()),
            false => Err("not https".to_owned()),
        };
        let found = parse(text, "issuers.yaml", &Allowed { hs, url: &url });
        let found = match &found {
            Ok(issuers) => Ok(issuers.iter().map(|issuer| issuer.issuer.clone()).collect()),
            Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()),
        };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(found, expected.map(owned).map_err(owned), "{text}");
    }

    #[test]
    fn good_lists_are_read() {
        check(
            "- { issuer: a, jwks_url: 'https://a/jwks' }\n- issuer: b\n  keys_file: b.json\n  allow_hs: true\n",
            true,
            Ok(&["a", "b"]),
        );
        check(
            r#"[{"issuer":"a","keys_file":"a.json","allow_hs":false,"tenants":["main","acme"]}]"#,
            false,
            Ok(&["a"]),
        );
    }

    #[test]
    fn mistakes_have_their_place() {
        let rows: [(&str, &[&str]); 15] = [
            ("[]", &["issuers.yaml:1:1: expected 1 to 16 issuers, found 0"]),
            (
                "- { issuer: a }",
                &["issuers.yaml:1:3: an issuer needs one of `keys_file` and `jwks_url`"],
            ),
            (
                "- { issuer: a, keys_file: a, jwks_url: 'https://a' }",
                &["issuers.yaml:1:3: an issuer needs one of `keys_file` and `jwks_url`"],
            ),
            (
                "- issuer: a\n  jwks_url: http://a",
                &["issuers.yaml:2:13: bad `jwks_url` \"http://a\": not https"],
            ),
            (
                "- { issuer: a, keys_file: a, allow_hs: true }",
                &["issuers.yaml:1:40: `allow_hs` needs ROOMCAST_JWT_ALLOW_HS=true as well"],
            ),
            (
                "- { issuer: a, keys_file: a }\n- { issuer: a, keys_file: b }",
                &["issuers.yaml:2:3: the issuer \"a\" stands here twice"],
            ),
            (
                "- { issuer: '', keys_file: a }",
                &["issuers.yaml:1:13: an issuer has 1 to 512 bytes"],
            ),
            (
                "- { issuer: a, keys_file: a, tenants: [] }",
                &["issuers.yaml:1:39: expected 1 to 1024 tenants"],
            ),
            (
                "- { issuer: a, keys_file: a, tenants: [main, 'a b'] }",
                &["issuers.yaml:1:46: \"a b\" is no name of a tenant"],
            ),
            ("- { issuer: a, keys_file: a, tenants: main }", &[]),
            ("- { issuer: a, keys_file: a, tenants: [7] }", &[]),
            ("- { isuer: a, keys_file: a }", &[]),
            ("- 7", &[]),
            ("issuer: a", &[]),
            ("- { issuer: a, keys_file: a, allow_hs: maybe }", &[]),
        ];
        for (text, expected) in rows {
            let url = |url: &str| match url.starts_with("https://") {
                true => Ok(()),
                false => Err("not https".to_owned()),
            };
            if expected.is_empty() {
                let mistakes = parse(text, "issuers.yaml", &Allowed { hs: false, url: &url }).unwrap_err();
                assert!(mistakes.iter().all(|mistake| mistake.line == 1), "{mistakes:?}");
            } else {
                check(text, false, Err(expected));
            }
        }
    }

    #[test]
    fn secrets_are_never_fetched() {
        check(
            "- { issuer: a, jwks_url: 'https://a', allow_hs: true }",
            true,
            Err(&["issuers.yaml:1:49: `allow_hs` is for `keys_file`: secrets are never fetched"]),
        );
    }
}
