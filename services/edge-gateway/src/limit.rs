//! The limits that are not those of connections (`admission`) or operations (`allowance`): their names, in metrics and in the table of
//! this crate's README.
//!
//! A closed list: what was met is counted by its name in `roomcast_gateway_limited_total`, so that no limit works in silence.

/// A limit that somebody has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `ROOMCAST_HEADER_BYTES_MAX`, `ROOMCAST_HEADERS_MAX`: a request's head is too large. 431.
    Head,
    /// `ROOMCAST_URL_BYTES_MAX`: a path with its query is too long. 431.
    Url,
    /// `ROOMCAST_ROOMS_PER_REQUEST_MAX`: a request names too many rooms. `limit`.
    Rooms,
    /// `ROOMCAST_AUTHENTICATE_SECONDS`: no token came in time. 4500.
    Authenticate,
    /// `ROOMCAST_MESSAGE_BYTES_MAX`, `ROOMCAST_FRAGMENTS_MAX`: a message is too large, or in too many pieces. 1009.
    Message,
    /// `ROOMCAST_BODY_SECONDS`: the body of a request did not arrive in time. 408.
    Body,
    /// `ROOMCAST_REQUEST_RATE`: too many messages. 4006.
    Requests,
    /// `ROOMCAST_INGRESS_BYTES_RATE`: too many bytes. 4006; a connection of requests is read more slowly.
    Ingress,
    /// Too much waits behind a room that is being recovered. 4006.
    Waiting,
    /// `ROOMCAST_SUBSCRIPTIONS_MAX`: too many rooms are open. `limit`.
    Subscriptions,
    /// A second request for history while one is read. `rate`.
    Reading,
    /// `ROOMCAST_ACTIVITY_RATE`: too much activity of one connection. `rate`; dropped.
    Activity,
    /// `ROOMCAST_ASKS_PER_CONNECTION_MAX`. `rate`.
    AsksOfConnection,
    /// `ROOMCAST_ASKS_PER_USER_MAX`. `rate`.
    AsksOfUser,
    /// `ROOMCAST_ASKS_PER_TENANT_MAX`. `rate`.
    AsksOfTenant,
    /// `ROOMCAST_ASKS_MAX`. `unavailable`.
    Asks,
    /// `ROOMCAST_POLLS_HELD_PER_TENANT_MAX`. `unavailable`.
    PollsOfTenant,
    /// `ROOMCAST_POLLS_HELD_MAX`. `unavailable`.
    Polls,
    /// `ROOMCAST_WRITE_SECONDS`: nothing was taken of what waits. 4002; a connection of requests is cut.
    Write,
    /// `ROOMCAST_OUTBOXES_BYTES_MAX`: too much waits for all clients together; the fattest go. 4002; an answer over HTTP is cut, or is a 503.
    Outboxes,
    /// `ROOMCAST_PONG_SECONDS`: a ping was not answered. 4004.
    Pong,
    /// `ROOMCAST_UNACKNOWLEDGED_SECONDS`: the other side has vanished. The connection is cut.
    Unacknowledged,
}

impl Limit {
    /// All of them, with their names in metrics.
    pub const ALL: [(Self, &'static str); 22] = [
        (Self::Head, "head"),
        (Self::Url, "url"),
        (Self::Rooms, "rooms"),
        (Self::Authenticate, "authenticate"),
        (Self::Message, "message"),
        (Self::Body, "body"),
        (Self::Requests, "requests"),
        (Self::Ingress, "ingress"),
        (Self::Waiting, "waiting"),
        (Self::Subscriptions, "subscriptions"),
        (Self::Reading, "reading"),
        (Self::Activity, "activity"),
        (Self::AsksOfConnection, "asks_of_connection"),
        (Self::AsksOfUser, "asks_of_user"),
        (Self::AsksOfTenant, "asks_of_tenant"),
        (Self::Asks, "asks"),
        (Self::PollsOfTenant, "polls_of_tenant"),
        (Self::Polls, "polls"),
        (Self::Write, "write"),
        (Self::Outboxes, "outboxes"),
        (Self::Pong, "pong"),
        (Self::Unacknowledged, "unacknowledged"),
    ];

    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(limit, _)| *limit == self)
            .map_or("", |(_, name)| name)
    }
}
