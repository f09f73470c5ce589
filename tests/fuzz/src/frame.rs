//! Clients' messages, in both encodings, and servers' as our own clients read them.

use roomcast_proto::frame::{ClientFrame, ServerFrame};

/// What is read is written as something that reads as the same, in its own encoding and over the other one.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(frame) = ClientFrame::from_json(text) {
            assert_eq!(ClientFrame::from_json(&frame.to_json()), Ok(frame.clone()));
            assert_eq!(ClientFrame::from_protobuf(&frame.to_protobuf()), Ok(frame));
        }
        if let Ok(frame) = ServerFrame::from_json(text) {
            let again = ServerFrame::from_json(&frame.to_json()).expect("our own JSON");
            assert_eq!(again.to_json(), frame.to_json());
        }
    }
    if let Ok(frame) = ClientFrame::from_protobuf(bytes) {
        assert_eq!(
            ClientFrame::from_protobuf(&frame.to_protobuf()),
            Ok(frame.clone())
        );
        assert_eq!(ClientFrame::from_json(&frame.to_json()), Ok(frame));
    }
    if let Ok(frame) = ServerFrame::from_protobuf(bytes) {
        let again = ServerFrame::from_protobuf(&frame.to_protobuf()).expect("our own bytes");
        assert_eq!(again.to_protobuf(), frame.to_protobuf());
    }
}
