//! One tenant or several: with several, cursors are sealed, because positions in streams that all share tell what the others do.
//!
//! Where several issuers serve several tenants, each says for whom it speaks: else the one of a tenant could name another's users.
//!
//! Without keys for cursors, one tenant is served and every token of another is refused, so nothing can be told by mistake.

use std::collections::BTreeSet;

use roomcast_access::{Policy, Verifier};
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;
use roomcast_proto::cursor::Cursors;
use roomcast_proto::ids::Tenant;

const KEYS: &str = "ROOMCAST_CURSOR_KEYS";
const KEYS_FILE: &str = "ROOMCAST_CURSOR_KEYS_FILE";

/// The settings about tenants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tenancy {
    /// `ROOMCAST_CURSOR_KEYS`: how cursors are written and read.
    pub cursors: Cursors,
}

impl Tenancy {
    /// Reads them; mistakes are collected by the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let keys = reader.secret(
            KEYS,
            KEYS_FILE,
            "Keys that seal cursors, the same for all gateways and ingests; needed with several tenants. One a line, 64 hexadecimal \
             digits; the first seals, all open.",
        );
        let Some(keys) = keys else { return Self::default() };
        match Cursors::sealed(keys.expose()) {
            Ok(cursors) => Self { cursors },
            Err(bad) => {
                reader.mistake(KEYS, bad.to_string());
                Self::default()
            }
        }
    }

    /// The verifier that refuses tokens of tenants that are not served. With keys all are; without, the one whose publishers the policy
    /// lists, else `main`.
    ///
    /// # Errors
    /// The policy knows several tenants and there are no keys; or there are, and several issuers of whom one may speak for any
    /// tenant: exit code 64.
    pub fn restrict(&self, verifier: Verifier, policy: &Policy) -> Result<Verifier, Failure> {
        if self.cursors.is_sealed() {
            return match verifier.unbound() {
                None => Ok(verifier),
                Some(issuer) => Err(Failure::settings(format!(
                    "ROOMCAST_JWT_ISSUERS_FILE: the issuer {issuer:?} has no `tenants`: with {KEYS_FILE} several tenants are served, and \
                     each of several issuers must say whose users it may name"
                ))),
            };
        }
        let known: BTreeSet<&str> = policy
            .publishers()
            .map(|(tenant, _, _)| tenant.as_str())
            .collect();
        if known.len() > 1 {
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Failure::settings(format!(
                "{KEYS_FILE}: the policy knows several tenants ({}), so cursors must be sealed: expected a file with a key, the same for \
                 all gateways and ingests (`openssl rand -hex 32` makes one)",
                known.join(", ")
            )));
        }
        let only = known.first().and_then(|tenant| Tenant::parse(tenant).ok());
        Ok(verifier.serving(only.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use roomcast_access::Endpoint;
    use roomcast_access::jwks::Schedule;
    use roomcast_chassis::config::Environment;

    use super::*;

    fn policy(publishers: &[&str]) -> Policy {
        let lines: String = publishers
            .iter()
            .map(|who| format!("  - {{ nats: {who}, roles: [desk] }}\n"))
            .collect();
        let publishers = if lines.is_empty() {
            String::new()
        } else {
            format!("publishers:\n{lines}")
        };
        Policy::parse(
            &format!("version: 1\nroles: {{ desk: {{ permissions: [publish] }} }}\nrooms: []\n{publishers}"),
            "policy.yaml",
        )
        .unwrap()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Tenancy, String> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let mut reader = Reader::new(&environment);
        let tenancy = Tenancy::read(&mut reader);
        reader
            .finish()
            .map(|_| tenancy)
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn several_tenants_need_keys() {
        let key = "0f".repeat(32);
        let (plain, sealed) = (read(&[]).unwrap(), read(&[(KEYS, &key)]).unwrap());
        let rows = [
            (plain, &[][..], true),
            (plain, &["main/desk", "main/erp"], true),
            (plain, &["acme/erp"], true),
            (plain, &["main/desk", "acme/erp"], false),
            (sealed, &["main/desk", "acme/erp"], true),
        ];
        for (tenancy, publishers, fine) in rows {
            let restricted = tenancy.restrict(Verifier::of("roomcast".to_owned()), &policy(publishers));
            assert_eq!(restricted.is_ok(), fine, "{tenancy:?} {publishers:?}");
        }
    }

    /// With one issuer for each tenant, none of them may name the other's users.
    #[test]
    fn several_issuers_of_several_tenants_say_whose() {
        let key = "0f".repeat(32);
        let (plain, sealed) = (read(&[]).unwrap(), read(&[(KEYS, &key)]).unwrap());
        let schedule = Schedule {
            interval_secs: 1,
            refresh_secs: 1,
        };
        let of = |issuers: &[(&str, Option<&str>)]| {
            let nobody = Verifier::of("roomcast".to_owned());
            issuers.iter().fold(nobody, |verifier, (issuer, tenant)| {
                let verifier = verifier.fetching((*issuer).to_owned(), Endpoint::new(schedule));
                match tenant {
                    Some(tenant) => verifier.bound(issuer, Tenant::parse(tenant).ok()),
                    None => verifier,
                }
            })
        };
        let rows = [
            (sealed, of(&[("a", None)]), true),
            (sealed, of(&[("a", Some("main"))]), true),
            (sealed, of(&[("a", Some("main")), ("b", Some("acme"))]), true),
            (sealed, of(&[("a", Some("main")), ("b", None)]), false),
            (sealed, of(&[("a", None), ("b", Some("main"))]), false),
            (sealed, of(&[("a", None), ("b", None)]), false),
            (plain, of(&[("a", None), ("b", None)]), true),
        ];
        for (tenancy, verifier, fine) in rows {
            let restricted = tenancy.restrict(verifier.clone(), &policy(&[]));
            assert_eq!(restricted.is_ok(), fine, "{tenancy:?} {verifier:?}");
            let words = restricted
                .err()
                .map(|failure| failure.message)
                .unwrap_or_default();
            assert!(fine || words.contains("has no `tenants`"), "{words}");
        }
    }

    #[test]
    fn bad_keys_are_mistakes_that_do_not_show_them() {
        let short = "0f".repeat(31);
        for keys in ["secret", &short] {
            let mistakes = read(&[(KEYS, keys)]).err().unwrap();
            assert!(mistakes.contains(KEYS), "{mistakes}");
            assert!(!mistakes.contains(keys), "{mistakes}");
        }
    }
}
