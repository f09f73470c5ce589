//! The HTTP routes: rooms followed and read by whoever holds a token, and the page.
//!
//! Called by `accept` for every request that is not for a WebSocket. The rights, the words of refusal and the function
//! that decides what is visible are those of the sockets. Answers with room data are never stored by anybody.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::Response;
use http::header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use roomcast_chassis::routes::Method::Get;
use roomcast_chassis::routes::Routes;
use roomcast_proto::refusal::{Code, Refusal};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::admission::Ledger;
use crate::allowance::Allowance;
use crate::asking::Asking;
use crate::bells_driver::BellDesk;
use crate::commands_http;
use crate::describe;
use crate::elsewhere::Elsewhere;
use crate::error::problem;
use crate::gate::Gate;
use crate::hub::Hub;
use crate::limit::Limit;
use crate::metrics::GatewayMetrics;
use crate::page::Page;
use crate::presence_driver::RollCall;
use crate::shard::Handle;
use crate::unwritten::Unwritten;
use crate::upgrade::{self, Origins};

mod answered;
mod asked;
mod devices;
mod feed;
mod following;
mod held;
mod origin;
mod own;
mod packed;
mod poll;
pub(crate) mod posted;
mod present;
mod refresh;
mod rooms;
mod route;
mod rung;
mod series;
mod sse;
mod tickets;

pub(crate) use asked::admit;
pub use following::Following;
pub use held::Holds;
use route::Route;
pub use tickets::Tickets;

/// What the routes answer from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Rooms.
    pub hub: Arc<Hub>,
    /// Keys and policy.
    pub gate: Arc<Gate>,
    /// Pages that may ask.
    pub origins: Arc<Origins>,
    /// The page of our own.
    pub page: Arc<Page>,
    /// How often users may do what.
    pub allowance: Allowance,
    /// Who is in: requests that stay open take a place of their user.
    pub ledger: Ledger,
    /// Who is asked for what clients want of others.
    pub asking: Arc<Asking>,
    /// Who has the streams that this gateway has not.
    pub elsewhere: Arc<Elsewhere>,
    /// Whether there is anybody else.
    pub roll_call: RollCall,
    /// Who counts what users have not read.
    pub bells: BellDesk,
    /// Where answers are counted.
    pub metrics: GatewayMetrics,
    /// Tickets of browsers that cannot set a header.
    pub tickets: Tickets,
    /// Polls that are held.
    pub holds: Holds,
    /// Answers that are not written yet.
    pub unwritten: Unwritten,
    /// Who owns the streams whose tokens are refreshed.
    pub shards: Arc<[Handle]>,
    /// Rooms that one request may name.
    pub rooms_max: usize,
    /// Bytes of a path with its query.
    pub url_bytes_max: usize,
    /// Bytes of a body.
    pub message_bytes_max: usize,
    /// Time in which a body must have arrived.
    pub body_within: Duration,
    /// Bytes of events in one answer about the past.
    pub answer_bytes_max: usize,
    /// The longest a poll is held.
    pub poll_max: Duration,
    /// Events of one answer.
    pub page_events: usize,
    /// The gateway takes no more requests: what is held is answered.
    pub draining: CancellationToken,
}

/// All routes with what they do; the WebSocket and the page are served apart. What is added here is in the document.
fn routes(poll_max: Duration) -> Routes<Desk> {
    Routes::new()
        .described(Get, upgrade::SOCKET_PATH, describe::socket())
        .get("/v1/sse", describe::sse(), sse::sse)
        .get("/v1/poll", describe::poll(poll_max), poll::poll)
        .get("/v1/rooms/{room}/snapshot", describe::snapshot(), rooms::snapshot)
        .get("/v1/rooms/{room}/events", describe::history(), rooms::history)
        .get("/v1/state", describe::state(), rooms::state)
        .get("/v1/metrics", describe::metrics(), series::list)
        .get("/v1/metrics/{name}", describe::series(), series::series)
        .get("/v1/presence", describe::presence(), present::presence)
        .get("/v1/feed", describe::feed(), feed::feed)
        .post("/v1/marks", describe::marks(), feed::marks)
        .post("/v1/preferences", describe::preferences(), feed::preferences)
        .post("/v1/publish", describe::publish(), own::publish)
        .post("/v1/activity", describe::activity(), own::activity)
        .post("/v1/refresh", describe::refresh(), refresh::refresh)
        .post("/v1/tickets", describe::ticket(), tickets::give)
        .get("/v1/devices", describe::devices(), devices::list)
        .post("/v1/devices", describe::register_device(), devices::register)
        .delete("/v1/devices/{device}", describe::remove_device(), devices::remove)
        .post("/v1/commands/{name}", describe::command(), commands_http::command)
        .get("/page.json", describe::page_config(), page_config)
        .described(Get, "/", describe::page())
}

/// All routes but the WebSocket. [`Route`] says which methods they have; other requests do not get here.
pub fn router(desk: Desk) -> Router {
    let routes = routes(desk.poll_max);
    let document = describe::document(&routes);
    routes
        .get(describe::PATH, describe::itself(), async move || {
            answered::json(document)
        })
        .into_router()
        .fallback(page_file)
        .with_state(desk)
}

/// Answers one request, with everything that is the same for all of them: URL, `Host`, origin, method, CORS, count. `cut` is cancelled
/// where the answer is taken too slowly and has to give way to others.
pub async fn answer(
    desk: &Desk,
    router: Router,
    request: Request<hyper::body::Incoming>,
    cut: &CancellationToken,
) -> Response {
    let route = Route::of(request.uri().path());
    let encoded = request.headers().contains_key(TRANSFER_ENCODING);
    let packs = packed::is_taken(request.headers());
    let token = request.headers().get(AUTHORIZATION);
    let (shows_token, whose) = (
        token.is_some(),
        desk.unwritten.whose(token.map_or(b"", HeaderValue::as_bytes)),
    );
    let (is_head, is_post) = (
        *request.method() == Method::HEAD,
        *request.method() == Method::POST,
    );
    let mut response = match checked(desk, &request, route) {
        Err(refusal) => problem(&refusal),
        Ok(origin) => {
            let mut response = routed(route, router, request, origin.is_some()).await;
            // Other routes answer everybody with the same bytes.
            if route.is_api() {
                response = counted(desk, response, is_post, whose, cut).await;
                origin::allow(&mut response, origin.as_ref());
            }
            match route {
                Route::Sse if is_head => endless(response),
                Route::Page if is_head && packs => packed::head(response, true),
                _ if is_head && packs && shows_token => packed::head(response, false),
                Route::Page if packs => packed::file(&desk.page, response).await,
                _ if packs && shows_token => packed::answer(desk, response, whose, cut).await,
                _ => response,
            }
        }
    };
    if encoded {
        // A length that stood behind the encoding was left out by the HTTP library: what follows may be the body to somebody
        // before us, so nothing more is read (RFC 9112 §6.1).
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    desk.metrics
        .http
        .with_label_values(&[route.label(), class_of(response.status())])
        .inc();
    response
}

/// Counts an answer until it is written; where too much waits already, it is another one. Not so after a `POST`: what it did is done.
async fn counted(
    desk: &Desk,
    response: Response,
    is_post: bool,
    whose: u64,
    cut: &CancellationToken,
) -> Response {
    let (head, body) = response.into_parts();
    // It was made in memory: nothing can fail, and nothing is copied.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let now = Instant::now();
    if is_post {
        let body = desk.unwritten.hold_anyway(body, whose, cut, now);
        return Response::from_parts(head, Body::from(body));
    }
    match desk.unwritten.hold(body, whose, cut, now) {
        Ok((body, gone)) => {
            (0..gone).for_each(|_| desk.metrics.limited(Limit::Outboxes));
            Response::from_parts(head, Body::from(body))
        }
        Err(no_room) => {
            desk.metrics.limited(Limit::Outboxes);
            problem(&no_room.refusal())
        }
    }
}

/// The head of a stream, which has no length; the router takes it for an empty one.
fn endless(mut response: Response) -> Response {
    if response.status() == StatusCode::OK {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

async fn routed(
    route: Route,
    router: Router,
    request: Request<hyper::body::Incoming>,
    of_page: bool,
) -> Response {
    let method = request.method();
    if route.answers(method) {
        return match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
    }
    let mut response = if *method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if of_page && origin::is_preflight(request.headers()) {
            origin::grant(&mut response, route.method());
        }
        response
    } else {
        let detail = format!("only {} is answered here", route.method());
        problem(&Refusal::new(Code::MethodNotAllowed, detail))
    };
    let allowed = HeaderValue::from_static(route.allowed());
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// The origin to allow, for requests to the API that name one.
fn checked<B>(desk: &Desk, request: &Request<B>, route: Route) -> Result<Option<HeaderValue>, Refusal> {
    upgrade::check_url(request.uri(), desk.url_bytes_max).inspect_err(|refusal| count_url(desk, refusal))?;
    upgrade::check_host(request.uri(), request.headers())?;
    upgrade::check_framing(request.method(), request.headers())?;
    if !route.is_api() {
        return Ok(None);
    }
    let origin = desk.origins.check(request.headers())?;
    Ok(origin.and_then(|origin| HeaderValue::from_str(origin).ok()))
}

/// Counts a URL that was too long.
pub(crate) fn count_url(desk: &Desk, refusal: &Refusal) {
    if refusal.code == Code::HeadersTooLarge {
        desk.metrics.limited(Limit::Url);
    }
}

async fn page_config(State(desk): State<Desk>) -> Response {
    desk.page
        .config()
        .unwrap_or_else(|| problem(&answered::nothing_here()))
}

async fn page_file(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    let file = match Route::of(uri.path()) {
        Route::Page => desk.page.file(uri.path(), &headers),
        _ => None,
    };
    file.unwrap_or_else(|| problem(&answered::nothing_here()))
}

/// Unix seconds.
#[must_use]
pub fn unix_secs() -> i64 {
    unix_millis().div_euclid(1000)
}

pub(crate) fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
