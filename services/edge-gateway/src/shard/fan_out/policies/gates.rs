//! What each gate writes of what was chosen, read as a client does.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_access::Subscribe;
use roomcast_proto::frame::{ServerFrame, server_frame};
use serde_json::Value;

use crate::delivery::Delivery;
use crate::encoding::Encoding;

/// The events in what is on the wire, read as a client does.
pub(super) fn read(encoding: Encoding, wire: &[u8]) -> Vec<Value> {
    let of_push = |text: &str| serde_json::from_str::<Value>(text).unwrap()["event"]["event"].clone();
    if encoding == Encoding::Sse {
        let text = std::str::from_utf8(wire).unwrap();
        let events = text.split("\n\n").filter(|event| !event.is_empty());
        let data = events.map(|event| {
            event
                .lines()
                .find_map(|line| line.strip_prefix("data: "))
                .unwrap()
        });
        return data.map(of_push).collect();
    }
    let (mut rest, mut found) = (wire, Vec::new());
    while !rest.is_empty() {
        let (start, length) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            length => (2, usize::from(length)),
        };
        let payload = &rest[start..start + length];
        rest = &rest[start + length..];
        found.push(match encoding {
            Encoding::Protobuf => match ServerFrame::from_protobuf(payload).unwrap().body {
                Some(server_frame::Body::Event(push)) => serde_json::from_slice(&push.event).unwrap(),
                other => panic!("{other:?}"),
            },
            _ => of_push(std::str::from_utf8(payload).unwrap()),
        });
    }
    found
}

/// What a gate gave out.
pub(super) struct Given {
    pub(super) gate: String,
    pub(super) events: Vec<Value>,
    pub(super) bytes: Vec<u8>,
}

pub(super) const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Protobuf, Encoding::Sse];

/// Deliveries that were chosen for a user, as each gate writes them.
pub(super) fn written(gate: &str, chosen: &[Arc<Delivery>], permit: &Subscribe) -> Vec<Given> {
    let seen: Vec<Arc<Delivery>> = chosen.iter().filter_map(|one| one.for_class(permit)).collect();
    let frames = ENCODINGS.map(|encoding| {
        let bytes: Vec<u8> = seen.iter().flat_map(|one| one.frame(encoding).to_vec()).collect();
        Given {
            gate: format!("{gate}, {encoding:?}"),
            events: read(encoding, &bytes),
            bytes,
        }
    });
    // A poll holds the frames of a socket without their headers; what is read over HTTP is the events themselves.
    let texts: Vec<Bytes> = seen.iter().map(|one| one.text()).collect();
    let of_push = |text: &Bytes| serde_json::from_slice::<Value>(text).unwrap()["event"]["event"].clone();
    let poll = Given {
        gate: format!("{gate}, poll"),
        events: texts.iter().map(of_push).collect(),
        bytes: texts.concat(),
    };
    let bodies: Vec<Bytes> = seen.iter().map(|one| one.body_bytes()).collect();
    let http = Given {
        gate: format!("{gate}, HTTP"),
        events: bodies
            .iter()
            .map(|body| serde_json::from_slice(body).unwrap())
            .collect(),
        bytes: bodies.concat(),
    };
    frames.into_iter().chain([poll, http]).collect()
}
