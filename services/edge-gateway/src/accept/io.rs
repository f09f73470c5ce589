//! A socket that hyper reads and writes while the connection's task keeps a hold of it: to answer when hyper gives up
//! in silence, and to take the socket back after an upgrade.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes moved at once; a request's head is a fraction of it.
const PIECE: usize = 4096;

/// Hyper's half, and what was read of the socket before hyper got it.
#[derive(Debug)]
pub(super) struct Io(pub(super) Arc<TcpStream>, pub(super) Bytes);

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.1.is_empty() {
            let most = into.remaining().min(self.1.len());
            into.put_slice(&self.1.split_to(most));
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0_u8; PIECE];
        let most = into.remaining().min(PIECE);
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(&mut piece[..most]) {
                Ok(count) => {
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write))
    }
}
