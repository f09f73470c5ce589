//! A socket that hyper reads and writes while the connection's task keeps a hold of it: to answer when hyper gives up
//! in silence, and to take the socket back after an upgrade.
//!
//! Bytes have the same limits as those of a WebSocket, whatever requests they are: who sends more is read more slowly, who takes
//! nothing of its answers is cut off.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Door;
use crate::bucket::{Bucket, Rate};
use crate::limit::Limit;

/// Bytes moved at once; a request's head is a fraction of it. Far below every burst, so what was read is paid for some time.
const PIECE: usize = 4096;

/// How fast a connection of requests is read, and how slowly it may read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// `ROOMCAST_INGRESS_BYTES_…`
    pub ingress: Rate,
    /// `ROOMCAST_WRITE_SECONDS`
    pub write_timeout: Duration,
}

/// Hyper's half, and what was read of the socket before hyper got it.
#[derive(Debug)]
pub(super) struct Io {
    stream: Arc<TcpStream>,
    first: Bytes,
    door: Arc<Door>,
    /// Whether bytes have come since the last were written.
    heard: Arc<AtomicBool>,
    began: Instant,
    bucket: Bucket,
    /// Bytes read and not yet taken from the bucket.
    owed: u64,
    /// Until some of them are there.
    rests: Option<Pin<Box<Sleep>>>,
    /// Until a write must have gone on.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Io {
    pub(super) fn new(stream: Arc<TcpStream>, first: Bytes, door: Arc<Door>, heard: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            owed: first.len() as u64,
            first,
            door,
            heard,
            began: Instant::now(),
            bucket: Bucket::default(),
            rests: None,
            stuck: None,
        }
    }

    /// The socket, and what was read of it that hyper has not taken.
    pub(super) fn into_parts(self) -> (Arc<TcpStream>, Bytes) {
        (self.stream, self.first)
    }

    /// Ready when what was read is paid for.
    fn poll_budget(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.owed > 0 {
            let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if self.bucket.take(now, self.owed, self.door.pace.ingress) {
                self.owed = 0;
                self.rests = None;
                break;
            }
            let (bucket, owed, rate) = (&self.bucket, self.owed, self.door.pace.ingress);
            let metrics = &self.door.desk.metrics;
            let rests = self.rests.get_or_insert_with(|| {
                metrics.limited(Limit::Ingress);
                // One more, so that the unit that is due is there when it wakes.
                Box::pin(sleep(Duration::from_millis(
                    bucket.wait_millis_for(now, owed, rate) + 1,
                )))
            });
            ready!(rests.as_mut().poll(cx));
            self.rests = None;
        }
        Poll::Ready(())
    }

    fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> std::io::Result<usize>,
    ) -> Poll<std::io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.stream.poll_write_ready(cx) else {
                let within = self.door.pace.write_timeout;
                let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(within)));
                ready!(stuck.as_mut().poll(cx));
                self.door.desk.metrics.limited(Limit::Write);
                return Poll::Ready(Err(Error::new(
                    ErrorKind::TimedOut,
                    "the other side takes nothing",
                )));
            };
            ready?;
            match write(&self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => {
                    self.stuck = None;
                    self.heard.store(false, Ordering::Relaxed);
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.first.is_empty() {
            let most = into.remaining().min(self.first.len());
            into.put_slice(&self.first.split_to(most));
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_budget(cx));
        let mut piece = [0_u8; PIECE];
        let most = into.remaining().min(PIECE);
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(&mut piece[..most]) {
                Ok(count) => {
                    self.heard.store(true, Ordering::Relaxed);
                    self.owed += count as u64;
                    into.put_slice(&piece[..count]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_write_by(cx, |stream| stream.try_write_vectored(pieces))
    }

    /// So hyper keeps answers as they were handed to it until they are written: copies would be held beside what is counted.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}
