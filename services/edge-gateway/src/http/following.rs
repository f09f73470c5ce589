//! A request that follows rooms with one cursor: what `/v1/sse` and `/v1/poll` have in common.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Uri};
use roomcast_access::{Presence, Subscribe};
use roomcast_proto::cursor::Cursors;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_rights::Current;

use super::asked::{admit, again, allow_one, bad, parameter, parameters};
use super::{Desk, unix_secs};
use crate::admission::Resident;
use crate::allowance::Operation;
use crate::gate::Admitted;
use crate::limit::Limit;
use crate::session::{Asked, StreamRequest, stream_rooms};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Who follows what, and from where.
#[derive(Clone, Debug)]
pub struct Following {
    /// The user.
    pub admitted: Admitted,
    /// Rooms and cursor.
    pub request: StreamRequest,
    cursors: Cursors,
    /// The place of its user among those with a connection, once it stays.
    resident: Option<Arc<Resident>>,
}

impl Following {
    /// Reads the request and decides about its rooms. Where none of those that it names is open to it, it is refused: there
    /// would be nothing to follow. `operation`: counted as one of its user; none where it was before.
    pub(super) fn read(
        desk: &Desk,
        uri: &Uri,
        headers: &HeaderMap,
        operation: Option<Operation>,
    ) -> Result<Self, Refusal> {
        let admitted = admit(desk, headers)?;
        let request = asked_for(desk, uri, headers)?;
        Self::of(desk, admitted, request, operation)
    }

    /// The same for a request with a ticket instead of a token; everything that can be wrong with it is found before the ticket is
    /// taken.
    pub(super) async fn read_with(
        desk: &Desk,
        ticket: &str,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        if headers.contains_key(AUTHORIZATION) {
            return Err(bad("a token and a ticket"));
        }
        let mut request = asked_for(desk, uri, headers)?;
        let opened = desk.tickets.take(desk, ticket, headers).await?;
        let admitted = opened.admitted.clone();
        request.rooms = opened.rooms(request.rooms)?;
        Self::of(desk, admitted, request, Some(Operation::Subscribe))
    }

    fn of(
        desk: &Desk,
        admitted: Admitted,
        request: StreamRequest,
        operation: Option<Operation>,
    ) -> Result<Self, Refusal> {
        if let Some(operation) = operation {
            allow_one(desk, &admitted, operation)?;
        }
        let following = Self {
            admitted,
            request,
            cursors: desk.hub.cursors(),
            resident: None,
        };
        let rooms = following.rooms();
        for _ in rooms.iter().filter(|asked| asked.permit.is_err()) {
            desk.gate.forbade("subscribe", &following.admitted);
        }
        following.has_any(&rooms)?;
        desk.hub.accepting().map_err(|wait| {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Refusal::new(Code::Unavailable, "this gateway takes no requests at the moment")
                .retry_after_ms(millis)
        })?;
        Ok(following)
    }

    /// Where none of the rooms that it names is open to it, there is nothing to follow.
    fn has_any(&self, rooms: &[Asked]) -> Result<(), Refusal> {
        let refused = |(name, _): &(String, Option<String>)| {
            let asked = rooms.iter().find(|asked| asked.name == *name);
            asked.is_none_or(|asked| asked.permit.is_err())
        };
        let named = &self.request.rooms;
        match !named.is_empty() && named.iter().all(refused) {
            true => Err(Refusal::forbidden()),
            false => Ok(()),
        }
    }

    /// Waits until its rooms are others than now; answers them. `rights`: what is in force, as of any moment before.
    ///
    /// # Errors
    /// `expired`, `unauthenticated`: its token has ended or was revoked. `forbidden`: none of its rooms is left.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn changed(&self, desk: &Desk, rights: &mut Current) -> Result<Self, Refusal> {
        let mut now = self.clone();
        loop {
            let left = now.admitted.ends_at.saturating_sub(unix_secs());
            let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = rights.changed() => if changed.is_none() {
                    // The process ends, and with it what is held.
                    std::future::pending::<()>().await;
                }
            }
            if now.decide_again(desk)? {
                return Ok(now);
            }
        }
    }

    /// Decides again under what is in force now. Whether its rooms are others.
    ///
    /// # Errors
    /// As [`Following::changed`].
    pub(super) fn decide_again(&mut self, desk: &Desk) -> Result<bool, Refusal> {
        let before = permits(&self.rooms());
        if !again(desk, &mut self.admitted)? {
            return Ok(false);
        }
        let rooms = self.rooms();
        self.has_any(&rooms)?;
        Ok(permits(&rooms) != before)
    }

    /// Takes a place among the connections of its tenant and its user, for a request that stays open.
    pub(super) fn stay(&mut self, desk: &Desk) -> Result<(), Refusal> {
        let (tenant, user) = (self.admitted.rights.tenant(), &self.admitted.user);
        let resident = desk.ledger.reside(tenant, user).map_err(|limit| {
            let label = &[limit.as_str()];
            desk.metrics.turned_away.with_label_values(label).inc();
            limit.refusal()
        })?;
        self.resident = Some(resident.into());
        Ok(())
    }

    /// The place that was taken, for the connection to hold.
    pub fn take_resident(&mut self) -> Option<Arc<Resident>> {
        self.resident.take()
    }

    /// Of the rooms that are open, those whose presence it wants and may see.
    pub(super) fn watched(&self, open: &[Arc<Subscribe>]) -> Vec<Presence> {
        let rights = &self.admitted.rights;
        let wanted = open.iter().filter(|permit| {
            let name = permit.room().as_str();
            self.request.presence.iter().any(|wanted| wanted == name)
        });
        wanted
            .filter_map(|permit| rights.presence(permit.room()).ok())
            .collect()
    }

    /// Its rooms with the decision about each: those named, those that the policy joins, the user's own.
    pub(super) fn rooms(&self) -> Vec<Asked> {
        stream_rooms(&self.request, &self.admitted.rights, self.cursors)
    }
}

/// The permits of the rooms that are open.
pub(super) fn permits(rooms: &[Asked]) -> Vec<Arc<Subscribe>> {
    rooms
        .iter()
        .filter_map(|asked| asked.permit.clone().ok())
        .collect()
}

fn asked_for(desk: &Desk, uri: &Uri, headers: &HeaderMap) -> Result<StreamRequest, Refusal> {
    request(uri, headers, desk.rooms_max).inspect_err(|refusal| {
        if refusal.code == Code::Limit {
            desk.metrics.limited(Limit::Rooms);
        }
    })
}

/// Rooms and cursors: one for all, or as many as rooms, each for its own.
///
/// A browser that comes back by itself says where it is in `Last-Event-ID`, with the address it began with.
fn request(uri: &Uri, headers: &HeaderMap, rooms_max: usize) -> Result<StreamRequest, Refusal> {
    let rooms = parameters(uri, "room")?;
    if rooms.len() > rooms_max {
        return Err(Refusal::new(Code::Limit, format!("at most {rooms_max} rooms")));
    }
    let mut cursors = parameters(uri, "cursor")?;
    if let Some(last) = last_event_id(headers)? {
        cursors = vec![last];
    }
    if cursors.len() > 1 && cursors.len() != rooms.len() {
        return Err(bad(
            "expected one cursor, or one for each room in the order of the rooms",
        ));
    }
    let counters = match parameter(uri, "counters")? {
        None => None,
        Some(text) => {
            let version = text.parse::<u64>();
            Some(version.map_err(|_| bad("counters is the version that you have, 0 where you have none"))?)
        }
    };
    let presence = parameters(uri, "presence")?;
    if presence.len() > rooms_max {
        return Err(Refusal::new(
            Code::Limit,
            format!("presence of at most {rooms_max} rooms"),
        ));
    }
    // An empty one is none: the room is new to the client.
    let given = |cursor: String| Some(cursor).filter(|cursor| !cursor.is_empty());
    let (rooms, cursor) = match cursors.len() {
        0 | 1 => (
            rooms.into_iter().map(|room| (room, None)).collect(),
            cursors.pop().and_then(given),
        ),
        _ => (
            rooms.into_iter().zip(cursors.into_iter().map(given)).collect(),
            None,
        ),
    };
    Ok(StreamRequest {
        rooms,
        cursor,
        counters,
        presence,
    })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad("Last-Event-ID is given twice"));
    }
    // What is no text is no cursor, and answered as such.
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rooms with their cursors, and the cursor for all.
    type Read<'a> = (&'a [(&'a str, Option<&'a str>)], Option<&'a str>);

    #[track_caller]
    fn check(query: &str, last: &[&str], expected: Result<Read<'_>, Code>) {
        let uri: Uri = format!("/v1/sse?{query}").parse().unwrap();
        let mut headers = HeaderMap::new();
        for value in last {
            headers.append(LAST_EVENT_ID, value.parse().unwrap());
        }
        let found = request(&uri, &headers, 3).map_err(|refusal| refusal.code);
        let owned = |text: &str| text.to_owned();
        let expected = expected.map(|(rooms, cursor)| StreamRequest {
            rooms: rooms
                .iter()
                .map(|(room, cursor)| (owned(room), cursor.map(owned)))
                .collect(),
            cursor: cursor.map(owned),
            counters: None,
            presence: Vec::new(),
        });
        assert_eq!(found, expected, "{query} {last:?}");
    }

    #[test]
    fn presence_is_wanted_of_so_many_rooms_as_may_be_followed() {
        let read = |query: &str| {
            let uri: Uri = format!("/v1/sse?{query}").parse().unwrap();
            let read = request(&uri, &HeaderMap::new(), 3);
            read.map(|request| request.presence)
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(
            read("room=a&presence=a&presence=b"),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            read("presence=a&presence=b&presence=c&presence=d"),
            Err(Code::Limit)
        );
    }

    #[test]
    fn one_cursor_counts_for_all_rooms_and_as_many_as_rooms_for_each() {
        check("", &[], Ok((&[], None)));
        check("room=a&room=b", &[], Ok((&[("a", None), ("b", None)], None)));
        check(
            "room=a&cursor=c&room=b",
            &[],
            Ok((&[("a", None), ("b", None)], Some("c"))),
        );
        check("cursor=&room=a", &[], Ok((&[("a", None)], None)));
        check("cursor=c", &[], Ok((&[], Some("c"))));
        check(
            "room=a&cursor=1&room=b&cursor=2",
            &[],
            Ok((&[("a", Some("1")), ("b", Some("2"))], None)),
        );
        check(
            "room=a&room=b&cursor=&cursor=2",
            &[],
            Ok((&[("a", None), ("b", Some("2"))], None)),
        );
        check("room=a&cursor=c", &["d"], Ok((&[("a", None)], Some("d"))));
        check(
            "room=a&room=b&cursor=1&cursor=2",
            &["d"],
            Ok((&[("a", None), ("b", None)], Some("d"))),
        );
        check("room=a&cursor=c", &[""], Ok((&[("a", None)], Some("c"))));
        check("room=%61%2eb&cursor=%63", &[], Ok((&[("a.b", None)], Some("c"))));
        check("room=a&cursor=1&cursor=2", &[], Err(Code::BadRequest));
        check(
            "room=a&room=b&cursor=1&cursor=2&cursor=3",
            &[],
            Err(Code::BadRequest),
        );
        check("room=a", &["1", "2"], Err(Code::BadRequest));
        check("room=%ff", &[], Err(Code::BadRequest));
        check("room=a&room=b&room=c&room=d", &[], Err(Code::Limit));
        check("room=a&counters=x", &[], Err(Code::BadRequest));
        check("room=a&counters=-1", &[], Err(Code::BadRequest));
        check("room=a&counters=1&counters=2", &[], Err(Code::BadRequest));
        let uri: Uri = "/v1/poll?counters=17".parse().unwrap();
        assert_eq!(request(&uri, &HeaderMap::new(), 3).unwrap().counters, Some(17));
    }
}
