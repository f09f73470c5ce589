//! The gateway as a whole: what is started in which order, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use prometheus::IntGauge;
use roomcast_admin::Audit;
use roomcast_admin::instance::Running;
use roomcast_chassis::descriptors;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::subject::{PRESENCE_ALL, READ_STATE_LIVE_ALL};
use roomcast_rights::Follower;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Door};
use crate::admin::{self, AdminDesk};
use crate::admission::Ledger;
use crate::allowance::Allowance;
use crate::asking::Asking;
use crate::backlog::Backlog;
use crate::bells_driver::BellDesk;
use crate::control::Control;
use crate::elsewhere::Elsewhere;
use crate::gate::Gate;
use crate::http::{Desk, Holds, Tickets};
use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::nats_side;
use crate::page::Page;
use crate::presence_driver::RollCall;
use crate::settings::Settings;
use crate::shard::{self, Front, Handle, Shared};
use crate::unwritten::Unwritten;

/// Runs the gateway on the runtime it is called on.
///
/// # Errors
/// Wrong files (65), addresses that cannot be opened (69), development keys on an open address (64).
pub async fn serve(settings: Settings, context: Context) -> Result<(), Failure> {
    start(settings, context).await.map(drop)
}

/// The same, answering the address it listens on; tests bind port 0. Everything runs on the context's stages.
///
/// # Errors
/// As [`serve`].
pub async fn start(settings: Settings, context: Context) -> Result<SocketAddr, Failure> {
    if let Err(why) = descriptors::make_room(settings.admission.connections_max) {
        tracing::warn!("{why}; until then no client comes in when they are used up");
    }
    let trusted = settings.issuers.load()?;
    trusted.refuse_open_development(&[settings.listen, context.common.admin_listen])?;
    let metrics = GatewayMetrics::new(&context.metrics)?;
    let audit = Audit::new(&context, "gateway")?;
    let (follower, rights) = Follower::new(&settings.policy, &audit, &context)?;
    let verifier = settings
        .tenancy
        .restrict(trusted.verifier.clone(), &rights.now().policy)?;
    let gate = Arc::new(
        Gate::new(verifier, rights.clone())
            .counting(metrics.tokens.clone())
            .recording(audit.clone()),
    );
    trusted.keep_fetching(&context)?;
    let page = Arc::new(Page::new(settings.load_page_config()?.as_ref()));
    let names = rights.clone();
    let audiences = Box::new(move |name: &str| names.now().policy.audience(name));
    let hub = Hub::new(settings.nats.hub, audiences, &context.metrics)?;
    hub.watch(rights.clone());

    let roll_call = RollCall::new(Arc::clone(&gate), &context.metrics)?;
    let elsewhere = Elsewhere::new(Arc::clone(&gate), &context.metrics)?;
    let asking = Asking::new(settings.asks, &context.metrics, metrics.clone())?;
    let bells = BellDesk::new(&context.metrics)?;
    let origins = Arc::new(settings.origins.clone());
    let (callers, called) = mpsc::channel(settings.admission.strangers_max.max(1));
    let allowance = Allowance::new(settings.operations, metrics.rate_limited.clone());
    let ledger = Ledger::new(settings.admission);
    let backlog = Backlog::new(
        settings.outboxes_bytes_max,
        settings.shards,
        metrics.outbox_bytes.clone(),
    );
    let shared = Shared {
        allowance: allowance.clone(),
        hub: Arc::clone(&hub),
        gate: Arc::clone(&gate),
        metrics: metrics.clone(),
        limits: settings.clients,
        backlog: backlog.clone(),
        front: Front {
            ledger: ledger.clone(),
            started: Instant::now(),
            origins: Arc::clone(&origins),
            head: settings.head,
            callers,
            #[cfg(all(feature = "echo", debug_assertions))]
            echo: settings.echo,
        },
        asking: Arc::clone(&asking),
        roll_call: roll_call.clone(),
        bells: bells.clone(),
        runtime: tokio::runtime::Handle::current(),
    };
    let mut shards = Vec::with_capacity(settings.shards);
    let mut ends = Vec::with_capacity(settings.shards);
    for number in 0..settings.shards {
        let (handle, end) = shard::start(number, shared.clone())
            .map_err(|error| Failure::internal(format!("a shard cannot be started: {error}")))?;
        shards.push(handle);
        ends.push(end);
    }
    bells.attach(&hub);
    let admin_desk = AdminDesk::new(
        &shards,
        Arc::clone(&hub),
        Arc::clone(&gate),
        metrics.clone(),
        Running::new(&context),
    );
    roomcast_admin::open(&settings.admin, admin::routes(admin_desk), &audit, &context)?;
    let (listeners, address) = listen(&settings)?;
    let latch = context.readiness.latch("listener", "not open");
    let desk = Desk {
        allowance,
        ledger,
        hub: Arc::clone(&hub),
        gate,
        origins,
        page,
        asking: Arc::clone(&asking),
        elsewhere: Arc::clone(&elsewhere),
        roll_call: roll_call.clone(),
        bells: bells.clone(),
        tickets: Tickets::new(Arc::clone(&asking)),
        holds: Holds::new(
            settings.polls.held_max,
            settings.polls.per_tenant_max,
            metrics.polls.clone(),
        ),
        unwritten: Unwritten::new(backlog, settings.clients.write_timeout),
        shards: shards.clone().into(),
        metrics: metrics.clone(),
        // As many as a socket may open with `connect`.
        rooms_max: settings
            .clients
            .session
            .rooms_max
            .min(settings.clients.session.subscriptions_max),
        url_bytes_max: settings.head.url_bytes_max,
        message_bytes_max: settings.clients.session.message_bytes_max,
        body_within: settings.body_within,
        answer_bytes_max: settings.clients.answer_bytes_max,
        poll_max: settings.polls.longest,
        page_events: settings.clients.page_events,
        draining: context.shutdown.stage(Stage::Accept).token(),
    };
    // Requests have the part of the drain time that the first stage has.
    let requests = context.common.drain / 10;
    let pace = accept::Pace {
        ingress: settings.clients.ingress,
        write_timeout: settings.clients.write_timeout,
    };
    let door = Arc::new(Door::new(desk, settings.head, pace, shards.clone(), requests));
    let accepting = context.shutdown.stage(Stage::Accept);
    accepting.spawn(accept::serve(door, called, accepting.token()));
    for (shard, listener) in shards.iter().zip(listeners) {
        shard.listen(listener);
    }
    latch.ready();
    let control = Control::new(
        rights,
        Arc::clone(&hub),
        (shards.clone(), bells.clone()),
        &metrics,
    );
    let telling = shards.clone();
    let draining = context.shutdown.stage(Stage::Drain).token();
    let open = metrics.connections.clone();
    let drained = drain(shards, ends, draining, context.common.drain, open);
    context.shutdown.spawn_vital(Stage::Drain, "shards", async move {
        let drained = drained.await;
        drop(latch);
        drained
    });
    tracing::info!(%address, shards = settings.shards, "the gateway listens on {address}");
    control.start(&context);
    // Before clients come in: who was revoked stays out.
    follower.start(&context).await?;
    // Last, because it waits for NATS as long as it takes; until then the open door answers 503 with Retry-After.
    let nats = nats_side::start(
        &hub,
        &settings.nats,
        &context.nats,
        &context.readiness,
        &context.shutdown,
    )
    .await?;
    asking.connected(nats.client().clone());
    elsewhere.connected(telling.clone().into(), nats.client().clone());
    let heard = nats.client().subscribe(PRESENCE_ALL).await;
    let heard = heard
        .map_err(|error| Failure::unavailable(format!("cannot subscribe to {PRESENCE_ALL}: {error}")))?;
    let finishing = context.shutdown.stage(Stage::Finish);
    finishing.spawn(roll_call.run(
        nats.client().clone(),
        heard,
        telling.clone(),
        elsewhere,
        finishing.token(),
    ));
    let changes = nats.client().subscribe(READ_STATE_LIVE_ALL).await;
    let changes = changes.map_err(|error| {
        Failure::unavailable(format!("cannot subscribe to {READ_STATE_LIVE_ALL}: {error}"))
    })?;
    finishing.spawn(bells.run(
        Arc::clone(&hub),
        nats.jetstream(),
        (changes, telling),
        finishing.token(),
    ));
    control.listen(&nats, &context).await?;
    let publisher = nats.publisher().await;
    audit.keep(
        publisher.map_err(|error| Failure::unavailable(format!("no inbox at NATS: {error}")))?,
        &context,
    );
    Ok(address)
}

fn listen(settings: &Settings) -> Result<(Vec<TcpListener>, SocketAddr), Failure> {
    let address = settings.listen;
    let failed = |error: std::io::Error| Failure::unavailable(format!("{address} cannot be opened: {error}"));
    let listeners = accept::listen(address, settings.shards, settings.sockets).map_err(failed)?;
    let first = listeners.first().map_or(Ok(address), TcpListener::local_addr);
    Ok((listeners, first.map_err(failed)?))
}

/// Waits for the drain stage and empties the shards; fails at once when one of them dies before.
async fn drain(
    shards: Vec<Handle>,
    ends: Vec<oneshot::Receiver<()>>,
    draining: CancellationToken,
    window: Duration,
    open: IntGauge,
) -> Result<(), Failure> {
    let mut ends = futures_util::future::try_join_all(ends);
    let died = |_| Failure::internal("a shard died; its reason is in the log");
    tokio::select! {
        ended = &mut ends => {
            ended.map_err(died)?;
            return Err(Failure::internal("the shards ended without being asked to"));
        }
        () = draining.cancelled() => {}
    }
    let everybody = usize::try_from(open.get()).unwrap_or(0);
    for shard in &shards {
        shard.drain(window, everybody);
    }
    ends.await.map(drop).map_err(died)
}
