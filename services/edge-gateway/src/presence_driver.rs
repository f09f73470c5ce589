//! Presence between NATS, the shards and the state machine: who comes and goes is noted, what is to be said is sent, who watches is told.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use prometheus::{IntCounterVec, IntGauge};
use roomcast_access::Presence as Permit;
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::frame::{PresenceSet, PresentUser};
use roomcast_proto::ids::{Room, new_event_id};
use roomcast_proto::presence::Said;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{is_passed, presence};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::elsewhere::Elsewhere;
use crate::gate::{Admitted, Gate};
use crate::presence::{Place, Presence, Present};
use crate::session::rfc3339;
use crate::shard::Handle;

/// How often what has changed is said to the other gateways.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at which rooms' watchers are to be told.
const TELL_TICKS: u64 = 10;
/// Users named in one push. Rooms with more are told every fifth time: so ten thousand watchers of one get 12 MB a second in all,
/// whoever comes and goes there.
pub const PUSHED_MAX: usize = 50;

/// When to ask again whoever is cut off from the others, milliseconds.
const RETRY_MILLIS: u64 = 1_000;

/// What is answered while this gateway is cut off from the others: what it knows may be old, and rights, too.
#[must_use]
pub fn unknown() -> Refusal {
    let refusal = Refusal::new(Code::Unavailable, "who is there is not known at the moment");
    refusal.retry_after_ms(RETRY_MILLIS)
}

/// Who is where, shared by the shards and the driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RollCall {
    state: Arc<Mutex<Presence>>,
    gate: Arc<Gate>,
    started: Instant,
    messages: IntCounterVec,
    gateways: IntGauge,
    /// Rooms that look different, as the shards were told last.
    told: watch::Sender<Arc<HashSet<Place>>>,
}

/// Comings and goings, as whoever watches is told of them.
#[derive(Debug)]
pub struct Moves(watch::Receiver<Arc<HashSet<Place>>>);

impl Moves {
    /// Waits until one of these rooms looks different. Who is late may miss a change, and learns of it with the next.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn of(&mut self, permits: &[Permit]) {
        let place = |permit: &Permit| (permit.tenant().clone(), permit.room().clone());
        loop {
            if self.0.changed().await.is_err() {
                // The process ends, and with it what is held.
                return std::future::pending().await;
            }
            let places = self.0.borrow_and_update();
            if permits.iter().any(|permit| places.contains(&place(permit))) {
                return;
            }
        }
    }
}

impl RollCall {
    /// Knows nobody yet.
    ///
    /// # Errors
    /// Where the metrics are declared already.
    pub fn new(gate: Arc<Gate>, metrics: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            state: Arc::new(Mutex::new(Presence::new(new_event_id()))),
            gate,
            started: Instant::now(),
            messages: metrics.counter_vec(
                "roomcast_gateway_presence_total",
                "Presence between gateways: messages sent, heard, unreadable; users cut off by the bound of a room or a gateway.",
                &["what"],
            )?,
            gateways: metrics.gauge(
                "roomcast_gateway_presence_gateways",
                "Other gateways whose presence is known here.",
            )?,
            told: watch::Sender::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, Presence> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn count(&self, what: &str, count: u64) {
        self.messages.with_label_values(&[what]).inc_by(count);
    }

    /// Whether there are other gateways.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.state().gateways() > 0
    }

    /// Notes that a user has a room open. Whether it was noted: then [`RollCall::leave`] undoes it.
    pub fn enter(&self, place: &Place, user: &Arc<str>, roles: &Arc<[String]>, unix_millis: i64) -> bool {
        self.state().enter(place, user, roles, unix_millis)
    }

    /// Notes that a user polls these rooms of its tenant, for `hold` at most: it is there until a while after its last poll. Rooms whose
    /// presence nobody is shown cost nothing.
    pub fn polled<'a>(
        &self,
        admitted: &Admitted,
        rooms: impl Iterator<Item = &'a Room>,
        hold: Duration,
        unix_millis: i64,
    ) {
        let in_force = self.gate.rights().now();
        let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        for room in rooms.filter(|room| in_force.policy.shows_presence(room)) {
            let place = (admitted.rights.tenant().clone(), room.clone());
            let now = self.now();
            self.state()
                .polled(&place, &admitted.user, &admitted.roles, unix_millis, (now, hold));
        }
    }

    /// What [`Moves::of`] waits for, from now on.
    #[must_use]
    pub fn moves(&self) -> Moves {
        Moves(self.told.subscribe())
    }

    /// Notes that a user who was noted has other roles.
    pub fn roles_changed(&self, place: &Place, user: &Arc<str>, roles: &Arc<[String]>) {
        self.state().roles_changed(place, user, roles);
    }

    /// Whether what is known here is what all gateways know; see [`Presence::is_current`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        let now = self.now();
        self.state().is_current(now)
    }

    /// Notes that one of a user's connections has closed a room.
    pub fn leave(&self, place: &Place, user: &Arc<str>) {
        let now = self.now();
        self.state().leave(place, user, now);
    }

    /// Who is in a room, as the holder of this permit may see it: those with whom it shares a role besides `all`, and itself. At most
    /// `most` are named, those longest there first.
    #[must_use]
    pub fn set(&self, permit: &Permit, me: &str, most: usize) -> PresenceSet {
        let in_force = self.gate.rights().now();
        let policy = &in_force.policy;
        let sees = |present: &Present| {
            &*present.user == me || permit.audiences().share_role(policy.audiences_of(&present.roles))
        };
        let place = (permit.tenant().clone(), permit.room().clone());
        let (users, total) = self.state().room(&place, most, sees);
        let shown = users.into_iter().map(|present| PresentUser {
            user: present.user.as_ref().to_owned(),
            connections: present.connections,
            since: rfc3339(present.since_millis),
            status: if present.connections > 0 { "active" } else { "away" }.to_owned(),
        });
        PresenceSet {
            room: permit.room().as_str().to_owned(),
            users: shown.collect(),
            total: u32::try_from(total).unwrap_or(u32::MAX),
        }
    }

    /// Speaks and listens until `ending`. What others say of presence is believed: only gateways can say it.
    pub async fn run(
        self,
        client: Client,
        mut heard: Subscriber,
        shards: Vec<Handle>,
        elsewhere: Arc<Elsewhere>,
        ending: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut count, mut pending) = (0_u64, HashSet::new());
        loop {
            tokio::select! {
                () = ending.cancelled() => return,
                message = heard.next() => match message {
                    Some(message) if is_passed(&message.subject) => elsewhere.hear(&message.payload),
                    Some(message) => self.hear(&message.payload),
                    None => return,
                },
                _ = ticks.tick() => {
                    count += 1;
                    self.speak(&client).await;
                    if count.is_multiple_of(TELL_TICKS) {
                        self.tell(&shards, &mut pending, count.is_multiple_of(5 * TELL_TICKS));
                    }
                }
            }
        }
    }

    fn hear(&self, payload: &[u8]) {
        match serde_json::from_slice::<Said>(payload) {
            Ok(said) => {
                self.count("heard", 1);
                let now = self.now();
                self.state().hear(said, now);
            }
            Err(error) => {
                self.count("unreadable", 1);
                tracing::debug!(%error, "presence of another gateway cannot be read: {error}");
            }
        }
    }

    async fn speak(&self, client: &Client) {
        let now = self.now();
        let (said, cut, gateways) = {
            let mut state = self.state();
            (state.tick(now), state.take_cut(), state.gateways())
        };
        self.count("cut", cut);
        self.gateways.set(i64::try_from(gateways).unwrap_or(i64::MAX));
        for one in said {
            let Ok(body) = serde_json::to_vec(&one) else {
                continue;
            };
            self.count("sent", 1);
            // What is lost is found by the next beat's version.
            if let Err(error) = client.publish(presence(&one.gateway), body.into()).await {
                tracing::debug!(%error, "presence cannot be said: {error}");
            }
        }
    }

    /// Tells the shards which rooms look different, as long as that is known. Large rooms wait for their turn.
    fn tell(&self, shards: &[Handle], pending: &mut HashSet<Place>, turn_of_the_large: bool) {
        let now = self.now();
        let due: HashSet<Place> = {
            let mut state = self.state();
            pending.extend(state.take_changed());
            if !state.is_current(now) {
                return;
            }
            let is_due = |place: &Place| turn_of_the_large || state.size(place) <= PUSHED_MAX;
            pending.extract_if(|place| is_due(place)).collect()
        };
        if due.is_empty() {
            return;
        }
        let due = Arc::new(due);
        self.told.send_replace(Arc::clone(&due));
        for shard in shards {
            shard.presence_changed(Arc::clone(&due));
        }
    }
}
