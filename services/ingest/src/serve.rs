//! Starts ingest: files, NATS, streams, doors; and ends it in order.

use std::sync::Arc;

use roomcast_admin::Audit;
use roomcast_admin::instance::Running;
use roomcast_chassis::descriptors;
use roomcast_chassis::http;
use roomcast_chassis::process::{Context, Failure, Service};
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::accounts::API_IN_CORE;
use roomcast_proto::subject::{self, INBOUND_ALL, INGEST_QUEUE};
use roomcast_rights::Follower;
use tokio::net::TcpListener;

use crate::admin::rights::RightsDesk;
use crate::admin::{self, AdminDesk};
use crate::bearer::Bearers;
use crate::body::BodyLimits;
use crate::capacity::Capacity;
use crate::capture::{Capture, CaptureMetrics};
use crate::commands::Commands;
use crate::dead_letter::DeadLetters;
use crate::door_http::{HttpDoor, router};
use crate::door_nats::NatsDoor;
use crate::door_service::{ServiceDoor, Services};
use crate::durability;
use crate::intake::Intake;
use crate::letters::Letters;
use crate::metrics::IngestMetrics;
use crate::queues::Queues;
use crate::quota::Quotas;
use crate::readstate::ReadStates;
use crate::schemas::Schemas;
use crate::settings::Settings;
use crate::sinks::Sinks;
use crate::sinks::devices::DeviceDesk;
use crate::sinks::metrics::SinkMetrics;
use crate::standing::Standing;
use crate::statistics;
use crate::store::{Parts, Store};
use crate::streams;
use crate::tickets::Tickets;

/// What ingest is, for the process around it.
pub static SERVICE: Service = Service {
    name: "roomcast-ingest",
    about: "takes events over HTTP and NATS, stores them and acknowledges what is stored",
    admin_port: 9081,
    jetstream_api: API_IN_CORE,
};

/// Runs ingest: binds the listener of the settings, then [`serve_on`].
///
/// # Errors
/// Exit codes: 64 a development key that strangers could use, 65 a broken file, 69 NATS or a stream that cannot be used, or the
/// address is taken.
pub async fn serve(settings: Settings, context: Context) -> Result<(), Failure> {
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        Failure::unavailable(format!("{} cannot be listened on: {error}", settings.listen))
    })?;
    serve_on(listener, settings, context).await
}

/// Runs ingest on a listener, e.g. one on port 0.
///
/// Returns when both doors are open; they are tasks of the context's shutdown: first no more is let in, then what is in is
/// finished and answered, then NATS is left.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(listener: TcpListener, settings: Settings, context: Context) -> Result<(), Failure> {
    if let Err(why) = descriptors::make_room(settings.connections_max) {
        tracing::warn!("{why}; until then no publisher comes in when they are used up");
    }
    let (streams_latch, durability_latch, writes_latch, listening) = (
        context.readiness.latch("streams", "not yet looked at"),
        context.readiness.latch("durability", "not yet asked for"),
        context.readiness.latch("writes", "not yet"),
        context.readiness.latch("listening", "not yet"),
    );
    let metrics = IngestMetrics::new(&context.metrics)?;
    let audit = Audit::new(&context, "ingest")?;
    let (follower, rights) = Follower::new(&settings.policy, &audit, &context)?;
    let trusted = settings.issuers.load()?;
    trusted.refuse_open_development(&[settings.listen, context.common.admin_listen])?;
    let verifier = settings
        .tenancy
        .restrict(trusted.verifier.clone(), &rights.now().policy)?;
    trusted.keep_fetching(&context)?;
    let mapping = match &settings.capture {
        Some(capture) => Some((capture.load(&rights.now().policy)?, capture.database.clone())),
        None => None,
    };
    let sinks = settings.load_sinks()?.map(Arc::new);
    let schemas = Schemas::follow(settings.schemas_dir.clone(), &audit, &context)?;

    let nats = context.nats.connect("ingest").await?;
    let jetstream = nats.jetstream();
    let standing = Standing::new(settings.write_hang, metrics.clone());
    let durability = durability::Watch {
        client: nats.client().clone(),
        status: nats.status(),
        wanted: settings.durability,
        latch: durability_latch,
        standing: standing.clone(),
        metrics: metrics.clone(),
    };
    durability.verify().await?;
    let replicas = context.common.replicas;
    let looked_at = streams::wanted(replicas, sinks.is_some());
    let epoch = streams::verify(&jetstream, &looked_at, &streams_latch, &metrics.streams).await?;
    let inbox = |error| Failure::unavailable(format!("no inbox at NATS: {error}"));
    let store = Store::new(Parts {
        jetstream: jetstream.clone(),
        api_prefix: context.common.nats.api_prefix.clone(),
        publisher: nats.publisher().await.map_err(inbox)?,
        epoch: epoch.clone(),
        cursors: settings.tenancy.cursors,
        room_keys_max: settings.room_keys_max,
        standing: standing.clone(),
        metrics: metrics.clone(),
    });
    let intake = Intake {
        audit: audit.clone(),
        rights: rights.clone(),
        schemas,
        store,
        dead_letters: DeadLetters::new(nats.publisher().await.map_err(inbox)?, metrics.clone()),
        capacity: Capacity::new(
            settings.requests_max,
            settings.in_flight_bytes_max,
            metrics.clone(),
        ),
        quotas: Quotas::new(settings.quotas, metrics.clone()),
        metrics: metrics.clone(),
        nats: nats.status(),
    };
    // Before the doors open: who was revoked does not come in.
    follower.start(&context).await?;
    let subscribe = async |subject: String| {
        let subscribed = nats
            .client()
            .queue_subscribe(subject.clone(), INGEST_QUEUE.to_owned())
            .await;
        subscribed
            .map_err(|error| Failure::unavailable(format!("{subject} cannot be subscribed to: {error}")))
    };
    let requests = subscribe(INBOUND_ALL.to_owned()).await?;

    audit.keep(nats.publisher().await.map_err(inbox)?, &context);
    let desk = AdminDesk {
        intake: intake.clone(),
        running: Running::new(&context),
    };
    let letters = Letters::new(jetstream.clone(), intake.clone());
    let rights_desk = RightsDesk::new(
        jetstream.clone(),
        rights.clone(),
        metrics.clone(),
        &context.metrics,
    )?;
    let routes = admin::routes(desk)
        .merge(admin::rights::routes(rights_desk))
        .merge(admin::letters::routes(letters));
    roomcast_admin::open(&settings.admin, routes, &audit, &context)?;

    // The doors close with the first stage and finish what is in within the second.
    let (accept, drain) = (
        context.shutdown.stage(Stage::Accept),
        context.shutdown.stage(Stage::Drain),
    );
    drain.spawn(NatsDoor::new(intake.clone(), nats.client().clone()).run(requests, accept.token()));
    drain.spawn(Queues::new(jetstream.clone(), intake.clone()).run(accept.token()));
    if let Some((mapping, database)) = mapping {
        let metrics = CaptureMetrics::new(&context.metrics)?;
        let capture = Capture::new(
            mapping,
            database.clone(),
            intake.clone(),
            jetstream.clone(),
            metrics.clone(),
        );
        drain.spawn(Capture::watch(
            capture.mapping(),
            database,
            metrics,
            accept.token(),
        ));
        drain.spawn(capture.run(accept.token()));
    }
    let services = Services {
        commands: Commands::new(jetstream.clone(), metrics.clone()),
        read_states: ReadStates::new(jetstream.clone(), metrics.clone()),
        tickets: Tickets::new(jetstream.clone(), metrics.clone()),
        devices: DeviceDesk::new(jetstream.clone(), sinks.clone(), metrics.clone()),
    };
    // Declared whether or not anything is sent: a rate over what never happened is zero.
    let sink_metrics = SinkMetrics::new(&context.metrics)?;
    if let Some(config) = sinks {
        let sinks = Sinks::new(config, jetstream.clone(), rights.clone(), sink_metrics, &metrics)?;
        drain.spawn(sinks.run(accept.token()));
    }
    let service_door = ServiceDoor::new(
        services,
        nats.client().clone(),
        settings.services_max,
        metrics.clone(),
    );
    for service in subject::Service::ALL {
        let requests = subscribe(service.requests()).await?;
        drain.spawn(service_door.clone().run(requests, accept.token()));
    }
    let address = listener.local_addr().unwrap_or(settings.listen);
    let limits = http::Limits {
        connections_max: settings.connections_max,
        // The stage reaches to 80 % of the whole; what is left after this is cut with an orderly end.
        drain: context.common.drain.mul_f64(0.7),
        ..http::Limits::default()
    };
    let watched = metrics.clone();
    let door = HttpDoor {
        intake,
        bearers: Bearers::new(verifier, rights, audit.clone(), metrics),
        allowed_origins: settings.allowed_origins,
        body: BodyLimits {
            bytes_max: settings.body_bytes_max,
            within: settings.body_within,
        },
        statistics: statistics::Desk::new(nats.client().clone()),
        under_way: drain.tracker().clone(),
    };
    drain.spawn(http::serve(
        listener,
        "public",
        router(door),
        limits,
        context.http.clone(),
        accept.token(),
    ));
    let finish = context.shutdown.stage(Stage::Finish);
    finish.spawn(durability.run(finish.token()));
    finish.spawn(standing.watch(jetstream.clone(), writes_latch, finish.token()));
    finish.spawn(streams::watch(
        jetstream,
        looked_at,
        streams_latch,
        epoch,
        watched,
        finish.token(),
    ));
    listening.ready();
    tracing::info!(%address, "ingest takes events at http://{address}{} and on NATS {INBOUND_ALL}", crate::door_http::PATH);
    // The latch lives as long as the process serves: dropped, it would say not ready.
    let ending = finish.token();
    finish.spawn(async move {
        ending.cancelled().await;
        drop(listening);
    });
    Ok(())
}
