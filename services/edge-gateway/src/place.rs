//! Where an event belongs: tenant and room, as they stand in a subject, looked up once and shared from then on.

use std::sync::Arc;

use roomcast_access::permit::View;
use roomcast_proto::ids::{Audience, PERSONAL, Room, Tenant};

use crate::maps::HashMap;

/// Rooms remembered at most; beyond it the memory starts anew, which costs a parse per room and nothing else.
const PLACES_MAX: usize = 200_000;

/// A room of a tenant. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Place {
    /// `<tenant>.<room>`: a tenant is one token, so this names one room.
    pub key: Arc<str>,
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub room: Room,
}

impl Place {
    /// The room a permit is for.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let (tenant, room) = (view.tenant().clone(), view.room().clone());
        Self {
            key: key(tenant.as_str(), room.as_str()).into(),
            tenant,
            room,
        }
    }

    /// The tenant's part of the key.
    #[must_use]
    pub fn tenant_of(key: &str) -> &str {
        key.split_once('.').map_or(key, |(tenant, _)| tenant)
    }
}

/// Whether a key is that of somebody's own room.
#[must_use]
pub fn is_personal(key: &str) -> bool {
    // A tenant is one token.
    key.split('.').nth(1) == Some(PERSONAL)
}

/// The key of these names.
#[must_use]
pub fn key(tenant: &str, room: &str) -> String {
    [tenant, ".", room].concat()
}

/// The same in the place of what `text` holds: to look it up takes no name of its own.
pub fn write_key(text: &mut String, tenant: &str, room: &str) {
    text.clear();
    text.extend([tenant, ".", room]);
}

/// The rooms and audiences seen so far, so that an event allocates no names.
#[derive(Debug, Default)]
pub struct Places {
    places: HashMap<Arc<str>, Place>,
    audiences: HashMap<Box<str>, Audience>,
    text: String,
}

impl Places {
    /// The place of these names; `None` when one of them breaks the grammar.
    pub fn find(&mut self, tenant: &str, room: &str) -> Option<Place> {
        write_key(&mut self.text, tenant, room);
        if let Some(place) = self.places.get(self.text.as_str()) {
            return Some(place.clone());
        }
        let place = Place {
            key: self.text.as_str().into(),
            tenant: Tenant::parse(tenant).ok()?,
            room: Room::parse(room).ok()?,
        };
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(Arc::clone(&place.key), place.clone());
        Some(place)
    }

    /// The audience of this name; `None` when it breaks the grammar.
    pub fn audience(&mut self, name: &str) -> Option<Audience> {
        if let Some(audience) = self.audiences.get(name) {
            return Some(audience.clone());
        }
        let audience = Audience::parse(name).ok()?;
        if self.audiences.len() >= PLACES_MAX {
            self.audiences.clear();
        }
        self.audiences.insert(name.into(), audience.clone());
        Some(audience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_shared() {
        let mut places = Places::default();
        let first = places.find("main", "property.42").unwrap();
        let second = places.find("main", "property.42").unwrap();
        assert!(Arc::ptr_eq(&first.key, &second.key));
        assert_eq!(
            (&*first.key, Place::tenant_of(&first.key)),
            ("main.property.42", "main")
        );
        assert!(is_personal("main.user.ada") && !is_personal("main.users") && !is_personal("user.hall"));
        for (tenant, room) in [("GW", "a"), ("main", ""), ("main", "a..b"), ("ma in", "a")] {
            assert!(places.find(tenant, room).is_none(), "{tenant} {room}");
        }
        assert!(places.audience("staff").is_some() && places.audience("a.b").is_none());
    }
}
