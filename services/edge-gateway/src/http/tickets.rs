//! Tickets for browsers that cannot set a header: `POST /v1/tickets` gives one, `GET /v1/sse?ticket=…` takes it back.
//!
//! A ticket goes into an address, so it is worth little: it opens one stream, once, within 30 s, for its user, the rooms that it
//! names and pages of its origin. What stands behind it is kept by ingest, so that it is good at any gateway.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::ORIGIN;
use roomcast_access::Principal;
use roomcast_proto::ids::Room;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::Service;
use roomcast_proto::ticket::{Holder, KEPT, Keep, Kept, Take, Taken, Ticket, Verb};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::answered::finish;
use super::asked::{admit, allow_one};
use super::{Desk, posted, unix_secs};
use crate::allowance::Operation;
use crate::asking::{Asking, unavailable};
use crate::gate::{self, Admitted};

/// Tickets that ingest is asked for at the same time: whoever shows one is a stranger until it has answered.
const TAKES_MAX: usize = 64;

/// Asks ingest about tickets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tickets {
    asking: Arc<Asking>,
    takes: Arc<Semaphore>,
}

/// What a ticket opens.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) admitted: Admitted,
    rooms: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    rooms: Vec<String>,
}

/// `POST /v1/tickets`
pub(super) async fn give(State(desk): State<Desk>, request: Request) -> Response {
    finish(given(&desk, request)).await
}

async fn given(desk: &Desk, request: Request) -> Result<Bytes, Refusal> {
    let mut admitted = admit(desk, request.headers())?;
    allow_one(desk, &admitted, Operation::Ticket)?;
    let origin = origin(request.headers());
    let wanted: Wanted = posted::object(&posted::json(desk, request, &mut admitted).await?)?;
    if wanted.rooms.len() > desk.rooms_max {
        return Err(Refusal::new(Code::Limit, format!("at most {} rooms", desk.rooms_max)).at("/rooms"));
    }
    // The same decision as for a stream; those that are open go into the ticket with those that are not, which stay closed.
    let is_open = |name: &String| {
        let room = Room::parse(name).ok();
        room.is_some_and(|room| admitted.rights.subscribe(&room).is_ok())
    };
    if !wanted.rooms.is_empty() && !wanted.rooms.iter().any(is_open) {
        return Err(Refusal::forbidden());
    }
    let ticket = Ticket::new(admitted.rights.tenant().clone(), secret()?);
    let principal = &admitted.principal;
    let holder = Holder {
        user: principal.subject.as_ref().to_owned(),
        roles: principal.roles.clone(),
        claims: principal.claims.clone(),
        expires_at: principal.expires_at,
        issued_at: principal.issued_at,
        token_id: principal.token_id.clone(),
        rooms: wanted.rooms,
        origin,
    };
    let keep = Keep {
        id: ticket.id(),
        holder,
    };
    let Kept {} = desk
        .tickets
        .asking
        .service(ticket.tenant(), Service::Tickets, Verb::Keep.as_str(), &keep)
        .await?;
    let body = serde_json::json!({ "ticket": ticket.text(), "goodForSeconds": KEPT.as_secs() });
    Ok(body.to_string().into())
}

impl Tickets {
    /// Asks by way of `asking`.
    #[must_use]
    pub fn new(asking: Arc<Asking>) -> Self {
        Self {
            asking,
            takes: Arc::new(Semaphore::new(TAKES_MAX)),
        }
    }

    /// Takes what stands behind a ticket; nobody takes it again.
    ///
    /// # Errors
    /// `unauthenticated` for whatever is no ticket, was taken, is too old, of another page or revoked meanwhile: nobody is told
    /// which. `unavailable`, `unknown`: it may be gone, or not.
    pub(super) async fn take(&self, desk: &Desk, text: &str, headers: &HeaderMap) -> Result<Opened, Refusal> {
        let ticket = Ticket::parse(text).filter(|ticket| desk.gate.serves(ticket.tenant()));
        let ticket = ticket.ok_or_else(gate::no_token)?;
        let _place = self
            .takes
            .try_acquire()
            .map_err(|_| unavailable("too many tickets are looked at"))?;
        let take = Take { id: ticket.id() };
        let asked = self
            .asking
            .service(ticket.tenant(), Service::Tickets, Verb::Take.as_str(), &take);
        let Taken { holder } = asked.await?;
        let holder = holder
            .filter(|holder| is_page_of(headers, holder.origin.as_deref()))
            .ok_or_else(gate::no_token)?;
        let principal = Principal {
            tenant: ticket.tenant().clone(),
            subject: holder.user.into(),
            roles: holder.roles,
            claims: holder.claims,
            expires_at: holder.expires_at,
            issued_at: holder.issued_at,
            token_id: holder.token_id,
        };
        let admitted = desk.gate.admit_again(principal, unix_secs());
        let outcome = admitted
            .as_ref()
            .map_or_else(|error| error.reason(), |_| "ticket");
        desk.metrics.tokens.with_label_values(&[outcome]).inc();
        Ok(Opened {
            admitted: admitted.map_err(gate::refusal)?,
            rooms: holder.rooms,
        })
    }
}

impl Opened {
    /// The rooms of a request with this ticket: those it names, all of which the ticket must; else those of the ticket.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn rooms(
        self,
        asked: Vec<(String, Option<String>)>,
    ) -> Result<Vec<(String, Option<String>)>, Refusal> {
        if asked.is_empty() {
            return Ok(self.rooms.into_iter().map(|room| (room, None)).collect());
        }
        match asked.iter().all(|(room, _)| self.rooms.contains(room)) {
            true => Ok(asked),
            false => Err(Refusal::forbidden()),
        }
    }
}

fn origin(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(ORIGIN)?.to_str().ok()?.to_owned())
}

/// A page of another origin always says where it is from; one of our own may say so or not.
fn is_page_of(headers: &HeaderMap, bound: Option<&str>) -> bool {
    !headers.contains_key(ORIGIN) || origin(headers).as_deref() == bound
}

fn secret() -> Result<[u8; roomcast_proto::ticket::SECRET_BYTES], Refusal> {
    let mut secret = [0; roomcast_proto::ticket::SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret)
        .map_err(|_| Refusal::new(Code::Internal, "there are no random numbers"))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_for_the_pages_of_its_origin() {
        let page = Some("https://desk.example");
        for (shown, bound, expected) in [
            (page, page, true),
            // Of the same origin as the gateway, or no page at all.
            (None, page, true),
            (None, None, true),
            (Some("https://other.example"), page, false),
            (Some("https://desk.example.evil"), page, false),
            (page, None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(shown) = shown {
                headers.insert(ORIGIN, shown.parse().unwrap());
            }
            assert_eq!(is_page_of(&headers, bound), expected, "{shown:?} {bound:?}");
        }
    }
}
