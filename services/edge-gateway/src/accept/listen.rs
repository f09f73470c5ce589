//! The listeners, one for each shard on one port, and what the sockets that they accept are told.

use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of it that may be unsent. What waits there can no longer give way to something newer, so a slow client is kept
/// on the newest state by keeping it short; what is on its way does not count, so a fast one is not held up. The kernel says
/// that there is room when half of it is sent: 8 KiB within the 5 s of a write are 13 kbit/s.
const UNSENT_BYTES: u32 = 16 * 1024;
/// Connections that wait in the kernel for a shard; the system has its own cap. A burst of returning clients queues
/// there instead of being refused by it.
const BACKLOG: i32 = 4096;

/// What the kernel is told of every socket.
#[derive(Clone, Copy, Debug)]
pub struct Sockets {
    /// `ROOMCAST_SEND_BUFFER_BYTES`: what it may hold for a client that does not read, beside its outbox. It doubles it for itself.
    pub send_buffer_bytes: usize,
    /// `ROOMCAST_UNACKNOWLEDGED_SECONDS`: without an acknowledgement of sent bytes for so long it gives a connection up.
    pub unacknowledged: Duration,
}

/// Opens `count` listeners on one address, among which the kernel deals new connections out.
///
/// # Errors
/// The address is taken, also by another process of ours, or is not this machine's.
pub fn listen(address: SocketAddr, count: usize, sockets: Sockets) -> std::io::Result<Vec<TcpListener>> {
    let domain = Domain::for_address(address);
    let bound = |address: SocketAddr, shared: bool| {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        Ok::<_, std::io::Error>(socket)
    };
    // Sockets that share a port may join others that do; this one may not, so it finds out whether the port is free.
    let alone = bound(address, false)?;
    alone.listen(1)?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(address, true)?;
        tune(&socket, sockets)?;
        socket.set_nonblocking(true)?;
        listeners.push(socket);
    }
    // All at once: one that listened before the others would get what comes in between.
    for socket in &listeners {
        socket.listen(BACKLOG)?;
    }
    let into_mio = |socket: Socket| TcpListener::from_std(socket.into());
    Ok(listeners.into_iter().map(into_mio).collect())
}

/// Sets what every accepted socket inherits (Linux copies a listener's options): no delay, a bounded send buffer, an
/// end for peers that vanished. Saves system calls per connection.
fn tune(socket: &Socket, limits: Sockets) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(limits.send_buffer_bytes)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        socket.set_tcp_user_timeout(Some(limits.unacknowledged))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use socket2::SockRef;

    const SOCKETS: Sockets = Sockets {
        send_buffer_bytes: 64 * 1024,
        unacknowledged: Duration::from_secs(7),
    };

    #[cfg(target_os = "linux")]
    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_told() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 1, SOCKETS).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (socket, _) = listeners[0].accept().unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SOCKETS.send_buffer_bytes);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SOCKETS.unacknowledged));
    }

    #[test]
    fn the_shards_share_a_port_and_no_second_gateway_joins_them() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 4, SOCKETS).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let taken = listen(address, 2, SOCKETS).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let clients: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let waiting = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        let dealt: Vec<usize> = listeners.iter().map(waiting).collect();
        assert_eq!(dealt.iter().sum::<usize>(), clients.len());
        #[cfg(target_os = "linux")]
        assert!(dealt.iter().all(|count| *count > 10), "{dealt:?}");
    }
}
