//! Sending one thing to one receiver, and what its answer means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use roomcast_chassis::fetch::{FetchError, Posted, Poster, Url};
use roomcast_chassis::trace::Trail;
use roomcast_proto::device::Subscription;
use roomcast_proto::event::Priority;

use crate::address::{self, Range};
use crate::attempt::Outcome;
use crate::push::{self, PushError};
use crate::vapid::Vapid;
use crate::webhook::Secrets;

/// From the look-up of a name to the head of the answer.
pub const WITHIN: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried, one after the other.
const ADDRESSES_MAX: usize = 3;
/// The longest that push services keep a message: four weeks.
const TTL_SECS_MAX: i64 = 28 * 24 * 3_600;

/// What came of an attempt, and a word for a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it means.
    pub outcome: Outcome,
    /// One of [`LABELS`].
    pub label: &'static str,
}

/// Every [`Sent::label`]: `taken`; `gone` (404, 410); `refused` (400, 413, 422, or it cannot be made for this receiver); `status` (any
/// other); `redirect`; `slow` (no answer in time); `unreachable`; `address` (one that may not be spoken to).
pub const LABELS: [&str; 8] = [
    "taken",
    "gone",
    "refused",
    "status",
    "redirect",
    "slow",
    "unreachable",
    "address",
];

impl Sent {
    /// Whether the receiver answered; `None`: nothing was sent to it.
    #[must_use]
    pub fn is_answered(&self) -> Option<bool> {
        match self.label {
            "slow" | "unreachable" => Some(false),
            "address" => None,
            _ => Some(true),
        }
    }
}

const fn later(label: &'static str) -> Sent {
    Sent {
        outcome: Outcome::Later(None),
        label,
    }
}

const REFUSED: Sent = Sent {
    outcome: Outcome::Refused,
    label: "refused",
};

/// What a webhook is told.
#[derive(Clone, Debug)]
pub struct Hook<'a> {
    /// Names what is delivered; the same after a lost answer is the same delivery.
    pub id: &'a str,
    /// The event.
    pub body: Bytes,
    /// The step of this attempt, where there is a trace: the receiver may go on with it.
    pub trail: Option<Trail>,
}

/// What a push is, beside its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// A later push with the same takes the place of one that the device has not taken yet; 32 characters at most.
    pub topic: String,
    /// How urgent it is.
    pub priority: Priority,
    /// How long the push service is to keep it, seconds.
    pub ttl_secs: i64,
}

/// Sends to receivers within an operator's bounds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    poster: Poster,
    private: Arc<[Range]>,
}

impl Sender {
    /// `private`: ranges that may be spoken to although they are not public. `authorities`: certificates in PEM that are trusted beside the
    /// system's.
    ///
    /// # Errors
    /// There are no certificates to trust.
    pub fn new(private: &[Range], authorities: Option<&[u8]>) -> Result<Self, FetchError> {
        Ok(Self {
            poster: Poster::new(WITHIN, authorities)?,
            private: private.into(),
        })
    }

    /// Posts a webhook.
    ///
    /// # Cancel safety
    /// Dropped, the receiver may have taken it.
    pub async fn webhook(&self, url: &Url, secrets: &Secrets, hook: &Hook<'_>, now_secs: i64) -> Sent {
        let Hook { id, body, trail } = hook;
        let headers = fields([
            (CONTENT_TYPE, "application/cloudevents+json".to_owned()),
            (HeaderName::from_static("webhook-id"), (*id).to_owned()),
            (HeaderName::from_static("webhook-timestamp"), now_secs.to_string()),
            (
                HeaderName::from_static("webhook-signature"),
                secrets.signature(id, now_secs, body),
            ),
        ]);
        let Some(mut headers) = headers else {
            return REFUSED;
        };
        if let Some(trail) = trail {
            trail.write_http(&mut headers);
        }
        match self.post(url, headers, body.clone()).await {
            // The operator's file says that it is there; until somebody has looked it waits.
            Sent {
                outcome: Outcome::Gone,
                label,
            } => later(label),
            sent => sent,
        }
    }

    /// Sends a push with a text for the device alone.
    ///
    /// # Cancel safety
    /// Dropped, the push service may have taken it.
    pub async fn push(
        &self,
        subscription: &Subscription,
        vapid: &Vapid,
        text: &[u8],
        push: &Push,
        now_secs: i64,
    ) -> Sent {
        let Ok(url) = Url::parse(&subscription.endpoint) else {
            return REFUSED;
        };
        let (body, signature) = match (
            push::encrypt(subscription, text),
            vapid.authorization(&url.origin(), now_secs),
        ) {
            (Ok(body), Ok(signature)) => (body, signature),
            (Err(PushError::Keys | PushError::TooLong), _) => return REFUSED,
            _ => return later("refused"),
        };
        let headers = fields([
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_ENCODING, "aes128gcm".to_owned()),
            (AUTHORIZATION, signature),
            (
                HeaderName::from_static("ttl"),
                push.ttl_secs.clamp(0, TTL_SECS_MAX).to_string(),
            ),
            (
                HeaderName::from_static("urgency"),
                urgency(push.priority).to_owned(),
            ),
            (HeaderName::from_static("topic"), push.topic.clone()),
        ]);
        match headers {
            Some(headers) => self.post(&url, headers, body.into()).await,
            None => REFUSED,
        }
    }

    async fn post(&self, url: &Url, headers: HeaderMap, body: Bytes) -> Sent {
        if !url.is_tls() {
            return later("address");
        }
        let posted = tokio::time::timeout(WITHIN, async {
            let found = tokio::net::lookup_host((url.host(), url.port())).await;
            let found = found.map_err(|error| FetchError::Unreachable(error.to_string()))?;
            let allowed = allowed(found, &self.private);
            if allowed.is_empty() {
                return Ok(None);
            }
            self.poster.post(url, &allowed, headers, body).await.map(Some)
        });
        judge(posted.await.unwrap_or(Err(FetchError::Slow(WITHIN))))
    }
}

/// Those of the addresses that a name was found to have which may be spoken to. The connection goes to one of these and to no other: a name
/// that answers something else a moment later changes nothing.
fn allowed(found: impl Iterator<Item = SocketAddr>, private: &[Range]) -> Vec<SocketAddr> {
    let may = |found: &SocketAddr| address::may(found.ip(), private);
    found.filter(may).take(ADDRESSES_MAX).collect()
}

fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical | Priority::High => "high",
        Priority::Medium => "normal",
        Priority::Low => "low",
    }
}

/// `None`: a value that no header can have.
fn fields<const N: usize>(fields: [(HeaderName, String); N]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(N);
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_str(&value).ok()?);
    }
    Some(headers)
}

/// What an answer means; `None`: there was no address to ask. A redirect is followed by nobody: it would lead where no operator has looked.
fn judge(posted: Result<Option<Posted>, FetchError>) -> Sent {
    let posted = match posted {
        Ok(Some(posted)) => posted,
        Ok(None) => return later("address"),
        Err(FetchError::Slow(_)) => return later("slow"),
        Err(_) => return later("unreachable"),
    };
    match posted.status {
        status if status.is_success() => Sent {
            outcome: Outcome::Taken,
            label: "taken",
        },
        StatusCode::GONE | StatusCode::NOT_FOUND => Sent {
            outcome: Outcome::Gone,
            label: "gone",
        },
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => REFUSED,
        status if status.is_redirection() => later("redirect"),
        _ => Sent {
            outcome: Outcome::Later(posted.retry_after),
            label: "status",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_meaning() {
        let said = |status: u16, seconds: Option<u64>| {
            judge(Ok(Some(Posted {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after: seconds.map(Duration::from_secs),
            })))
        };
        let asked = Outcome::Later(Some(Duration::from_secs(9)));
        let unreachable = FetchError::Unreachable(String::new());
        let rows = [
            (said(200, None), Outcome::Taken, "taken"),
            (said(201, None), Outcome::Taken, "taken"),
            (said(301, None), Outcome::Later(None), "redirect"),
            (said(308, Some(9)), Outcome::Later(None), "redirect"),
            (said(400, None), Outcome::Refused, "refused"),
            (said(401, None), Outcome::Later(None), "status"),
            (said(404, None), Outcome::Gone, "gone"),
            (said(410, None), Outcome::Gone, "gone"),
            (said(413, None), Outcome::Refused, "refused"),
            (said(422, None), Outcome::Refused, "refused"),
            (said(429, Some(9)), asked, "status"),
            (said(500, None), Outcome::Later(None), "status"),
            (said(503, Some(9)), asked, "status"),
            (judge(Ok(None)), Outcome::Later(None), "address"),
            (judge(Err(FetchError::Slow(WITHIN))), Outcome::Later(None), "slow"),
            (judge(Err(unreachable)), Outcome::Later(None), "unreachable"),
        ];
        for (sent, outcome, label) in rows {
            assert_eq!((sent.outcome, sent.label), (outcome, label));
            assert!(LABELS.contains(&sent.label));
            let answered = match label {
                "slow" | "unreachable" => Some(false),
                "address" => None,
                _ => Some(true),
            };
            assert_eq!(sent.is_answered(), answered, "{label}");
        }
    }

    #[test]
    fn of_a_names_addresses_only_those_that_may_be_spoken_to_are_tried() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|address| address.parse().unwrap()).collect()
        };
        let private = ["10.1.0.0/16".parse().unwrap()];
        // The first of these is what somebody's name server answers to lead us astray.
        let found = addresses(&[
            "127.0.0.1:443",
            "[::ffff:169.254.169.254]:443",
            "10.1.2.3:443",
            "8.8.8.8:443",
            "[::1]:443",
        ]);
        assert_eq!(
            allowed(found.into_iter(), &private),
            addresses(&["10.1.2.3:443", "8.8.8.8:443"])
        );
        let many = addresses(&["8.8.8.1:443", "8.8.8.2:443", "8.8.8.3:443", "8.8.8.4:443"]);
        assert_eq!(allowed(many.into_iter(), &[]).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn without_tls_and_to_what_is_not_listed_nothing_is_sent() {
        roomcast_chassis::process::install_crypto();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let authority = include_bytes!("../../../proto/tests/tls/ca.pem");
        let secrets = Secrets::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let private: Range = "127.0.0.0/8".parse().unwrap();
        for (scheme, private) in [("http", &[private][..]), ("https", &[])] {
            let sender = Sender::new(private, Some(authority)).unwrap();
            let url = Url::parse(&format!("{scheme}://localhost:{port}/hook")).unwrap();
            let hook = Hook {
                id: "msg_1",
                body: Bytes::from_static(b"{}"),
                trail: None,
            };
            let sent = sender.webhook(&url, &secrets, &hook, 5).await;
            assert_eq!(sent, later("address"), "{scheme}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "nobody connected");
    }
}
