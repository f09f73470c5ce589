//! Cursors, as clients send them back.

use std::sync::LazyLock;

use roomcast_proto::cursor::Cursors;
use roomcast_proto::ids::Tenant;

static SEALED: LazyLock<Cursors> =
    LazyLock::new(|| Cursors::sealed(&"5a".repeat(32)).expect("a key of 64 digits"));

/// One text per cursor: what is read is written the same; and nobody makes up a sealed one.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let tenant = Tenant::default();
    if let Ok(cursor) = Cursors::plain().read(&tenant, text) {
        assert_eq!(Cursors::plain().write(&tenant, &cursor).as_str(), text);
        let sealed = SEALED.write(&tenant, &cursor);
        assert_eq!(SEALED.read(&tenant, sealed.as_str()), Ok(cursor));
    }
    assert!(SEALED.read(&tenant, text).is_err(), "{text}");
}
