//! Grants and revocations in force: what the `acl` bucket says, as a value.
//!
//! Kept current by whoever reads the bucket, asked by [`crate::InForce`] for every principal. Entries end by themselves; the time is
//! an argument. Looked up by the spelling of the key, so that reading and writing cannot disagree about it.

use std::collections::BTreeMap;

use roomcast_proto::acl::{Entry, Key};

use crate::principal::Principal;
use crate::token::{LEEWAY_SECS, LIFETIME_SECS_MAX};

/// How long a revocation must be remembered, seconds: no token that was signed before it lives longer. The leeway counts twice, for a
/// token whose end was a leeway too far away when it was accepted.
pub const REVOCATION_SECS: i64 = LIFETIME_SECS_MAX + 2 * LEEWAY_SECS;

/// Most entries that are written. An entry takes some 200 bytes in every service that reads them.
pub const ENTRIES_MAX: usize = 100_000;

/// All entries, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {
    entries: BTreeMap<String, Entry>,
}

/// What ended the rights of a principal: a label for a counter and the log, never an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// All tokens of the user.
    User,
    /// This token.
    Token,
    /// The tokens of the user from before an instant.
    UserBefore,
    /// The tokens of the tenant from before an instant.
    TenantBefore,
}

/// An entry that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the acl bucket cannot be read")]
pub struct Unreadable;

impl Acl {
    /// Puts in what stands under a key. Whether anything changed.
    ///
    /// # Errors
    /// [`Unreadable`]: a key or a value that is not ours. What it was meant to say is not in force; count it and tell the operator.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<bool, Unreadable> {
        let parsed = Key::parse(key).ok_or(Unreadable)?;
        let entry: Entry = serde_json::from_slice(value).map_err(|_| Unreadable)?;
        if matches!(parsed, Key::Before { .. }) && entry.before.is_none() {
            return Err(Unreadable);
        }
        let changed = self.entries.get(key) != Some(&entry);
        self.entries.insert(key.to_owned(), entry);
        Ok(changed)
    }

    /// Takes a key out. Whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Takes out what has ended. Whether anything had. `now`: Unix seconds.
    pub fn sweep(&mut self, now: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| holds(entry, now));
        before != self.entries.len()
    }

    /// What stands under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// When the next entry ends, Unix seconds.
    #[must_use]
    pub fn next_end(&self) -> Option<i64> {
        self.entries.values().filter_map(|entry| entry.until).min()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries after a key, in the order of keys, to be shown page by page.
    pub fn after<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let from = (
            std::ops::Bound::Excluded(key.to_owned()),
            std::ops::Bound::Unbounded,
        );
        self.entries
            .range::<String, _>(from)
            .map(|(key, entry)| (key.as_str(), entry))
    }

    /// Why this principal has no rights at all; `None`: it has.
    #[must_use]
    pub fn revoked(&self, principal: &Principal, now: i64) -> Option<Cause> {
        if self.entries.is_empty() {
            return None;
        }
        let (tenant, user) = (&principal.tenant, &*principal.subject);
        let entry = |key: &Key| {
            self.entries
                .get(&key.to_string())
                .filter(|entry| holds(entry, now))
        };
        let issued_before = |key: &Key| {
            let before = entry(key).and_then(|entry| entry.before);
            before.is_some_and(|before| principal.issued_at.is_none_or(|at| at < before))
        };
        if entry(&Key::user(tenant, user)).is_some() {
            return Some(Cause::User);
        }
        let token = principal.token_id.as_ref();
        if token.is_some_and(|id| entry(&Key::token(tenant, id)).is_some()) {
            return Some(Cause::Token);
        }
        if issued_before(&Key::before(tenant, Some(user))) {
            return Some(Cause::UserBefore);
        }
        issued_before(&Key::before(tenant, None)).then_some(Cause::TenantBefore)
    }

    /// The roles that are granted to this principal beside those of its token, in the order of their names.
    pub fn granted<'a>(&'a self, principal: &Principal, now: i64) -> impl Iterator<Item = &'a str> + use<'a> {
        // The dot ends the user's token, so no other user's keys begin like this. No name is made where nothing is kept.
        let prefix = (!self.entries.is_empty())
            .then(|| Key::grant(&principal.tenant, &principal.subject, "").to_string());
        prefix
            .into_iter()
            .flat_map(move |prefix| {
                let start = (
                    std::ops::Bound::Included(prefix.clone()),
                    std::ops::Bound::Unbounded,
                );
                self.entries
                    .range::<String, _>(start)
                    .map_while(move |(key, entry)| Some((key.strip_prefix(&*prefix)?, entry)))
            })
            .filter(move |(_, entry)| holds(entry, now))
            .map(|(role, _)| role)
    }
}

fn holds(entry: &Entry, now: i64) -> bool {
    entry.until.is_none_or(|until| now < until)
}

#[cfg(test)]
mod tests {
    use roomcast_proto::ids::Tenant;
    use serde_json::Map;

    use super::*;

    const NOW: i64 = 1_000;

    fn acl(entries: &[(&str, &str)]) -> Acl {
        let mut acl = Acl::default();
        for (key, value) in entries {
            acl.put(key, value.as_bytes()).unwrap();
        }
        acl
    }

    fn principal(issued_at: Option<i64>, token_id: Option<&str>) -> Principal {
        Principal {
            tenant: Tenant::default(),
            subject: "u@1".into(),
            roles: Vec::new(),
            claims: Map::new(),
            expires_at: 2_000,
            issued_at,
            token_id: token_id.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check(entries: &[(&str, &str)], who: &Principal, expected: Option<Cause>) {
        assert_eq!(acl(entries).revoked(who, NOW), expected, "{entries:?} {who:?}");
    }

    #[test]
    fn a_revocation_means_whom_it_says_until_it_ends() {
        let (old, new) = (principal(Some(500), Some("j1")), principal(Some(900), None));
        check(&[], &old, None);
        check(&[("user.main.u=401", "{}")], &old, Some(Cause::User));
        check(
            &[("user.main.u=401", r#"{"until":1001}"#)],
            &old,
            Some(Cause::User),
        );
        check(&[("user.main.u=401", r#"{"until":1000}"#)], &old, None);
        check(&[("user.main.u", "{}"), ("user.acme.u=401", "{}")], &old, None);
        check(&[("token.main.j1", "{}")], &old, Some(Cause::Token));
        check(&[("token.main.j1", "{}")], &new, None);
        let before = [("before.main.u=401", r#"{"before":900}"#)];
        check(&before, &old, Some(Cause::UserBefore));
        check(&before, &new, None);
        // A token that does not say when it was issued may be from before.
        check(&before, &principal(None, None), Some(Cause::UserBefore));
        check(
            &[("before.main", r#"{"before":900}"#)],
            &old,
            Some(Cause::TenantBefore),
        );
        check(&[("before.acme", r#"{"before":900}"#)], &old, None);
        // A grant takes nothing away.
        check(&[("grant.main.u=401.staff", "{}")], &old, None);
    }

    #[test]
    fn grants_are_the_users_own_and_end() {
        let acl = acl(&[
            ("grant.main.u=401.staff", "{}"),
            ("grant.main.u=401.admin", r#"{"until":1001}"#),
            ("grant.main.u=401.old", r#"{"until":1000}"#),
            ("grant.main.u=4011.other", "{}"),
            ("grant.main.u.other", "{}"),
            ("grant.acme.u=401.other", "{}"),
        ]);
        let who = principal(None, None);
        assert_eq!(acl.granted(&who, NOW).collect::<Vec<_>>(), ["admin", "staff"]);
        assert_eq!(acl.next_end(), Some(1000));
    }

    #[test]
    fn what_ended_is_swept_and_what_is_not_ours_is_refused() {
        let mut acl = acl(&[
            ("user.main.a", r#"{"until":1000}"#),
            ("user.main.b", r#"{"until":1001}"#),
            ("user.main.c", "{}"),
        ]);
        assert!(acl.sweep(NOW));
        assert!(!acl.sweep(NOW));
        assert_eq!(
            acl.after("").map(|(key, _)| key).collect::<Vec<_>>(),
            ["user.main.b", "user.main.c"]
        );
        assert_eq!(acl.after("user.main.b").count(), 1);
        assert_eq!(acl.put("user.main.c", b"{}"), Ok(false));
        assert_eq!(acl.put("user.main.c", br#"{"until":5}"#), Ok(true));
        assert!(acl.remove("user.main.c") && !acl.remove("user.main.c"));
        for (key, value) in [("user.main", "{}"), ("user.main.u", "x"), ("before.main", "{}")] {
            assert_eq!(acl.put(key, value.as_bytes()), Err(Unreadable), "{key} {value}");
        }
    }
}
