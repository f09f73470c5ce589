//! The NATS door: requests on `in.>`, shared by all ingests as one queue group.
//!
//! The subject says whose event it is, the server's own header says which user sent it; both were written by the server and
//! cannot be forged. One task takes the requests, so those of one publisher are decided and sent in the order they came.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use roomcast_access::Principal;
use roomcast_chassis::trace::{SpanKind, Step, Trail, messaging};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, BadInbound, Inbound};
use tokio_util::sync::CancellationToken;

use crate::accept::Sender;
use crate::answer::Answer;
use crate::capacity::Place;
use crate::claim::{Claimed, Stranger, claimed, last, publisher, said_by_server, tenant_of};
use crate::door_http::BACKFILL;
use crate::intake::{Intake, Request, Shape};
use crate::metrics::Door;
use crate::now_micros;

/// Senders remembered; beyond, all are forgotten and made anew.
const SENDERS_MAX: usize = 1_024;
/// Bytes of what the server says of one, who is not remembered where it is more.
const SAID_BYTES_MAX: usize = 2_048;

/// The door.
#[derive(Debug)]
pub struct NatsDoor {
    intake: Arc<Intake>,
    client: Client,
    /// Under one generation of rights; by what the server says of them, which is long to read. `None`: the policy does not list it.
    senders: HashMap<Box<str>, (Tenant, Option<Arc<Sender>>), RandomState>,
    generation: u64,
}

impl NatsDoor {
    /// Makes it; nothing is subscribed to.
    #[must_use]
    pub fn new(intake: Intake, client: Client) -> Self {
        Self {
            intake: Arc::new(intake),
            client,
            senders: HashMap::default(),
            generation: 0,
        }
    }

    /// Answers requests until `ending`, then those already received, then returns.
    ///
    /// # Cancel safety
    /// Dropped, requests received are not answered; their publishers ask again.
    pub async fn run(mut self, mut requests: Subscriber, ending: CancellationToken) {
        let mut working = FuturesUnordered::new();
        let mut draining = false;
        loop {
            tokio::select! {
                // Work first: it makes room.
                biased;
                Some(()) = working.next(), if !working.is_empty() => {}
                request = requests.next() => match request {
                    Some(message) => {
                        if let Some(work) = self.begin(message) {
                            working.push(work);
                        }
                    }
                    None => break,
                },
                () = ending.cancelled(), if !draining => {
                    draining = true;
                    // The server sends no more; what is on its way still comes out of `requests`, then `None`.
                    if requests.drain().await.is_err() {
                        break;
                    }
                }
            }
        }
        while working.next().await.is_some() {}
    }

    /// Finds out who sent a message and what to do with it; `None` where nothing is left to do.
    fn begin(&mut self, message: Message) -> Option<impl Future<Output = ()> + use<>> {
        let metrics = &self.intake.metrics;
        metrics.request(Door::Nats);
        if message.reply.is_none() {
            metrics.unheard.inc();
        }
        let place = self
            .intake
            .capacity
            .enter()
            .and_then(|mut place| place.cover(message.payload.len()).map(|()| place));
        let judged = match place {
            Ok(mut place) => {
                let judged = self.judge(&message);
                self.intake
                    .share(Door::Nats, judged.sender(), &mut place)
                    .map(|()| (judged, place))
            }
            Err(full) => Err(self.intake.full(Door::Nats, full)),
        };
        let (intake, client) = (Arc::clone(&self.intake), self.client.clone());
        let trail = Trail::read(|name| last(message.headers.as_ref(), name));
        let step = Step::begin("process in", SpanKind::Consumer, trail.as_ref());
        step.set(|| messaging("process", "in"));
        Some(async move {
            let answer = match judged {
                Ok((judged, place)) => step.run(work(&intake, &message, judged, place)).await,
                Err(refusal) => Answer::Refused(refusal),
            };
            if let Answer::Refused(refusal) = &answer {
                step.failed(refusal.code.as_str());
            }
            if let Some(reply) = message.reply {
                let body = answer.body().unwrap_or_else(Refusal::error_json);
                // A publisher that hears nothing asks again with the same id.
                if let Err(error) = client.publish(reply, Bytes::from(body)).await {
                    tracing::debug!(%error, "a reply could not be sent: {error}");
                }
            }
        })
    }

    fn judge(&mut self, message: &Message) -> Judged {
        let headers = message.headers.as_ref();
        let inbound = match subject::parse_inbound(&message.subject) {
            Ok(inbound) => inbound,
            Err(bad) => return Judged::unreadable(&message.subject, bad, headers),
        };
        let sender = match self.sender(&inbound, headers) {
            Ok(sender) => sender,
            Err(stranger) => {
                if stranger == Stranger::ForgedUser {
                    self.intake.metrics.forged_user.inc();
                }
                return Judged::forbidden(inbound.tenant, headers);
            }
        };
        match sender {
            Some(sender) => {
                let backfill = last(headers, BACKFILL) == Some("1");
                Judged::Sender {
                    sender,
                    inbound,
                    backfill,
                }
            }
            None => Judged::forbidden(inbound.tenant, headers),
        }
    }

    /// Who sent a message; `None` when nothing allows them to publish.
    fn sender(
        &mut self,
        inbound: &Inbound,
        headers: Option<&HeaderMap>,
    ) -> Result<Option<Arc<Sender>>, Stranger> {
        let in_force = self.intake.rights.now();
        if in_force.generation != self.generation {
            self.generation = in_force.generation;
            self.senders.clear();
        }
        let tenant = &inbound.tenant;
        let said = said_by_server(inbound, headers).filter(|said| said.len() <= SAID_BYTES_MAX);
        if let Some((of, sender)) = said.and_then(|said| self.senders.get(said))
            && of == tenant
        {
            return Ok(sender.clone());
        }
        let sender = match claimed(inbound, headers)? {
            Claimed::Aggregator => return Ok(Some(Arc::new(Sender::aggregator(tenant)))),
            Claimed::User(user) => {
                let now = now_micros() / 1_000_000;
                let principal = Principal {
                    tenant: tenant.clone(),
                    subject: user.sub.into(),
                    roles: user.roles,
                    claims: user.claims,
                    // The gateway holds the token and ends with it, or with a revocation of it; here it is one publish long.
                    expires_at: i64::MAX,
                    issued_at: Some(now),
                    token_id: None,
                };
                let decided = in_force.decide(&principal, now).ok();
                return Ok(decided.map(|decided| Arc::new(Sender::of_user(&principal, decided.rights))));
            }
            Claimed::Publisher(user) => Sender::of_nats_user(tenant, &user, &in_force.policy).map(Arc::new),
        };
        if let Some(said) = said {
            if self.senders.len() >= SENDERS_MAX {
                self.senders.clear();
            }
            self.senders.insert(said.into(), (tenant.clone(), sender.clone()));
        }
        Ok(sender)
    }
}

/// What is to be done with a message.
enum Judged {
    /// Its events are to be taken.
    Sender {
        sender: Arc<Sender>,
        inbound: Inbound,
        backfill: bool,
    },
    /// Nothing of it is.
    Refused { sender: Sender, refusal: Refusal },
}

impl Judged {
    fn sender(&self) -> &Sender {
        match self {
            Self::Sender { sender, .. } => sender,
            Self::Refused { sender, .. } => sender,
        }
    }

    fn forbidden(tenant: Tenant, headers: Option<&HeaderMap>) -> Self {
        Self::Refused {
            sender: Sender::stranger(tenant, &publisher(headers)),
            refusal: Refusal::forbidden(),
        }
    }

    fn unreadable(subject: &str, bad: BadInbound, headers: Option<&HeaderMap>) -> Self {
        let detail = bad.to_string();
        let (tenant, code) = match bad {
            BadInbound::Shape => (tenant_of(subject), Code::BadRequest),
            BadInbound::Tenant(_) => (None, Code::Forbidden),
            BadInbound::Room(tenant, _) => (Some(tenant), Code::BadRoom),
            BadInbound::Audience(tenant, _) => (Some(tenant), Code::UnknownAudience),
        };
        Self::Refused {
            // Without a tenant there is nobody to keep it for; only a broken import leads here.
            sender: Sender::stranger(tenant.unwrap_or_default(), &publisher(headers)),
            refusal: Refusal::new(code, detail),
        }
    }
}

async fn work(intake: &Intake, message: &Message, judged: Judged, place: Place) -> Answer {
    let origin = message.subject.as_str();
    let body = message.payload.clone();
    let answer = match judged {
        Judged::Sender {
            sender,
            inbound,
            backfill,
        } => {
            let request = Request {
                door: Door::Nats,
                sender: &sender,
                room: Some(&inbound.room),
                audience: Some(&inbound.audience),
                backfill,
                origin,
                shape: Shape::OneOrBatch,
                body,
                original: None,
            };
            intake.take(request, now_micros()).await
        }
        Judged::Refused { sender, refusal } => {
            let bytes = body.len();
            intake
                .refuse(Door::Nats, &sender, origin, body, bytes, refusal)
                .await
        }
    };
    drop(place);
    answer
}
