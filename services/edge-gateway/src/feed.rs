//! A user's notifications: those that hold in the rooms that open by themselves and in its own, with its marks and counters.
//!
//! What holds is read where all state is, from memory; marks are ingest's. So every device at every gateway is told the same. What is
//! counted and shown is decided by pure functions; [`run`] asks for what they need.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_access::Subscribe;
use roomcast_proto::cursor::{Cursor, Position};
use roomcast_proto::event::{Priority, View};
use roomcast_proto::frame::{
    Counters, FeedPage, FeedQuery, Mark as MarkFrame, MarkedNotification, NotificationGroup, PlacedEvent,
};
use roomcast_proto::ids::Room;
use roomcast_proto::notification::{KEY_PREFIX, is_notification};
use roomcast_proto::readstate::{Level, MARKS_AT_ONCE_MAX, Mark, Marked, Marking, Read, ReadState, Verb};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::Service;
use serde::Deserialize;

use crate::asking::{Asking, Who, unavailable};
use crate::delivery::Kind;
use crate::hub::Hub;

/// Notifications that a user sees: the newest.
pub const NOTIFICATIONS_MAX: usize = 200;
/// Notifications of a page when the client does not say.
const PAGE_DEFAULT: u32 = 50;

/// What a user wants of its notifications.
#[derive(Debug)]
pub struct Request {
    /// The rooms that count.
    pub permits: Vec<Arc<Subscribe>>,
    /// What it wants.
    pub want: Want,
}

/// A page, or marks.
#[derive(Debug, PartialEq)]
pub enum Want {
    /// A page.
    Page {
        /// Older than this.
        before: Option<Cursor>,
        /// At most so many.
        limit: usize,
        /// Which.
        filter: Filter,
    },
    /// To mark.
    Mark {
        /// As what.
        level: Level,
        /// Which.
        which: Which,
    },
}

/// Which notifications are marked.
#[derive(Debug, PartialEq)]
pub enum Which {
    /// These; what is not the user's is passed over, like what is not there.
    Ids(Vec<String>),
    /// All that are not newer than this.
    UpTo(Cursor),
}

/// Which notifications a page shows; what is left out does not matter.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// In this room.
    room: Option<String>,
    /// Of one of these priorities.
    priority: Option<Vec<String>>,
    /// Whose data names this group.
    group: Option<String>,
    /// Only those that are not read.
    #[serde(default)]
    unread: bool,
    /// Archived ones, too.
    #[serde(default)]
    archived: bool,
}

impl Want {
    /// Reads a `feed`. `cursor` reads a cursor.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn page(query: &FeedQuery, cursor: impl Fn(&str) -> Option<Cursor>) -> Result<Self, Refusal> {
        let before = match query.before.as_deref() {
            None => None,
            Some(text) => Some(cursor(text).ok_or_else(|| bad("/feed/before", "is not a cursor"))?),
        };
        let limit = if query.limit == 0 {
            PAGE_DEFAULT
        } else {
            query.limit
        };
        let filter: Option<Filter> = match query.filter.is_empty() {
            true => None,
            false => serde_json::from_slice(&query.filter)
                .map_err(|error| bad("/feed/filter", &format!("cannot be read: {error}")))?,
        };
        Ok(Self::Page {
            before,
            limit: usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(NOTIFICATIONS_MAX),
            filter: filter.unwrap_or_default(),
        })
    }

    /// Reads a `mark`.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn mark(mark: MarkFrame, cursor: impl Fn(&str) -> Option<Cursor>) -> Result<Self, Refusal> {
        let level = match mark.r#as.as_str() {
            "seen" => Level::Seen,
            "read" => Level::Read,
            "archived" => Level::Archived,
            _ => return Err(bad("/mark/as", "is seen, read or archived")),
        };
        let which = match mark.up_to.as_deref() {
            Some(_) if !mark.ids.is_empty() => return Err(bad("/mark", "names ids or upTo, not both")),
            Some(text) => Which::UpTo(cursor(text).ok_or_else(|| bad("/mark/upTo", "is not a cursor"))?),
            None if mark.ids.len() > MARKS_AT_ONCE_MAX => {
                return Err(bad("/mark/ids", &format!("are more than {MARKS_AT_ONCE_MAX}")));
            }
            None => Which::Ids(mark.ids),
        };
        Ok(Self::Mark { level, which })
    }

    /// The place that it names, if it names one.
    fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Page { before, .. } => *before,
            Self::Mark {
                which: Which::UpTo(cursor),
                ..
            } => Some(*cursor),
            Self::Mark { .. } => None,
        }
    }
}

fn bad(pointer: &str, rule: &str) -> Refusal {
    let name = pointer.rsplit('/').next().unwrap_or_default();
    Refusal::new(Code::BadRequest, format!("{name} {rule}")).at(pointer)
}

impl Filter {
    fn lets_through(&self, note: &Note, state: &ReadState) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let priority = |names: &Vec<String>| names.iter().any(|name| name == note.priority.as_str());
        is(&self.kind, &note.kind)
            && is(&self.room, note.room.as_str())
            && (self.group.is_none() || self.group == note.group)
            && self.priority.as_ref().is_none_or(priority)
            && (!self.unread || is_unread(note, state))
            && (self.archived || state.level(&note.id) != Some(Level::Archived))
    }
}

/// One notification that holds.
#[derive(Debug, Clone)]
struct Note {
    id: String,
    /// When it was stored, Unix milliseconds.
    at: i64,
    kind: String,
    priority: Priority,
    room: Room,
    /// What its data calls its group.
    group: Option<String>,
    /// Its position in the stream of state: newer is higher, whatever its publisher's clock says.
    rev: u64,
    event: Bytes,
}

/// Everything that holds for one user, newest first, and where the reading was.
#[derive(Debug)]
struct Notes {
    notes: Vec<Note>,
    head: Cursor,
}

/// Answers a page, or marks and answers the counters.
///
/// # Errors
/// `bad_request`, `unavailable`, `unknown` (of marks: ask again).
///
/// # Cancel safety
/// Dropped, marks may be kept or not.
pub async fn run(asking: &Asking, hub: &Hub, who: &Who, request: Request) -> Result<FeedPage, Refusal> {
    let notes = collect(hub, &request.permits).await?;
    if request
        .want
        .cursor()
        .is_some_and(|cursor| cursor.epoch != notes.head.epoch)
    {
        return Err(Refusal::new(
            Code::BadRequest,
            "the cursor is of another life of the streams",
        ));
    }
    let user = who.user.as_ref().to_owned();
    if let Want::Mark { level, which } = &request.want {
        let notifications = marked(&notes.notes, which);
        if !notifications.is_empty() {
            let mark = Mark {
                user: user.clone(),
                level: *level,
                notifications,
            };
            let verb = Verb::Mark.as_str();
            asking
                .service::<_, Marked>(&who.tenant, Service::ReadState, verb, &mark)
                .await?;
        }
    }
    let verb = Verb::Read.as_str();
    let state = asking
        .service::<_, ReadState>(&who.tenant, Service::ReadState, verb, &Read { user })
        .await?;
    let shown = match &request.want {
        Want::Page {
            before,
            limit,
            filter,
        } => page(
            &notes.notes,
            &state,
            before.map(|cursor| cursor.position.rev),
            *limit,
            asking.page_bytes_max(),
            filter,
        ),
        Want::Mark { .. } => Vec::new(),
    };
    let groups = match &request.want {
        Want::Page { filter, .. } => groups(&notes.notes, &state, filter),
        Want::Mark { .. } => Vec::new(),
    };
    let place = |note: &Note| {
        let position = Position {
            seq: notes.head.position.seq,
            rev: note.rev,
        };
        hub.cursors()
            .write(
                &who.tenant,
                &Cursor {
                    position,
                    ..notes.head
                },
            )
            .to_string()
    };
    Ok(FeedPage {
        marks: shown.iter().filter_map(|note| mark_of(note, &state)).collect(),
        notifications: shown
            .iter()
            .map(|note| PlacedEvent {
                cursor: place(note),
                event: note.event.clone(),
            })
            .collect(),
        counters: Some(counters(&notes.notes, &state, notes.head.position.rev)),
        version: state.version,
        groups,
    })
}

async fn collect(hub: &Hub, permits: &[Arc<Subscribe>]) -> Result<Notes, Refusal> {
    let mut notes = Vec::new();
    let mut head: Option<Cursor> = None;
    for permit in permits {
        let snapshot = hub.state_async(permit, crate::http::unix_millis).await;
        let snapshot = snapshot.map_err(|_| unavailable("notifications cannot be read at the moment"))?;
        let place = head.get_or_insert(snapshot.cursor);
        place.position.rev = place.position.rev.max(snapshot.cursor.position.rev);
        for value in &snapshot.state {
            let named = matches!(&value.kind, Kind::State { key, withdrawn: false } if may_be_one(key));
            let seen = named.then(|| value.for_class(permit)).flatten();
            let stored = (value.position.rev, value.stored_millis);
            notes.extend(seen.and_then(|seen| read(seen.body_bytes(), permit.room().clone(), stored)));
        }
    }
    let head = head.ok_or_else(|| unavailable("no room is open"))?;
    Ok(Notes {
        notes: newest(notes),
        head,
    })
}

/// Whether a key, as one token, is a notification's or too long to say. Rooms hold thousands of other values.
#[must_use]
pub fn may_be_one(key: &str) -> bool {
    let prefix = roomcast_proto::ids::escape(KEY_PREFIX);
    key.starts_with(&prefix) || key.starts_with("==")
}

/// Reads a notification. `stored`: at which position, and when, Unix milliseconds: not by its own time, which may be any. What is marked is
/// kept by it, the newest, and what is seen is the newest by position.
fn read(event: Bytes, room: Room, (rev, stored_millis): (u64, i64)) -> Option<Note> {
    let view = View::parse(&event)
        .ok()
        .filter(|view| is_notification(&view.kind))?;
    let note = Note {
        id: view.id.as_ref().to_owned(),
        at: stored_millis,
        kind: view.kind.as_ref().to_owned(),
        priority: view
            .priority
            .as_deref()
            .and_then(Priority::from_name)
            .unwrap_or_default(),
        room,
        group: group_of(&event),
        rev,
        event: event.clone(),
    };
    Some(note)
}

/// The group that the data of a notification names. Checked when it was taken in: a text, given once.
fn group_of(event: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        group: Option<String>,
    }
    serde_json::from_slice::<Event>(event).ok()?.data.group
}

/// The newest, newest first.
fn newest(mut notes: Vec<Note>) -> Vec<Note> {
    notes.sort_by_key(|note| std::cmp::Reverse(note.rev));
    notes.truncate(NOTIFICATIONS_MAX);
    notes
}

fn is_unread(note: &Note, state: &ReadState) -> bool {
    state.level(&note.id).is_none_or(|level| level < Level::Read)
}

fn marked(notes: &[Note], which: &Which) -> Vec<Marking> {
    let meant = notes.iter().filter(|note| match which {
        Which::Ids(ids) => ids.contains(&note.id),
        Which::UpTo(cursor) => note.rev <= cursor.position.rev,
    });
    let marking = |note: &Note| Marking {
        id: note.id.clone(),
        at: note.at,
    };
    meant.map(marking).collect()
}

fn page<'a>(
    notes: &'a [Note],
    state: &ReadState,
    before: Option<u64>,
    limit: usize,
    bytes_max: usize,
    filter: &Filter,
) -> Vec<&'a Note> {
    let mut bytes = 0;
    let shown = notes
        .iter()
        .filter(|note| before.is_none_or(|before| note.rev < before) && filter.lets_through(note, state));
    let fits = |note: &&'a Note| {
        let first = bytes == 0;
        bytes += note.event.len();
        first || bytes <= bytes_max
    };
    shown.take(limit).take_while(fits).collect()
}

/// All that the filter lets through by group, in the order of the newest of each.
fn groups(notes: &[Note], state: &ReadState, filter: &Filter) -> Vec<NotificationGroup> {
    let mut groups: Vec<NotificationGroup> = Vec::new();
    for note in notes.iter().filter(|note| filter.lets_through(note, state)) {
        let Some(name) = &note.group else { continue };
        let known = groups.iter().position(|group| group.group == *name);
        let at = known.unwrap_or(groups.len());
        if known.is_none() {
            groups.push(NotificationGroup {
                group: name.clone(),
                ..NotificationGroup::default()
            });
        }
        if let Some(group) = groups.get_mut(at) {
            group.total += 1;
            group.unread += u32::from(is_unread(note, state));
        }
    }
    groups
}

fn mark_of(note: &Note, state: &ReadState) -> Option<MarkedNotification> {
    let level = match state.level(&note.id)? {
        Level::Seen => "seen",
        Level::Read => "read",
        Level::Archived => "archived",
    };
    Some(MarkedNotification {
        id: note.id.clone(),
        r#as: level.to_owned(),
    })
}

/// A function of what holds and what is marked. `rev`: up to where what holds is known; with the version of the marks it makes the
/// version, so that it grows with each change of either.
fn counters(notes: &[Note], state: &ReadState, rev: u64) -> Counters {
    let mut counters = Counters {
        version: rev.saturating_add(state.version),
        ..Counters::default()
    };
    for note in notes.iter().filter(|note| is_unread(note, state)) {
        counters.unread += 1;
        *match note.priority {
            Priority::Critical => &mut counters.critical,
            Priority::High => &mut counters.high,
            Priority::Medium => &mut counters.medium,
            Priority::Low => &mut counters.low,
        } += 1;
    }
    counters
}

#[cfg(test)]
mod tests;
