//! Permits: values that prove a decision. Only [`crate::Rights`] can make one, and the next step of a service asks for it.
//!
//! A refusal is one opaque value, because what is not there and what is not yours must look the same.

use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room, Tenant};

use crate::audience::{AudienceId, AudienceSet};
use crate::redact::{Pointer, RedactionClass};

/// The answer to whatever is not permitted, or not there: no caller can tell which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("forbidden")]
pub struct Denied(pub(crate) ());

/// What the holder of a reading permit sees of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub(crate) tenant: Tenant,
    pub(crate) room: Room,
    pub(crate) audiences: AudienceSet,
    pub(crate) redaction: Arc<[Pointer]>,
    pub(crate) class: RedactionClass,
}

impl View {
    /// The tenant whose room it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The audiences whose events the holder gets; events for others must not reach it.
    #[must_use]
    pub fn audiences(&self) -> AudienceSet {
        self.audiences
    }

    /// What must be taken out of every event's data before the holder gets it; see [`crate::redact::apply`].
    #[must_use]
    pub fn redaction(&self) -> &[Pointer] {
        &self.redaction
    }

    /// Whether the holders of both see the same bytes of the same events. [`View::class`] may differ all the same: it names the policy
    /// that takes something out.
    #[must_use]
    pub fn shows_same(&self, other: &Self) -> bool {
        self.audiences == other.audiences && self.redaction == other.redaction
    }

    /// Equal for all holders from whom the same is taken out: an event is encoded once per class.
    #[must_use]
    pub fn class(&self) -> RedactionClass {
        self.class
    }
}

macro_rules! reading_permit {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            pub(crate) view: View,
            $($(#[$field_doc])* pub(crate) $field: $kind,)*
        }

        impl std::ops::Deref for $name {
            type Target = View;

            fn deref(&self) -> &View {
                &self.view
            }
        }
    };
}

reading_permit! {
    /// May receive a room's events as they come, resume them and read its state.
    Subscribe {
        /// Whether the holder may read the room's history, too.
        history: bool,
        /// What the policy says of how long the room's events may wait for each other.
        flush_millis: Option<u16>
    }
}

impl Subscribe {
    /// Whether a reader of history would be permitted as well.
    #[must_use]
    pub fn history(&self) -> bool {
        self.history
    }

    /// How long the room's events may wait for each other while it is busy, milliseconds, 0 to 20; `None`: the policy does not say.
    #[must_use]
    pub fn flush_millis(&self) -> Option<u16> {
        self.flush_millis
    }
}

reading_permit! {
    /// May read a room's past events.
    History {}
}

reading_permit! {
    /// May see who is in a room.
    Presence {}
}

/// May publish to one room, for one audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub(crate) tenant: Tenant,
    pub(crate) room: Room,
    pub(crate) audience: Audience,
    pub(crate) audience_id: AudienceId,
    pub(crate) publisher: Arc<str>,
}

impl Publish {
    /// The tenant whose room it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The audience.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The audience as a number of the policy in force.
    #[must_use]
    pub fn audience_id(&self) -> AudienceId {
        self.audience_id
    }

    /// Who publishes: the subject of a token, or `nats/<user>` for a NATS user. A subject has no `/`, so the two never
    /// meet in the memory of event ids.
    #[must_use]
    pub fn publisher(&self) -> &str {
        &self.publisher
    }
}

/// May send one named command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub(crate) tenant: Tenant,
    pub(crate) name: Arc<str>,
}

impl Command {
    /// The tenant whose backends answer.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The command's name as the policy has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
