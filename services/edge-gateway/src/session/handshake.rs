//! A connection before its first message, and how it becomes a session.

use roomcast_access::Rights;
use roomcast_proto::close::Close;
use roomcast_proto::cursor::Cursors;
use roomcast_proto::frame::{BadFrame, ClientFrame, Connect, RoomRequest, client_frame};
use roomcast_proto::refusal::{Code, Refusal};

use super::{
    Asked, CLIENT_BYTES_MAX, From, Kind, Limits, Now, Opening, Session, StreamRequest, asked,
    joined_by_policy,
};
use crate::bucket::Bucket;
use crate::gate::{self, Admitted, Gate, NotAdmitted};

/// A connection that has not said `connect` yet.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The user, when a token came with the upgrade.
    pub admitted: Option<Admitted>,
}

/// A handshake that failed: what to answer, and how it ends.
#[derive(Debug, PartialEq)]
pub struct Failed {
    /// The request to answer.
    pub id: Option<u32>,
    /// What was wrong.
    pub refusal: Refusal,
    /// The end.
    pub close: Close,
}

impl Handshake {
    /// Takes the first message. Answers the session and the rooms it begins with.
    ///
    /// # Errors
    /// [`Failed`]: not `connect` (4503), no valid token (4500; 4003 when it has expired, 4005 when it cannot be checked yet, 4501 when it was revoked), too many rooms (4504).
    pub fn accept(
        self,
        frame: Result<ClientFrame, BadFrame>,
        gate: &Gate,
        limits: Limits,
        now: Now,
    ) -> Result<(Session, Opening), Failed> {
        let failed = |id, refusal, close| Failed { id, refusal, close };
        let frame = frame.map_err(|bad| failed(bad.id, bad.refusal, Close::Protocol))?;
        let id = frame.id;
        let Some(client_frame::Body::Connect(connect)) = frame.body else {
            let refusal = Refusal::new(Code::BadFrame, "the first message is connect");
            return Err(failed(id, refusal, Close::Protocol));
        };
        let bad_token = |error: NotAdmitted| failed(id, gate::refusal(error), error.close());
        let admitted = match (self.admitted, &connect.token) {
            (Some(mut admitted), None) => {
                // The request with the token may be some time ago.
                gate.again(&mut admitted, now.unix_secs()).map_err(bad_token)?;
                admitted
            }
            (_, Some(token)) => gate.admit(token, now.unix_secs()).map_err(bad_token)?,
            (None, None) => return Err(failed(id, gate::no_token(), Close::BadToken)),
        };
        if connect.client.len() > CLIENT_BYTES_MAX {
            let refusal = Refusal::new(
                Code::BadFrame,
                format!("client: at most {CLIENT_BYTES_MAX} bytes"),
            );
            return Err(failed(id, refusal.at("/connect/client"), Close::Protocol));
        }
        let rooms_max = limits.rooms_max.min(limits.subscriptions_max);
        if connect.rooms.len() > rooms_max {
            let refusal = Refusal::new(Code::Limit, format!("at most {rooms_max} rooms"));
            return Err(failed(id, refusal.at("/connect/rooms"), Close::Limit));
        }
        let mut requests = Bucket::default();
        requests.take(now.millis, 1, limits.requests);
        let rooms = first_rooms(&connect, &admitted.rights, limits.cursors);
        let mut session = Session::new(admitted, limits, requests);
        session.counted = connect.counters == Some(true);
        Ok((
            session,
            Opening {
                generation: 0,
                id,
                kind: Kind::Connected,
                rooms,
            },
        ))
    }
}

impl Handshake {
    /// Begins a session that says nothing itself: everything came with its request, the user among it.
    ///
    /// # Errors
    /// How it ends instead: without a user there is no session, nor with one whose rights have ended on the way here.
    pub fn stream(
        self,
        request: &StreamRequest,
        gate: &Gate,
        limits: Limits,
        now: Now,
    ) -> Result<(Session, Opening), Close> {
        let mut admitted = self.admitted.ok_or(Close::BadToken)?;
        gate.again(&mut admitted, now.unix_secs())
            .map_err(NotAdmitted::close)?;
        let rooms = stream_rooms(request, &admitted.rights, limits.cursors);
        let opening = Opening {
            generation: 0,
            id: None,
            kind: Kind::Stream,
            rooms,
        };
        let mut session = Session::new(admitted, limits, Bucket::default());
        session.counted = request.counters.is_some();
        Ok((session, opening))
    }
}

/// The rooms of a request for a stream or a poll: those it names, those that the policy joins, the user's own.
#[must_use]
pub fn stream_rooms(request: &StreamRequest, rights: &Rights, cursors: Cursors) -> Vec<Asked> {
    let named = request.rooms.iter().map(|(room, cursor)| RoomRequest {
        room: room.clone(),
        cursor: cursor.clone(),
        presence: None,
    });
    let connect = Connect {
        rooms: named.collect(),
        ..Connect::default()
    };
    let mut rooms = first_rooms(&connect, rights, cursors);
    for asked in &mut rooms {
        if asked.from == From::Fresh {
            asked.from = From::read(cursors, rights.tenant(), request.cursor.as_deref());
        }
    }
    rooms
}

/// The rooms of a `connect`: those asked for, in their order, then those the policy joins, then the user's own.
fn first_rooms(connect: &Connect, rights: &Rights, cursors: Cursors) -> Vec<Asked> {
    let mut rooms: Vec<Asked> = Vec::with_capacity(connect.rooms.len() + 4);
    for RoomRequest { room, cursor, .. } in &connect.rooms {
        if rooms.iter().all(|asked| asked.name != *room) {
            let from = From::read(cursors, rights.tenant(), cursor.as_deref());
            rooms.push(asked(room, from, rights, true));
        }
    }
    for room in joined_by_policy(rights) {
        match rooms.iter_mut().find(|asked| asked.name == room.as_str()) {
            Some(asked) => asked.requested = false,
            None => rooms.push(asked(room.as_str(), From::Fresh, rights, false)),
        }
    }
    rooms
}
