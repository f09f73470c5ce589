//! WebSocket frames of clients.

use roomcast_edge_gateway::ws::{Decoder, Flow, Limits, Message, Violation};

const LIMITS: Limits = Limits {
    message_bytes_max: 64 * 1024,
    fragments_max: 64,
};

/// However the bytes are split, the messages are the same, and so is the first mistake; no message is over the limit.
pub fn check(bytes: &[u8]) {
    let (&step, wire) = match bytes.split_first() {
        Some(split) => split,
        None => return,
    };
    let whole = read(wire, usize::MAX);
    for (message, bytes) in &whole.0 {
        assert!(*bytes <= LIMITS.message_bytes_max, "{message}");
    }
    assert_eq!(read(wire, usize::from(step).max(1)), whole);
    assert_eq!(read(wire, 1), whole);
}

/// The messages as text, with their lengths, and how it ended.
type Outcome = (Vec<(String, usize)>, Result<(), Violation>);

fn read(wire: &[u8], step: usize) -> Outcome {
    let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
    for piece in wire.chunks(step.min(wire.len().max(1))) {
        let mut piece = piece.to_vec();
        let fed = decoder.feed(&mut piece, LIMITS, |message| {
            seen.push((format!("{message:?}"), length(message)));
            Flow::Continue
        });
        if fed.is_err() {
            return (seen, fed);
        }
    }
    (seen, Ok(()))
}

fn length(message: Message<'_>) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}
