//! Audiences as numbers: a role of the policy, or `all`, and sets of them as one machine word pair.
//!
//! Numbers are given out by [`crate::Policy`] when it is read and mean nothing under another policy: whoever keeps
//! them decides again when the policy changes.

/// Most audiences of one policy: 127 roles and `all`. A set of them is one `u128`.
pub const AUDIENCES_MAX: usize = 128;

/// One audience of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AudienceId(u8);

impl AudienceId {
    /// The audience `all`: everybody who may join the room.
    pub const ALL: Self = Self(0);

    /// The id of the role that stands at `index` in the policy; `None` beyond [`AUDIENCES_MAX`].
    pub(crate) fn of_role(index: usize) -> Option<Self> {
        let id = u8::try_from(index.checked_add(1)?).ok()?;
        (usize::from(id) < AUDIENCES_MAX).then_some(Self(id))
    }

    /// The place of this audience's bit, 0 to 127.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The audiences a principal belongs to. [`AudienceSet::contains`] is a bit test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AudienceSet(u128);

impl AudienceSet {
    /// The set that holds `all` and nothing else: what a principal without roles belongs to.
    pub const EVERYBODY: Self = Self(1);

    /// Whether events for `audience` reach the holder of this set.
    #[must_use]
    pub const fn contains(self, audience: AudienceId) -> bool {
        self.0 & (1 << audience.0) != 0
    }

    /// Whether the holder of `other` sees nothing that the holder of this set does not.
    #[must_use]
    pub const fn holds_all_of(self, other: Self) -> bool {
        self.union(other).0 == self.0
    }

    /// Whether two holders see at least one audience in common (always, as long as both hold `all`).
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether two holders have a role in common, inherited ones included: an audience that is not `all`.
    #[must_use]
    pub const fn share_role(self, other: Self) -> bool {
        self.0 & other.0 & !Self::EVERYBODY.0 != 0
    }

    /// Whether the holder belongs to no audience but `all`.
    #[must_use]
    pub const fn without_roles(self) -> bool {
        self.0 & !Self::EVERYBODY.0 == 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set and one audience more.
    #[must_use]
    pub const fn with(self, audience: AudienceId) -> Self {
        Self(self.0 | (1 << audience.0))
    }

    /// The set as bits, bit `n` for the audience with index `n`: a key for encodings shared by a class of members.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}
