//! The service door: requests of gateways on `svc.…`, shared by all ingests as one queue group.
//!
//! Only the gateways' account gets through; the server wrote it into the subject. What is asked for is done by one module per service,
//! here stand only the bound on work in flight, the answer and the count. A refusal is answered as everywhere on NATS; its code is
//! from the closed list.

use std::sync::Arc;
use std::time::Instant;

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{Service, ServiceRequest, parse_service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::commands::Commands;
use crate::error::unavailable;
use crate::metrics::IngestMetrics;
use crate::now_micros;
use crate::readstate::ReadStates;
use crate::sinks::devices::DeviceDesk;
use crate::tickets::Tickets;

/// What a service answers: JSON, or a refusal.
pub type Answer = Result<String, Refusal>;

/// Everything that gateways may ask for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    /// Keys and results of commands.
    pub commands: Commands,
    /// What users have done with notifications.
    pub read_states: ReadStates,
    /// Tickets.
    pub tickets: Tickets,
    /// Devices.
    pub devices: DeviceDesk,
}

impl Services {
    async fn answer(&self, request: &ServiceRequest<'_>, body: &[u8]) -> Answer {
        let now_millis = now_micros().div_euclid(1_000);
        match request.what {
            Service::Commands => self.commands.answer(&request.tenant, request.verb, body).await,
            Service::ReadState => self.read_states.answer(&request.tenant, request.verb, body).await,
            Service::Tickets => {
                self.tickets
                    .answer(&request.tenant, request.verb, body, now_millis)
                    .await
            }
            Service::Devices => {
                self.devices
                    .answer(&request.tenant, request.verb, body, now_millis)
                    .await
            }
        }
    }
}

/// The door. Cheap to clone: one runs per service.
#[derive(Clone, Debug)]
pub struct ServiceDoor {
    services: Services,
    client: Client,
    in_flight: Arc<Semaphore>,
    metrics: IngestMetrics,
}

impl ServiceDoor {
    /// `in_flight_max`: requests worked on at the same time, of all services together; one more is answered `unavailable`.
    #[must_use]
    pub fn new(services: Services, client: Client, in_flight_max: usize, metrics: IngestMetrics) -> Self {
        let in_flight = in_flight_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            services,
            client,
            in_flight: Arc::new(Semaphore::new(in_flight)),
            metrics,
        }
    }

    /// Answers requests until `ending`, then those already received, then returns.
    ///
    /// # Cancel safety
    /// Dropped, requests received are not answered; gateways ask again or tell their clients to.
    pub async fn run(self, mut requests: Subscriber, ending: CancellationToken) {
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

    /// `None` where nobody waits for an answer: whatever the service would do, nobody would know of it.
    fn begin(&self, message: Message) -> Option<impl Future<Output = ()> + use<>> {
        let Some(reply) = message.reply.clone() else {
            self.metrics.unheard.inc();
            return None;
        };
        let place = Arc::clone(&self.in_flight).try_acquire_owned();
        let door = self.clone();
        Some(async move {
            let start = Instant::now();
            door.metrics.services_in_flight.inc();
            let answer = match (&place, parse_service(&message.subject)) {
                (_, None) => Err(Refusal::forbidden()),
                (Err(_), _) => Err(unavailable("as much as may be is being worked on")),
                (Ok(_), Some(request)) => door.services.answer(&request, &message.payload).await,
            };
            let service = parse_service(&message.subject).map_or("none", |request| request.what.as_str());
            let outcome = answer
                .as_ref()
                .map_or_else(|refusal| refusal.code.as_str(), |_| "done");
            door.metrics.service(service, outcome);
            door.metrics
                .service_seconds
                .observe(start.elapsed().as_secs_f64());
            let body = answer.unwrap_or_else(|refusal| refusal.error_json());
            // A gateway that hears nothing asks again, or tells its client to.
            if let Err(error) = door.client.publish(reply, Bytes::from(body)).await {
                tracing::debug!(%error, "a reply could not be sent: {error}");
            }
            door.metrics.services_in_flight.dec();
        })
    }
}

/// Reads a request's body, strictly: a member that is not known is a mistake.
///
/// # Errors
/// `bad_request`.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the request cannot be read: {error}")))
}

/// The answer as JSON.
///
/// # Errors
/// `internal`, for what cannot be written as JSON.
pub fn write<T: Serialize>(answer: &T) -> Answer {
    serde_json::to_string(answer)
        .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written as JSON"))
}

/// The answer to a verb that a service does not have.
#[must_use]
pub fn no_such_verb() -> Refusal {
    Refusal::new(Code::BadRequest, "this service has no such verb")
}
