//! `GET /v1/poll`: what is new in rooms with one cursor; held until there is something, or answered at once.
//!
//! The answer holds the frames that a socket would have been sent. While a request is held there is one entry in the hub's watches and a
//! sleeping task; both go when the client does. It is answered at once when its token ends or is revoked, and when its rooms become
//! others.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::{BufMut, BytesMut};
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use roomcast_access::{Presence, Subscribe};
use roomcast_proto::close::Close;
use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::{Disconnect, PreferencesKept, ServerFrame, Status, server_frame};
use roomcast_proto::ids::Tenant;
use roomcast_proto::limits::POLL_WAIT_MAX;
use roomcast_proto::refusal::Refusal;
use tokio::time::Instant;

use super::answered::{json, unavailable};
use super::asked::{bad, parameter};
use super::following::{Following, permits};
use super::rung::Rung;
use super::{Desk, held, unix_millis};
use crate::allowance::Operation;
use crate::bells::Bell;
use crate::error::problem;
use crate::hub::{Outcome, Together};
use crate::presence_driver::PUSHED_MAX;
use crate::session::{self, Asked, From};

/// Bytes of events in one answer; the rest is asked for with the cursor of the answer.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// Bytes behind the frames of an answer: a cursor, and whether there is more.
const END_BYTES: usize = 256;
/// So long a request waits for the first counters that it wants, whatever else there is to say.
const COUNTERS_WITHIN: Duration = Duration::from_millis(500);
/// A cursor so far behind is replaced by a newer one even if nothing is new: it is a fifth of what may be looked through.
const RENEW_POSITIONS: u64 = 10_000;

pub(super) async fn poll(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    answered(&desk, &uri, &headers)
        .await
        .unwrap_or_else(|refusal| problem(&refusal))
}

async fn answered(desk: &Desk, uri: &Uri, headers: &HeaderMap) -> Result<Response, Refusal> {
    let hold = wait(uri, desk.poll_max)?;
    let known = entity_tag(headers);
    let mut following = Following::read(desk, uri, headers, Some(Operation::Read))?;
    let held = if hold.is_zero() {
        None
    } else {
        following.stay(desk)?;
        let tenant = following.admitted.rights.tenant();
        let held = desk.holds.take(tenant).map_err(|limit| {
            desk.metrics.limited(limit);
            held::refusal()
        })?;
        Some((held, following.take_resident()))
    };
    let rooms = permits(&following.rooms());
    let rooms = rooms.iter().map(|permit| permit.room());
    desk.roll_call
        .polled(&following.admitted, rooms, hold, unix_millis());
    let mut moves = desk.roll_call.moves();
    let mut rights = desk.gate.rights().clone();
    let known_counters = following.request.counters;
    let mut rung = known_counters.map(|known| Rung::new(desk, &following.admitted, known));
    if let Some(rung) = &mut rung {
        // What takes longer to be read comes with the next one, if rooms have news before.
        let _ = tokio::time::timeout(COUNTERS_WITHIN, rung.known()).await;
    }
    let mut until = Instant::now() + hold;
    loop {
        let rooms = following.rooms();
        let permits = permits(&rooms);
        let left = until.saturating_duration_since(Instant::now());
        // Who wants counters gets an answer with them, whatever it knows of rooms.
        let watched = following.watched(&permits);
        let is_told = is_rung(rung.as_ref()) || !watched.is_empty();
        let tag = known.as_deref().filter(|_| !is_told && rung.is_none());
        let news = tokio::select! {
            biased;
            () = desk.draining.cancelled() => return Ok(drained(following.request.cursor.as_deref())),
            others = following.changed(desk, &mut rights) => {
                following = others?;
                rung = known_counters.map(|known| Rung::new(desk, &following.admitted, known));
                // Told at once what it has now.
                until = Instant::now();
                continue;
            }
            () = rung_anew(&mut rung), if !left.is_zero() => {
                until = Instant::now();
                continue;
            }
            () = moves.of(&watched), if !left.is_zero() && !watched.is_empty() => {
                until = Instant::now();
                continue;
            }
            news = news(desk, &following, tag, &permits, left) => news?,
        };
        if following.decide_again(desk)? {
            // What was found was for who it was before.
            rung = known_counters.map(|known| Rung::new(desk, &following.admitted, known));
            until = Instant::now();
            continue;
        }
        drop(held);
        return Ok(match news {
            News::None(tag) => not_modified(&tag),
            News::Some(together) => answer(
                desk,
                following.admitted.rights.tenant(),
                &rooms,
                &permits,
                &together,
                &told(desk, &following, rung.as_ref().and_then(Rung::bell), &watched),
            ),
        });
    }
}

/// What was found.
enum News {
    /// Nothing, and the client asked to be told so by this tag.
    None(String),
    Some(Together),
}

async fn news(
    desk: &Desk,
    following: &Following,
    known: Option<&str>,
    permits: &[Arc<Subscribe>],
    hold: Duration,
) -> Result<News, Refusal> {
    let rooms = following.rooms();
    let open: Vec<From> = rooms
        .iter()
        .filter(|asked| asked.permit.is_ok())
        .map(|asked| asked.from)
        .collect();
    let ask = async |from: Vec<Option<Cursor>>, hold| {
        // One more than is answered at once: so it shows that there are more.
        let events_max = desk.page_events.saturating_add(1);
        let found = desk
            .hub
            .news_async(permits, &from, events_max, hold, unix_millis)
            .await;
        found.map_err(|_| unavailable())
    };
    let asked = following.request.cursor.as_deref();
    let is_first = open.iter().all(|from| *from == From::Fresh);
    if let (true, Some(tag)) = (is_first, known)
        && let From::At(from) = From::read(desk.hub.cursors(), following.admitted.rights.tenant(), Some(tag))
        && !ask(vec![Some(from); open.len()], hold).await?.is_news()
    {
        // Without a cursor this is the same question as the one whose answer had the tag.
        return Ok(News::None(tag.to_owned()));
    }
    let from = open.iter().map(|from| match from {
        From::At(cursor) => Some(*cursor),
        From::Fresh | From::Unreadable | From::Rewind { .. } => None,
    });
    let mut found = ask(from.clone().collect(), hold).await?;
    for (room, _) in open
        .iter()
        .enumerate()
        .filter(|(_, from)| **from == From::Unreadable)
    {
        found.say_unreadable(room);
    }
    let head = found.head.position.seq;
    let near = from
        .flatten()
        .all(|from| head.saturating_sub(from.position.seq) < RENEW_POSITIONS);
    Ok(match known {
        Some(tag) if known == asked && !found.is_news() && near => News::None(tag.to_owned()),
        _ => News::Some(found),
    })
}

/// `{"rooms":[…],"frames":[…],"cursor":"…","more":false}`.
fn answer(
    desk: &Desk,
    tenant: &Tenant,
    rooms: &[Asked],
    permits: &[Arc<Subscribe>],
    together: &Together,
    told: &[ServerFrame],
) -> Response {
    let write = |cursor: &Cursor| desk.hub.cursors().write(tenant, cursor).to_string();
    let page = together.page(desk.page_events, EVENT_BYTES_MAX);
    let more = page.behind.is_some();
    let state = if more { &[] } else { &*together.state };
    let mut body = BytesMut::from(&b"{\"rooms\":["[..]);
    let mut begun = together.rooms.iter();
    for (n, asked) in rooms.iter().enumerate() {
        let begun = asked.permit.as_ref().map(|_| {
            let begun = begun.next();
            let (outcome, start) = begun.map_or((Outcome::Fresh, together.head), |begun| {
                (begun.recovery, begun.start)
            });
            (outcome, write(&start))
        });
        let room = Outcome::of_room(&asked.name, begun);
        put_comma(&mut body, n);
        body.put_slice(serde_json::to_string(&room).unwrap_or_default().as_bytes());
    }
    body.put_slice(b"],\"frames\":[");
    let mut count = 0;
    let status = desk.hub.status();
    if status.stale {
        let status = Status {
            status: session::status_word(true).to_owned(),
            since: session::rfc3339(status.since_millis),
        };
        let frame = ServerFrame::push(server_frame::Body::Status(status));
        body.put_slice(frame.to_json().as_bytes());
        count += 1;
    }
    for frame in told {
        put_comma(&mut body, count);
        body.put_slice(frame.to_json().as_bytes());
        count += 1;
    }
    let seen = page.events.iter().chain(state);
    let seen = seen.filter_map(|(room, delivery)| Some(delivery.for_class(permits.get(*room)?)?.text()));
    let seen: Vec<_> = seen.collect();
    // No more than is counted while it waits to be written.
    body.reserve(seen.iter().map(|text| text.len() + 1).sum::<usize>() + END_BYTES);
    for text in &seen {
        put_comma(&mut body, count);
        body.put_slice(text);
        count += 1;
    }
    // Rooms that came from different places have no common one before all is said.
    let cursor = match page.events.last().filter(|_| more) {
        Some((_, last)) => last.cursor().filter(|_| together.is_shared()),
        None => Some(together.head),
    };
    finish(body, cursor.map(|cursor| write(&cursor)).as_deref(), more)
}

/// What stands before events: what the user has not read, how it wants to be told of it, and who is in the rooms that it watches.
fn told(desk: &Desk, following: &Following, bell: Option<Bell>, watched: &[Presence]) -> Vec<ServerFrame> {
    let preferences = bell.as_ref().and_then(|bell| {
        Some(PreferencesKept {
            version: bell.record,
            preferences: bytes::Bytes::copy_from_slice(bell.preferences.as_ref()?.as_bytes()),
        })
    });
    let counters = bell.map(|bell| server_frame::Body::Counters(bell.counters));
    let bodies = counters
        .into_iter()
        .chain(preferences.map(server_frame::Body::Preferences));
    let is_known = desk.hub.is_sure() && desk.roll_call.is_current();
    let watched = watched.iter().filter(|_| is_known).map(|permit| {
        let set = desk.roll_call.set(permit, &following.admitted.user, PUSHED_MAX);
        server_frame::Body::Presence(set)
    });
    bodies.chain(watched).map(ServerFrame::push).collect()
}

async fn rung_anew(rung: &mut Option<Rung>) {
    match rung {
        Some(rung) => rung.news().await,
        None => std::future::pending().await,
    }
}

fn is_rung(rung: Option<&Rung>) -> bool {
    rung.is_some_and(Rung::is_news)
}

/// Sends the client to another gateway, with the cursor it came with.
fn drained(cursor: Option<&str>) -> Response {
    let disconnect = Disconnect {
        code: u32::from(Close::Drain.code()),
        reason: Close::Drain.reason().to_owned(),
        reconnect: true,
        retry_after_ms: Some(fastrand::u64(100..2_000)),
    };
    let frame = ServerFrame::push(server_frame::Body::Disconnect(disconnect));
    let body = BytesMut::from(format!("{{\"rooms\":[],\"frames\":[{}", frame.to_json()).as_bytes());
    finish(body, cursor, false)
}

fn finish(mut body: BytesMut, cursor: Option<&str>, more: bool) -> Response {
    let text = cursor.map_or_else(
        || "null".to_owned(),
        |cursor| serde_json::Value::from(cursor).to_string(),
    );
    body.put_slice(format!("],\"cursor\":{text},\"more\":{more}}}").as_bytes());
    let mut response = json(body.freeze());
    if let Some(tag) = cursor.and_then(|cursor| HeaderValue::try_from(format!("\"{cursor}\"")).ok()) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn not_modified(tag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(tag) = HeaderValue::try_from(format!("\"{tag}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn put_comma(body: &mut BytesMut, n: usize) {
    if n > 0 {
        body.put_u8(b',');
    }
}

/// How long the request may be held; 0: not at all.
fn wait(uri: &Uri, longest: Duration) -> Result<Duration, Refusal> {
    // A client that may wait as long as the contract says is answered earlier, not refused, where the setting is shorter.
    let most = longest.max(POLL_WAIT_MAX).as_secs();
    let Some(text) = parameter(uri, "wait")? else {
        return Ok(longest);
    };
    let secs = text.parse().ok().filter(|secs| *secs <= most);
    secs.map(|secs| Duration::from_secs(secs).min(longest))
        .ok_or_else(|| bad(format!("wait is a number of seconds from 0 to {most}")))
}

/// The tag of the answer that the client has: one of ours, which is a cursor in quotes.
fn entity_tag(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(IF_NONE_MATCH).iter();
    let tag = values.next()?.to_str().ok()?.trim().trim_start_matches("W/");
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    values.next().is_none().then(|| tag.to_owned())
}
