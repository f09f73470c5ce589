//! The HTTP door: `POST /v1/events`.
//!
//! What may be refused without reading the body is; the body is read with a bound and a deadline, and only from who has a valid
//! token. Everything refused after that is kept as a dead letter.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use roomcast_proto::refusal::{Code, Refusal};

use crate::accept::Sender;
use crate::answer::Answer;
use crate::bearer::Bearers;
use crate::capacity::Place;
use crate::dead_letter::KEPT_BYTES_MAX;
use crate::intake::{self, Intake, Shape};
use crate::metrics::{Door, Outcome};
use crate::now_micros;

/// The one path.
pub const PATH: &str = "/v1/events";
/// On either door: ids that are too old to be de-duplicated are meant.
pub const BACKFILL: &str = "Roomcast-Backfill";

/// What the handlers share.
#[derive(Debug)]
pub struct HttpDoor {
    /// Where events go.
    pub intake: Intake,
    /// Who may come in.
    pub bearers: Bearers,
    /// Pages that may publish.
    pub allowed_origins: Vec<String>,
    /// Bytes of a body.
    pub body_bytes_max: usize,
    /// Time for a body.
    pub body_within: Duration,
}

/// The routes.
pub fn router(door: HttpDoor) -> Router {
    let events = post(publish).options(preflight).fallback(wrong_method);
    Router::new()
        .route(PATH, events)
        .fallback(nothing_here)
        .with_state(Arc::new(door))
}

async fn publish(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    door.intake.metrics.request(Door::Http);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match door.admit(&request) {
        Ok((sender, place)) => door.answer(&sender, place, request).await,
        Err(refusal) => door.turned_away(&refusal),
    };
    if let Some(origin) = origin.filter(|origin| door.allows(origin)) {
        allow_origin(response.headers_mut(), origin);
    }
    response
}

async fn preflight(State(door): State<Arc<HttpDoor>>, headers: HeaderMap) -> Response {
    let Some(origin) = headers.get(header::ORIGIN).filter(|origin| door.allows(origin)) else {
        return problem(&bad_origin());
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    allow_origin(answer, origin.clone());
    answer.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    let allowed = HeaderValue::from_static("authorization, content-type, roomcast-backfill");
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn wrong_method() -> Response {
    let mut response = problem(&Refusal::new(
        Code::MethodNotAllowed,
        format!("{PATH} takes POST"),
    ));
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    response
}

async fn nothing_here() -> Response {
    problem(&Refusal::new(
        Code::NotFound,
        format!("events are posted to {PATH}"),
    ))
}

fn bad_origin() -> Refusal {
    Refusal::new(Code::BadOrigin, "pages of this origin may not publish here")
}

fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

impl HttpDoor {
    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed_origins
            .iter()
            .any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// Everything that is decided before a byte of the body is read.
    fn admit(&self, request: &Request) -> Result<(Arc<Sender>, Place), Refusal> {
        if request
            .headers()
            .get(header::ORIGIN)
            .is_some_and(|origin| !self.allows(origin))
        {
            return Err(bad_origin());
        }
        if request.uri().query().is_some() {
            let detail = "there are no parameters here; a token belongs into Authorization";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
        let sender = self
            .bearers
            .sender(request.headers(), now_micros().div_euclid(1_000_000))?;
        let place = self
            .intake
            .capacity
            .enter()
            .map_err(|full| self.intake.full(Door::Http, full))?;
        Ok((sender, place))
    }

    /// Refused before the sender was known, or for want of room: nothing to keep.
    fn turned_away(&self, refusal: &Refusal) -> Response {
        if !refusal.code.temporary() {
            self.intake.metrics.event(Door::Http, Outcome::Refused);
            self.intake.metrics.refused(refusal.code);
        }
        let mut response = problem(refusal);
        // The body was not read; hyper closes the connection rather than to read on.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    async fn answer(&self, sender: &Sender, mut place: Place, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let content = content(&head.headers);
        let read = match self.read(body, &head.headers, &mut place).await {
            Ok(read) => read,
            Err(Unread { refusal, closes }) => return unread(&refusal, closes),
        };
        let backfill = head.headers.get(BACKFILL).is_some_and(|value| value == "1");
        let shape = content.as_ref().copied().unwrap_or(Shape::OneOrBatch);
        let whole = read.original_bytes == read.bytes.len();
        let refusal = content.err().or_else(|| (!whole).then(|| self.too_large()));
        let answer = match refusal {
            Some(refusal) => {
                let (tenant, publisher) = (&sender.tenant, &sender.publisher);
                let (door, original) = (Door::Http, read.original_bytes);
                self.intake
                    .refuse(door, tenant, publisher, PATH, read.bytes, original, refusal)
                    .await
            }
            None => {
                let request = intake::Request {
                    door: Door::Http,
                    sender,
                    room: None,
                    audience: None,
                    backfill,
                    origin: PATH,
                    shape,
                    body: read.bytes,
                };
                self.intake.take(request, now_micros()).await
            }
        };
        drop(place);
        let mut response = respond(&answer);
        if !whole {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn too_large(&self) -> Refusal {
        Refusal::new(
            Code::TooLarge,
            format!("a request's body has at most {} bytes", self.body_bytes_max),
        )
    }

    /// Reads the body. Of one that is too large only the beginning, for the dead letter.
    async fn read(&self, body: Body, headers: &HeaderMap, place: &mut Place) -> Result<Read, Unread> {
        let length = headers.get(header::CONTENT_LENGTH);
        let stated = length.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
        let too_large = stated.is_some_and(|bytes| bytes > self.body_bytes_max);
        let bytes_max = if too_large {
            KEPT_BYTES_MAX.min(self.body_bytes_max)
        } else {
            self.body_bytes_max
        };
        let reading = self.collect(body, stated, bytes_max, place);
        match tokio::time::timeout(self.body_within, reading).await {
            Ok(read) => read,
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", self.body_within.as_secs());
                Err(Unread {
                    refusal: self.counted(Refusal::new(Code::RequestTimeout, detail)),
                    closes: true,
                })
            }
        }
    }

    async fn collect(
        &self,
        mut body: Body,
        stated: Option<usize>,
        bytes_max: usize,
        place: &mut Place,
    ) -> Result<Read, Unread> {
        let mut cover = |bytes| {
            let full = |full| Unread {
                refusal: self.intake.full(Door::Http, full),
                closes: true,
            };
            place.cover(bytes).map_err(full)
        };
        let mut bytes = BytesMut::new();
        if let Some(stated) = stated {
            cover(stated.min(bytes_max))?;
            // A promise is not memory: at most this much is set aside before the bytes are here.
            bytes.reserve(stated.min(bytes_max).min(64 * 1024));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let refusal = Refusal::new(Code::BadRequest, "the body ended before it was whole");
                Unread {
                    refusal: self.counted(refusal),
                    closes: true,
                }
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let room = bytes_max - bytes.len();
            cover(bytes.len() + data.len().min(room))?;
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                let original_bytes = stated.unwrap_or(bytes_max + 1).max(bytes_max + 1);
                return Ok(Read {
                    bytes: bytes.freeze(),
                    original_bytes,
                });
            }
        }
        let original_bytes = bytes.len();
        Ok(Read {
            bytes: bytes.freeze(),
            original_bytes,
        })
    }

    fn counted(&self, refusal: Refusal) -> Refusal {
        self.intake.metrics.event(Door::Http, Outcome::Refused);
        self.intake.metrics.refused(refusal.code);
        refusal
    }
}

/// What was read of a body; all of it if `original_bytes` is its length.
struct Read {
    bytes: Bytes,
    original_bytes: usize,
}

/// A body that did not arrive.
struct Unread {
    refusal: Refusal,
    closes: bool,
}

fn unread(refusal: &Refusal, closes: bool) -> Response {
    let mut response = problem(refusal);
    if closes {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the body is, by its head.
fn content(headers: &HeaderMap) -> Result<Shape, Refusal> {
    let unsupported = |detail: &str| Refusal::new(Code::UnsupportedType, detail);
    let plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding == "identity");
    if !plain {
        return Err(unsupported("the body must not be encoded"));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return Err(unsupported(
            "one Content-Type is needed: application/json or a CloudEvents one",
        ));
    };
    let text = only.to_str().unwrap_or_default().to_ascii_lowercase();
    let (media, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let charset = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charset
        .map(|charset| charset.trim_matches('"'))
        .any(|charset| charset != "utf-8")
    {
        return Err(unsupported("the charset must be utf-8"));
    }
    match media.trim() {
        "application/json" => Ok(Shape::OneOrBatch),
        "application/cloudevents+json" => Ok(Shape::One),
        "application/cloudevents-batch+json" => Ok(Shape::Batch),
        _ => Err(unsupported(
            "application/json, application/cloudevents+json and application/cloudevents-batch+json are accepted",
        )),
    }
}

fn respond(answer: &Answer) -> Response {
    match answer.body() {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(refusal) => problem(refusal),
    }
}

/// RFC 9457, with `Retry-After` where asking again makes sense and the challenge RFC 9110 asks for with 401.
fn problem(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response(status, "application/problem+json", refusal.problem_json());
    let headers = response.headers_mut();
    if refusal.code.temporary() {
        let secs = refusal.retry_after_ms.unwrap_or(1_000).div_ceil(1_000).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_what_the_body_is() {
        #[track_caller]
        fn check(types: &[&str], encoding: Option<&str>, expected: Option<Shape>) {
            let mut headers = HeaderMap::new();
            for value in types {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            }
            if let Some(encoding) = encoding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
            }
            assert_eq!(content(&headers).ok(), expected, "{types:?} {encoding:?}");
        }
        check(&["application/json"], None, Some(Shape::OneOrBatch));
        check(
            &["Application/JSON; Charset=UTF-8"],
            None,
            Some(Shape::OneOrBatch),
        );
        check(
            &["application/json; charset=\"utf-8\""],
            Some("identity"),
            Some(Shape::OneOrBatch),
        );
        check(&["application/cloudevents+json"], None, Some(Shape::One));
        check(
            &["application/cloudevents-batch+json; charset=utf-8"],
            None,
            Some(Shape::Batch),
        );
        check(&["application/json; charset=latin1"], None, None);
        check(&["application/json"], Some("gzip"), None);
        check(&["application/json", "application/json"], None, None);
        check(&["text/plain"], None, None);
        check(&["application/x-www-form-urlencoded"], None, None);
        check(&[], None, None);
    }

    #[test]
    fn temporary_refusals_say_when_to_ask_again() {
        let problem = problem(&Refusal::new(Code::Unavailable, "later").retry_after_ms(1_500));
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem.headers()[header::RETRY_AFTER], "2");
        let problem = super::problem(&Refusal::new(Code::Unauthenticated, "who"));
        assert_eq!(problem.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!problem.headers().contains_key(header::RETRY_AFTER));
    }
}
