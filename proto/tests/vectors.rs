//! Golden messages: what is written down in `vectors/` is what the code reads and writes.

use std::path::PathBuf;

use roomcast_proto::binary;
use roomcast_proto::cursor::Cursors;
use roomcast_proto::event::{Completion, Draft};
use roomcast_proto::frame::{ClientFrame, ServerFrame};
use roomcast_proto::ids::{Audience, Room, Tenant, escape, event_id_of, partition};
use roomcast_proto::refusal::Code;
use roomcast_proto::subject::{parse_inbound, parse_queued, queue_stream};
use roomcast_proto::trigger::Trigger;
use serde_json::Value;

fn vectors(file: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The input of a vector: `text`, or `hex` where the bytes are not text, or `repeat` where they are many.
fn input(vector: &Value) -> Vec<u8> {
    if let Some(text) = vector["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = vector["hex"].as_str() {
        return hex_bytes(hex);
    }
    let repeat = &vector["repeat"];
    let part = |name: &str| repeat[name].as_str().unwrap_or_default();
    let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
    [
        part("before"),
        &part("unit").repeat(times),
        part("after"),
        &part("unitAfter").repeat(times),
        part("end"),
    ]
    .concat()
    .into_bytes()
}

fn hex_bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// The Protobuf form of a vector, and other bytes that say the same.
fn protobuf(vector: &Value) -> (Vec<u8>, Vec<Vec<u8>>) {
    let also = vector["also"].as_array().into_iter().flatten();
    (
        hex_bytes(vector["hex"].as_str().unwrap()),
        also.map(|hex| hex_bytes(hex.as_str().unwrap())).collect(),
    )
}

fn complete(bytes: &[u8], vector: &Value) -> Result<(String, String), (Code, Option<String>)> {
    let tenant = Tenant::default();
    let room = vector["subject"]["room"]
        .as_str()
        .map(|r| Room::parse(r).unwrap());
    let audience = vector["subject"]["audience"]
        .as_str()
        .map(|a| Audience::parse(a).unwrap());
    let completion = Completion {
        tenant: &tenant,
        publisher: "erp",
        room: room.as_ref(),
        audience: audience.as_ref(),
        now_micros: 1_769_868_300_250_000,
    };
    Draft::parse(bytes)
        .and_then(|draft| draft.complete(&completion))
        .map(|event| {
            let json = String::from_utf8(event.to_json().to_vec()).unwrap();
            (json, event.msg_id(&tenant, "erp"))
        })
        .map_err(|refusal| (refusal.code, refusal.pointer))
}

#[test]
fn events_are_completed_as_written_down() {
    for vector in vectors("events.json") {
        let name = vector["name"].as_str().unwrap();
        let (json, msg_id) =
            complete(&input(&vector), &vector).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(json, vector["stored"].as_str().unwrap(), "{name}");
        assert_eq!(msg_id, vector["msgId"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn refused_events_are_refused_for_the_reason_written_down() {
    for vector in vectors("events_refused.json") {
        let name = vector["name"].as_str().unwrap();
        let (code, pointer) = complete(&input(&vector), &vector).expect_err(name);
        assert_eq!(code.as_str(), vector["code"].as_str().unwrap(), "{name}");
        assert_eq!(pointer.as_deref(), vector["pointer"].as_str(), "{name}");
    }
}

#[test]
fn triggers_become_the_events_written_down() {
    for vector in vectors("triggers.json") {
        let name = vector["name"].as_str().unwrap();
        let room = vector["roleRoom"].as_str().map(|room| Room::parse(room).unwrap());
        let trigger = Trigger::parse(&input(&vector), room.as_ref())
            .unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert_eq!(serde_json::json!(trigger.events), vector["events"], "{name}");
        for event in &trigger.events {
            Draft::parse(event.as_bytes()).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        }
    }
}

#[test]
fn refused_triggers_are_refused_for_the_reason_written_down() {
    for vector in vectors("triggers_refused.json") {
        let name = vector["name"].as_str().unwrap();
        let refusal = Trigger::parse(&input(&vector), None).expect_err(name);
        assert_eq!(refusal.code.as_str(), vector["code"].as_str().unwrap(), "{name}");
        assert_eq!(refusal.pointer.as_deref(), vector["pointer"].as_str(), "{name}");
    }
}

#[test]
fn events_in_binary_mode_are_read_as_written_down() {
    for vector in vectors("events_binary.json") {
        let name = vector["name"].as_str().unwrap();
        let headers = vector["headers"].as_object().unwrap().iter();
        let attributes = headers.map(|(name, value)| (name.as_str(), value.as_str().unwrap().as_bytes()));
        let body = match vector["bodyHex"].as_str() {
            Some(hex) => hex_bytes(hex),
            None => vector["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        let text = binary::structured(attributes, vector["contentType"].as_str(), &body);
        let read = text.and_then(|text| Draft::parse(&text).map(drop).map(|()| text));
        match vector["structured"].as_str() {
            Some(structured) => {
                let read: Value = serde_json::from_slice(&read.expect(name)).unwrap();
                assert_eq!(read, serde_json::from_str::<Value>(structured).unwrap(), "{name}");
            }
            None => {
                let refusal = read.expect_err(name);
                assert_eq!(refusal.code.as_str(), vector["code"].as_str().unwrap(), "{name}");
                assert_eq!(refusal.pointer.as_deref(), vector["pointer"].as_str(), "{name}");
            }
        }
    }
}

#[test]
fn client_frames_are_read_and_written_as_written_down() {
    for vector in vectors("client_frames.json") {
        let text = vector["text"].as_str().unwrap();
        let frame = ClientFrame::from_json(text).unwrap_or_else(|bad| panic!("{text}: {bad:?}"));
        let canonical = vector["canonical"].as_str().unwrap_or(text);
        assert_eq!(frame.to_json(), canonical);
        let (bytes, also) = protobuf(&vector);
        assert_eq!(frame.to_protobuf(), bytes, "{text}");
        for bytes in also.iter().chain([&bytes]) {
            assert_eq!(ClientFrame::from_protobuf(bytes).as_ref(), Ok(&frame), "{text}");
        }
    }
}

#[test]
fn refused_frames_are_refused_for_the_reason_written_down() {
    for vector in vectors("client_frames_refused.json") {
        let bytes = input(&vector);
        let text = std::str::from_utf8(&bytes).unwrap();
        let bad = ClientFrame::from_json(text).expect_err(text);
        assert_eq!(
            bad.refusal.code.as_str(),
            vector["code"].as_str().unwrap(),
            "{text}"
        );
        assert_eq!(bad.id.map(u64::from), vector["id"].as_u64(), "{text}");
    }
}

#[test]
fn refused_protobuf_frames_are_refused_for_the_reason_written_down() {
    for vector in vectors("client_frames_protobuf_refused.json") {
        let name = vector["name"].as_str().unwrap();
        let bad = ClientFrame::from_protobuf(&input(&vector)).expect_err(name);
        assert_eq!(
            bad.refusal.code.as_str(),
            vector["code"].as_str().unwrap(),
            "{name}: {bad:?}"
        );
        assert_eq!(bad.id.map(u64::from), vector["id"].as_u64(), "{name}");
    }
}

#[test]
fn server_frames_are_written_as_written_down() {
    for vector in vectors("server_frames.json") {
        let text = vector["text"].as_str().unwrap();
        let frame = ServerFrame::from_json(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(frame.body.is_some(), "{text}");
        assert_eq!(frame.to_json(), text);
        let (bytes, also) = protobuf(&vector);
        assert_eq!(frame.to_protobuf(), bytes, "{text}");
        for bytes in also.iter().chain([&bytes]) {
            assert_eq!(ServerFrame::from_protobuf(bytes).as_ref(), Ok(&frame), "{text}");
        }
    }
}

#[test]
fn names_and_cursors_are_as_written_down() {
    for vector in vectors("names.json") {
        if let Some(text) = vector["escape"].as_str() {
            assert_eq!(escape(text), vector["token"].as_str().unwrap(), "{text:?}");
        } else if let Some(queue) = vector["queue"].as_str() {
            let (tenant, publisher) = queue.split_once('/').unwrap();
            let found = queue_stream(&Tenant::parse(tenant).unwrap(), publisher);
            let (stream, captures) = found.unzip();
            assert_eq!(stream.as_deref(), vector["stream"].as_str(), "{queue}");
            assert_eq!(captures.as_deref(), vector["captures"].as_str(), "{queue}");
        } else if let Some(queued) = vector["queued"].as_str() {
            let (inbound, publisher) = parse_queued(queued).ok().unzip();
            assert_eq!(publisher, vector["publisher"].as_str(), "{queued}");
            let direct = vector["in"].as_str();
            assert_eq!(inbound, direct.map(|direct| parse_inbound(direct).unwrap()));
        } else if let Some(place) = vector["place"].as_str() {
            let made = event_id_of(vector["millis"].as_u64().unwrap(), place);
            assert_eq!(Some(made.as_str()), vector["id"].as_str(), "{place}");
        } else if let Some(room) = vector["room"].as_str() {
            let parsed = Room::parse(room);
            assert_eq!(parsed.is_ok(), vector["valid"].as_bool().unwrap(), "{room:?}");
            if let Some(pp) = vector["partition"].as_u64() {
                assert_eq!(
                    u64::from(partition(&Tenant::default(), &parsed.unwrap())),
                    pp,
                    "{room}"
                );
            }
        } else if let Some(sealed) = vector["sealed"].as_str() {
            let (key, tenant) = (
                vector["key"].as_str().unwrap(),
                vector["tenant"].as_str().unwrap(),
            );
            let (cursors, tenant) = (Cursors::sealed(key).unwrap(), Tenant::parse(tenant).unwrap());
            let opened = cursors.read(&tenant, sealed);
            match vector["cursor"].as_str() {
                None => assert!(opened.is_err(), "{sealed:?}"),
                Some(plain) => {
                    let place = Cursors::plain().read(&tenant, plain);
                    assert_eq!(opened, place);
                    assert_eq!(cursors.write(&tenant, &place.unwrap()).as_str(), sealed);
                }
            }
        } else {
            let cursor = vector["cursor"].as_str().unwrap();
            assert_eq!(
                Cursors::plain().read(&Tenant::default(), cursor).is_ok(),
                vector["valid"].as_bool().unwrap(),
                "{cursor:?}"
            );
        }
    }
}
