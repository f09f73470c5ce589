//! `--health`: asks the process that runs with the same settings whether it can do its work. For containers, which have nothing else
//! to ask with.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Failure;

/// The admin port answers from memory; what takes longer is no health.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More than the report of every latch there is.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Asks `/readyz` of the admin port.
///
/// # Errors
/// 69 with what the process says, or that it does not answer.
pub(super) fn health(listen: SocketAddr) -> Result<(), Failure> {
    let address = reachable(listen);
    let answer = ask(address).map_err(|error| {
        Failure::unavailable(format!("the admin port {address} does not answer: {error}"))
    })?;
    let mut parts = answer.splitn(2, "\r\n\r\n");
    let (head, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if head.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(Failure::unavailable(format!("not ready: {}", body.trim())))
    }
}

/// A process that listens everywhere is asked on loopback.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A port that gives one answer.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let read = stream.read(&mut asked).unwrap();
            assert!(asked[..read].starts_with(b"GET /readyz "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[track_caller]
    fn check(answer: &'static str, expected: Result<(), &str>) {
        let said = health(answering(answer)).map_err(|failure| failure.to_string());
        match expected {
            Ok(()) => assert_eq!(said, Ok(())),
            Err(part) => assert!(said.as_ref().is_err_and(|said| said.contains(part)), "{said:?}"),
        }
    }

    #[test]
    fn what_the_admin_port_says_is_the_health() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok(()));
        check(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"nats\":\"gone\"}",
            Err("not ready: {\"nats\":\"gone\"}"),
        );
        check("", Err("not ready"));
        // A body cannot pass for a status.
        check("HTTP/1.1 500 No\r\n\r\nHTTP/1.1 200 OK", Err("not ready"));
    }

    #[test]
    fn nobody_there_is_no_health() {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(health(gone).unwrap_err().to_string().contains("does not answer"));
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.0.0.7:9090", "10.0.0.7:9090"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
