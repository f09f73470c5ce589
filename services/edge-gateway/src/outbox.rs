//! What one client has not taken yet: a bounded queue of ready frames, and what happens when it is full.
//!
//! The shard makes one only when a socket refuses bytes (or when several frames are to go out in one write) and drops
//! it when it is empty, so a client that keeps up costs nothing. Frames are shared with all other clients; a queue
//! holds references. What a client missed while it was away is not counted against the limits: it has a bound of its
//! own, the page of a recovery. Decided here, without clock or socket: what fits, and that more does not.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// How much may wait for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of live frames and answers.
    pub bytes_max: usize,
    /// Live frames and answers.
    pub frames_max: usize,
}

/// What a frame is, which decides what overflow may do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An answer or a push of the protocol itself: never dropped.
    Answer,
    /// A live event, kept in order to the limit.
    Event,
    /// A live state value.
    State,
    /// A live event that nobody stored.
    Ephemeral,
    /// Part of a recovery: bounded by its page, not by the limits.
    Recovery,
    /// The last words of a connection: they always fit.
    Last,
    /// The answer to a WebSocket ping; only the newest is kept (RFC 6455 §5.5.3).
    Pong,
}

/// The queue is full: the client is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct Full;

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    class: Class,
}

impl Entry {
    fn counts(&self) -> bool {
        !matches!(self.class, Class::Recovery | Class::Last)
    }
}

/// The queue of one client.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Entry>,
    /// Bytes of the first entry that are written already.
    written: usize,
    /// What counts against the limits.
    bytes: usize,
    frames: usize,
}

impl Outbox {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Frames waiting, recovery included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Appends a frame of which `written` bytes are out already (only for the first one).
    ///
    /// # Errors
    /// [`Full`] when the limits do not allow it; the queue is as before, and the client must be told to come back.
    pub fn push(&mut self, frame: Bytes, written: usize, class: Class, limits: Limits) -> Result<(), Full> {
        debug_assert!(
            written == 0 || self.entries.is_empty(),
            "only the first frame can be half written"
        );
        if class == Class::Pong && self.replace_pong(&frame) {
            return Ok(());
        }
        let entry = Entry { frame, class };
        if entry.counts() {
            if self.frames >= limits.frames_max || self.bytes + entry.frame.len() > limits.bytes_max {
                return Err(Full);
            }
            self.frames += 1;
            self.bytes += entry.frame.len();
        }
        if self.entries.is_empty() {
            self.written = written;
        }
        self.entries.push_back(entry);
        Ok(())
    }

    /// The frames to write next, at most as many as `slices` holds. Answers how many slices are filled.
    pub fn next<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            let skip = if filled == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&entry.frame[skip..]);
            filled += 1;
        }
        filled
    }

    /// Notes that `bytes` more are written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        while let Some(first) = self.entries.front() {
            if self.written < first.frame.len() {
                return;
            }
            self.written -= first.frame.len();
            self.release_first();
        }
        self.written = 0;
    }

    /// Drops everything but a frame that is half out, which must be ended for the next one to be readable.
    pub fn abandon(&mut self) {
        let keep = usize::from(self.written > 0);
        while self.entries.len() > keep {
            self.release_last();
        }
    }

    fn replace_pong(&mut self, frame: &Bytes) -> bool {
        // The first entry may be half written.
        let Some(pong) = self
            .entries
            .iter_mut()
            .skip(1)
            .find(|entry| entry.class == Class::Pong)
        else {
            return false;
        };
        self.bytes = self.bytes - pong.frame.len() + frame.len();
        pong.frame = frame.clone();
        true
    }

    fn release_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.uncount(&entry);
        }
    }

    fn release_last(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.uncount(&entry);
        }
    }

    fn uncount(&mut self, entry: &Entry) {
        if entry.counts() {
            self.frames -= 1;
            self.bytes -= entry.frame.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 100,
        frames_max: 4,
    };

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    /// Writes at most `most` bytes and answers what went out.
    fn write(outbox: &mut Outbox, most: usize) -> String {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outbox.next(&mut slices);
        let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        let out = String::from_utf8(all[..most.min(all.len())].to_vec()).unwrap();
        outbox.wrote(out.len());
        out
    }

    #[test]
    fn frames_leave_in_order_however_little_is_written() {
        let mut outbox = Outbox::default();
        outbox.push(bytes("first"), 2, Class::Event, LIMITS).unwrap();
        outbox.push(bytes("second"), 0, Class::Answer, LIMITS).unwrap();
        let mut out = String::new();
        while !outbox.is_empty() {
            out += &write(&mut outbox, 2);
        }
        assert_eq!(out, "rstsecond");
    }

    #[test]
    fn the_limits_hold_for_live_frames_and_not_for_recovery() {
        let mut outbox = Outbox::default();
        for _ in 0..50 {
            outbox.push(bytes("missed"), 0, Class::Recovery, LIMITS).unwrap();
        }
        for _ in 0..4 {
            outbox.push(bytes("live"), 0, Class::Event, LIMITS).unwrap();
        }
        assert_eq!(outbox.push(bytes("live"), 0, Class::State, LIMITS), Err(Full));
        let mut large = Outbox::default();
        large
            .push(bytes(&"x".repeat(99)), 0, Class::Event, LIMITS)
            .unwrap();
        assert_eq!(large.push(bytes("yy"), 0, Class::Answer, LIMITS), Err(Full));
        large.push(bytes("y"), 0, Class::Answer, LIMITS).unwrap();
    }

    #[test]
    fn only_the_newest_pong_waits() {
        let mut outbox = Outbox::default();
        outbox.push(bytes("head"), 1, Class::Event, LIMITS).unwrap();
        for n in 0..1000 {
            outbox
                .push(bytes(&format!("pong{n}")), 0, Class::Pong, LIMITS)
                .unwrap();
        }
        assert_eq!(outbox.len(), 2);
        assert_eq!(write(&mut outbox, 100), "eadpong999");
    }

    #[test]
    fn abandoning_keeps_what_is_half_out() {
        let mut outbox = Outbox::default();
        outbox.push(bytes("half"), 2, Class::Event, LIMITS).unwrap();
        outbox.push(bytes("rest"), 0, Class::Event, LIMITS).unwrap();
        outbox.abandon();
        assert_eq!(write(&mut outbox, 100), "lf");
        outbox.push(bytes("whole"), 0, Class::Event, LIMITS).unwrap();
        outbox.abandon();
        assert!(outbox.is_empty());
    }

    proptest! {
        #[test]
        fn counts_agree_and_order_holds(steps in prop::collection::vec((0_u8..6, 1_usize..40), 0..80)) {
            let classes = [Class::Answer, Class::Event, Class::State, Class::Recovery];
            let (mut outbox, mut sent, mut out, mut n) = (Outbox::default(), String::new(), String::new(), 0_u32);
            for (kind, size) in steps {
                if let Some(class) = classes.get(usize::from(kind)) {
                    n += 1;
                    let text = format!("{n:>size$};");
                    if outbox.push(bytes(&text), 0, *class, LIMITS).is_ok() {
                        sent += &text;
                    }
                } else {
                    out += &write(&mut outbox, size);
                }
                let counted = || outbox.entries.iter().filter(|entry| entry.counts());
                prop_assert_eq!(outbox.frames, counted().count());
                prop_assert_eq!(outbox.bytes, counted().map(|entry| entry.frame.len()).sum::<usize>());
                prop_assert!(outbox.frames <= LIMITS.frames_max && outbox.bytes <= LIMITS.bytes_max);
            }
            while !outbox.is_empty() {
                out += &write(&mut outbox, 1000);
            }
            prop_assert_eq!(out, sent);
        }
    }
}
