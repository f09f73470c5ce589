//! Rooms: who is in them, and what of them is in memory.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use roomcast_admin::extract::Query;
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Problem, Routes};
use roomcast_proto::ids::{Room as RoomName, Tenant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{AdminDesk, bad, page_schema, page_size};

/// Tenant and room.
type Name = (String, String);

/// One room at this gateway.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Room {
    /// The tenant.
    tenant: String,
    /// The room.
    room: String,
    /// Members at this gateway: connections, not users.
    members: usize,
    /// Events that came since the room is in memory; starts anew when all of them have been pushed out.
    events: u64,
    /// Recent events held.
    ring_events: usize,
    /// Their bytes.
    ring_bytes: usize,
    /// Keys of its state held; absent when the state is not in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_keys: Option<usize>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_bytes: Option<usize>,
}

/// In which order rooms are listed.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// By tenant and name, page after page.
    #[default]
    Name,
    /// Those with the most members, one page of them.
    Members,
}

/// A page of rooms.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Page {
    /// The rooms, in the order asked for.
    rooms: Vec<Room>,
    /// Give this as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    tenant: Option<String>,
    #[serde(default)]
    order: Order,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) fn routes() -> Routes<AdminDesk> {
    let text = || json!({ "type": "string" });
    let list = guarded(Operation::new(
        "rooms",
        "listRooms",
        "Lists the rooms that have members at this gateway, a page at a time.",
    ))
    .query("tenant", "Only those of this tenant.", text())
    .query(
        "order",
        "By `name`, page after page; or by `members`: those that have the most, one page and no other.",
        json!({ "enum": ["name", "members"], "default": "name" }),
    )
    .query("after", "`next` of the page before: `<tenant>.<room>`.", text())
    .query("limit", "Entries of a page.", page_schema())
    .answers_json::<Page>(200, "A page.");
    Routes::new().get("/admin/v1/rooms", list, listed)
}

async fn listed(State(desk): State<AdminDesk>, Query(asked): Query<Asked>) -> Result<Json<Page>, Problem> {
    let limit = page_size(asked.limit)?;
    let tenant = asked.tenant.as_deref().map(Tenant::parse).transpose();
    let tenant = tenant.map_err(|_| bad("tenant is no tenant's name"))?;
    let after = asked.after.as_deref().map(place).transpose()?;
    let (page, more) = match asked.order {
        Order::Name => first(&desk, tenant, after, limit).await?,
        Order::Members if after.is_none() => (largest(&desk, tenant, limit).await?, false),
        Order::Members => return Err(bad("after goes with the order by name only")),
    };
    let room = |((tenant, room), members): (Name, usize)| {
        let sizes = desk.hub.room_sizes(&format!("{tenant}.{room}"));
        Room {
            tenant,
            room,
            members,
            events: sizes.events,
            ring_events: sizes.ring_events,
            ring_bytes: sizes.ring_bytes,
            state_keys: sizes.state.map(|(keys, _)| keys),
            state_bytes: sizes.state.map(|(_, bytes)| bytes),
        }
    };
    let page: Vec<Room> = page.into_iter().map(room).collect();
    let next = page.last().filter(|_| more);
    let next = next.map(|last| format!("{}.{}", last.tenant, last.room));
    Ok(Json(Page { rooms: page, next }))
}

/// The first rooms after a place, by name, and whether there are more.
async fn first(
    desk: &AdminDesk,
    tenant: Option<Tenant>,
    after: Option<Name>,
    limit: usize,
) -> Result<(Vec<(Name, usize)>, bool), Problem> {
    // One more than the page: whether there is a next one. Each shard's first rooms are enough for the first of all.
    let found = desk
        .ask(|shard| shard.rooms(tenant.clone(), after.clone(), limit + 1))
        .await?;
    let members = added_up(found);
    let more = members.len() > limit;
    Ok((members.into_iter().take(limit).collect(), more))
}

/// The rooms with the most members; of two alike the first by name. A room's members are spread over shards, so all rooms of all
/// shards are looked at.
async fn largest(
    desk: &AdminDesk,
    tenant: Option<Tenant>,
    limit: usize,
) -> Result<Vec<(Name, usize)>, Problem> {
    let found = desk.ask(|shard| shard.all_rooms(tenant.clone())).await?;
    let mut all: Vec<(Name, usize)> = added_up(found).into_iter().collect();
    // Stable: they come by name.
    all.sort_by_key(|(_, members)| std::cmp::Reverse(*members));
    all.truncate(limit);
    Ok(all)
}

fn added_up(found: Vec<Vec<(Tenant, RoomName, usize)>>) -> BTreeMap<Name, usize> {
    let mut members = BTreeMap::new();
    for (tenant, room, count) in found.into_iter().flatten() {
        let name = (tenant.as_str().to_owned(), room.as_str().to_owned());
        *members.entry(name).or_default() += count;
    }
    members
}

/// Tenant and room of an `after`.
fn place(text: &str) -> Result<Name, Problem> {
    let parts = text
        .split_once('.')
        .filter(|(tenant, room)| Tenant::parse(tenant).is_ok() && RoomName::parse(room).is_ok());
    parts
        .map(|(tenant, room)| (tenant.to_owned(), room.to_owned()))
        .ok_or_else(|| bad("after is not a `next` of ours"))
}
