//! WebSocket frames (RFC 6455, server side), read strictly and written ready to send.
//!
//! Called by the shard with whatever bytes a socket gave. A [`Decoder`] at rest is one null pointer: only a frame or a
//! message that is not complete yet is kept, and never more of it than has arrived. Any split of the byte stream
//! gives the same messages, and what breaks the protocol is found with the first byte that proves it.
//! This file knows frames only; what a message means is decided in `session`.

use bytes::{BufMut, Bytes, BytesMut};
use roomcast_proto::close::Close;

/// Longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest header of a client's frame: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

const OP_CONTINUATION: u8 = 0x0;
const OP_TEXT: u8 = 0x1;
const OP_BINARY: u8 = 0x2;
const OP_CLOSE: u8 = 0x8;
const OP_PING: u8 = 0x9;
const OP_PONG: u8 = 0xA;

/// What one client may send in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, all fragments together.
    pub message_bytes_max: usize,
    /// Fragments of one message; empty ones count.
    pub fragments_max: u32,
}

/// A whole message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or unasked for.
    Pong(&'a [u8]),
    /// The client closes, with its code and reason when it gave them.
    Close(Option<(u16, &'a str)>),
}

/// What broke the protocol; the connection ends with [`Violation::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame that RFC 6455 forbids.
    #[error("{0}")]
    Protocol(&'static str),
    /// A message of more bytes or more fragments than allowed.
    #[error("the message is larger than the limit")]
    TooBig,
    /// Text or a close reason that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
}

impl Violation {
    /// The end that RFC 6455 §7.4 has for it.
    #[must_use]
    pub fn close(self) -> Close {
        match self {
            Self::Protocol(_) => Close::WsProtocol,
            Self::TooBig => Close::WsTooBig,
            Self::NotUtf8 => Close::WsInvalidData,
        }
    }
}

/// Whether the receiver of messages wants the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Continue,
    /// No: the rest of the bytes is dropped.
    Stop,
}

/// Reads one client's frames.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What is kept between two reads, and only then.
#[derive(Debug, Default)]
struct Partial {
    head: [u8; HEADER_BYTES_MAX],
    head_len: usize,
    frame: Option<Frame>,
    control: Vec<u8>,
    gathered: Option<Gathered>,
}

/// A frame whose header is complete.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    /// Payload bytes that have arrived.
    seen: usize,
}

/// The data message that is being gathered.
#[derive(Debug)]
struct Gathered {
    text: bool,
    bytes: Vec<u8>,
    /// Up to here `bytes` is known to be UTF-8.
    valid: usize,
    fragments: u32,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    len: usize,
}

impl Header {
    fn is_control(self) -> bool {
        self.opcode >= OP_CLOSE
    }
}

impl Decoder {
    /// Whether nothing is kept.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.partial.is_none()
    }

    /// Reads `input`, unmasking it in place, and hands over every message that is complete.
    ///
    /// # Errors
    /// The first [`Violation`]; messages before it were handed over. Nothing may be fed after one.
    pub fn feed(
        &mut self,
        mut input: &mut [u8],
        limits: Limits,
        mut on_message: impl FnMut(Message<'_>) -> Flow,
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            if self.partial.is_none() {
                match whole_frame(input, limits)? {
                    Some((header, start)) => {
                        let (frame, rest) = input.split_at_mut(start + header.len);
                        input = rest;
                        let payload = &mut frame[start..];
                        unmask(payload, header.mask, 0);
                        if on_message(message(header.opcode, payload)?) == Flow::Stop {
                            return Ok(());
                        }
                        continue;
                    }
                    None => self.partial = Some(Box::default()),
                }
            }
            let Some(partial) = &mut self.partial else {
                continue;
            };
            let (used, flow) = partial.step(input, limits, &mut on_message)?;
            input = &mut input[used..];
            if partial.is_empty() {
                self.partial = None;
            }
            if flow == Flow::Stop {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.gathered.is_none()
    }

    /// Takes some of `input`: a part of a header, or a part of a payload. Answers how many bytes it took.
    fn step(
        &mut self,
        input: &mut [u8],
        limits: Limits,
        on_message: &mut impl FnMut(Message<'_>) -> Flow,
    ) -> Result<(usize, Flow), Violation> {
        let mut used = 0;
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.header(input, limits, &mut used)? {
                Some(header) => Frame { header, seen: 0 },
                None => return Ok((used, Flow::Continue)),
            },
        };
        let take = (frame.header.len - frame.seen).min(input.len() - used);
        let payload = &mut input[used..used + take];
        unmask(payload, frame.header.mask, frame.seen);
        self.gather(frame.header, payload)?;
        frame.seen += take;
        if frame.seen < frame.header.len {
            self.frame = Some(frame);
            return Ok((used + take, Flow::Continue));
        }
        Ok((used + take, self.finish(frame.header, on_message)?))
    }

    /// Collects header bytes until they are a header, and checks it against what went before.
    fn header(
        &mut self,
        input: &[u8],
        limits: Limits,
        used: &mut usize,
    ) -> Result<Option<Header>, Violation> {
        loop {
            if let Some((header, _)) = parse_header(&self.head[..self.head_len])? {
                self.head_len = 0;
                self.begin(header, limits)?;
                return Ok(Some(header));
            }
            let Some(byte) = input.get(*used) else {
                return Ok(None);
            };
            self.head[self.head_len] = *byte;
            self.head_len += 1;
            *used += 1;
        }
    }

    fn begin(&mut self, header: Header, limits: Limits) -> Result<(), Violation> {
        if header.is_control() {
            self.control.clear();
            return Ok(());
        }
        match (&mut self.gathered, header.opcode) {
            (None, OP_CONTINUATION) => return Err(Violation::Protocol("a continuation of nothing")),
            (Some(_), OP_TEXT | OP_BINARY) => {
                return Err(Violation::Protocol("a new message inside another"));
            }
            (Some(gathered), _) => gathered.fragments += 1,
            (None, opcode) => {
                let text = opcode == OP_TEXT;
                self.gathered = Some(Gathered {
                    text,
                    bytes: Vec::new(),
                    valid: 0,
                    fragments: 1,
                });
            }
        }
        let fits = self.gathered.as_ref().is_some_and(|gathered| {
            gathered.fragments <= limits.fragments_max
                && header.len <= limits.message_bytes_max.saturating_sub(gathered.bytes.len())
        });
        if fits { Ok(()) } else { Err(Violation::TooBig) }
    }

    fn gather(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if header.is_control() {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        match &mut self.gathered {
            Some(gathered) => gathered.extend(payload),
            None => Ok(()),
        }
    }

    fn finish(
        &mut self,
        header: Header,
        on_message: &mut impl FnMut(Message<'_>) -> Flow,
    ) -> Result<Flow, Violation> {
        if header.is_control() {
            let control = std::mem::take(&mut self.control);
            return Ok(on_message(message(header.opcode, &control)?));
        }
        if !header.fin {
            return Ok(Flow::Continue);
        }
        match self.gathered.take() {
            Some(Gathered {
                text: true, bytes, ..
            }) => Ok(on_message(message(OP_TEXT, &bytes)?)),
            Some(Gathered { bytes, .. }) => Ok(on_message(Message::Binary(&bytes))),
            None => Ok(Flow::Continue),
        }
    }
}

impl Gathered {
    /// Keeps bytes; of text, only as long as they can still become UTF-8.
    fn extend(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.bytes.extend_from_slice(payload);
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            // No length: a character that ends in the next bytes.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

/// A frame that is a whole message by itself and lies whole in `input`: the ordinary case, which copies nothing.
fn whole_frame(input: &[u8], limits: Limits) -> Result<Option<(Header, usize)>, Violation> {
    let Some((header, start)) = parse_header(input)? else {
        return Ok(None);
    };
    let alone = header.fin && header.opcode != OP_CONTINUATION;
    if !alone || input.len() - start < header.len || header.len > limits.message_bytes_max {
        return Ok(None);
    }
    Ok(Some((header, start)))
}

/// Reads a header as far as it goes: `None` wants more bytes, and what is wrong is wrong at the first byte that shows it.
fn parse_header(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Violation::Protocol("a reserved bit is set"));
    }
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if !matches!(
        opcode,
        OP_CONTINUATION | OP_TEXT | OP_BINARY | OP_CLOSE | OP_PING | OP_PONG
    ) {
        return Err(Violation::Protocol("an opcode that is not defined"));
    }
    if opcode >= OP_CLOSE && !fin {
        return Err(Violation::Protocol("a control frame in fragments"));
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(Violation::Protocol("a client's frame is not masked"));
    }
    let short = second & 0x7f;
    if opcode >= OP_CLOSE && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::Protocol("a control frame of more than 125 bytes"));
    }
    let (len, at) = match short {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|long| <[u8; 8]>::try_from(long).ok()) {
            Some(long) => (u64::from_be_bytes(long), 10),
            None => return Ok(None),
        },
        len => (u64::from(len), 2),
    };
    if (short == 126 && len < 126) || (short == 127 && len <= u64::from(u16::MAX)) {
        return Err(Violation::Protocol(
            "a length that is not written in its shortest form",
        ));
    }
    if len >> 63 != 0 {
        return Err(Violation::Protocol("a length with its highest bit set"));
    }
    let Some(&[a, b, c, d]) = bytes.get(at..at + 4) else {
        return Ok(None);
    };
    // What does not fit a machine word is over every limit.
    let len = usize::try_from(len).map_err(|_| Violation::TooBig)?;
    Ok(Some((
        Header {
            fin,
            opcode,
            mask: [a, b, c, d],
            len,
        },
        at + 4,
    )))
}

fn message(opcode: u8, payload: &[u8]) -> Result<Message<'_>, Violation> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Violation::NotUtf8);
    Ok(match opcode {
        OP_TEXT => Message::Text(text(payload)?),
        OP_BINARY => Message::Binary(payload),
        OP_PING => Message::Ping(payload),
        OP_PONG => Message::Pong(payload),
        _ => match payload {
            [] => Message::Close(None),
            [_] => return Err(Violation::Protocol("a close frame with half a code")),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !may_be_sent(code) {
                    return Err(Violation::Protocol("a close code that may not be sent"));
                }
                Message::Close(Some((code, text(reason)?)))
            }
        },
    })
}

/// RFC 6455 §7.4: the codes that may stand in a close frame.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// `offset`: how many bytes of the payload went before.
fn unmask(payload: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let word = u64::from(u32::from_ne_bytes(mask));
    let word = word | (word << 32);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ word).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A whole text frame, ready to be written to any number of sockets.
#[must_use]
pub fn text_frame(payload: &[u8]) -> Bytes {
    text_frame_of(|out| out.extend_from_slice(payload))
}

/// The same with a payload that `write` puts behind what it is given.
#[must_use]
pub fn text_frame_of(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(TEXT_BYTES);
    out.resize(OUT_HEADER_BYTES_MAX, 0);
    write(&mut out);
    // How long the header is is known with the payload; it ends where that begins.
    let payload_bytes = out.len().saturating_sub(OUT_HEADER_BYTES_MAX);
    let begin = OUT_HEADER_BYTES_MAX - header_bytes(payload_bytes);
    if let Some(mut header) = out.get_mut(begin..OUT_HEADER_BYTES_MAX) {
        put_header(&mut header, OP_TEXT, payload_bytes);
    }
    Bytes::from(out).slice(begin..)
}

/// The same of a payload in parts, in just the memory it takes.
#[must_use]
pub fn text_frame_of_parts<const N: usize>(parts: [&str; N]) -> Bytes {
    frame(OP_TEXT, &parts.map(str::as_bytes))
}

/// A whole binary frame, likewise.
#[must_use]
pub fn binary_frame(payload: &[u8]) -> Bytes {
    frame(OP_BINARY, &[payload])
}

/// A pong with the payload of its ping.
#[must_use]
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(OP_PONG, &[payload])
}

/// A close frame. `None` answers a close without code. The reason is cut to what fits.
#[must_use]
pub fn close_frame(code_and_reason: Option<(u16, &str)>) -> Bytes {
    let mut payload = BytesMut::with_capacity(CONTROL_BYTES_MAX);
    if let Some((code, reason)) = code_and_reason {
        payload.put_u16(code);
        let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.put_slice(&reason.as_bytes()[..end]);
    }
    frame(OP_CLOSE, &[&payload])
}

fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let payload_bytes = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(header_bytes(payload_bytes) + payload_bytes);
    put_header(&mut out, opcode, payload_bytes);
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

/// The longest header of an unmasked frame.
const OUT_HEADER_BYTES_MAX: usize = 10;
/// Most of what is said to one client fits into so many bytes.
const TEXT_BYTES: usize = 1_024;

/// Bytes of the header of an unmasked frame (RFC 6455 §5.2).
#[must_use]
pub fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => OUT_HEADER_BYTES_MAX,
    }
}

/// Writes the header of a whole text message of so many bytes.
pub fn put_text_header(out: &mut BytesMut, payload_bytes: usize) {
    put_header(out, OP_TEXT, payload_bytes);
}

/// Writes the header of a whole binary message of so many bytes.
pub fn put_binary_header(out: &mut BytesMut, payload_bytes: usize) {
    put_header(out, OP_BINARY, payload_bytes);
}

fn put_header(out: &mut impl BufMut, opcode: u8, payload_bytes: usize) {
    out.put_u8(0x80 | opcode);
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(len @ 0..=125), _) => out.put_u8(len),
        (_, Ok(len)) => {
            out.put_u8(126);
            out.put_u16(len);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload_bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests;
