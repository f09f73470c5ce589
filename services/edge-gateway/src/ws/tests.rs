use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
    fragments_max: 8,
};

/// An owned message, so that results of different splits can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

fn got(message: Message<'_>) -> Got {
    match message {
        Message::Text(text) => Got::Text(text.into()),
        Message::Binary(bytes) => Got::Binary(bytes.into()),
        Message::Ping(bytes) => Got::Ping(bytes.into()),
        Message::Pong(bytes) => Got::Pong(bytes.into()),
        Message::Close(close) => Got::Close(close.map(|(code, reason)| (code, reason.into()))),
    }
}

/// One masked client frame; `first` is its first byte.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=65535 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

/// Feeds the stream in pieces of `piece` bytes.
fn read(stream: &[u8], piece: usize) -> (Vec<Got>, Result<(), Violation>, bool) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for part in stream.chunks(piece) {
        let fed = decoder.feed(&mut part.to_vec(), LIMITS, |message| {
            messages.push(got(message));
            Flow::Continue
        });
        if fed.is_err() {
            return (messages, fed, decoder.is_at_rest());
        }
    }
    let rest = decoder.is_at_rest();
    (messages, Ok(()), rest)
}

#[track_caller]
fn check(stream: &[u8], expected: &[Got]) {
    for piece in [1, 2, 3, 7, stream.len().max(1)] {
        let (messages, end, rest) = read(stream, piece);
        assert_eq!(
            (messages.as_slice(), end),
            (expected, Ok(())),
            "in pieces of {piece}"
        );
        assert!(rest, "nothing is kept after whole messages, in pieces of {piece}");
    }
}

#[track_caller]
fn refused(stream: &[u8], close: Close) {
    for piece in [1, 2, 5, stream.len()] {
        let (_, end, _) = read(stream, piece);
        assert_eq!(end.map_err(Violation::close), Err(close), "in pieces of {piece}");
    }
}

#[test]
fn messages_are_read() {
    let text = |text: &str| Got::Text(text.into());
    check(b"", &[]);
    check(&client(0x81, b""), &[text("")]);
    check(&client(0x81, b"hello"), &[text("hello")]);
    check(&client(0x82, &[0xff, 0]), &[Got::Binary(vec![0xff, 0])]);
    check(
        &client(0x81, "x".repeat(125).as_bytes()),
        &[text(&"x".repeat(125))],
    );
    check(
        &client(0x81, "x".repeat(126).as_bytes()),
        &[text(&"x".repeat(126))],
    );
    check(
        &client(0x81, "é".repeat(500).as_bytes()),
        &[text(&"é".repeat(500))],
    );
    check(&client(0x89, b"p"), &[Got::Ping(b"p".to_vec())]);
    check(&client(0x8a, &[7; 125]), &[Got::Pong(vec![7; 125])]);
    check(&client(0x88, b""), &[Got::Close(None)]);
    check(
        &client(0x88, b"\x03\xe8bye"),
        &[Got::Close(Some((1000, "bye".into())))],
    );
    let two = [client(0x81, b"one"), client(0x81, b"two")].concat();
    check(&two, &[text("one"), text("two")]);
    // A character cut by the border of two fragments, with a ping between them.
    let fragments = [
        client(0x01, b"\xe2"),
        client(0x89, b"!"),
        client(0x00, b"\x82"),
        client(0x80, b"\xac"),
    ]
    .concat();
    check(&fragments, &[Got::Ping(b"!".to_vec()), text("€")]);
    let binary = [client(0x02, b"a"), client(0x00, b""), client(0x80, b"b")].concat();
    check(&binary, &[Got::Binary(b"ab".to_vec())]);
}

#[test]
fn what_breaks_the_protocol_is_refused() {
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x8b, 0x8f, 0x09, 0x08] {
        refused(&client(first, b"x"), Close::WsProtocol);
    }
    refused(&[0x81, 0x01, b'x'], Close::WsProtocol); // not masked
    refused(&client(0x89, &[0; 126]), Close::WsProtocol);
    refused(&client(0x80, b"x"), Close::WsProtocol);
    refused(
        &[client(0x01, b"x"), client(0x81, b"y")].concat(),
        Close::WsProtocol,
    );
    refused(&[0x81, 0x80 | 126, 0, 125, 0, 0, 0, 0], Close::WsProtocol);
    refused(
        &[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        Close::WsProtocol,
    );
    refused(
        &[0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        Close::WsProtocol,
    );
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        refused(&client(0x88, &code.to_be_bytes()), Close::WsProtocol);
    }
    refused(&client(0x88, b"\x03"), Close::WsProtocol);
    refused(&client(0x88, b"\x03\xe8\xff"), Close::WsInvalidData);
}

#[test]
fn limits_hold_before_anything_is_kept() {
    refused(&client(0x81, &[b'x'; 1001]), Close::WsTooBig);
    // One gibibyte declared, nothing sent: refused with the header.
    refused(
        &[0x82, 0x80 | 127, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4],
        Close::WsTooBig,
    );
    refused(
        &[client(0x01, &[b'x'; 600]), client(0x80, &[b'x'; 401])].concat(),
        Close::WsTooBig,
    );
    let empty = [vec![client(0x01, b"")], vec![client(0x00, b""); 8]]
        .concat()
        .concat();
    refused(&empty, Close::WsTooBig);
}

#[test]
fn text_that_is_not_utf8_fails_at_the_first_byte_that_shows_it() {
    for bad in [
        &b"\xc0\xaf"[..],
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"ok\xff",
        b"\xe2\x28\xa1",
        b"\xe2\x82",
    ] {
        refused(&client(0x81, bad), Close::WsInvalidData);
    }
    // The frame is not complete, but it can no longer become text.
    let frame = client(0x01, b"\xf4\x90\x80\x80 and more");
    let (_, end, _) = read(&frame[..6 + 2], 1);
    assert_eq!(end, Err(Violation::NotUtf8));
}

#[test]
fn after_stop_nothing_more_is_handed_over() {
    let mut stream = [client(0x88, b""), client(0x81, b"late")].concat();
    let mut count = 0;
    let fed = Decoder::default().feed(&mut stream, LIMITS, |_| {
        count += 1;
        Flow::Stop
    });
    assert_eq!((fed, count), (Ok(()), 1));
}

#[test]
fn frames_are_written_in_their_shortest_form() {
    assert_eq!(&text_frame(b"hi")[..], b"\x81\x02hi");
    assert_eq!(&text_frame(&[b'x'; 126])[..4], b"\x81\x7e\x00\x7e");
    assert_eq!(
        &text_frame(&[b'x'; 65536])[..10],
        b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"
    );
    assert_eq!(&pong_frame(b"p")[..], b"\x8a\x01p");
    assert_eq!(&close_frame(None)[..], b"\x88\x00");
    assert_eq!(&close_frame(Some((4001, "drain")))[..], b"\x88\x07\x0f\xa1drain");
    assert_eq!(close_frame(Some((4001, &"é".repeat(100)))).len(), 2 + 2 + 122);
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..6),
        splits in prop::collection::vec(1_usize..20, 1..20),
    ) {
        // Half of the first bytes are likely ones, so that whole messages occur as well.
        let likely = [0x81, 0x01, 0x00, 0x80, 0x82, 0x89, 0x8a, 0x88];
        let stream: Vec<u8> = frames.iter()
            .flat_map(|(first, payload, wild)| client(if *wild { *first } else { likely[usize::from(first % 8)] }, payload))
            .collect();
        let whole = read(&stream, stream.len().max(1));
        let (mut decoder, mut messages, mut end) = (Decoder::default(), Vec::new(), Ok(()));
        let mut rest = stream.as_slice();
        for size in splits.iter().cycle() {
            if rest.is_empty() || end.is_err() {
                break;
            }
            let (part, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            end = decoder.feed(&mut part.to_vec(), LIMITS, |message| { messages.push(got(message)); Flow::Continue });
        }
        prop_assert_eq!(messages, whole.0);
        prop_assert_eq!(end.map_err(Violation::close), whole.1.map_err(Violation::close));
    }

    #[test]
    fn noise_never_panics_and_keeps_little(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&noise, 13);
    }
}
