//! The task that keeps what is in force current: looks at the file, asks both buckets, puts changes in place.
//!
//! A bucket is asked twice a second, and at once when the server republishes a change: that message only wakes, what it says is not
//! believed. Asked is the stream's leader, so an answer says that nothing newer was acknowledged before the question; whoever gets
//! none knows that it knows nothing. The client library's watch of a bucket does neither, and stalls for ten seconds and more
//! when a node dies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use roomcast_access::InForce;
use roomcast_admin::Audit;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage, StreamInfo};
use roomcast_chassis::nats::Nats;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::readiness::Latch;
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::stream::{Sizing, definitions, differences};
use roomcast_proto::subject::{self, stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::bucket::{Place, Step};
use crate::current::{Current, Heard};
use crate::metrics::RightsMetrics;
use crate::settings::{PolicySettings, lines, read};
use crate::sources::{Looked, Sources};

/// How often the buckets are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How often the file is read. Two equal readings in a row count, so that one that is being written does not.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The least between two looks at the buckets, however often we are woken.
const BREATH: Duration = Duration::from_millis(10);
/// After so long without an answer both buckets are read anew: the mark that an entry is gone is not kept for ever.
const READ_ANEW_AFTER: Duration = Duration::from_secs(3_600);
/// Entries read at once.
const BATCH: usize = 500;
/// The key of a message says that it is gone.
const GONE: [&str; 2] = [subject::header::KV_OPERATION, "Nats-Marker-Reason"];

/// What is to be followed; nothing runs before [`Follower::start`].
#[derive(Debug)]
pub struct Follower {
    file: PathBuf,
    /// What the file said at the last reading.
    glance: String,
    file_failing: bool,
    sources: Sources,
    acl: Place,
    cfg: Place,
    /// The newest value of the policy's key, while it is being read.
    policy: Option<String>,
    news: News,
    in_force: watch::Sender<Arc<InForce>>,
    heard: Arc<Heard>,
    current: Current,
    metrics: RightsMetrics,
    audit: Audit,
    latch: Latch,
}

/// Where it is asked.
#[derive(Debug)]
struct Ask {
    jetstream: JetStream,
    wakes: [Subscriber; 2],
}

/// What was read and is not in force yet.
#[derive(Debug, Default)]
struct News {
    acl: bool,
    cfg: bool,
}

/// Which buckets were read to their ends.
struct Whole {
    acl: bool,
    cfg: bool,
}

impl Follower {
    /// Reads the policy of the file and puts it in force.
    ///
    /// # Errors
    /// A file that cannot be read or has mistakes (65); a metric that cannot be declared (70).
    pub fn new(
        settings: &PolicySettings,
        audit: &Audit,
        context: &Context,
    ) -> Result<(Self, Current), Failure> {
        let policy = settings.load()?;
        let name = settings.file.display().to_string();
        // Read again rather than kept: a change in between is a change.
        let text = read(&settings.file).map_err(|reason| Failure::file(format!("{name}:1:1: {reason}")))?;
        let metrics = RightsMetrics::new(&context.metrics)?;
        let (in_force, current) = Current::new(InForce::of(policy.clone()));
        metrics.in_force(&current.now());
        let follower = Self {
            file: settings.file.clone(),
            glance: text.clone(),
            file_failing: false,
            sources: Sources::new(name, &text, policy),
            acl: Place::default(),
            cfg: Place::default(),
            policy: None,
            news: News::default(),
            in_force,
            heard: current.heard(),
            current: current.clone(),
            metrics,
            audit: audit.clone(),
            latch: context
                .readiness
                .latch("rights", "the acl and cfg buckets were not read yet"),
        };
        Ok((follower, current))
    }

    /// Reads both buckets, then goes on following them and the file until the process ends. Waits for NATS and for the buckets
    /// as long as it takes.
    ///
    /// # Errors
    /// The bucket's policy has mistakes (65); a bucket differs from what it must be (69); stopped while waiting.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nothing runs.
    pub async fn start(mut self, context: &Context) -> Result<(), Failure> {
        let nats = context.nats.connect("control").await?;
        let mut ask = Ask {
            jetstream: nats.jetstream(),
            wakes: [
                subscribe(&nats, subject::ACL_LIVE_ALL).await?,
                subscribe(&nats, subject::CFG_LIVE_ALL).await?,
            ],
        };
        let stopped = context.shutdown.token();
        for name in [stream::ACL, stream::CFG] {
            self.find(&ask.jetstream, name, context, &stopped).await?;
        }
        while let Err(reason) = self.first_look(&ask).await? {
            self.latch.not_ready(reason);
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = stopped.cancelled() => return Err(roomcast_chassis::nats::ConnectError::Stopped.into()),
            }
        }
        self.latch.ready();
        let ending = context.shutdown.stage(Stage::Finish).token();
        context.shutdown.spawn_vital(Stage::Finish, "rights", async move {
            self.follow(&mut ask, &ending).await;
            Ok(())
        });
        Ok(())
    }

    /// Waits for a bucket and compares it with what it must be.
    async fn find(
        &self,
        jetstream: &JetStream,
        name: &str,
        context: &Context,
        stopped: &CancellationToken,
    ) -> Result<(), Failure> {
        let sizing = Sizing {
            replicas: u32::from(context.common.replicas),
            ..Sizing::PRODUCTION
        };
        let wanted = definitions(&sizing)
            .into_iter()
            .find(|wanted| wanted.name == name);
        let Some(wanted) = wanted else { return Ok(()) };
        loop {
            match jetstream.stream_info(name).await {
                Ok(Some(info)) => {
                    let differs = differences(&wanted.config, &info.config);
                    if differs.is_empty() {
                        return Ok(());
                    }
                    let differs = differs.join("; ");
                    return Err(Failure::unavailable(format!(
                        "stream {name} is not what it must be: {differs}; correct it with `nats stream edit {name}`"
                    )));
                }
                Ok(None) => self.latch.not_ready(format!("stream {name} does not exist yet")),
                Err(error) => self.latch.not_ready(format!("stream {name}: {error}")),
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = stopped.cancelled() => return Err(roomcast_chassis::nats::ConnectError::Stopped.into()),
            }
        }
    }

    /// The first look: what is not whole yet is a reason to wait, a broken policy one to end.
    async fn first_look(&mut self, ask: &Ask) -> Result<Result<(), String>, Failure> {
        let asked = Instant::now();
        match self.ask(&ask.jetstream).await {
            Ok(Whole { acl: true, cfg: true }) => {}
            Ok(_) => return Ok(Err("the acl and cfg buckets are being read".to_owned())),
            Err(error) => return Ok(Err(format!("the acl and cfg buckets: {error}"))),
        }
        if let Looked::Broken(mistakes) = self.sources.bucket(self.policy.as_deref()) {
            return Err(Failure::file(lines(&mistakes)));
        }
        self.metrics
            .from_bucket
            .set(i64::from(self.sources.is_from_bucket()));
        self.news = News::default();
        self.sources.entries_read();
        self.publish();
        self.heard.since(asked);
        Ok(Ok(()))
    }

    async fn follow(mut self, ask: &mut Ask, ending: &CancellationToken) {
        let ticks = |every| {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut asks, mut looks) = (ticks(ASK_EVERY), ticks(LOOK_EVERY));
        loop {
            let [acl, cfg] = &mut ask.wakes;
            tokio::select! {
                () = ending.cancelled() => return,
                _ = asks.tick() => {}
                Some(_) = acl.next() => {}
                Some(_) = cfg.next() => {}
                _ = looks.tick() => {
                    self.look_at_file();
                    continue;
                }
            }
            // However many changes woke us, one look sees them all.
            while let Some(Some(_)) = acl.next().now_or_never() {}
            while let Some(Some(_)) = cfg.next().now_or_never() {}
            self.look_at_buckets(&ask.jetstream).await;
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn look_at_buckets(&mut self, jetstream: &JetStream) {
        let asked = Instant::now();
        match self.ask(jetstream).await {
            Ok(whole) => {
                if whole.cfg && std::mem::take(&mut self.news.cfg) {
                    let looked = self.sources.bucket(self.policy.clone().as_deref());
                    self.looked(&looked);
                }
                if whole.acl && std::mem::take(&mut self.news.acl) {
                    self.sources.entries_read();
                }
                if whole.acl && whole.cfg {
                    self.heard.since(asked);
                }
            }
            Err(error) => tracing::debug!(%error, "the acl and cfg buckets did not answer: {error}"),
        }
        // Entries end by themselves also while nobody answers.
        let has_gone_back = self.sources.pass(now());
        self.publish();
        let unsure = self.current.unsure_for();
        if has_gone_back {
            tracing::warn!("the clock has gone back: grants and revocations are read anew");
            self.acl = Place::default();
        }
        if unsure > READ_ANEW_AFTER {
            self.acl = Place::default();
            self.cfg = Place::default();
        }
        self.metrics.unsure.set(unsure.as_secs_f64());
        if unsure > 4 * ASK_EVERY {
            self.latch
                .degraded("NATS does not say whether rights have changed");
        } else {
            self.latch.ready();
        }
    }

    /// Asks both buckets and reads what is new.
    async fn ask(&mut self, jetstream: &JetStream) -> Result<Whole, ApiError> {
        let (acl, cfg) = tokio::join!(
            jetstream.stream_info(stream::ACL),
            jetstream.stream_info(stream::CFG)
        );
        // What one of them says counts also while the other is silent.
        let acl = self.answered(jetstream, stream::ACL, acl).await;
        let cfg = self.answered(jetstream, stream::CFG, cfg).await;
        match (acl, cfg) {
            (Err(error), Err(_)) => Err(error),
            (acl, cfg) => Ok(Whole {
                acl: acl.unwrap_or(false),
                cfg: cfg.unwrap_or(false),
            }),
        }
    }

    /// Whether the bucket was read to its end.
    async fn answered(
        &mut self,
        jetstream: &JetStream,
        name: &str,
        info: Result<Option<StreamInfo>, ApiError>,
    ) -> Result<bool, ApiError> {
        match info? {
            None => Ok(false),
            Some(info) => {
                self.catch_up(jetstream, name, &info.created, info.state.last_seq)
                    .await
            }
        }
    }

    fn place(&mut self, name: &str) -> &mut Place {
        if name == stream::ACL {
            &mut self.acl
        } else {
            &mut self.cfg
        }
    }

    /// Reads a bucket up to `last`. Whether it was read whole.
    async fn catch_up(
        &mut self,
        jetstream: &JetStream,
        name: &str,
        created: &str,
        last: u64,
    ) -> Result<bool, ApiError> {
        loop {
            let after = match self.place(name).told(created, last) {
                Step::Whole => return Ok(true),
                Step::Doubt => return Ok(false),
                Step::Anew => {
                    self.begin(name);
                    continue;
                }
                Step::Read { after } => after,
            };
            let batch = jetstream.direct_batch(name, after + 1, BATCH, None).await?;
            let Some(seen) = batch.messages.last().map(|message| message.sequence) else {
                // Any replica answers that, and it may be behind: the leader says whether there is nothing.
                let next = At::Next {
                    from: after + 1,
                    subject: ">",
                };
                match jetstream.message(name, next).await? {
                    Some(message) => {
                        self.take(name, &message);
                        self.place(name).read(message.sequence);
                    }
                    None => self.place(name).read(last),
                }
                continue;
            };
            for message in &batch.messages {
                self.take(name, message);
            }
            self.place(name).read(seen);
            if seen >= last {
                return Ok(true);
            }
        }
    }

    fn begin(&mut self, name: &str) {
        if name == stream::ACL {
            self.sources.forget_entries();
            self.news.acl = true;
        } else {
            self.policy = None;
            self.news.cfg = true;
        }
    }

    fn take(&mut self, name: &str, message: &StoredMessage) {
        let gone = GONE
            .iter()
            .any(|header| message.headers.get_last(*header).is_some());
        if name == stream::CFG {
            if message.subject == subject::POLICY {
                self.news.cfg = true;
                // What is not text has mistakes like any other text that is no policy.
                let text = || String::from_utf8_lossy(&message.payload).into_owned();
                self.policy = (!gone).then(text);
            }
            return;
        }
        let value = (!gone).then_some(&message.payload[..]);
        let taken = subject::acl_key(&message.subject).map(|key| self.sources.entry(key, value));
        match taken {
            Some(Ok(changed)) => self.news.acl |= changed,
            Some(Err(error)) => {
                self.metrics.unreadable.inc();
                tracing::warn!(%error, "{error}: position {}", message.sequence);
            }
            None => {}
        }
    }

    fn look_at_file(&mut self) {
        let text = match read(&self.file) {
            Ok(text) => text,
            Err(reason) => {
                if !std::mem::replace(&mut self.file_failing, true) {
                    self.metrics.reloads.with_label_values(&["unreadable"]).inc();
                    tracing::error!(file = %self.file.display(), "{}: {reason}; the policy before stays in force", self.file.display());
                }
                return;
            }
        };
        self.file_failing = false;
        let settled = text == self.glance;
        if !settled {
            self.glance = text;
            return;
        }
        if text != self.sources.file_text() {
            let looked = self.sources.file(&text);
            self.looked(&looked);
            self.publish();
        }
    }

    fn looked(&self, looked: &Looked) {
        let from = match self.sources.is_from_bucket() {
            true => "bucket",
            false => "file",
        };
        match looked {
            Looked::Same => {}
            Looked::Taken => {
                let hash = format!("{:016x}", self.sources.in_force().policy.fingerprint());
                let note = json!({ "outcome": "taken", "from": from, "hash": hash });
                self.audit.record("policy", None, &note);
                self.metrics.reloads.with_label_values(&["taken"]).inc();
                self.metrics.broken.set(0);
                tracing::info!("another policy is in force");
            }
            Looked::Broken(mistakes) => {
                self.metrics.reloads.with_label_values(&["broken"]).inc();
                self.metrics.broken.set(1);
                let note = json!({ "outcome": "broken", "from": from, "mistakes": mistakes.len() });
                self.audit.record("policy", None, &note);
                tracing::error!(
                    mistakes = mistakes.len(),
                    "the policy has mistakes, the one before stays in force:\n{}",
                    lines(mistakes)
                );
            }
        }
        self.metrics
            .from_bucket
            .set(i64::from(self.sources.is_from_bucket()));
    }

    /// Puts in place what has changed.
    fn publish(&self) {
        let changed = self.in_force.borrow().generation != self.sources.generation();
        if changed {
            let in_force = self.sources.in_force();
            self.metrics.in_force(&in_force);
            self.in_force.send_replace(Arc::new(in_force));
        }
    }
}

async fn subscribe(nats: &Nats, subject: &'static str) -> Result<Subscriber, Failure> {
    let subscribed = nats.client().subscribe(subject).await;
    subscribed.map_err(|error| Failure::unavailable(format!("cannot subscribe to {subject}: {error}")))
}

/// Unix seconds.
fn now() -> i64 {
    Timestamp::now().as_second()
}
