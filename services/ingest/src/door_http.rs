//! The HTTP door: `POST /v1/events`, and `POST /v1/triggers`, which is made into events ([`crate::trigger`]).
//!
//! What may be refused without reading the body is; the body is read with a bound and a deadline, and only from who has a valid
//! token. Everything refused after that is kept as a dead letter.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode, Uri};
use roomcast_chassis::routes::{Method, Routes};
use roomcast_chassis::trace::{KeyValue, SpanKind, Step, Trail};
use roomcast_proto::refusal::{Code, Refusal};
use tokio_util::task::TaskTracker;

use crate::accept::Sender;
use crate::answer::Answer;
use crate::bearer::Bearers;
use crate::body::{self, BodyLimits, Content, Media, Source, Unread};
use crate::capacity::Place;
use crate::describe;
use crate::error::RETRY_AFTER_MS;
use crate::intake::Intake;
use crate::long_body::{LongBody, Reply};
use crate::metrics::{Door, Outcome};
use crate::now_micros;
use crate::statistics;
use crate::to_its_end::ToItsEnd;
use crate::trigger;
use crate::whole_body::WholeBody;

/// Where events are posted.
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
    /// What a body may be.
    pub body: BodyLimits,
    /// Who knows who is connected.
    pub statistics: statistics::Desk,
    /// What is brought to its end whatever becomes of who asked for it; the end of the process waits for it.
    pub under_way: TaskTracker,
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    Events,
    Trigger,
}

impl Posted {
    /// The path, also the origin of a dead letter.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Posted::Events => PATH,
            Posted::Trigger => trigger::PATH,
        }
    }

    /// What a request for it is called in traces: method and route.
    const fn step(self) -> &'static str {
        match self {
            Posted::Events => "POST /v1/events",
            Posted::Trigger => "POST /v1/triggers",
        }
    }
}

/// All routes with what they do. What is added here is in the document.
fn routes() -> Routes<Arc<HttpDoor>> {
    Routes::new()
        .post(PATH, describe::publish(), publish)
        .on(Method::Options, PATH, describe::preflight(), preflight)
        .post(trigger::PATH, describe::trigger(), post_trigger)
        .get(trigger::PATH, describe::statistics(), get_statistics)
        .on(
            Method::Options,
            trigger::PATH,
            describe::trigger_preflight(),
            preflight,
        )
}

/// The routes.
pub fn router(door: HttpDoor) -> Router {
    let routes = routes();
    let document = describe::document(&routes);
    let itself = async move || response(StatusCode::OK, "application/json", document);
    routes
        .get(describe::PATH, describe::itself(), itself)
        .into_router()
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .with_state(Arc::new(door))
}

async fn publish(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    door.post(Posted::Events, request).await
}

async fn post_trigger(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    door.post(Posted::Trigger, request).await
}

async fn get_statistics(State(door): State<Arc<HttpDoor>>, request: Request) -> Response {
    door.statistics(request).await
}

async fn preflight(State(door): State<Arc<HttpDoor>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(origin) = headers.get(header::ORIGIN).filter(|origin| door.allows(origin)) else {
        return problem(&bad_origin());
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    allow_origin(answer, origin.clone());
    answer.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(if uri.path() == trigger::PATH {
            "GET, POST"
        } else {
            "POST"
        }),
    );
    let allowed =
        HeaderValue::from_static("authorization, content-type, content-encoding, roomcast-backfill");
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn wrong_method(uri: Uri) -> Response {
    let (takes, allow) = match uri.path() {
        PATH => ("POST", "POST, OPTIONS"),
        trigger::PATH => ("GET and POST", "GET, HEAD, POST, OPTIONS"),
        _ => ("GET", "GET, HEAD"),
    };
    let detail = format!("{} takes {takes}", uri.path());
    let mut response = problem(&Refusal::new(Code::MethodNotAllowed, detail));
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
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
    /// Serves a request as a step of the trace it names.
    async fn post(self: Arc<Self>, posted: Posted, request: Request) -> Response {
        let header = |name: &str| request.headers().get(name)?.to_str().ok();
        let step = Step::begin(posted.step(), SpanKind::Server, Trail::read(header).as_ref());
        let response = step.run(self.served(posted, request, &step)).await;
        let status = response.status();
        step.set(|| {
            [
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("http.route", posted.path()),
                KeyValue::new("url.path", posted.path()),
                KeyValue::new("url.scheme", "http"),
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            ]
        });
        if status.is_server_error() {
            step.failed("server");
        }
        response
    }

    async fn served(self: Arc<Self>, posted: Posted, request: Request, step: &Step) -> Response {
        self.intake.metrics.request(Door::Http);
        let origin = request.headers().get(header::ORIGIN).cloned();
        let admitted = match request.uri().query() {
            None => self.admit(&request),
            Some(_) => {
                let detail = "there are no parameters here; a token belongs into Authorization";
                Err(Refusal::new(Code::BadRequest, detail))
            }
        };
        let mut response = match admitted {
            Ok((sender, place)) => {
                let answered = Arc::clone(&self).answer(posted, sender, place, request, step);
                answered.await
            }
            Err(refusal) => self.turned_away(&refusal),
        };
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            allow_origin(response.headers_mut(), origin);
        }
        response
    }

    /// Says who is connected, to a backend that may know it.
    async fn statistics(&self, request: Request) -> Response {
        self.intake.metrics.request(Door::Http);
        let origin = request.headers().get(header::ORIGIN).cloned();
        // The body is nobody's business, and could not wait here.
        let (uri, admitted) = (request.uri().clone(), self.admit(&request));
        drop(request);
        let mut response = match self.present(admitted, &uri).await {
            Ok(body) => response(StatusCode::OK, "application/json", body),
            Err(refusal) => problem(&refusal),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            allow_origin(headers, origin);
        }
        response
    }

    async fn present(
        &self,
        admitted: Result<(Arc<Sender>, Place), Refusal>,
        uri: &Uri,
    ) -> Result<Bytes, Refusal> {
        let (sender, _place) = admitted?;
        self.intake.sure()?;
        if !sender.may_see_statistics() {
            let who = (sender.tenant.as_str(), &*sender.publisher);
            let code = Code::Forbidden;
            self.intake.audit.refused("statistics", code.as_str(), Some(who));
            return Err(Refusal::forbidden());
        }
        self.statistics.ask(&sender.tenant, uri).await
    }

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
        let sender = self
            .bearers
            .sender(request.headers(), now_micros().div_euclid(1_000_000))?;
        let mut place = self
            .intake
            .capacity
            .enter()
            .map_err(|full| self.intake.full(Door::Http, full))?;
        self.intake.share(Door::Http, &sender, &mut place)?;
        Ok((sender, place))
    }

    /// Refused before the sender was known, or for want of room: nothing to keep.
    fn turned_away(&self, refusal: &Refusal) -> Response {
        if !refusal.code.temporary() {
            self.intake.metrics.event(Door::Http, Outcome::Refused);
            self.intake.metrics.refused(refusal.code);
        }
        closing(problem(refusal))
    }

    async fn answer(
        self: Arc<Self>,
        posted: Posted,
        sender: Arc<Sender>,
        mut place: Place,
        request: Request,
        step: &Step,
    ) -> Response {
        let (head, body) = request.into_parts();
        let backfill = head.headers.get(BACKFILL).is_some_and(|value| value == "1");
        let content = body::content(&head.headers).and_then(|content| match (posted, content.media) {
            (Posted::Events, _) | (Posted::Trigger, Media::Json(_)) => Ok(content),
            (Posted::Trigger, _) => Err(Refusal::new(
                Code::UnsupportedType,
                "a trigger is application/json",
            )),
        });
        if let Ok(Content {
            gzip,
            media: Media::Lines,
        }) = content
        {
            let source = Source::new(body, gzip);
            let lines = LongBody::new(Arc::clone(&self), sender, place, head.headers, backfill, source);
            // Apart, so that the requests that are not lines do not carry its size about.
            return Box::pin(self.lines(lines, step)).await;
        }
        let gzip = content.as_ref().is_ok_and(|content| content.gzip);
        let read = match body::read(body, &head.headers, gzip, &self.body, &mut place).await {
            Ok(read) => read,
            Err(unread) => return closing(problem(&self.unread(unread))),
        };
        let whole = read.refusal.is_none();
        let body = WholeBody {
            door: Arc::clone(&self),
            posted,
            sender,
            place,
            headers: head.headers,
            content,
            backfill,
            read,
        };
        let response = respond(&self.to_its_end(step, body.answer()).await);
        if whole { response } else { closing(response) }
    }

    /// Does it as a part of `step`, also when whoever asked for it hangs up: half of it would be events that are not counted and refused
    /// ones that are not kept.
    ///
    /// # Cancel safety
    /// Dropped, `work` goes on.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        step: &Step,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        ToItsEnd::new(step.run(work), &self.under_way).await
    }

    async fn lines(&self, lines: LongBody, step: &Step) -> Response {
        match lines.answer(step).await {
            Ok(Reply::Whole(answer)) => respond(&answer),
            Ok(Reply::Broken(answer)) => closing(respond(&answer)),
            Ok(Reply::Stream(body)) => response(StatusCode::OK, "application/x-ndjson", body),
            Err(unread) => closing(problem(&self.unread(unread))),
        }
    }

    /// Counts a body that could not be read; what to say of it.
    pub(crate) fn unread(&self, unread: Unread) -> Refusal {
        match unread {
            Unread::Full(full) => self.intake.full(Door::Http, full),
            Unread::Broken => self.counted(Refusal::new(
                Code::BadRequest,
                "the body ended before it was whole",
            )),
            Unread::Late => {
                let within = self.body.within.as_secs();
                let detail = format!("the body did not arrive within {within} s");
                self.counted(Refusal::new(Code::RequestTimeout, detail).retry_after_ms(RETRY_AFTER_MS))
            }
        }
    }

    fn counted(&self, refusal: Refusal) -> Refusal {
        self.intake.metrics.event(Door::Http, Outcome::Refused);
        self.intake.metrics.refused(refusal.code);
        refusal
    }
}

/// What was not read of a body is better left on a closed connection than read for nothing.
fn closing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
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
    if refusal.code == Code::UnsupportedType {
        // RFC 9110 §15.5.16: what would have been understood.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
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
    fn temporary_refusals_say_when_to_ask_again() {
        let problem = problem(&Refusal::new(Code::Unavailable, "later").retry_after_ms(1_500));
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem.headers()[header::RETRY_AFTER], "2");
        let problem = super::problem(&Refusal::new(Code::Unauthenticated, "who"));
        assert_eq!(problem.headers()[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!problem.headers().contains_key(header::RETRY_AFTER));
    }
}
