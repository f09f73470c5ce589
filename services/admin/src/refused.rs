//! Who was refused, counted over a minute: one entry of the record holds it, however many there were, so a flood of refusals fills
//! neither the stream nor the queue. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Refusals that are told apart within one entry; the rest is a number. With [`NAME_CHARS_MAX`] an entry stays within its bound.
const TOLD_APART: usize = 32;
/// Longest user in an entry, characters.
const NAME_CHARS_MAX: usize = 64;

/// What was refused, why, and to whom (tenant and user), where that is known for sure.
type Key = (&'static str, &'static str, Option<(String, String)>);

/// Refusals since they were last taken.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    told: BTreeMap<Key, u64>,
    others: u64,
}

impl Refused {
    /// Counts one.
    pub(crate) fn add(&mut self, what: &'static str, reason: &'static str, who: Option<(&str, &str)>) {
        let short = |name: &str| name.chars().take(NAME_CHARS_MAX).collect::<String>();
        let key = (
            what,
            reason,
            who.map(|(tenant, user)| (short(tenant), short(user))),
        );
        if let Some(count) = self.told.get_mut(&key) {
            *count += 1;
        } else if self.told.len() < TOLD_APART {
            self.told.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    /// What an entry says of them; `None`: there were none.
    pub(crate) fn take(&mut self) -> Option<Value> {
        if self.told.is_empty() {
            return None;
        }
        let Self { told, others } = std::mem::take(self);
        let said = told.into_iter().map(|((what, reason, who), count)| {
            let mut said = json!({ "what": what, "reason": reason, "count": count });
            if let Some((tenant, user)) = who {
                said["tenant"] = tenant.into();
                said["user"] = user.into();
            }
            said
        });
        Some(json!({ "refused": said.collect::<Vec<_>>(), "others": others }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_entry_that_fits() {
        let mut refused = Refused::default();
        assert_eq!(refused.take(), None);
        for _ in 0..10_000 {
            refused.add("token", "expired", None);
        }
        refused.add("publish", "forbidden", Some(("main", "nats/erp")));
        assert_eq!(
            refused.take(),
            Some(json!({ "others": 0, "refused": [
                { "what": "publish", "reason": "forbidden", "count": 1, "tenant": "main", "user": "nats/erp" },
                { "what": "token", "reason": "expired", "count": 10_000 },
            ]}))
        );
        assert_eq!(refused.take(), None);
        // The worst name there is, each character of it six in JSON.
        for n in 0..1_000 {
            let user = format!("{n}{}", "\u{1}".repeat(1_000));
            refused.add("publish", "forbidden", Some(("main", &user)));
        }
        let entry = refused.take().unwrap();
        assert_eq!(entry["others"], 1_000 - TOLD_APART);
        assert!(
            entry.to_string().len() <= crate::audit::NOTE_BYTES_MAX,
            "{}",
            entry.to_string().len()
        );
    }
}
