//! The way of every admin call: `Host`, origin, token, body, handler, record.
//!
//! What changes something is brought to its end whatever becomes of who called.
//!
//! No cookies, and no page but those whose origins an operator named: others have no business here, whoever is signed in. What
//! fails is refused before a handler runs, and recorded like what succeeds: of those who are nobody's administrator the first, and how many
//! the others were. Once the record ends, with the process, nothing is done any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use prometheus::IntCounterVec;
use roomcast_access::TokenError;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::limits::TOKEN_BYTES_MAX;
use roomcast_proto::refusal::{Code, Refusal};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, Call, Outcome};
use crate::caller::{Caller, Note};
use crate::pages::{self, From};
use crate::problem::{harden, problem};
use crate::settings::AdminKeys;

/// Bytes of a body: the largest is a policy to be tried.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Time for a body to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Time for a handler to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Calls that change something and are under way: as many as there are connections. They may outlast theirs.
const CHANGES_MAX: usize = 64;

/// Who may come in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    keys: Arc<AdminKeys>,
    audit: Audit,
    calls: IntCounterVec,
    changes: Arc<Semaphore>,
    /// What is brought to its end whatever becomes of who called; the end of the process waits for it.
    under_way: TaskTracker,
    /// The record ends: nothing may be done any more that would not be on it.
    ending: CancellationToken,
}

impl Door {
    /// A door with these keys.
    ///
    /// # Errors
    /// A metric that is declared already (70).
    pub fn new(keys: AdminKeys, audit: Audit, context: &Context) -> Result<Self, Failure> {
        let calls = context.metrics.counter_vec(
            "roomcast_admin_calls_total",
            "Calls of the admin API, by outcome: done, refused (the call itself), denied (no admin token), failed (our side).",
            &["outcome"],
        )?;
        for outcome in ["done", "refused", "denied", "failed"] {
            calls.with_label_values(&[outcome]);
        }
        Ok(Self {
            keys: Arc::new(keys),
            audit,
            calls,
            changes: Arc::new(Semaphore::new(CHANGES_MAX)),
            under_way: context.shutdown.stage(Stage::Drain).tracker().clone(),
            ending: context.shutdown.stage(Stage::Finish).token(),
        })
    }

    /// Puts the door before a router, its answers for what is not there included.
    pub fn guard(self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self, pass))
    }

    /// Everything that is decided before the body is read.
    fn admit(&self, request: &Request, from: &From, now_secs: i64) -> Result<Caller, Refusal> {
        let headers = request.headers();
        if !self.keys.hosts.allow(headers, request.uri()) {
            return Err(Refusal::new(
                Code::BadRequest,
                "this Host is not one of the admin port's names",
            ));
        }
        if *from == From::Stranger {
            return Err(Refusal::new(
                Code::BadOrigin,
                "the admin API is not for pages of this origin",
            ));
        }
        let token = bearer(headers)
            .ok_or_else(|| Refusal::new(Code::Unauthenticated, "a valid admin token is needed"))?;
        let principal = self
            .keys
            .verifier
            .verify(token, now_secs)
            .map_err(|error| match error {
                TokenError::Expired => Refusal::new(Code::Expired, "the token has expired"),
                TokenError::Unready | TokenError::Invalid(_) => {
                    Refusal::new(Code::Unauthenticated, "a valid admin token is needed")
                }
            })?;
        Ok(Caller {
            subject: principal.subject,
            token_id: principal.token_id.map(Into::into),
            from: peer(request),
        })
    }
}

async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    let from = door.keys.pages.from(request.headers());
    // A browser's question before the call is none itself: it has no token yet, and changes nothing.
    if let From::Page(origin) = &from
        && pages::is_preflight(request.method(), request.headers())
        && door.keys.hosts.allow(request.headers(), request.uri())
    {
        return pages::granted(origin);
    }
    if door.ending.is_cancelled() {
        let refusal = Refusal::new(Code::Unavailable, "the process ends").retry_after_ms(1_000);
        return problem(&refusal);
    }
    let call = Call {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        from: peer(&request),
    };
    let admitted = door.admit(&request, &from, jiff::Timestamp::now().as_second());
    let mut response = match admitted {
        Err(refusal) => door.record(None, &call, problem(&refusal)),
        Ok(caller) => {
            let answer = door.answer(caller, call, request, next);
            door.under_way.track_future(answer).await
        }
    };
    if let From::Page(origin) = &from {
        pages::let_read(&mut response, origin);
    }
    response
}

impl Door {
    /// Reads the body within its bounds and lets the handler answer within its time.
    async fn answer(&self, caller: Caller, call: Call, request: Request, next: Next) -> Response {
        let known = request.extensions().get::<MatchedPath>().is_some();
        let (mut head, body) = request.into_parts();
        let body = match read(body).await {
            Ok(body) => body,
            Err(refusal) => return self.record(Some(&caller), &call, problem(&refusal)),
        };
        head.extensions.insert(caller.clone());
        let handled = next.run(Request::from_parts(head, Body::from(body)));
        let handled = async move { finished(handled.await, known) };
        if call.method.is_safe() {
            let response = tokio::time::timeout(ANSWER_WITHIN, handled).await;
            let late =
                |_| problem(&Refusal::new(Code::Unavailable, "no answer in time").retry_after_ms(1_000));
            return self.record(Some(&caller), &call, response.unwrap_or_else(late));
        }
        self.change(caller, call, handled).await
    }

    /// What changes something is brought to its end, and put on record, also when nobody waits for it any more: the half of it would be
    /// something that nobody asked for.
    async fn change(
        &self,
        caller: Caller,
        call: Call,
        handled: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let Ok(place) = Arc::clone(&self.changes).try_acquire_owned() else {
            let detail = format!("{CHANGES_MAX} calls that change something are under way");
            let refusal = Refusal::new(Code::Unavailable, detail).retry_after_ms(1_000);
            return self.record(Some(&caller), &call, problem(&refusal));
        };
        let (answer, answered) = oneshot::channel();
        let door = self.clone();
        self.under_way.spawn(async move {
            let mut handled = std::pin::pin!(handled);
            let in_time = tokio::time::timeout(ANSWER_WITHIN, handled.as_mut()).await;
            let is_late = in_time.is_err();
            let response = in_time.unwrap_or_else(|_| goes_on());
            // Nobody left to hear it means nobody left to tell.
            let _ = answer.send(door.record(Some(&caller), &call, response));
            if is_late {
                door.record_end(&caller, &call, handled.await);
            }
            drop(place);
        });
        let broken = |_| {
            problem(&Refusal::new(
                Code::Internal,
                "the call was not brought to its end",
            ))
        };
        answered.await.unwrap_or_else(broken)
    }

    /// Counts, logs and records a call that was answered.
    fn record(&self, caller: Option<&Caller>, call: &Call, mut response: Response) -> Response {
        let (outcome, note) = taken_out(&mut response);
        let status = response.status();
        let label = match status {
            _ if caller.is_none() => "denied",
            status if status.is_server_error() => "failed",
            status if status.is_client_error() => "refused",
            _ => "done",
        };
        self.calls.with_label_values(&[label]).inc();
        let who = caller.map_or("nobody", |caller| &*caller.subject);
        // Looking is a debugger's matter here; the record has all of it.
        match (label, &call.method) {
            ("done", &Method::GET) => {
                tracing::debug!(who, "admin call of {who}: GET {}", call.path.escape_debug())
            }
            _ => tracing::info!(
                who,
                status = status.as_u16(),
                "admin call of {who}: {} {}, answered {}",
                call.method,
                call.path.escape_debug(),
                status.as_u16()
            ),
        }
        self.audit.call(caller, call, &outcome, note);
        response
    }

    /// The record has a second entry of a call that was answered before its end: what came of it then.
    fn record_end(&self, caller: &Caller, call: &Call, mut response: Response) {
        let (outcome, note) = taken_out(&mut response);
        tracing::info!(
            who = &*caller.subject,
            status = outcome.status,
            "admin call of {}: {} {}, ended after its answer with {}",
            caller.subject,
            call.method,
            call.path.escape_debug(),
            outcome.status
        );
        self.audit.call(Some(caller), call, &outcome, note);
    }
}

/// What the record has of an answer, and the caller has not.
fn taken_out(response: &mut Response) -> (Outcome, Option<serde_json::Value>) {
    let note = response.extensions_mut().remove::<Note>().map(|Note(note)| note);
    let outcome = Outcome {
        status: response.status().as_u16(),
        code: response.extensions_mut().remove::<Code>(),
    };
    (outcome, note)
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let read = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let detail = format!("the body is broken off, or has more than {BODY_BYTES_MAX} bytes");
            Err(Refusal::new(Code::TooLarge, detail))
        }
        Err(_) => Err(Refusal::new(
            Code::RequestTimeout,
            "the body did not arrive in time",
        )),
    }
}

/// Of a change that has no end yet: nobody may take it for undone.
fn goes_on() -> Response {
    let detail = "no answer in time; it goes on, and its end will be on record: look what became of it before it is asked for again";
    problem(&Refusal::new(Code::Unknown, detail))
}

/// A handler's answer as it goes out. `known`: whether there is something at the address.
fn finished(mut response: Response, known: bool) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND if !known => {
            problem(&Refusal::new(Code::NotFound, "there is nothing at this address"))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let mut refused = problem(&Refusal::new(
                Code::MethodNotAllowed,
                "this method does not exist here",
            ));
            // Axum knows which do.
            if let Some(allow) = response.headers_mut().remove(http::header::ALLOW) {
                refused.headers_mut().insert(http::header::ALLOW, allow);
            }
            refused
        }
        _ => {
            harden(&mut response);
            response
        }
    }
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| *peer)
}

/// The one bearer token of a request; `None` for no, several or other credentials.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let good = scheme.eq_ignore_ascii_case("bearer") && (1..=TOKEN_BYTES_MAX).contains(&token.len());
    good.then_some(token)
}
