//! All devices, in memory at the instance that sends: read from the bucket once and followed. Decides without clock and I/O.

use std::collections::{BTreeMap, HashMap};

use roomcast_proto::device::{Device, Devices};
use roomcast_proto::ids::Tenant;

/// Whose record: the tenant, and the user as one escaped token.
pub type Whose = (Tenant, String);

/// The devices of all users. The bucket's bytes bound it.
#[derive(Debug, Default)]
pub struct Roster {
    users: BTreeMap<Whose, Vec<Device>>,
    /// Who registered a device last, and when.
    last: HashMap<String, (i64, Whose)>,
}

impl Roster {
    /// Puts a user's record in the place of the one before.
    pub fn put(&mut self, whose: Whose, record: Devices) {
        for device in &record.devices {
            let mine = (device.at, whose.clone());
            match self.last.get_mut(&device.device) {
                Some(last) if last.0 > mine.0 => {}
                Some(last) => *last = mine,
                None => {
                    self.last.insert(device.device.clone(), mine);
                }
            }
        }
        for gone in self.users.remove(&whose).unwrap_or_default() {
            let still = record.devices.iter().any(|device| device.device == gone.device);
            if !still
                && self
                    .last
                    .get(&gone.device)
                    .is_some_and(|(_, last)| *last == whose)
            {
                self.last.remove(&gone.device);
            }
        }
        if !record.devices.is_empty() {
            self.users.insert(whose, record.devices);
        }
    }

    /// Forgets devices whose time is over.
    pub fn sweep(&mut self, now_secs: i64) {
        let over = |device: &Device| device.until <= now_secs;
        let stale: Vec<Whose> = self
            .users
            .iter()
            .filter(|(_, devices)| devices.iter().any(over))
            .map(|(whose, _)| whose.clone())
            .collect();
        for whose in stale {
            let mut devices = self.users.get(&whose).cloned().unwrap_or_default();
            devices.retain(|device| !over(device));
            self.put(whose, Devices { devices });
        }
    }

    /// Whether a device of this user counts: its time is not over, and nobody else has signed in on it since.
    fn counts(&self, whose: &Whose, device: &Device, now_secs: i64) -> bool {
        let last = self.last.get(&device.device);
        device.until > now_secs && last.is_some_and(|(_, last)| last == whose)
    }

    /// A device, while it counts.
    #[must_use]
    pub fn device(&self, whose: &Whose, device: &str, now_secs: i64) -> Option<&Device> {
        let mut devices = self.users.get(whose)?.iter();
        let found = devices.find(|kept| kept.device == device)?;
        self.counts(whose, found, now_secs).then_some(found)
    }

    /// The devices of a tenant that count, those of one user together, always in the same order: by the user's token, then by id.
    pub fn of_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
        now_secs: i64,
    ) -> impl Iterator<Item = (&'a str, &'a Device)> + 'a {
        let from = (tenant.clone(), String::new());
        let users = self
            .users
            .range(from..)
            .take_while(move |((of, _), _)| of == tenant);
        users.flat_map(move |(whose, devices)| {
            let mut counting: Vec<&Device> = devices
                .iter()
                .filter(|device| self.counts(whose, device, now_secs))
                .collect();
            counting.sort_by(|a, b| a.device.cmp(&b.device));
            counting.into_iter().map(|device| (whose.1.as_str(), device))
        })
    }

    /// All devices, whether they count or not.
    pub fn all(&self) -> impl Iterator<Item = (&Whose, &Device)> {
        let users = self.users.iter();
        users.flat_map(|(whose, devices)| devices.iter().map(move |device| (whose, device)))
    }

    /// All devices of a user, whether they count or not.
    pub fn of<'a>(&'a self, whose: &'a Whose) -> impl Iterator<Item = (&'a Whose, &'a Device)> {
        let devices = self.users.get(whose).into_iter().flatten();
        devices.map(move |device| (whose, device))
    }

    /// How many users have devices.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub fn device(name: &str, user: &str, at: i64, until: i64) -> Device {
        serde_json::from_value(json!({
            "device": name, "at": at, "until": until, "holder": { "user": user, "roles": ["staff"] },
            "subscription": { "endpoint": format!("https://push.example/{name}"), "keys": { "p256dh": "p", "auth": "a" } },
        }))
        .unwrap()
    }

    fn whose(tenant: &str, user: &str) -> Whose {
        (Tenant::parse(tenant).unwrap(), user.to_owned())
    }

    fn put(roster: &mut Roster, tenant: &str, user: &str, devices: &[(&str, i64, i64)]) {
        let devices = devices
            .iter()
            .map(|(name, at, until)| device(name, user, *at, *until))
            .collect();
        roster.put(whose(tenant, user), Devices { devices });
    }

    fn listed(roster: &Roster, tenant: &str, now: i64) -> Vec<String> {
        let tenant = Tenant::parse(tenant).unwrap();
        let devices = roster.of_tenant(&tenant, now);
        devices
            .map(|(user, device)| format!("{user}.{}", device.device))
            .collect()
    }

    #[test]
    fn devices_come_in_one_order_and_of_one_tenant() {
        let mut roster = Roster::default();
        put(&mut roster, "main", "u2", &[("b", 1, 9), ("a", 2, 9)]);
        put(&mut roster, "main", "u1", &[("c", 1, 9)]);
        put(&mut roster, "acme", "u1", &[("d", 1, 9)]);
        assert_eq!(listed(&roster, "main", 0), ["u1.c", "u2.a", "u2.b"]);
        assert_eq!(listed(&roster, "acme", 0), ["u1.d"]);
        put(&mut roster, "main", "u2", &[("b", 1, 9)]);
        assert_eq!(listed(&roster, "main", 0), ["u1.c", "u2.b"]);
        put(&mut roster, "main", "u1", &[]);
        assert_eq!((listed(&roster, "main", 0).len(), roster.users()), (1, 2));
    }

    #[test]
    fn a_browser_belongs_to_who_registered_it_last() {
        let mut roster = Roster::default();
        put(&mut roster, "main", "u1", &[("a", 1, 9)]);
        put(&mut roster, "main", "u2", &[("a", 2, 9)]);
        assert_eq!(listed(&roster, "main", 0), ["u2.a"]);
        assert!(roster.device(&whose("main", "u1"), "a", 0).is_none());
        assert!(roster.device(&whose("main", "u2"), "a", 0).is_some());
        // An older record that is read later changes nothing.
        put(&mut roster, "acme", "u3", &[("a", 1, 9)]);
        assert_eq!(listed(&roster, "acme", 0), [""; 0]);
        put(&mut roster, "main", "u1", &[("a", 3, 9)]);
        assert_eq!(listed(&roster, "main", 0), ["u1.a"]);
        // Who signed out and took it with them has nothing that could come back to somebody else.
        put(&mut roster, "main", "u1", &[]);
        assert_eq!(listed(&roster, "main", 0), [""; 0]);
    }

    #[test]
    fn what_is_over_counts_no_more_and_goes() {
        let mut roster = Roster::default();
        put(&mut roster, "main", "u1", &[("a", 1, 5), ("b", 1, 9)]);
        put(&mut roster, "main", "u2", &[("c", 1, 5)]);
        assert_eq!(listed(&roster, "main", 5), ["u1.b"]);
        roster.sweep(5);
        assert_eq!(listed(&roster, "main", 0), ["u1.b"]);
        assert_eq!((roster.users(), roster.last.len()), (1, 1));
    }
}
