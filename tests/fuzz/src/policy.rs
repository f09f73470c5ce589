//! Policies, as operators write them.

use std::sync::Arc;

use roomcast_access::{Policy, Principal};
use roomcast_proto::ids::{Audience, Room, Tenant};
use serde_json::json;

/// A policy is refused with places inside the file, or decides about anybody, and never lets two users into one personal room.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let policy = match Policy::parse(text, "policy.yaml") {
        Ok(policy) => policy,
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            let lines = text.lines().count() as u64 + 1;
            for mistake in mistakes {
                assert!(mistake.line <= lines, "{mistake}");
            }
            return;
        }
    };
    let others = Room::personal("other");
    let names = policy.audiences().map(str::to_owned).collect::<Vec<_>>();
    for roles in [vec![], names] {
        let rights = policy.rights(&principal(roles));
        for room in rights.auto_join() {
            assert!(rights.subscribe(&room).is_ok(), "{room} is joined by itself");
        }
        assert!(
            rights.subscribe(&others).is_err(),
            "somebody else's personal room"
        );
        assert!(rights.history(&others).is_err());
        assert!(rights.client_publish(&others, &Audience::all()).is_err());
    }
}

fn principal(roles: Vec<String>) -> Principal {
    let claims = json!({ "property_ids": [42, "43"], "region": "north" });
    Principal {
        tenant: Tenant::default(),
        subject: Arc::from("u1"),
        roles,
        claims: claims.as_object().cloned().unwrap_or_default(),
        expires_at: 1_790_000_900,
        issued_at: None,
        token_id: None,
    }
}
