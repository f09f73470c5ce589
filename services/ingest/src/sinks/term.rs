//! One term: what the instance that holds the lease knows and does, from taking it to losing it.

mod attempts;
mod devices;
mod place;

use std::collections::{BTreeSet, HashMap};
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_chassis::jetstream::{ApiError, PublishError, StoredMessage};
use roomcast_proto::subject::stream;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::plan::Position;
use super::roster::{Roster, Whose};
use super::waiting::Waiting;
use crate::now_micros;
use attempts::Attempted;
use devices::Progress;

/// Messages read at once, and bytes, about.
const READ_AT_ONCE: usize = 500;
const READ_BYTES: usize = 1 << 20;
/// What waits in all; then nothing more is read from `STATE`, where the newest of each key goes on standing.
const WAITING_MAX: usize = 100_000;
/// Nothing has come: the next look.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// NATS did not answer: the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is asked whether `STATE` is the same stream still, and the position is written where no job follows from what was read.
const LIFE_EVERY: Duration = Duration::from_secs(2);
const POSITION_EVERY: Duration = Duration::from_secs(10);
/// A job whose last attempt has not begun so long after its time is given up without it.
pub(super) const LATE: Duration = Duration::from_secs(10);
/// How often devices whose time is over are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Without an answer of NATS for longer than that nobody knows whether the rights in force are the newest.
const UNSURE_AFTER: Duration = Duration::from_secs(2);
/// Devices taken out of the bucket in one turn because they were revoked.
const REVOKED_AT_ONCE: usize = 20;

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// Another instance has written the position: this one's term is over, whatever it believes.
    #[error("another instance sends")]
    Another,
    /// A replica that is asked for the devices is behind its leader.
    #[error("not all devices can be read yet")]
    Behind,
    /// NATS, or what it holds.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The batch was not stored, or nobody knows.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What the holder of the lease knows.
pub(super) struct Term {
    shared: Arc<Shared>,
    clock: Instant,
    position: Position,
    /// Of the position's key, to compare with.
    revision: u64,
    /// Whether the position is what is stored; not after a write without an answer.
    sure: bool,
    roster: Roster,
    devices: Progress,
    waiting: Waiting,
    jobs_next: u64,
    attempts: JoinSet<Attempted>,
    begun: HashMap<Id, u64>,
    /// Of the hosts of push services that are on no list.
    lane_keys: RandomState,
    /// Jobs that are over and still in the stream.
    over: BTreeSet<u64>,
    life_due: Instant,
    position_due: Instant,
    sweep_due: Instant,
    /// Under which rights all devices were looked at for revoked ones.
    generation: u64,
    /// Whose devices were not: they have come since.
    unlooked: BTreeSet<Whose>,
}

impl Term {
    /// Begins one: reads the position, or where there is none, begins at the end of `STATE`: what stands is no news.
    pub(super) async fn begin(shared: Arc<Shared>) -> Result<Self, Stop> {
        let now = Instant::now();
        let mut term = Self {
            shared,
            clock: now,
            position: Position::default(),
            revision: 0,
            sure: false,
            roster: Roster::default(),
            devices: Progress::default(),
            waiting: Waiting::default(),
            jobs_next: 1,
            attempts: JoinSet::new(),
            begun: HashMap::new(),
            lane_keys: RandomState::new(),
            over: BTreeSet::new(),
            life_due: now,
            position_due: now + POSITION_EVERY,
            sweep_due: now + SWEEP_EVERY,
            generation: 0,
            unlooked: BTreeSet::new(),
        };
        term.look().await?;
        tracing::info!(
            position = term.position.next,
            "sends notifications, from position {} of {} on",
            term.position.next,
            stream::STATE
        );
        Ok(term)
    }

    /// Goes on until the lease is lost, another instance sends, or `ending`; attempts that have begun are finished.
    pub(super) async fn run(mut self, ending: &CancellationToken) {
        while !ending.is_cancelled() && self.shared.lease.is_held() {
            let mut pause = LOOK_EVERY;
            match self.turn().await {
                Ok(true) => pause = Duration::ZERO,
                Ok(false) => {}
                Err(Stop::Another) => break,
                Err(error) => {
                    tracing::debug!(%error, "sending stands still: {error}");
                    self.shared.metrics.pause("unavailable");
                    pause = AGAIN_AFTER;
                }
            }
            self.begin_attempts();
            self.show();
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some(ended) = self.attempts.join_next_with_id(), if !self.attempts.is_empty() => {
                        self.ended(ended).await;
                        self.begin_attempts();
                    }
                    () = &mut pause => break,
                    () = ending.cancelled() => break,
                }
            }
        }
        while let Some(ended) = self.attempts.join_next_with_id().await {
            self.ended(ended).await;
        }
        self.take_away().await;
    }

    /// Milliseconds of this term.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show(&self) {
        let oldest = self.waiting.oldest_micros();
        let age = oldest.map_or(0, |oldest| now_micros().saturating_sub(oldest) / 1_000_000);
        let metrics = &self.shared.metrics;
        metrics.oldest_seconds.set(age.max(0));
        let (webhooks, pushes) = self.waiting.hanging();
        metrics.hanging(webhooks, pushes);
        metrics
            .users
            .set(i64::try_from(self.roster.users()).unwrap_or(i64::MAX));
    }

    /// Whether something was read.
    async fn turn(&mut self) -> Result<bool, Stop> {
        self.take_away().await;
        self.look().await?;
        // What is planned asks for itself.
        match self.devices.is_whole() {
            true => self.follow_devices().await?,
            false => self.read_all_devices().await?,
        }
        self.drop_revoked().await;
        let read = self.read().await?;
        self.follow_jobs().await?;
        Ok(read)
    }

    async fn portion(&self, stream: &str, from: u64) -> Result<Vec<StoredMessage>, ApiError> {
        let jetstream = &self.shared.jetstream;
        let read = jetstream
            .direct_portion(stream, from, READ_AT_ONCE, READ_BYTES)
            .await?;
        Ok(read.messages)
    }
}

fn now_secs() -> i64 {
    now_micros().div_euclid(1_000_000)
}
