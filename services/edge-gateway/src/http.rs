//! The HTTP routes: state, history and snapshot of rooms for whoever holds a token, and the page.
//!
//! Called by `accept` for every request that is not for a WebSocket. The rights, the words of refusal and the function
//! that decides what is visible are those of the sockets. Answers with room data are never stored by anybody.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use roomcast_access::Subscribe;
use roomcast_access::permit::View;
use roomcast_chassis::routes::Method::Get;
use roomcast_chassis::routes::Routes;
use roomcast_proto::cursor::Cursor;
use roomcast_proto::ids::Room;
use roomcast_proto::limits::{HISTORY_EVENTS_DEFAULT, HISTORY_EVENTS_MAX};
use roomcast_proto::refusal::{Code, Refusal};
use tower::ServiceExt;

use crate::admission::Ledger;
use crate::allowance::{self, Allowance, Operation};
use crate::asking::Asking;
use crate::commands_http;
use crate::delivery::Delivery;
use crate::describe;
use crate::error::problem;
use crate::gate::{self, Admitted, Gate};
use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::page::Page;
use crate::upgrade::{self, Origins};

const POST_ONLY: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
const GET_ONLY: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

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
    /// Where answers are counted.
    pub metrics: GatewayMetrics,
}

/// All routes with what they do; the WebSocket and the page are served apart. What is added here is in the document.
fn routes() -> Routes<Desk> {
    Routes::new()
        .described(Get, upgrade::SOCKET_PATH, describe::socket())
        .get("/v1/rooms/{room}/snapshot", describe::snapshot(), snapshot)
        .get("/v1/rooms/{room}/events", describe::history(), history)
        .get("/v1/state", describe::state(), state)
        .post("/v1/commands/{name}", describe::command(), commands_http::command)
        .get("/page.json", describe::page_config(), page_config)
        .described(Get, "/", describe::page())
}

/// All routes but the WebSocket.
pub fn router(desk: Desk) -> Router {
    let routes = routes();
    let document = describe::document(&routes);
    routes
        .get(describe::PATH, describe::itself(), async move || json(document))
        .into_router()
        .method_not_allowed_fallback(wrong_method)
        .fallback(page_file)
        .with_state(desk)
}

/// Answers one request, with everything that is the same for all of them: URL, `Host`, origin, CORS, count.
pub async fn answer(desk: &Desk, router: Router, request: Request<hyper::body::Incoming>) -> Response {
    let route = route_of(request.uri().path());
    let response = match checked(desk, &request, route) {
        Err(refusal) => problem(&refusal),
        Ok(origin) => {
            let preflight = request.method() == Method::OPTIONS
                && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
                && origin.is_some();
            let mut response = match preflight {
                true => permitted(),
                false => match router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            };
            if route.is_api() {
                allow(&mut response, origin.as_ref());
            }
            response
        }
    };
    desk.metrics
        .http
        .with_label_values(&[route.label(), class_of(response.status())])
        .inc();
    response
}

/// A route, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Snapshot,
    History,
    State,
    Command,
    PageConfig,
    Page,
    OtherApi,
}

impl Route {
    fn is_api(self) -> bool {
        !matches!(self, Self::Page | Self::PageConfig)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::History => "history",
            Self::State => "state",
            Self::Command => "command",
            Self::PageConfig => "page_config",
            Self::Page => "page",
            Self::OtherApi => "other",
        }
    }
}

fn route_of(path: &str) -> Route {
    match path.strip_prefix("/v1/") {
        Some("state") => Route::State,
        Some(rest) if rest.starts_with("commands/") => Route::Command,
        Some(rest) if rest.starts_with("rooms/") && rest.ends_with("/snapshot") => Route::Snapshot,
        Some(rest) if rest.starts_with("rooms/") && rest.ends_with("/events") => Route::History,
        Some(_) => Route::OtherApi,
        None if path == "/page.json" => Route::PageConfig,
        None => Route::Page,
    }
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
    upgrade::check_url(request.uri())?;
    upgrade::check_host(request.headers())?;
    if !route.is_api() {
        return Ok(None);
    }
    let origin = desk.origins.check(request.headers())?;
    Ok(origin.and_then(|origin| HeaderValue::from_str(origin).ok()))
}

fn permitted() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn allow(response: &mut Response, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after"),
        );
    }
}

type RoomPath = Result<Path<String>, PathRejection>;

async fn snapshot(State(desk): State<Desk>, room: RoomPath, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Read)?;
        let permit = subscribe(&admitted, path_room(room)?)?;
        let events = number(&uri, "events", HISTORY_EVENTS_DEFAULT, 0)?;
        let events = if permit.history() { events } else { 0 };
        let found = desk
            .hub
            .snapshot_async(&permit, events, unix_millis)
            .await
            .map_err(|_| unavailable())?;
        let mut body = open(&desk, &permit, found.cursor);
        put_list(&mut body, "state", &found.state, &permit);
        put_list(&mut body, "events", &found.events, &permit);
        Ok(close(body))
    })
    .await
}

async fn state(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Read)?;
        let room = parameter(&uri, "room")?.ok_or_else(|| bad("expected ?room=<room>"))?;
        let permit = subscribe(&admitted, Room::parse(&room).map_err(|_| Refusal::forbidden())?)?;
        let found = desk
            .hub
            .state_async(&permit, unix_millis)
            .await
            .map_err(|_| unavailable())?;
        let mut body = open(&desk, &permit, found.cursor);
        put_list(&mut body, "state", &found.state, &permit);
        Ok(close(body))
    })
    .await
}

async fn history(State(desk): State<Desk>, room: RoomPath, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::History)?;
        let permit = admitted
            .rights
            .history(&path_room(room)?)
            .map_err(|_| Refusal::forbidden())?;
        let limit = number(&uri, "limit", HISTORY_EVENTS_DEFAULT, 1)?;
        let before = match parameter(&uri, "before")? {
            None => None,
            Some(text) => Some(
                desk.hub
                    .cursors()
                    .read(admitted.rights.tenant(), &text)
                    .map_err(|_| bad("before is not a cursor"))?,
            ),
        };
        let page = desk
            .hub
            .history_async(&permit, before, limit, unix_millis, || {
                let (tenant, user) = (admitted.rights.tenant(), &admitted.user);
                desk.allowance.take(tenant, user, Operation::DeepHistory)
            })
            .await
            .map_err(|unread| unread.rate_millis.map_or_else(unavailable, allowance::too_many))?;
        let mut body = BytesMut::from(&b"{\"events\":["[..]);
        let seen = page
            .events
            .iter()
            .filter_map(|event| Some((event.cursor()?, event.for_class(&permit)?)));
        let text = |cursor: Cursor| desk.hub.cursors().write(permit.tenant(), &cursor);
        for (n, (cursor, event)) in seen.enumerate() {
            let cursor = text(cursor);
            let comma = if n > 0 { "," } else { "" };
            body.put_slice(format!("{comma}{{\"cursor\":\"{cursor}\",\"event\":").as_bytes());
            body.put_slice(event.body());
            body.put_u8(b'}');
        }
        let cursor = page
            .cursor
            .map_or_else(|| "null".to_owned(), |cursor| format!("\"{}\"", text(cursor)));
        body.put_slice(format!("],\"cursor\":{cursor},\"complete\":{}", page.complete).as_bytes());
        Ok(close(body))
    })
    .await
}

/// Counts one request of a user.
fn allow_one(desk: &Desk, admitted: &Admitted, operation: Operation) -> Result<(), Refusal> {
    desk.allowance
        .take(admitted.rights.tenant(), &admitted.user, operation)
        .map_err(allowance::too_many)
}

async fn page_config(State(desk): State<Desk>) -> Response {
    desk.page.config().unwrap_or_else(|| problem(&nothing_here()))
}

async fn page_file(State(desk): State<Desk>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if route_of(uri.path()).is_api() {
        return problem(&nothing_here());
    }
    if method != Method::GET && method != Method::HEAD {
        return wrong_method(uri).await;
    }
    desk.page
        .file(uri.path(), &headers)
        .unwrap_or_else(|| problem(&nothing_here()))
}

async fn wrong_method(uri: Uri) -> Response {
    let (detail, allow) = match route_of(uri.path()) {
        Route::Command => ("only POST is answered here", POST_ONLY),
        _ => ("only GET is answered here", GET_ONLY),
    };
    let mut response = problem(&Refusal::new(Code::MethodNotAllowed, detail));
    response.headers_mut().insert(ALLOW, allow);
    response
}

async fn finish(answer: impl Future<Output = Result<Bytes, Refusal>>) -> Response {
    match answer.await {
        Err(refusal) => problem(&refusal),
        Ok(body) => json(body),
    }
}

fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The user, by the `Authorization` header alone: a token in a query was refused before.
pub(crate) fn admit(desk: &Desk, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let token = upgrade::bearer(headers)?.ok_or_else(gate::no_token)?;
    let admitted = desk.gate.admit(token, unix_secs());
    let outcome = admitted
        .as_ref()
        .map_or_else(|error| error.reason(), |_| "accepted");
    desk.metrics.tokens.with_label_values(&[outcome]).inc();
    admitted.map_err(gate::refusal)
}

fn subscribe(admitted: &Admitted, room: Room) -> Result<Subscribe, Refusal> {
    admitted.rights.subscribe(&room).map_err(|_| Refusal::forbidden())
}

/// A name that is none is refused like a room that is not there.
fn path_room(room: RoomPath) -> Result<Room, Refusal> {
    let Path(name) = room.map_err(|_| Refusal::forbidden())?;
    Room::parse(&name).map_err(|_| Refusal::forbidden())
}

fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Refusal> {
    let pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs
        .filter(|(key, _)| upgrade::percent_decoded(key) == name.as_bytes())
        .map(|(_, value)| value);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(bad(format!("{name} is given twice")));
    }
    String::from_utf8(upgrade::percent_decoded(value))
        .map(Some)
        .map_err(|_| bad(format!("{name} is not UTF-8")))
}

fn number(uri: &Uri, name: &str, default: u32, least: u32) -> Result<usize, Refusal> {
    let value = match parameter(uri, name)? {
        None => default,
        Some(text) => text
            .parse()
            .ok()
            .filter(|value| (least..=HISTORY_EVENTS_MAX).contains(value))
            .ok_or_else(|| bad(format!("{name} is a number from {least} to {HISTORY_EVENTS_MAX}")))?,
    };
    usize::try_from(value).map_err(|_| bad(format!("{name} is too large")))
}

fn open(desk: &Desk, view: &View, cursor: Cursor) -> BytesMut {
    let cursor = desk.hub.cursors().write(view.tenant(), &cursor);
    BytesMut::from(format!("{{\"room\":\"{}\",\"cursor\":\"{cursor}\"", view.room()).as_bytes())
}

fn put_list(body: &mut BytesMut, name: &str, deliveries: &[Arc<Delivery>], view: &View) {
    body.put_slice(format!(",\"{name}\":[").as_bytes());
    for (n, delivery) in deliveries
        .iter()
        .filter_map(|delivery| delivery.for_class(view))
        .enumerate()
    {
        if n > 0 {
            body.put_u8(b',');
        }
        body.put_slice(delivery.body());
    }
    body.put_u8(b']');
}

fn close(mut body: BytesMut) -> Bytes {
    body.put_u8(b'}');
    body.freeze()
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

fn nothing_here() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this address")
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the room cannot be read at the moment").retry_after_ms(1_000)
}

/// Unix seconds.
#[must_use]
pub fn unix_secs() -> i64 {
    unix_millis().div_euclid(1000)
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
