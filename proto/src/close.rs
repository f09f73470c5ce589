//! Every way a connection ends: code, reason, and whether the client should come back.

/// Why the server ends a connection. The number goes into the `disconnect` message and the close frame alike.
///
/// 4000–4499: come back. 4500–4999: do not, something must change first. 1002–1009: as RFC 6455 says; do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// The gateway is going down; come back after the hint.
    Drain,
    /// The client did not read fast enough; its cursor brings it back complete.
    TooSlow,
    /// The token ended; come back with a newer one.
    Expired,
    /// No pong in time.
    NoPong,
    /// The gateway cannot vouch for what it delivers; come back to another one.
    Resync,
    /// Too many messages.
    Rate,
    /// An administrator ended the connection; nothing is held against the user.
    Kicked,
    /// The token is not valid, or none came in time.
    BadToken,
    /// The token or its user was revoked.
    Revoked,
    /// The user may not be here.
    Forbidden,
    /// A message that breaks the protocol.
    Protocol,
    /// A limit on connections.
    Limit,
    /// RFC 6455: a frame that breaks the protocol.
    WsProtocol,
    /// RFC 6455: a kind of data that is not accepted here.
    WsUnsupported,
    /// RFC 6455: text that is not UTF-8.
    WsInvalidData,
    /// RFC 6455: a message over the limit.
    WsTooBig,
}

impl Close {
    /// All of them, for counters and documentation.
    pub const ALL: [Close; 16] = [
        Close::Drain,
        Close::TooSlow,
        Close::Expired,
        Close::NoPong,
        Close::Resync,
        Close::Rate,
        Close::Kicked,
        Close::BadToken,
        Close::Revoked,
        Close::Forbidden,
        Close::Protocol,
        Close::Limit,
        Close::WsProtocol,
        Close::WsUnsupported,
        Close::WsInvalidData,
        Close::WsTooBig,
    ];

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Close::Drain => 4001,
            Close::TooSlow => 4002,
            Close::Expired => 4003,
            Close::NoPong => 4004,
            Close::Resync => 4005,
            Close::Rate => 4006,
            Close::Kicked => 4007,
            Close::BadToken => 4500,
            Close::Revoked => 4501,
            Close::Forbidden => 4502,
            Close::Protocol => 4503,
            Close::Limit => 4504,
            Close::WsProtocol => 1002,
            Close::WsUnsupported => 1003,
            Close::WsInvalidData => 1007,
            Close::WsTooBig => 1009,
        }
    }

    /// The reason on the wire and in metric labels.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Close::Drain => "drain",
            Close::TooSlow => "too_slow",
            Close::Expired => "expired",
            Close::NoPong => "no_pong",
            Close::Resync => "resync",
            Close::Rate => "rate",
            Close::Kicked => "kicked",
            Close::BadToken => "bad_token",
            Close::Revoked => "revoked",
            Close::Forbidden => "forbidden",
            Close::Protocol => "protocol",
            Close::Limit => "limit",
            Close::WsProtocol => "ws_protocol",
            Close::WsUnsupported => "ws_unsupported",
            Close::WsInvalidData => "ws_invalid_data",
            Close::WsTooBig => "ws_too_big",
        }
    }

    /// Whether the client should come back by itself.
    #[must_use]
    pub const fn reconnect(self) -> bool {
        may_return(self.code())
    }
}

/// What a client does with any close code, known or not: 4000–4499 and the network's own codes come back.
#[must_use]
pub const fn may_return(code: u16) -> bool {
    match code {
        4000..=4499 => true,
        4500..=4999 | 1002 | 1003 | 1007 | 1009 => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_distinct_and_ranges_decide() {
        for (i, a) in Close::ALL.iter().enumerate() {
            assert!(
                Close::ALL[i + 1..]
                    .iter()
                    .all(|b| a.code() != b.code() && a.reason() != b.reason())
            );
            assert_eq!(a.reconnect(), (4000..4500).contains(&a.code()), "{a:?}");
        }
        for (code, back) in [
            (4099, true),
            (4499, true),
            (4500, false),
            (4999, false),
            (1006, true),
            (1012, true),
        ] {
            assert_eq!(may_return(code), back, "{code}");
        }
    }
}
