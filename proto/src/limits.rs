//! Limits of the contract: the same on every door. What an operator may change has its setting in the service.

use std::time::Duration;

/// Events that a fresh subscription may have sent from the past by `rewind`.
pub const REWIND_EVENTS_MAX: usize = 1_000;
/// Largest event as JSON.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of an event's JSON, the event's own object included.
pub const JSON_DEPTH_MAX: usize = 32;
/// Most events in one batch request.
pub const BATCH_EVENTS_MAX: usize = 1000;
/// Largest request body of ingest: a batch of events.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most recipients in `users`.
pub const USERS_MAX: usize = 1000;
/// Longest `id` of an event in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Longest `type`, `source`, `subject` and `statekey` in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// Most extension attributes of one event.
pub const EXTENSIONS_MAX: usize = 32;
/// State keys of one room.
pub const ROOM_KEYS_MAX: usize = 10_000;
/// Longest message from a client.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Rooms per connection.
pub const SUBSCRIPTIONS_MAX: usize = 128;
/// Rooms asked for in one `connect`.
pub const CONNECT_ROOMS_MAX: usize = 128;
/// Rooms opened by `auto_join`.
pub const AUTO_JOIN_MAX: usize = 512;
/// Events of one history page.
pub const HISTORY_EVENTS_MAX: u32 = 300;
/// Events of a history page when the client does not say.
pub const HISTORY_EVENTS_DEFAULT: u32 = 50;
/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How long the server finds repeated ids.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(120);
/// An id that carries its time is `late` when it is older than the window less this.
pub const DEDUP_SAFETY: Duration = Duration::from_secs(30);
/// How long withdrawn state values are kept, and so how old a cursor may be.
pub const WITHDRAWN_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long events are kept.
pub const EVENTS_MAX_AGE: Duration = Duration::from_secs(72 * 3600);
/// A connection that has not authenticated by then is closed.
pub const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(8);
/// The server pings this often.
pub const PING_EVERY: Duration = Duration::from_secs(25);
/// and waits this long for the pong.
pub const PONG_WITHIN: Duration = Duration::from_secs(10);
/// A stream of server-sent events that has nothing to say gets a comment this often.
pub const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// The longest a poll is held.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(25);
/// Quiet rooms get a newer cursor this often.
pub const QUIET_CAUGHT_UP_EVERY: Duration = Duration::from_secs(60);
/// `expiring` is said this long before a token ends.
pub const EXPIRING_BEFORE: Duration = Duration::from_secs(60);
/// Clock difference tolerated in tokens.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(30);
/// The longest life of a token.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Stream positions a reader may scan for one deep resume or history request.
pub const SCAN_POSITIONS_MAX: u64 = 50_000;
