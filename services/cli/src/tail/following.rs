//! What is followed, how far, and what each frame of a gateway means for it. No clock, no I/O.

use roomcast_chassis::process::Failure;
use roomcast_proto::frame::{
    ClientFrame, Connect, Connected, EventPush, Pong, RoomRequest, ServerFrame, client_frame, server_frame,
};
use roomcast_proto::ids::Room;

use crate::terminal::harmless;

/// One room and how far it has been followed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    room: Room,
    cursor: Option<String>,
}

/// What a frame asks of the driver.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    Nothing,
    Show(EventPush),
    Answer(ClientFrame),
    Tell(String),
    /// `lost`: rooms whose past is no longer kept, in words.
    Connected {
        ping_seconds: u32,
        lost: Vec<String>,
    },
    /// The server closes; come back after so many milliseconds, or not at all.
    Closing {
        reason: String,
        back: bool,
        after_ms: Option<u64>,
    },
    /// A room cannot be followed at the moment: come back as for `Closing`.
    Later {
        reason: String,
        after_ms: Option<u64>,
    },
    Refused(String),
}

/// What is followed; decides what each frame means.
#[derive(Debug)]
pub(super) struct Following {
    places: Vec<Place>,
}

impl Following {
    pub(super) fn new(rooms: &[Room], from: &[String]) -> Result<Self, Failure> {
        let mut places: Vec<Place> = Vec::new();
        for room in rooms {
            if !places.iter().any(|place| place.room == *room) {
                places.push(Place {
                    room: room.clone(),
                    cursor: None,
                });
            }
        }
        for given in from {
            let (name, cursor) = match given.split_once('=') {
                Some((name, cursor)) => (Some(name), cursor),
                None => (None, given.as_str()),
            };
            let single = places.len() == 1;
            let place = places
                .iter_mut()
                .find(|place| name.map_or(single, |name| place.room.as_str() == name));
            let place = place.ok_or_else(|| {
                Failure::settings(format!("--from {given}: name one of the rooms: ROOM=CURSOR"))
            })?;
            place.cursor = Some(cursor.to_owned());
        }
        Ok(Self { places })
    }

    pub(super) fn connect(&self, token: &str) -> ClientFrame {
        let rooms = self.places.iter().map(|place| RoomRequest {
            room: place.room.to_string(),
            cursor: place.cursor.clone(),
            presence: None,
        });
        let connect = Connect {
            token: Some(token.to_owned()),
            client: concat!("roomcast-tail/", env!("CARGO_PKG_VERSION")).into(),
            rooms: rooms.collect(),
            counters: None,
        };
        ClientFrame {
            id: Some(1),
            body: Some(client_frame::Body::Connect(connect)),
        }
    }

    fn place(&mut self, room: &str) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.room.as_str() == room)
    }

    fn connected(&mut self, connected: &Connected) -> Heard {
        let mut lost = Vec::new();
        let mut later = None;
        for answer in &connected.rooms {
            if self.place(&answer.room).is_none() {
                continue;
            }
            if let Some(error) = &answer.error {
                let reason = format!("{}: {}: {}", answer.room, error.code, harmless(&error.message));
                if !error.temporary {
                    return Heard::Refused(reason);
                }
                // Whoever comes back asks for all rooms: when the last of them may be there.
                later = later.max(Some((error.retry_after_ms, reason)));
            }
            if answer.recovery.as_deref() == Some("incomplete") {
                let why = harmless(answer.reason.as_deref().unwrap_or("unknown"));
                lost.push(format!(
                    "{}: what happened meanwhile is no longer kept ({why}); going on from now",
                    answer.room
                ));
            }
        }
        match later {
            Some((after_ms, reason)) => Heard::Later { reason, after_ms },
            None => Heard::Connected {
                ping_seconds: connected.ping_seconds,
                lost,
            },
        }
    }

    pub(super) fn heard(&mut self, frame: ServerFrame) -> Heard {
        use server_frame::Body as B;
        match frame.body {
            // Rooms that the policy joins by itself arrive as well; only those that were asked for are shown.
            Some(B::Event(push)) => match self.place(&push.room) {
                Some(place) => {
                    if push.cursor.is_some() {
                        place.cursor.clone_from(&push.cursor);
                    }
                    Heard::Show(push)
                }
                None => Heard::Nothing,
            },
            Some(B::CaughtUp(at)) => {
                if let Some(place) = self.place(&at.room) {
                    place.cursor = Some(at.cursor);
                }
                Heard::Nothing
            }
            Some(B::Ping(_)) => Heard::Answer(ClientFrame {
                id: None,
                body: Some(client_frame::Body::Pong(Pong {})),
            }),
            Some(B::Connected(connected)) => self.connected(&connected),
            Some(B::Error(error)) if frame.id == Some(1) && !error.temporary => {
                Heard::Refused(format!("{}: {}", error.code, harmless(&error.message)))
            }
            Some(B::Error(error)) => Heard::Tell(format!("{}: {}", error.code, harmless(&error.message))),
            Some(B::Unsubscribed(left)) if self.place(&left.room).is_some() => {
                let code = left.code.unwrap_or_default();
                Heard::Refused(format!(
                    "{}: the gateway closed the room: {}",
                    left.room,
                    harmless(&code)
                ))
            }
            Some(B::Status(status)) => Heard::Tell(format!("gateway is {}", harmless(&status.status))),
            Some(B::Disconnect(end)) => Heard::Closing {
                reason: format!("{} {}", end.code, harmless(&end.reason)),
                back: end.reconnect,
                after_ms: end.retry_after_ms,
            },
            _ => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following() -> Following {
        Following::new(
            &[Room::parse("a").unwrap(), Room::parse("b").unwrap()],
            &["b=c.1".to_owned()],
        )
        .unwrap()
    }

    #[track_caller]
    fn check(following: &mut Following, json: &str, expected: &Heard) {
        let heard = following.heard(ServerFrame::from_json(json).unwrap());
        assert_eq!(
            std::mem::discriminant(&heard),
            std::mem::discriminant(expected),
            "{json}: {heard:?}"
        );
    }

    fn refused() -> Heard {
        Heard::Refused(String::new())
    }

    #[test]
    fn cursors_come_from_events_and_caught_up_and_go_into_the_next_connect() {
        let mut following = following();
        check(
            &mut following,
            r#"{"event":{"room":"a","cursor":"e.7","event":{"type":"x"}}}"#,
            &Heard::Show(EventPush::default()),
        );
        check(
            &mut following,
            r#"{"event":{"room":"other","cursor":"e.8","event":{}}}"#,
            &Heard::Nothing,
        );
        check(
            &mut following,
            r#"{"caughtUp":{"room":"b","cursor":"e.9"}}"#,
            &Heard::Nothing,
        );
        // An ephemeral event has no cursor and moves nothing.
        check(
            &mut following,
            r#"{"event":{"room":"b","event":{"type":"typing"}}}"#,
            &Heard::Show(EventPush::default()),
        );
        let json = following.connect("t").to_json();
        assert!(
            json.contains(r#"{"room":"a","cursor":"e.7"},{"room":"b","cursor":"e.9"}"#),
            "{json}"
        );
    }

    #[test]
    fn frames_mean_answer_go_on_or_end() {
        let mut following = following();
        check(
            &mut following,
            r#"{"ping":{}}"#,
            &Heard::Answer(ClientFrame::default()),
        );
        check(
            &mut following,
            r#"{"id":1,"connected":{"pingSeconds":25,"rooms":[{"room":"a","cursor":"1"}]}}"#,
            &Heard::Connected {
                ping_seconds: 25,
                lost: Vec::new(),
            },
        );
        let forbidden =
            r#"{"id":1,"connected":{"rooms":[{"room":"a","error":{"code":"forbidden","message":"no"}}]}}"#;
        check(&mut following, forbidden, &refused());
        let away = |room: &str, more: &str| {
            format!(
                r#"{{"room":"{room}","error":{{"code":"unavailable","message":"away","temporary":true{more}}}}}"#
            )
        };
        let no = r#"{"room":"b","error":{"code":"forbidden","message":"no"}}"#.to_owned();
        for (rooms, expected) in [
            (vec![away("a", "")], Some(None)),
            (vec![away("a", r#","retryAfterMs":1000"#)], Some(Some(1_000))),
            (
                vec![
                    away("a", r#","retryAfterMs":700"#),
                    away("b", r#","retryAfterMs":900"#),
                ],
                Some(Some(900)),
            ),
            // What is refused for good is not waited for.
            (vec![away("a", ""), no], None),
        ] {
            let json = format!(r#"{{"id":1,"connected":{{"rooms":[{}]}}}}"#, rooms.join(","));
            match (following.heard(ServerFrame::from_json(&json).unwrap()), expected) {
                (Heard::Later { reason, after_ms }, Some(expected)) => {
                    assert_eq!(after_ms, expected, "{json}");
                    assert!(reason.ends_with(": unavailable: away"), "{reason}");
                }
                (Heard::Refused(reason), None) => assert_eq!(reason, "b: forbidden: no"),
                (heard, expected) => panic!("{json}: {heard:?}, expected {expected:?}"),
            }
        }
        assert!(
            following
                .connect("t")
                .to_json()
                .contains(r#"{"room":"b","cursor":"c.1"}"#)
        );
        let elsewhere =
            r#"{"id":1,"connected":{"rooms":[{"room":"z","error":{"code":"forbidden","message":"no"}}]}}"#;
        check(
            &mut following,
            elsewhere,
            &Heard::Connected {
                ping_seconds: 0,
                lost: Vec::new(),
            },
        );
        check(
            &mut following,
            r#"{"id":1,"error":{"code":"bad_token","message":"no"}}"#,
            &refused(),
        );
        check(
            &mut following,
            r#"{"unsubscribed":{"room":"a","code":"forbidden"}}"#,
            &refused(),
        );
        let closing = Heard::Closing {
            reason: String::new(),
            back: true,
            after_ms: Some(1),
        };
        check(
            &mut following,
            r#"{"disconnect":{"code":4001,"reason":"drain","reconnect":true,"retryAfterMs":1800}}"#,
            &closing,
        );
        check(&mut following, r#"{"somethingNew":{}}"#, &Heard::Nothing);
    }

    #[test]
    fn a_cursor_needs_its_room() {
        let (a, b) = (Room::parse("a").unwrap(), Room::parse("b").unwrap());
        assert_eq!(
            Following::new(std::slice::from_ref(&a), &["x".into()])
                .unwrap()
                .places[0]
                .cursor
                .as_deref(),
            Some("x")
        );
        assert!(Following::new(&[a.clone(), b], &["x".into()]).is_err());
        assert!(Following::new(&[a], &["z=x".into()]).is_err());
    }
}
