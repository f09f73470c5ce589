//! Subjects and the names in them, as the server delivers them.

use roomcast_proto::ids::{Audience, Room, Tenant, escape, unescape};
use roomcast_proto::subject::{self, Origin};

/// What is taken apart is put together as it was; nothing that was escaped can be told from a token of ours, or comes back as
/// something else.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok((_, publisher)) = subject::parse_queued(text) {
        assert!(!publisher.contains('.'), "{text:?}");
    }
    if let Ok(inbound) = subject::parse_inbound(text) {
        let again = match inbound.origin {
            Origin::Tenant => format!("in.{}.{}.{}", inbound.tenant, inbound.room, inbound.audience),
            Origin::Gateway => format!("in.GW.{}.{}.{}", inbound.tenant, inbound.room, inbound.audience),
            Origin::Aggregator => {
                format!("in.AGG.{}.{}.{}", inbound.tenant, inbound.room, inbound.audience)
            }
        };
        assert_eq!(again, text);
    }
    if let Some(placed) = subject::parse_placed(text)
        && let (Ok(tenant), Ok(room), Ok(audience)) = (
            Tenant::parse(placed.tenant),
            Room::parse(placed.room),
            Audience::parse(placed.audience),
        )
    {
        let stored = subject::event(&tenant, &room, &audience);
        let again = subject::parse_placed(&stored).expect("our own subject");
        assert_eq!((again.room, again.audience), (placed.room, placed.audience));
    }
    let token = escape(text);
    assert!(token.len() <= 96, "{token}");
    assert!(
        token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte)),
        "{token}"
    );
    match unescape(&token) {
        Some(original) => assert_eq!(original, text),
        None => assert!(token.starts_with("=="), "only what was too long is a hash"),
    }
    if let Some(original) = unescape(text) {
        assert_eq!(escape(&original), text, "one token per name");
    }
}
