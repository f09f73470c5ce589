//! What the contract costs: events read, frames written and read, cursors.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;

use criterion::Criterion;
use roomcast_proto::cursor::{Cursor, Cursors, Epoch, Position};
use roomcast_proto::event::{Completion, Draft, View};
use roomcast_proto::frame::{ClientFrame, event_json, put_event_protobuf};
use roomcast_proto::ids::Tenant;

const SHORT: &str = r#"{"type":"booking:new","room":"bookings","audience":"staff","data":{"id":"bk-1","customer":"Ada","country":"TR","category":"tour","title":"Old town walk","amount":950,"currency":"TRY"}}"#;
const HELLO: &str = r#"{"id":1,"connect":{"token":"eyJhbGciOiJFZERTQSJ9.e30.c2ln","client":"bench","rooms":[{"room":"bookings"},{"room":"os_dashboard","cursor":"00c0ffee.1041.77.a2"},{"room":"financial_updates"}]}}"#;

fn main() {
    let criterion = &mut Criterion::default().configure_from_args();
    let tenant = Tenant::default();
    let from = Completion {
        tenant: &tenant,
        publisher: "shop",
        room: None,
        audience: None,
        now_micros: 1_770_000_000_000_000,
    };
    let stored = Draft::parse(SHORT.as_bytes())
        .unwrap()
        .complete(&from)
        .unwrap()
        .to_json();
    criterion.bench_function("event: read and complete", |b| {
        b.iter(|| Draft::parse(black_box(SHORT.as_bytes())).unwrap().complete(&from));
    });
    criterion.bench_function("event: view of a stored one", |b| {
        b.iter(|| View::parse(black_box(&stored)).map(|view| view.time_micros()));
    });

    let position = Position {
        seq: 1_041_772,
        rev: 77_123,
    };
    let cursor = Cursor {
        epoch: Epoch::of_streams("a", "b"),
        position,
        time_bits: 0xa2,
    };
    let cursors = Cursors::plain();
    let text = cursors.write(&tenant, &cursor).to_string();
    criterion.bench_function("cursor: write", |b| {
        b.iter(|| cursors.write(&tenant, black_box(&cursor)));
    });
    criterion.bench_function("cursor: read", |b| {
        b.iter(|| cursors.read(&tenant, black_box(&text)));
    });

    criterion.bench_function("frame: event as JSON", |b| {
        b.iter(|| event_json("bookings", Some(&text), black_box(&stored)));
    });
    criterion.bench_function("frame: event as Protobuf", |b| {
        b.iter(|| {
            let mut out = bytes::BytesMut::new();
            put_event_protobuf(&mut out, "bookings", Some(&text), black_box(&stored));
            out
        });
    });
    let frame = ClientFrame::from_json(HELLO).unwrap();
    let binary = frame.to_protobuf();
    criterion.bench_function("frame: connect from JSON", |b| {
        b.iter(|| ClientFrame::from_json(black_box(HELLO)));
    });
    criterion.bench_function("frame: connect from Protobuf", |b| {
        b.iter(|| ClientFrame::from_protobuf(black_box(&binary)));
    });
    criterion.final_summary();
}
