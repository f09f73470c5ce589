//! All devices, in memory at the instance that sends: read from the bucket once and followed. Decides without clock and I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roomcast_proto::device::{Device, Devices, Gone};
use roomcast_proto::ids::Tenant;

/// Whose record: the tenant, and the user as one escaped token.
pub type Whose = (Tenant, String);

/// The devices of all users. The bucket's bytes bound it.
#[derive(Debug, Default)]
pub struct Roster {
    users: BTreeMap<Whose, Vec<Device>>,
    /// Devices that were taken out of a user's record, and are nobody else's for that.
    gone: HashMap<Whose, Vec<Gone>>,
    /// Who registered a device last, and when.
    last: HashMap<String, (i64, Whose)>,
}

impl Roster {
    /// Puts a user's record in the place of the one before.
    pub fn put(&mut self, whose: Whose, record: Devices) {
        let devices = record.devices.iter().map(|device| (&device.device, device.at));
        let gone = record.gone.iter().map(|gone| (&gone.device, gone.at));
        let said: HashMap<&String, i64> = devices.chain(gone).collect();
        for (device, at) in &said {
            let mine = (*at, whose.clone());
            match self.last.get_mut(*device) {
                Some(last) if last.0 > mine.0 => {}
                Some(last) => *last = mine,
                None => {
                    self.last.insert((*device).clone(), mine);
                }
            }
        }
        let devices = self.users.remove(&whose).unwrap_or_default();
        let gone = self.gone.remove(&whose).unwrap_or_default();
        let devices = devices.into_iter().map(|device| device.device);
        for before in devices.chain(gone.into_iter().map(|gone| gone.device)) {
            let last = self.last.get(&before);
            if !said.contains_key(&before) && last.is_some_and(|(_, last)| *last == whose) {
                self.last.remove(&before);
            }
        }
        if !record.gone.is_empty() {
            self.gone.insert(whose.clone(), record.gone);
        }
        if !record.devices.is_empty() {
            self.users.insert(whose, record.devices);
        }
    }

    /// Forgets devices whose time is over.
    pub fn sweep(&mut self, now_secs: i64) {
        let users = self.users.iter();
        let devices = users.filter(|(_, devices)| devices.iter().any(|device| device.until <= now_secs));
        let gone = self.gone.iter();
        let gone = gone.filter(|(_, gone)| gone.iter().any(|gone| gone.until <= now_secs));
        let stale = devices
            .map(|(whose, _)| whose)
            .chain(gone.map(|(whose, _)| whose));
        for whose in stale.cloned().collect::<BTreeSet<Whose>>() {
            let mut record = Devices {
                devices: self.users.get(&whose).cloned().unwrap_or_default(),
                gone: self.gone.get(&whose).cloned().unwrap_or_default(),
            };
            record.sweep(now_secs);
            self.put(whose, record);
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
        let gone = Vec::new();
        roster.put(whose(tenant, user), Devices { devices, gone });
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

    /// Bob leaves a browser without unregistering it, Alice signs in there, and her device is taken out on the server alone. The page that
    /// Bob opens elsewhere rewrites his record, with that browser in it as of old.
    #[test]
    fn a_browser_does_not_go_back_to_who_had_it_before() {
        let bob = |more: &[(&str, i64)]| {
            let devices = more.iter().map(|(name, at)| device(name, "bob", *at, 40));
            (
                "bob",
                Devices {
                    devices: devices.collect(),
                    ..Devices::default()
                },
            )
        };
        let alice = |at: i64, until: i64| {
            let mut record = Devices::default();
            record.keep(device("a", "alice", at, until), 0);
            ("alice", record)
        };
        let without = |(user, mut record): (&'static str, Devices)| {
            assert!(record.forget("a", 0));
            (user, record)
        };
        let (old, both) = (bob(&[("a", 1)]), bob(&[("a", 1), ("phone", 3)]));
        let gone = without(alice(2, 50));
        /// How, what is put in which order, and which devices count then.
        type Row<'a> = (&'a str, &'a [&'a (&'static str, Devices)], &'a [&'a str]);
        let rows: [Row<'_>; 6] = [
            (
                "as it happens",
                &[&old, &alice(2, 50), &gone, &both],
                &["bob.phone"],
            ),
            ("read anew", &[&gone, &both], &["bob.phone"]),
            ("read anew, the other way round", &[&both, &gone], &["bob.phone"]),
            ("from the beginning", &[&old, &gone], &[]),
            ("put twice", &[&gone, &gone, &both], &["bob.phone"]),
            (
                "he signs in there again",
                &[&old, &gone, &bob(&[("a", 4)])],
                &["bob.a"],
            ),
        ];
        for (name, puts, counting) in rows {
            let mut roster = Roster::default();
            for (user, record) in puts {
                roster.put(whose("main", user), record.clone());
            }
            assert_eq!(listed(&roster, "main", 0), counting, "{name}");
            let devices = roster.of(&whose("main", "alice")).count();
            assert_eq!(devices, 0, "{name}: nothing is sent to what is gone");
            // What is gone outlives everything that was registered before it, and goes then.
            roster.sweep(40);
            assert_eq!(listed(&roster, "main", 0), [""; 0], "{name}");
            assert_eq!((roster.users(), roster.gone.len()), (0, 1), "{name}");
            roster.sweep(50);
            assert!(roster.last.is_empty() && roster.gone.is_empty(), "{name}");
        }
        let mut roster = Roster::default();
        for (user, record) in [&old, &gone, &alice(5, 60), &both] {
            roster.put(whose("main", user), record.clone());
        }
        assert_eq!(listed(&roster, "main", 0), ["alice.a", "bob.phone"], "hers again");
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
