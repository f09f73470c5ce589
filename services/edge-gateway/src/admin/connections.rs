//! Who is connected; and to end a connection, or to close a room for it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use roomcast_admin::extract::{Path, Query};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Note, Operation, Problem, Routes};
use roomcast_proto::close::Close;
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{AdminDesk, bad, nothing, page_schema, page_size};
use crate::encoding::Encoding;
use crate::session::rfc3339;
use crate::shard::{self, Filter, Seen};

const ALL: &str = "/admin/v1/connections";
const ONE: &str = "/admin/v1/connections/{connection}";
const ROOM: &str = "/admin/v1/connections/{connection}/rooms/{room}";

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Transport {
    /// WebSocket, frames in JSON.
    #[serde(rename = "websocket.json")]
    WebSocketJson,
    /// WebSocket, frames in Protobuf.
    #[serde(rename = "websocket.protobuf")]
    WebSocketProtobuf,
    /// Server-sent events.
    #[serde(rename = "sse")]
    Sse,
}

impl From<Encoding> for Transport {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::WebSocketJson,
            Encoding::Protobuf => Self::WebSocketProtobuf,
            Encoding::Sse => Self::Sse,
        }
    }
}

impl From<Transport> for Encoding {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::WebSocketJson => Self::Json,
            Transport::WebSocketProtobuf => Self::Protobuf,
            Transport::Sse => Self::Sse,
        }
    }
}

/// One connection, as it is at the moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Connection {
    /// Its name, as `connected` told it to the client.
    connection: String,
    /// How it speaks.
    transport: Transport,
    /// Where it comes from; of an IPv6 address, its network.
    address: String,
    /// When it was accepted.
    since: String,
    /// Who it is; absent while it has not shown a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    /// Frames that wait for its socket.
    waiting_frames: usize,
    /// Their bytes.
    waiting_bytes: usize,
    /// Since how many milliseconds its socket has taken nothing although bytes wait.
    stuck_millis: u64,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct User {
    /// The token's subject.
    user: String,
    /// The tenant.
    tenant: String,
    /// The roles of the token that the policy knows.
    roles: Vec<String>,
    /// When the token ends.
    expires_at: String,
    /// How many rooms are open.
    rooms: usize,
}

/// A connection with its rooms.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Whole {
    #[serde(flatten)]
    connection: Connection,
    /// The rooms that are open, by name.
    open: Vec<Open>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Open {
    /// The room.
    room: String,
    /// Whether the client asked for it; else the policy joined it.
    requested: bool,
    /// Whether what it missed is still being sent.
    recovering: bool,
}

/// A page of connections.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Page {
    /// The connections, by name.
    connections: Vec<Connection>,
    /// Give this as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What was ended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Ended {
    /// The connection as it was.
    connection: Connection,
    /// The close code it was ended with.
    code: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user: Option<String>,
    tenant: Option<String>,
    room: Option<String>,
    transport: Option<Transport>,
    slow: Option<bool>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    reason: Option<String>,
}

/// With what an administrator may end a connection; the first is the usual one.
const REASONS: [Close; 5] = [
    Close::Resync,
    Close::Expired,
    Close::Revoked,
    Close::Forbidden,
    Close::Limit,
];

pub(super) fn routes() -> Routes<AdminDesk> {
    let text = || json!({ "type": "string" });
    let name = || json!({ "type": "string", "pattern": "^c[0-9a-f]{16}$" });
    let list = guarded(Operation::new(
        "connections",
        "listConnections",
        "Lists connections, a page at a time.",
    ))
    .about("By name, which is random: a connection that is there all the while is listed exactly once, whoever comes and goes meanwhile.")
    .query("user", "Only those of this user.", text())
    .query("tenant", "Only those of this tenant.", text())
    .query("room", "Only those that are in this room, of the tenant given or of `main`.", text())
    .query("transport", "Only those that speak so.", json!({ "enum": ["websocket.json", "websocket.protobuf", "sse"] }))
    .query("slow", "Only those that do not read as fast as they are written to; `false`: only the others.", json!({ "type": "boolean" }))
    .query("after", "`next` of the page before.", name())
    .query("limit", "Entries of a page.", page_schema())
    .answers_json::<Page>(200, "A page.");
    let one = |id, summary| {
        guarded(Operation::new("connections", id, summary))
            .path("connection", "The connection's name.", name())
            .refuses([Code::NotFound.listed()])
    };
    let show =
        one("getConnection", "Shows a connection with its rooms.").answers_json::<Whole>(200, "As it is.");
    let reasons: Vec<&str> = REASONS.iter().map(|close| close.reason()).collect();
    let end = one("disconnect", "Ends a connection.")
        .about("The client is told code and reason first. Codes below 4500 let it come back by itself with its cursors.")
        .query(
            "reason",
            "Which close code.",
            json!({ "enum": reasons, "default": REASONS[0].reason() }),
        )
        .answers_json::<Ended>(200, "It was ended.");
    let put_out = one("unsubscribe", "Closes one room for a connection.")
        .about("The client gets `unsubscribed`. Its rights stay: it may open the room again, and one that the policy joins is open again with the next connection.")
        .path("room", "The room.", text())
        .answers_json::<Connection>(200, "The connection as it was.");
    Routes::new()
        .get(ALL, list, listed)
        .get(ONE, show, shown)
        .delete(ONE, end, ended)
        .delete(ROOM, put_out, unsubscribed)
}

async fn listed(State(desk): State<AdminDesk>, Query(asked): Query<Asked>) -> Result<Json<Page>, Problem> {
    let limit = page_size(asked.limit)?;
    let after = asked.after.as_deref().map(number).transpose();
    let after = after.map_err(|_| bad("after is not a `next` of ours"))?;
    let tenant = asked.tenant.as_deref().map(Tenant::parse).transpose();
    let room = asked.room.as_deref().map(Room::parse).transpose();
    let filter = Filter {
        user: asked.user,
        tenant: tenant.map_err(|_| bad("tenant is no tenant's name"))?,
        room: room.map_err(|_| bad("room is no room's name"))?,
        encoding: asked.transport.map(Into::into),
        slow: asked.slow,
    };
    // One more than the page: whether there is a next one.
    let found = desk
        .ask(|shard| shard.connections(filter.clone(), after, limit + 1))
        .await?;
    let mut all: Vec<Seen> = found.into_iter().flatten().collect();
    all.sort_unstable_by_key(|seen| seen.number);
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(Seen::name);
    Ok(Json(Page {
        connections: all.into_iter().map(described).collect(),
        next,
    }))
}

async fn shown(State(desk): State<AdminDesk>, Path(name): Path<String>) -> Result<Json<Whole>, Problem> {
    let number = number(&name)?;
    let found = desk.ask(|shard| shard.connection(number)).await?;
    let whole = found.into_iter().flatten().next().ok_or_else(not_here)?;
    let open = |(room, requested, recovering): (Room, bool, bool)| Open {
        room: room.as_str().to_owned(),
        requested,
        recovering,
    };
    Ok(Json(Whole {
        connection: described(whole.seen),
        open: whole.rooms.into_iter().map(open).collect(),
    }))
}

async fn ended(
    State(desk): State<AdminDesk>,
    Path(name): Path<String>,
    Query(how): Query<How>,
) -> Result<Response, Problem> {
    let number = number(&name)?;
    let close = match how.reason.as_deref() {
        None => REASONS[0],
        Some(reason) => *REASONS
            .iter()
            .find(|close| close.reason() == reason)
            .ok_or_else(|| bad("reason is not one that may be given here"))?,
    };
    let found = desk.ask(|shard| shard.disconnect(number, close)).await?;
    let seen = found.into_iter().flatten().next().ok_or_else(not_here)?;
    let note = note(&seen, "reason", close.reason());
    let ended = Ended {
        connection: described(seen),
        code: close.code(),
    };
    Ok(noted(Json(ended), note))
}

async fn unsubscribed(
    State(desk): State<AdminDesk>,
    Path((name, room)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let number = number(&name)?;
    let room = Room::parse(&room).map_err(|_| not_open())?;
    let found = desk.ask(|shard| shard.unsubscribe(number, room.clone())).await?;
    let seen = found.into_iter().flatten().next().ok_or_else(not_open)?;
    let note = note(&seen, "room", room.as_str());
    Ok(noted(Json(described(seen)), note))
}

fn noted(answer: impl IntoResponse, note: Note) -> Response {
    let mut response = answer.into_response();
    response.extensions_mut().insert(note);
    response
}

fn note(seen: &Seen, what: &str, value: &str) -> Note {
    let user = seen.user.as_ref();
    Note(json!({
        "connection": seen.name(),
        "user": user.map(|known| &*known.user),
        "tenant": user.map(|known| known.tenant.as_str()),
        what: value,
    }))
}

fn not_here() -> Problem {
    nothing("there is no such connection at this gateway")
}

fn not_open() -> Problem {
    nothing("there is no such connection at this gateway, or it is not in the room")
}

/// A connection's number from its name.
pub(super) fn number(name: &str) -> Result<u64, Problem> {
    shard::number(name).ok_or_else(not_here)
}

fn described(seen: Seen) -> Connection {
    let (waiting_frames, waiting_bytes) = seen.waiting;
    Connection {
        connection: seen.name(),
        transport: seen.encoding.into(),
        address: seen.address.to_string(),
        since: rfc3339(seen.since_millis),
        user: seen.user.map(|known| User {
            user: known.user.as_ref().to_owned(),
            tenant: known.tenant.as_str().to_owned(),
            roles: known.roles.to_vec(),
            expires_at: rfc3339(known.expires_at.saturating_mul(1_000)),
            rooms: known.rooms,
        }),
        waiting_frames,
        waiting_bytes,
        stuck_millis: seen.stuck_millis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_and_nothing_else_is() {
        for (name, expected) in [
            ("c000000000000000f", Some(15)),
            ("cffffffffffffffff", Some(u64::MAX)),
            ("c000000000000000F", None),
            ("000000000000000f", None),
            ("c+00000000000000f", None),
            ("c0f", None),
            ("", None),
        ] {
            assert_eq!(number(name).ok(), expected, "{name}");
        }
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = REASONS.iter().map(|close| close.reason()).collect();
        assert_eq!(names.len(), REASONS.len());
        let value = serde_json::to_value(Transport::from(Encoding::Protobuf)).unwrap();
        assert_eq!(value, "websocket.protobuf");
    }
}
