//! What a client asks others to do: commands, publishes, activity. Decided here, carried out elsewhere.

use std::sync::Arc;
use std::time::Duration;

use roomcast_access::{Policy, Subscribe as SubscribePermit};
use roomcast_proto::command::{KEY_BYTES_MAX, TIMEOUT_DEFAULT, TIMEOUT_MAX};
use roomcast_proto::cursor::Cursor;
use roomcast_proto::event::ACTIVITY_TYPE;
use roomcast_proto::frame::{Activity, Command, FeedQuery, Mark, Preferences, Publish, Subscribe};
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::refusal::{Code, Refusal};

use super::{Now, Session, Wish, forbid, joined_by_policy, refuse};
use crate::asking::{Ask, What, Who};
use crate::client_publish::{ACTIVITY_BYTES_MAX, Post};
use crate::commands::Order;
use crate::feed::{self, Want};
use crate::gate::Admitted;
use crate::limit::Limit;
use crate::preferences;

/// On whose behalf an admitted user's things are asked.
#[must_use]
pub fn who(admitted: &Admitted, policy: &Policy) -> Who {
    let claims = policy.named_claims(&admitted.principal.claims);
    Who {
        tenant: admitted.rights.tenant().clone(),
        user: Arc::clone(&admitted.user),
        roles: Arc::clone(&admitted.roles),
        claims: (!claims.is_empty()).then(|| Arc::new(claims)),
    }
}

/// Decides about a command, over whichever transport it came.
///
/// # Errors
/// `forbidden` for a command that is not there and for one that is not the user's; `bad_request`.
pub fn order(admitted: &Admitted, command: Command) -> Result<Order, Refusal> {
    let permit = admitted
        .rights
        .command(&command.name)
        .map_err(|_| Refusal::forbidden())?;
    if !(1..=KEY_BYTES_MAX).contains(&command.key.len()) {
        let detail = format!("key: 1 to {KEY_BYTES_MAX} bytes");
        return Err(Refusal::new(Code::BadRequest, detail).at("/command/key"));
    }
    let timeout = match command.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        millis => Duration::from_millis(u64::from(millis)).min(TIMEOUT_MAX),
    };
    let data = match command.data.is_empty() {
        true => bytes::Bytes::from_static(b"null"),
        false => command.data,
    };
    Ok(Order {
        permit,
        data,
        key: command.key,
        timeout,
    })
}

/// Decides about an event of the user's own, over whichever transport it came.
///
/// # Errors
/// `forbidden` for a room that is not there, for one that is not the user's to publish to, and for what only gateways say.
pub fn own_event(admitted: &Admitted, publish: Publish) -> Result<Post, Refusal> {
    let room = Room::parse(&publish.room).ok();
    // What users do is said by gateways alone.
    let room = room.filter(|_| publish.r#type != ACTIVITY_TYPE);
    let permit = room.and_then(|room| admitted.rights.client_publish(&room, &Audience::all()).ok());
    let permit = permit.ok_or_else(Refusal::forbidden)?;
    let given = publish.event_id.filter(|id| !id.is_empty());
    Ok(Post::own(
        permit.room().clone(),
        &publish.r#type,
        given,
        &publish.data,
    ))
}

/// Decides about what a user says it is doing, over whichever transport it came.
///
/// # Errors
/// `bad_request`; `forbidden` where the policy wants no activity.
pub fn doing(admitted: &Admitted, activity: &Activity, policy: &Policy) -> Result<Post, Refusal> {
    let fits = |text: &str| text.len() <= ACTIVITY_BYTES_MAX;
    if !fits(&activity.kind) || !fits(&activity.detail) || activity.kind.is_empty() {
        let detail = format!("kind, detail: at most {ACTIVITY_BYTES_MAX} bytes, and a kind");
        return Err(Refusal::new(Code::BadRequest, detail).at("/activity"));
    }
    Post::activity(policy, &admitted.user, &activity.kind, &activity.detail).ok_or_else(Refusal::forbidden)
}

/// What a user wants of its notifications, over whichever transport it came: those of the rooms that open by themselves.
#[must_use]
pub fn notifications(admitted: &Admitted, want: Want) -> feed::Request {
    feed::Request {
        permits: counted_rooms(admitted),
        want,
    }
}

/// The rooms whose notifications count: those that open by themselves, the same on all devices.
#[must_use]
pub fn counted_rooms(admitted: &Admitted) -> Vec<Arc<SubscribePermit>> {
    let rights = &admitted.rights;
    let rooms = joined_by_policy(rights);
    let permits = rooms.filter_map(|room| rights.subscribe(&room).ok().map(Arc::new));
    permits.collect()
}

impl Session {
    pub(super) fn command(&self, id: Option<u32>, command: Command, policy: &Policy, wishes: &mut Vec<Wish>) {
        match order(&self.admitted, command) {
            Ok(order) => self.ask(id, What::Command(order), policy, wishes),
            Err(refusal) => refuse_ask(id, "command", &refusal, wishes),
        }
    }

    pub(super) fn publish(&self, id: Option<u32>, publish: Publish, policy: &Policy, wishes: &mut Vec<Wish>) {
        match own_event(&self.admitted, publish) {
            Ok(post) => self.ask(id, What::Publish(post), policy, wishes),
            Err(refusal) => refuse_ask(id, "publish", &refusal, wishes),
        }
    }

    pub(super) fn activity(
        &mut self,
        id: Option<u32>,
        activity: &Activity,
        policy: &Policy,
        now: Now,
        wishes: &mut Vec<Wish>,
    ) {
        let post = match doing(&self.admitted, activity, policy) {
            Ok(post) => post,
            Err(refusal) => return refuse_ask(id, "activity", &refusal, wishes),
        };
        if self.activity.take(now.millis, 1, self.limits.activity) {
            // Never answered when all goes well: nobody waits for it.
            self.ask(id, What::Activity(post), policy, wishes);
        } else {
            let refusal = Refusal::new(Code::Rate, "more activity than is taken").retry_after_ms(1_000);
            refuse_ask(id, "activity", &refusal, wishes);
            wishes.push(Wish::Met(Limit::Activity));
        }
    }

    /// Who is in a room, where the policy lets the user see it.
    pub(super) fn presence_asked(&self, id: Option<u32>, room: &str, wishes: &mut Vec<Wish>) {
        let room = Room::parse(room).ok();
        match room.filter(|room| self.presence(room).is_some()) {
            Some(room) => wishes.push(Wish::Presence(id, room)),
            None => forbid(id, "presence", wishes),
        }
    }

    /// A subscription may ask to be told who is there. Without the right to it the room is opened all the same, and nothing is told.
    pub(super) fn watch_asked(&self, subscribe: &Subscribe, wishes: &mut Vec<Wish>) {
        let name = subscribe.presence.then_some(&subscribe.room);
        wishes.extend(self.watched(name).map(Wish::Watch));
    }

    /// Of these rooms those where the user may see who is there.
    pub fn watched<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a String> + 'a,
    ) -> impl Iterator<Item = Room> + 'a {
        let rooms = names.into_iter().filter_map(|name| Room::parse(name).ok());
        rooms.filter(|room| self.presence(room).is_some())
    }

    /// A page of notifications. Of those rooms that open by themselves, so that it is the same on all of the user's devices.
    pub(super) fn feed(&self, id: Option<u32>, query: &FeedQuery, policy: &Policy, wishes: &mut Vec<Wish>) {
        match Want::page(query, |text| self.cursor(text)) {
            Ok(want) => self.ask(
                id,
                What::Feed(notifications(&self.admitted, want)),
                policy,
                wishes,
            ),
            Err(refusal) => refuse_ask(id, "feed", &refusal, wishes),
        }
    }

    /// Marks notifications.
    pub(super) fn mark(&self, id: Option<u32>, mark: Mark, policy: &Policy, wishes: &mut Vec<Wish>) {
        match Want::mark(mark, |text| self.cursor(text)) {
            Ok(want) => self.ask(
                id,
                What::Feed(notifications(&self.admitted, want)),
                policy,
                wishes,
            ),
            Err(refusal) => refuse_ask(id, "mark", &refusal, wishes),
        }
    }

    /// Sets preferences, or asks for them.
    pub(super) fn preferences(
        &self,
        id: Option<u32>,
        frame: &Preferences,
        policy: &Policy,
        wishes: &mut Vec<Wish>,
    ) {
        match preferences::read(frame) {
            Ok(set) => self.ask(id, What::Preferences(set), policy, wishes),
            Err(refusal) => refuse_ask(id, "preferences", &refusal, wishes),
        }
    }

    /// From now on the client is told what its user has not read. The first that is known is the answer.
    pub(super) fn counters(&mut self, id: Option<u32>, wishes: &mut Vec<Wish>) {
        if self.counters_id.is_some() && id.is_some() {
            let refusal = Refusal::new(Code::Rate, "counters are asked for already");
            return refuse(id, &refusal.retry_after_ms(1_000), wishes);
        }
        self.counted = true;
        self.counters_id = id.or(self.counters_id);
        wishes.push(Wish::Listen);
    }

    /// Whether the client is told what its user has not read.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// The request that waits for counters; they answer it once.
    pub fn take_counters_id(&mut self) -> Option<u32> {
        self.counters_id.take()
    }

    /// See [`counted_rooms`].
    #[must_use]
    pub fn counted_rooms(&self) -> Vec<Arc<SubscribePermit>> {
        counted_rooms(&self.admitted)
    }

    /// Grows whenever rights are decided again and are others.
    #[must_use]
    pub fn generation(&self) -> u64 {
        u64::from(self.generation)
    }

    fn cursor(&self, text: &str) -> Option<Cursor> {
        let tenant = self.admitted.rights.tenant();
        self.limits.cursors.read(tenant, text).ok()
    }

    fn ask(&self, id: Option<u32>, what: What, policy: &Policy, wishes: &mut Vec<Wish>) {
        wishes.push(Wish::Ask(Box::new(Ask {
            generation: self.generation,
            id,
            who: who(&self.admitted, policy),
            what,
        })));
    }
}

fn refuse_ask(id: Option<u32>, what: &'static str, refusal: &Refusal, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::Count(what, refusal.code));
    if refusal.code == Code::Forbidden {
        wishes.push(Wish::Forbade(what));
    }
    refuse(id, refusal, wishes);
}
