//! The running system: started step by step, announced, and stayed with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_access::keys::DEVELOPMENT_KID;
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::process::{Exit, Failure};
use roomcast_proto::accounts::API_IN_CORE;
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::Sizing;
use roomcast_proto::subject::stream::EVENTS;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::family::Family;
use super::files::{Files, Named};
use super::home::Home;
use super::nats::{Server, Users};
use super::ports::{self, Counts, Ports};
use super::postgres::Postgres;
use super::ready::{self, step};
use super::services::{self, Extra, Services};
use crate::dev_env::Written;
use crate::ingest::{Credential, Ingest};
use crate::scenario::{Generator, Scenario};
use crate::shop::Shop;
use crate::simulate::{Simulator, Sink, now_micros};
use crate::terminal::say;
use crate::token::{ADMIN_AUDIENCE, AUDIENCE, DEVELOPMENT_ISSUER, Signer};
use crate::{find, streams};

/// A database is followed within a second; on a busy machine several times that.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);
/// Tokens hold for a day at most; well before, new ones are written.
const TOKENS_EVERY: Duration = Duration::from_secs(12 * 3_600);

/// The running system.
pub(super) struct System<'a> {
    pub(super) options: &'a Options,
    pub(super) home: &'a Home,
    pub(super) ports: Ports,
    pub(super) users: Users,
    pub(super) nats_url: String,
    pub(super) signer: Signer,
    pub(super) admin_signer: Signer,
    pub(super) key_file: PathBuf,
    /// The roles of the policy in force.
    pub(super) roles: Vec<String>,
    /// What tokens say beside roles.
    pub(super) claims: Map<String, Value>,
}

impl System<'_> {
    /// Starts everything and stays with it.
    pub(super) async fn run(options: &Options, home: &Home, family: &mut Family) -> Result<(), Failure> {
        let began = Instant::now();
        let named = Named {
            scenario: options.scenario.as_deref(),
            policy: options.policy.as_deref(),
            metrics: options.metrics.as_deref(),
            schemas: options.schemas.as_deref(),
        };
        let files = Files::find(&named, home)?;
        let nodes: u32 = if options.nats.is_some() {
            0
        } else {
            options.nats_nodes.parse().unwrap_or(1)
        };
        let aggregators = if files.metrics.is_some() {
            options.aggregators
        } else {
            0
        };
        let counts = Counts {
            nats: nodes,
            gateways: options.gateways,
            ingests: options.ingests,
            aggregators,
            database: files.capture.is_some(),
        };
        let ports = ports::choose(options.ports, counts)?;
        // A missing binary is said before a minute of history is published, not after it.
        for name in services::BINARIES
            .iter()
            .take(if files.metrics.is_some() { 3 } else { 2 })
        {
            find::service(name)?;
        }
        let (key_file, keys_file) = home.keys()?;
        let signer = Signer::load(&key_file, DEVELOPMENT_KID, DEVELOPMENT_ISSUER, AUDIENCE)?;
        let (admin_key_file, admin_keys_file) = home.admin_keys()?;
        let admin_signer = Signer::load(
            &admin_key_file,
            DEVELOPMENT_KID,
            DEVELOPMENT_ISSUER,
            ADMIN_AUDIENCE,
        )?;
        let users = match &options.nats_users {
            Some(path) => Users::load(path)?,
            None => Users::random()?,
        };
        let urls: Vec<String> = ports
            .nats
            .iter()
            .map(|(client, _)| format!("nats://127.0.0.1:{client}"))
            .collect();
        let nats_url = options.nats.clone().unwrap_or_else(|| urls.join(","));
        let system = System {
            options,
            home,
            ports,
            users,
            nats_url,
            signer,
            admin_signer,
            key_file,
            roles: files.roles.clone(),
            claims: files.claims(),
        };
        let (empty, replicas) = system.nats_and_streams(family, nodes).await?;
        let now = now_micros();
        let database = match &files.capture {
            Some(capture) => Postgres::start(capture, home, family, system.ports.database).await?,
            None => None,
        };
        let shop = match (&database, &files.scenario) {
            (Some(database), Some(scenario)) => {
                let past = empty.then(|| system.past(scenario, now));
                Some(system.shop(database, past).await?)
            }
            _ => None,
        };
        let extra = Extra {
            gateway: options.gateway_env.clone(),
            ingest: options.ingest_env.clone(),
            aggregator: options.aggregator_env.clone(),
        };
        let services = Services {
            home,
            files: &files,
            users: &system.users,
            ports: &system.ports,
            nats_url: &system.nats_url,
            replicas,
            keys_file,
            admin_keys_file,
            page_file: files.write_page(home, &system.ingest(), &system.admin_by_kind())?,
            database: database.as_ref(),
            extra: &extra,
        };
        ready::start("ingest", family, services.ingests()?).await?;
        let mut live = match &files.scenario {
            Some(scenario) => Some(system.history(family, scenario, empty, now).await?),
            None => None,
        };
        if let Some(shop) = &shop {
            until_followed(family, shop).await?;
        }
        if files.metrics.is_none() {
            say("  no metrics: nothing names definitions (--metrics), so there is no aggregator");
        }
        ready::start("aggregator", family, services.aggregators()?).await?;
        ready::start("gateway", family, services.gateways()?).await?;
        let mut written = Written::new(Path::new(""), &system.env()?)?;
        let stop = CancellationToken::new();
        // Before the services end, not after them: it would complain that nobody takes its events.
        let _stopped = stop.clone().drop_guard();
        let sink = shop.map_or_else(|| system.sink(), |shop| Sink::Shop(Box::new(shop)));
        let simulating = live.take().map(|simulator| system.live(simulator, sink, stop));
        let example = match (&files.scenario, &options.policy) {
            (Some(scenario), None) => scenario.example(),
            (None, None) => ("demo", "demo:new", "staff"),
            // Somebody's own policy: its rooms are not ours to guess.
            (_, Some(_)) => ("ROOM", "TYPE", "AUDIENCE"),
        };
        system.announce(family, &written, example, began)?;
        if options.restart {
            family.restart_from_now_on();
        }
        system.stay(family, &mut written, simulating).await
    }

    /// Starts NATS, and sees that streams and buckets are as they must be. Tells whether `EVENTS` is empty, and the replicas.
    async fn nats_and_streams(&self, family: &mut Family, nodes: u32) -> Result<(bool, u32), Failure> {
        let since = Instant::now();
        let mut replicas = nodes.max(1);
        let queues = [streams::QueueOwner {
            tenant: Tenant::default(),
            publisher: self.users.publisher.name.clone(),
        }];
        let sizing = Sizing {
            replicas,
            ..Sizing::DEVELOPMENT
        };
        if nodes > 0 {
            let server = Server::find().await?;
            for node in server.nodes(self.home, &self.users, &self.ports.nats, &sizing)? {
                family.start(node)?;
            }
            let client = ready::unless_died(family, ready::nats(&self.nats_url, &self.users.admin)).await?;
            step(&format!("NATS {}", server.version), &self.nats_url, since);
            let since = Instant::now();
            let outcomes = ready::unless_died(family, ready::streams(&client, &sizing, &queues)).await?;
            let created = outcomes
                .iter()
                .filter(|(_, outcome)| *outcome == streams::Outcome::Created)
                .count();
            step(
                "streams and buckets",
                &format!("{} verified, {created} of them new", outcomes.len()),
                since,
            );
            let empty = self
                .events_state(&client)
                .await?
                .is_none_or(|(messages, _)| messages == 0);
            return Ok((empty, replicas));
        }
        let admin = &self.users.admin;
        let client = streams::connect(&self.nats_url, Some((&admin.name, &admin.password))).await?;
        replicas = self
            .events_state(&client)
            .await?
            .map_or(1, |(_, replicas)| replicas);
        let outcomes = streams::apply(
            &client,
            &Sizing {
                replicas,
                ..Sizing::DEVELOPMENT
            },
            &queues,
            true,
        )
        .await
        .map_err(Failure::from)?;
        step(
            "NATS (yours)",
            &format!(
                "{}: {} streams and buckets verified",
                self.nats_url,
                outcomes.len()
            ),
            since,
        );
        let empty = self
            .events_state(&client)
            .await?
            .is_none_or(|(messages, _)| messages == 0);
        Ok((empty, replicas))
    }

    /// Messages and replicas of `EVENTS`; `None`: there is no such stream.
    async fn events_state(&self, client: &async_nats::Client) -> Result<Option<(u64, u32)>, Failure> {
        let jetstream = JetStream::new(client.clone(), API_IN_CORE).with_timeout(Duration::from_secs(5));
        let info = jetstream
            .stream_info(EVENTS)
            .await
            .map_err(|error| Failure::unavailable(format!("stream {EVENTS}: {error}")))?;
        let replicas = |config: &serde_json::Value| {
            config["num_replicas"]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
        };
        Ok(info.map(|info| (info.state.messages, replicas(&info.config).unwrap_or(1))))
    }

    /// Publishes the scenario's history where there is none; answers with the simulator for what comes after it.
    async fn history(
        &self,
        family: &mut Family,
        scenario: &Arc<Scenario>,
        empty: bool,
        now: i64,
    ) -> Result<Simulator, Failure> {
        let since = Instant::now();
        let start = if empty { now - self.history_micros() } else { now };
        let mut simulator = Simulator::new(Arc::clone(scenario), self.options.seed, start, now);
        if empty {
            say("  the stream is empty: publishing its history first");
            let sink = self.sink();
            let stop = CancellationToken::new();
            let published = ready::unless_died(family, simulator.history(&sink, &stop)).await?;
            let events = published.events;
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = events as f64 / published.took.as_secs_f64().max(0.001);
            step("history", &format!("{events} events, {rate:.0} a second"), since);
        } else {
            say("  the stream has events already: no history");
        }
        Ok(simulator)
    }

    /// Lets the scenario go on live, beside everything else.
    fn live(
        &self,
        mut simulator: Simulator,
        sink: Sink,
        stop: CancellationToken,
    ) -> JoinHandle<Result<(), Failure>> {
        let speed = self.options.speed;
        tokio::spawn(async move { simulator.live(&sink, speed, false, &stop).await })
    }

    /// The first ingest, as the desk.
    fn desk(&self) -> Ingest {
        let credential = Credential::Signed(Box::new(self.signer.clone()), self.claims("desk", "desk"));
        Ingest::new(&self.ingest(), credential)
    }

    fn sink(&self) -> Sink {
        Sink::Ingest(Box::new(self.desk()))
    }

    fn history_micros(&self) -> i64 {
        i64::try_from(self.options.history.as_micros()).unwrap_or(i64::MAX)
    }

    /// What the scenario's past says, in its order.
    fn past(&self, scenario: &Arc<Scenario>, now: i64) -> impl Iterator<Item = String> + use<> {
        let start = now - self.history_micros();
        let told = Generator::new(Arc::clone(scenario), self.options.seed, start, now);
        told.take_while(move |told| told.at < now).map(|told| told.data)
    }

    /// The shop whose rows are followed, with those that its past has left.
    async fn shop(
        &self,
        database: &Postgres,
        past: Option<impl Iterator<Item = String>>,
    ) -> Result<Shop, Failure> {
        let (owner, mapping) = (database.owner.clone(), database.mapping.clone());
        let shop = Shop::open(owner, mapping, self.desk()).await?;
        if let Some(past) = past.filter(|_| database.fresh) {
            shop.fill(past).await?;
        }
        Ok(shop)
    }

    /// Stays until a process dies or the simulator cannot go on.
    async fn stay(
        &self,
        family: &mut Family,
        written: &mut Written,
        simulating: Option<JoinHandle<Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let simulating = async {
            match simulating {
                Some(task) => task
                    .await
                    .unwrap_or_else(|error| Err(Failure::internal(format!("the simulator: {error}")))),
                None => std::future::pending().await,
            }
        };
        tokio::pin!(simulating);
        let mut tokens = tokio::time::interval(TOKENS_EVERY);
        tokens.tick().await;
        loop {
            tokio::select! {
                died = family.died() => return Err(died.failure()),
                ended = &mut simulating => {
                    return Err(ended.err().unwrap_or_else(|| Failure { exit: Exit::Internal, message: "the simulator ended".to_owned() }));
                }
                _ = tokens.tick() => {
                    written.replace(&self.env()?)?;
                    say(&format!("new tokens in {}; the page: {}", written.path().display(), self.url()?));
                }
            }
        }
    }
}

/// Waits until ingest follows the database: rows that are written before would be no events.
async fn until_followed(family: &mut Family, shop: &Shop) -> Result<(), Failure> {
    let since = Instant::now();
    ready::unless_died(family, async {
        while !shop.is_followed().await? {
            if since.elapsed() > FOLLOWED_WITHIN {
                return Err(Failure::unavailable(
                    "ingest does not follow the database; see what it says above",
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    })
    .await
}
