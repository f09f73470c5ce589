//! The few bytes of WebSocket that a client of the bench writes and reads.

use std::fmt::Display;

use roomcast_proto::frame::Encoding;

/// The request for a WebSocket at `host`, as a browser's library sends it.
#[must_use]
pub fn request(host: impl Display, encoding: Encoding) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        encoding.subprotocol()
    )
}

/// A client's message in one frame; the mask is zero, which the protocol allows and costs nothing here.
#[must_use]
pub fn message(encoding: Encoding, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(match encoding {
        Encoding::Json => 0x81,
        Encoding::Protobuf => 0x82,
    });
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(0x80 | u8::try_from(short).unwrap_or(0)),
        Ok(long) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Lengths of header and payload of a server's frame; `None` while too little of it is there.
#[must_use]
pub fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? & 0x7f {
        126 => Some((
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        )),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            Some((10, usize::try_from(u64::from_be_bytes(length)).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_length_its_head_says() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let frame = message(Encoding::Json, &vec![b'x'; length]);
            let (header, payload) = head(&frame).unwrap();
            // A client's header has a mask of four bytes more than a server's.
            assert_eq!((header + 4 + payload, payload), (frame.len(), length));
        }
        assert_eq!(head(&[0x81]), None);
        assert_eq!(head(&[0x81, 126, 0]), None);
    }
}
