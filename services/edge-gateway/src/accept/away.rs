//! Those who are not let in: why, what they are told, and how that still arrives.

use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, StatusCode};
use roomcast_proto::refusal::{Code, Refusal};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::head::{date, head_of};
use crate::admission::TooMany;
use crate::error::problem;

/// How long a socket is read from after its request was refused while its head was still coming.
const LAST_BYTES: usize = 256 * 1024;
const LAST_BYTES_FOR: Duration = Duration::from_millis(500);

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// The gateway is full, or going down.
    Busy,
    /// The address holds as many connections as it may.
    Address,
    /// The address opens too many at once.
    AddressRate,
    /// Nothing was asked for in time.
    TooLate,
}

impl Away {
    /// The words in metric labels beside those of the limits.
    pub(crate) const LABELS: [&'static str; 3] = [DRAIN, DESCRIPTORS, HEAD];
}

/// Label: the gateway is going down.
pub(crate) const DRAIN: &str = "drain";
/// Label: the process has no file descriptor left.
pub(crate) const DESCRIPTORS: &str = "descriptors";
/// Label: nothing, or no whole request, came in time.
pub(crate) const HEAD: &str = "head";

impl From<TooMany> for Away {
    fn from(limit: TooMany) -> Self {
        match limit {
            TooMany::Connections | TooMany::Strangers | TooMany::Rate => Self::Busy,
            // Those of a tenant and a user are known later, and said over the socket.
            TooMany::Address | TooMany::AddressStrangers | TooMany::Tenant | TooMany::User => Self::Address,
            TooMany::AddressRate => Self::AddressRate,
        }
    }
}

impl Away {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Busy => busy(1_000),
            Self::Address => {
                Refusal::new(Code::Limit, "too many connections of this address").retry_after_ms(5_000)
            }
            Self::AddressRate => {
                Refusal::new(Code::Rate, "too many new connections of this address").retry_after_ms(5_000)
            }
            Self::TooLate => Refusal::new(Code::RequestTimeout, "the request took too long to arrive"),
        }
    }

    /// The whole answer. All but its date is written once: it is said when there is no time to write it.
    fn answer(self) -> Vec<u8> {
        static ANSWERS: [LazyLock<[Vec<u8>; 2]>; 4] = [
            LazyLock::new(|| Away::Busy.write()),
            LazyLock::new(|| Away::Address.write()),
            LazyLock::new(|| Away::AddressRate.write()),
            LazyLock::new(|| Away::TooLate.write()),
        ];
        let [head, body] = &*ANSWERS[self as usize];
        match date() {
            Some(date) => [head, &b"date: "[..], date.as_bytes(), b"\r\n\r\n", body].concat(),
            None => [head, &b"\r\n"[..], body].concat(),
        }
    }

    /// The lines of the head, and the body.
    fn write(self) -> [Vec<u8>; 2] {
        let (refusal, body) = (self.refusal(), self.refusal().problem_json());
        let mut headers = problem(&refusal).headers().clone();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut head = head_of(&status.to_string(), &headers);
        // The empty line comes behind the date.
        head.truncate(head.len() - 2);
        [head, body.into()]
    }
}

pub(super) fn busy(retry_after_ms: u64) -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "this gateway takes no connections at the moment",
    )
    .retry_after_ms(retry_after_ms)
}

/// Writes a last answer past whoever reads and writes the socket otherwise. The send buffer holds nothing, so it fits;
/// who is gone misses nothing.
pub(crate) fn say_last(socket: &impl AsFd, why: Away) {
    let socket = SockRef::from(socket);
    let _ = socket.send(&why.answer());
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// Reads away what is still coming, for a moment, so that the last answer arrives before the connection is reset.
pub(super) async fn last_bytes(stream: &TcpStream) {
    let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let reading = async {
        let (mut scratch, mut total) = ([0_u8; 4096], 0);
        while total < LAST_BYTES && stream.readable().await.is_ok() {
            match stream.try_read(&mut scratch) {
                Ok(0) => return,
                Ok(count) => total += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // Who takes longer has had its answer.
    let _ = tokio::time::timeout(LAST_BYTES_FOR, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_answers_are_problems_with_a_hint() {
        for (why, status, code, hint) in [
            (
                Away::Busy,
                "503 Service Unavailable",
                "unavailable",
                "retry-after: 1\r\n",
            ),
            (
                Away::Address,
                "429 Too Many Requests",
                "limit",
                "retry-after: 5\r\n",
            ),
            (
                Away::AddressRate,
                "429 Too Many Requests",
                "rate",
                "retry-after: 5\r\n",
            ),
            (
                Away::TooLate,
                "408 Request Timeout",
                "request_timeout",
                "connection: close\r\n",
            ),
        ] {
            let answer = String::from_utf8(why.answer()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let head = format!("{head}\r\n");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            assert!(
                head.contains(hint) && head.contains("content-type: application/problem+json\r\n"),
                "{head}"
            );
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len())),
                "{head}"
            );
            let date = head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
            assert!(
                jiff::fmt::rfc2822::parse(date).is_ok() && date.ends_with(" GMT"),
                "{head}"
            );
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["code"], code);
        }
    }
}
