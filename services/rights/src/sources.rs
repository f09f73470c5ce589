//! From what was read to what is in force. Decides without clock or I/O.

use std::sync::Arc;

use roomcast_access::acl::Unreadable;
use roomcast_access::{Acl, InForce, Mistake, Policy};

/// The name of the bucket's policy in mistakes.
const IN_BUCKET: &str = "cfg/policy";

/// What became of a policy that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// It was looked at before.
    Same,
    /// It is in force.
    Taken,
    /// It has mistakes; the one before stays.
    Broken(Vec<Mistake>),
}

/// Everything that was read, and what of it is in force.
#[derive(Debug)]
pub(crate) struct Sources {
    file_name: String,
    file: Arc<str>,
    bucket: Option<Arc<str>>,
    /// The text that was looked at last, good or not.
    looked_at: Arc<str>,
    policy: Policy,
    /// The bucket's entries as far as they were read.
    entries: Acl,
    /// Those in force.
    acl: Arc<Acl>,
    /// When the first of them ends.
    next_end: Option<i64>,
    /// When the last of them went by itself, by the clock of then.
    swept_at: Option<i64>,
    generation: u64,
}

impl Sources {
    /// The file's policy, which is in force already.
    pub(crate) fn new(file_name: String, file: &str, policy: Policy) -> Self {
        let file: Arc<str> = file.into();
        Self {
            file_name,
            looked_at: Arc::clone(&file),
            file,
            bucket: None,
            policy,
            entries: Acl::default(),
            acl: Arc::default(),
            next_end: None,
            swept_at: None,
            generation: 1,
        }
    }

    /// The file says this.
    pub(crate) fn file(&mut self, text: &str) -> Looked {
        if *self.file != *text {
            self.file = text.into();
        }
        self.look()
    }

    /// The file's text that was seen last.
    pub(crate) fn file_text(&self) -> &str {
        &self.file
    }

    /// The bucket says this, or nothing.
    pub(crate) fn bucket(&mut self, text: Option<&str>) -> Looked {
        self.bucket = text.map(Into::into);
        self.look()
    }

    /// Whether the policy comes from the bucket.
    pub(crate) fn is_from_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    fn look(&mut self) -> Looked {
        let (text, name) = match &self.bucket {
            Some(text) => (text, IN_BUCKET),
            None => (&self.file, &*self.file_name),
        };
        if *text == self.looked_at {
            return Looked::Same;
        }
        self.looked_at = Arc::clone(text);
        match Policy::parse_after(text, name, Some(&self.policy)) {
            Ok(policy) => {
                self.policy = policy;
                self.generation += 1;
                Looked::Taken
            }
            Err(mistakes) => Looked::Broken(mistakes),
        }
    }

    /// Puts in an entry of the `acl` bucket, or takes it out. In force with [`Sources::entries_read`].
    pub(crate) fn entry(&mut self, key: &str, value: Option<&[u8]>) -> Result<bool, Unreadable> {
        match value {
            Some(value) => self.entries.put(key, value),
            None => Ok(self.entries.remove(key)),
        }
    }

    /// The `acl` bucket is another one: forgets its entries. Those in force stay until it is read.
    pub(crate) fn forget_entries(&mut self) {
        self.entries = Acl::default();
    }

    /// The bucket is read to its end: its entries are in force.
    pub(crate) fn entries_read(&mut self) {
        self.acl = Arc::new(self.entries.clone());
        self.next_end = self.acl.next_end();
        self.generation += 1;
    }

    /// Time went by: entries that have ended go. Whether the clock has gone back to before some went: they may hold again, and the
    /// bucket is to be read anew.
    pub(crate) fn pass(&mut self, now: i64) -> bool {
        if self.next_end.is_some_and(|end| end <= now) {
            self.entries.sweep(now);
            let mut acl = (*self.acl).clone();
            acl.sweep(now);
            self.next_end = acl.next_end();
            self.acl = Arc::new(acl);
            self.generation += 1;
            self.swept_at = Some(now);
        }
        self.swept_at.take_if(|swept_at| now < *swept_at).is_some()
    }

    /// Grows with every change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What is in force.
    pub(crate) fn in_force(&self) -> InForce {
        InForce {
            policy: self.policy.clone(),
            acl: Arc::clone(&self.acl),
            generation: self.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(permission: &str) -> String {
        format!(
            "version: 1\nroles: {{ a: {{ permissions: [{permission}] }} }}\nrooms: [{{ room: r, subscribe: {permission} }}]\n"
        )
    }

    fn sources() -> Sources {
        let good = text("one");
        let policy = Policy::parse(&good, "p").unwrap();
        Sources::new("p".into(), &good, policy)
    }

    fn word(looked: Looked) -> &'static str {
        match looked {
            Looked::Same => "same",
            Looked::Taken => "taken",
            Looked::Broken(_) => "broken",
        }
    }

    #[test]
    fn a_good_policy_is_taken_and_a_broken_one_never() {
        let mut sources = sources();
        let first = sources.in_force().policy.fingerprint();
        for (file, expected) in [
            (text("one"), "same"),
            (String::new(), "broken"),
            (String::new(), "same"),
            (text("two")[..60].to_owned(), "broken"),
            (text("two"), "taken"),
            (text("two"), "same"),
            ("version: 2".to_owned(), "broken"),
            (text("two"), "taken"),
        ] {
            assert_eq!(word(sources.file(&file)), expected, "{file:?}");
            let in_force = sources.in_force().policy;
            assert!(in_force.audience("a").is_some(), "{file:?}");
            assert_eq!(in_force.fingerprint() == first, sources.generation() == 1);
        }
    }

    #[test]
    fn the_bucket_takes_the_files_place_as_long_as_it_says_something() {
        let mut sources = sources();
        let (one, two) = (text("one"), text("two"));
        assert_eq!(word(sources.bucket(None)), "same");
        assert_eq!(word(sources.bucket(Some(&two))), "taken");
        // The file is not asked meanwhile, however wrong it is.
        assert_eq!(word(sources.file("nonsense")), "same");
        assert_eq!(word(sources.bucket(Some("nonsense, too"))), "broken");
        assert_eq!(word(sources.file(&one)), "same");
        assert_eq!(word(sources.bucket(None)), "taken");
        assert!(!sources.is_from_bucket());
    }

    #[test]
    fn entries_are_in_force_once_all_are_read_and_until_they_end() {
        let mut sources = sources();
        let state = |sources: &Sources| (sources.generation(), sources.in_force().acl.len());
        assert!(sources.entry("user.main.u1", Some(br#"{"until":10}"#)).unwrap());
        assert_eq!(state(&sources), (1, 0));
        sources.entries_read();
        assert_eq!(state(&sources), (2, 1));
        assert!(!sources.pass(9));
        // Another bucket: what was revoked stays revoked until it is read.
        sources.forget_entries();
        sources.entry("user.main.u2", Some(b"{}")).unwrap();
        assert_eq!(state(&sources), (2, 1));
        assert!(!sources.pass(10));
        assert_eq!(state(&sources), (3, 0));
        sources.entries_read();
        assert_eq!(state(&sources), (4, 1));
        assert!(sources.entry("nonsense", Some(b"{}")).is_err());
    }

    /// A clock that was wrong for a while: what it made end holds again when the bucket was read anew, and only then is it asked for.
    #[test]
    fn a_clock_that_goes_back_asks_for_what_went() {
        let bucket = [
            ("user.main.u1", r#"{"until":100}"#),
            ("user.main.u2", r#"{"until":200}"#),
            ("user.main.u3", "{}"),
        ];
        let mut sources = sources();
        let read = |sources: &mut Sources| {
            sources.forget_entries();
            for (key, value) in bucket {
                sources.entry(key, Some(value.as_bytes())).unwrap();
            }
            sources.entries_read();
        };
        read(&mut sources);
        for (now, anew, in_force) in [
            (50, false, 3),
            // Back without anything having ended.
            (40, false, 3),
            (1_000, false, 1),
            (1_001, false, 1),
            (999, true, 1),
            (999, false, 1),
            (150, true, 2),
            // On again, as clocks do.
            (160, false, 2),
            (200, false, 1),
            (199, true, 2),
        ] {
            assert_eq!(sources.pass(now), anew, "{now}");
            if anew {
                read(&mut sources);
                assert!(!sources.pass(now), "asked for once: {now}");
            }
            assert_eq!(sources.in_force().acl.len(), in_force, "{now}");
        }
    }
}
