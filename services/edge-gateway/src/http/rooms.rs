//! One room read over HTTP: first paint, state, history.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Uri};
use roomcast_proto::cursor::Cursor;
use roomcast_proto::ids::Room;
use roomcast_proto::limits::HISTORY_EVENTS_DEFAULT;
use roomcast_proto::refusal::Refusal;

use super::answered::{close, finish, open, put_list, unavailable};
use super::asked::{
    RoomPath, admit, allow_one, bad, forbidden, number, parameter, path_room, subscribe, unchanged,
};
use super::series::{self, instant};
use super::{Desk, unix_millis};
use crate::allowance::{self, Operation};
use crate::delivery::Delivery;
use crate::shard::newest_that_fit;

pub(super) async fn snapshot(
    State(desk): State<Desk>,
    room: RoomPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    finish(async {
        let mut admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Read)?;
        let permit = subscribe(&desk, &admitted, path_room(room)?)?;
        let events = number(&uri, "events", HISTORY_EVENTS_DEFAULT, 0)?;
        let events = if permit.history() { events } else { 0 };
        let found = desk
            .hub
            .snapshot_async(&permit, events, unix_millis)
            .await
            .map_err(|_| unavailable())?;
        unchanged(&desk, &mut admitted)?;
        let mut body = open(&desk, &permit, found.cursor);
        put_list(&mut body, "state", &found.state, &permit);
        let bytes = |event: &Arc<Delivery>| event.for_class(&permit).map_or(0, |seen| seen.body().len());
        let (events, _) = newest_that_fit(&found.events, bytes, desk.answer_bytes_max);
        put_list(&mut body, "events", events, &permit);
        Ok(close(body))
    })
    .await
}

pub(super) async fn state(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let mut admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Read)?;
        let room = parameter(&uri, "room")?.ok_or_else(|| bad("expected ?room=<room>"))?;
        let at = instant(&uri, "at")?;
        let permit = subscribe(
            &desk,
            &admitted,
            Room::parse(&room).map_err(|_| Refusal::forbidden())?,
        )?;
        let mut found = desk
            .hub
            .state_async(&permit, unix_millis)
            .await
            .map_err(|_| unavailable())?;
        unchanged(&desk, &mut admitted)?;
        if let Some(at) = at {
            // Chosen by what this user sees: redaction may have taken the window.
            let then = |value: &Arc<Delivery>| {
                value
                    .for_class(&permit)
                    .is_some_and(|seen| series::contains(seen.body(), at))
            };
            found.state.retain(then);
        }
        let mut body = open(&desk, &permit, found.cursor);
        put_list(&mut body, "state", &found.state, &permit);
        Ok(close(body))
    })
    .await
}

pub(super) async fn history(
    State(desk): State<Desk>,
    room: RoomPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    finish(async {
        let mut admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::History)?;
        let permit = admitted
            .rights
            .history(&path_room(room)?)
            .map_err(|_| forbidden(&desk, &admitted, "history"))?;
        let limit = number(&uri, "limit", HISTORY_EVENTS_DEFAULT, 1)?;
        let before = match parameter(&uri, "before")? {
            None => None,
            Some(text) => Some(
                desk.hub
                    .cursors()
                    .read(admitted.rights.tenant(), &text)
                    .map_err(|_| bad("before is not a cursor"))?,
            ),
        };
        let page = desk
            .hub
            .history_async(&permit, before, limit, unix_millis, || {
                let (tenant, user) = (admitted.rights.tenant(), &admitted.user);
                desk.allowance.take(tenant, user, Operation::DeepHistory)
            })
            .await
            .map_err(|unread| unread.rate_millis.map_or_else(unavailable, allowance::too_many))?;
        unchanged(&desk, &mut admitted)?;
        let mut body = BytesMut::from(&b"{\"events\":["[..]);
        let seen: Vec<_> = page
            .events
            .iter()
            .filter_map(|event| Some((event.cursor()?, event.for_class(&permit)?)))
            .collect();
        let (kept, cut) = newest_that_fit(&seen, |(_, event)| event.body().len(), desk.answer_bytes_max);
        let text = |cursor: Cursor| desk.hub.cursors().write(permit.tenant(), &cursor);
        for (n, (cursor, event)) in kept.iter().enumerate() {
            let cursor = text(*cursor);
            let comma = if n > 0 { "," } else { "" };
            body.put_slice(format!("{comma}{{\"cursor\":\"{cursor}\",\"event\":").as_bytes());
            body.put_slice(event.body());
            body.put_u8(b'}');
        }
        let first = kept.first().map(|(cursor, _)| *cursor);
        let cursor = if cut { first } else { page.cursor };
        let complete = page.complete && !cut;
        let cursor = cursor.map_or_else(|| "null".to_owned(), |cursor| format!("\"{}\"", text(cursor)));
        body.put_slice(format!("],\"cursor\":{cursor},\"complete\":{complete}").as_bytes());
        Ok(close(body))
    })
    .await
}
