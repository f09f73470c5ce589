//! Devices that users have registered for web pushes: what gateways ask of `svc.….devices`, and what is kept.
//!
//! A device is an endpoint at a push service, with the keys that its browser made. Its id is a hash of the endpoint: registered again,
//! it is the same device. An endpoint and its keys are secrets; they leave ingest only to be sent to.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Devices of one user; one more takes the place of the one that was registered longest ago.
pub const DEVICES_MAX: usize = 10;
/// Devices of one user that are gone and remembered; one more takes the place of the one that went first.
pub const GONE_MAX: usize = 20;
/// Longest endpoint, bytes.
pub const ENDPOINT_BYTES_MAX: usize = 1_024;
/// Longest name of a device, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Largest holder as JSON, so that the devices of one user fit into one record.
pub const HOLDER_BYTES_MAX: usize = 6 * 1024;

/// Where a device is reached, as its browser says (`PushSubscription.toJSON()`).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The address at the push service.
    pub endpoint: String,
    /// The device's keys.
    pub keys: Keys,
    /// When the browser means to end it; nobody relies on it, a push service says so itself.
    #[serde(default, rename = "expirationTime", skip_serializing)]
    pub expiration_time: Option<f64>,
}

/// The keys of a subscription, base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Its public key.
    pub p256dh: String,
    /// Its secret.
    pub auth: String,
}

impl Subscription {
    /// The device's id: 22 characters of a hash of the endpoint.
    #[must_use]
    pub fn device(&self) -> String {
        let sum = digest::digest(&digest::SHA256, self.endpoint.as_bytes());
        URL_SAFE_NO_PAD.encode(sum.as_ref().get(..16).unwrap_or_default())
    }
}

/// Shows nothing: who knows an endpoint may be able to use it.
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The verbs of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Keeps a device: [`Register`] to [`Registered`].
    Register,
    /// Forgets one: [`Remove`] to [`Removed`].
    Remove,
    /// Says which there are: [`List`] to [`Listed`].
    List,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Register, Verb::Remove, Verb::List];

    /// The token in the subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Register => "register",
            Verb::Remove => "remove",
            Verb::List => "list",
        }
    }

    /// The verb with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Verb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// Who registered a device, as the token said: what the user may see is decided from it at each notification.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The token's subject.
    pub user: String,
    /// Its roles, as the token spells them.
    pub roles: Vec<String>,
    /// Those of its claims that the policy named.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// `iat`, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<i64>,
    /// `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}

/// Shows the user only: claims may hold anything.
impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A user registers a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Who.
    pub holder: Holder,
    /// The device.
    pub subscription: Subscription,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// It is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The device's id.
    pub device: String,
    /// Unix seconds until when it is pushed to, unless it is registered again.
    pub until: i64,
}

/// A user removes a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// The token's subject.
    pub user: String,
    /// The device's id.
    pub device: String,
}

/// The user has no such device, now; whether it was there before, or is somebody else's, nobody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {}

/// Which devices has a user?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The token's subject.
    pub user: String,
}

/// A user's devices, and what a browser needs to become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// `applicationServerKey` for `PushManager.subscribe`.
    pub public_key: String,
    /// The devices, as they were registered, without their secrets.
    pub devices: Vec<Shown>,
}

/// A device without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its id.
    pub device: String,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Unix seconds until when it is pushed to, unless it is registered again.
    pub until: i64,
}

/// Everything kept of one user's devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Devices {
    /// As they were registered.
    pub devices: Vec<Device>,
    /// Those that were taken out before their time was over, as they went. A reader that does not know them reads the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
}

/// A device that was taken out. It is the user's still, and nothing is sent to it: whoever had the browser before does not get it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Its id.
    pub device: String,
    /// Unix milliseconds at which it was registered last.
    pub at: i64,
    /// Unix seconds until when it would have counted; an earlier registration by somebody else counts no longer than that.
    pub until: i64,
}

/// One device as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub device: String,
    /// Where it is reached.
    pub subscription: Subscription,
    /// Who registered it.
    pub holder: Holder,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Unix milliseconds at which it was registered last: of two users on one browser the later one has it.
    pub at: i64,
    /// Unix seconds until when it counts.
    pub until: i64,
}

impl Devices {
    /// Keeps a device; the one with its id goes, those whose time is over, and, where there are more than [`DEVICES_MAX`], the oldest.
    pub fn keep(&mut self, device: Device, now_secs: i64) {
        self.devices.retain(|kept| kept.device != device.device);
        self.gone.retain(|gone| gone.device != device.device);
        self.sweep(now_secs);
        self.devices.push(device);
        let above = self.devices.len().saturating_sub(DEVICES_MAX);
        let evicted: Vec<Device> = self.devices.drain(..above).collect();
        self.remember(evicted, now_secs);
    }

    /// Forgets a device but for whose it was; whether it was there.
    pub fn forget(&mut self, device: &str, now_secs: i64) -> bool {
        let forgotten: Vec<Device> = self
            .devices
            .extract_if(.., |kept| kept.device == device)
            .collect();
        let was_there = !forgotten.is_empty();
        self.remember(forgotten, now_secs);
        was_there
    }

    /// Takes out everything whose time is over.
    pub fn sweep(&mut self, now_secs: i64) {
        self.devices.retain(|device| device.until > now_secs);
        self.gone.retain(|gone| gone.until > now_secs);
    }

    /// Unix seconds until when something of it is needed; `None`: there is nothing.
    #[must_use]
    pub fn until(&self) -> Option<i64> {
        let devices = self.devices.iter().map(|device| device.until);
        devices.chain(self.gone.iter().map(|gone| gone.until)).max()
    }

    fn remember(&mut self, devices: Vec<Device>, now_secs: i64) {
        let gone = devices.into_iter().map(|device| Gone {
            device: device.device,
            at: device.at,
            until: device.until,
        });
        self.gone.extend(gone);
        self.gone.retain(|gone| gone.until > now_secs);
        let above = self.gone.len().saturating_sub(GONE_MAX);
        self.gone.drain(..above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: usize, until: i64) -> Device {
        let text = format!(
            r#"{{"endpoint":"https://push.example/{n}","expirationTime":null,"keys":{{"p256dh":"p","auth":"a"}}}}"#
        );
        let subscription: Subscription = serde_json::from_str(&text).unwrap();
        Device {
            device: subscription.device(),
            subscription,
            holder: serde_json::from_str(r#"{"user":"u1","roles":["staff"]}"#).unwrap(),
            name: None,
            at: 0,
            until,
        }
    }

    #[test]
    fn a_user_has_few_devices_and_each_once() {
        let mut devices = Devices::default();
        for n in 0..DEVICES_MAX + 2 {
            devices.keep(device(n, 100), 50);
        }
        assert_eq!(devices.devices.len(), DEVICES_MAX);
        assert_eq!(devices.devices[0], device(2, 100), "the oldest go");
        devices.keep(device(2, 200), 50);
        assert_eq!(devices.devices.len(), DEVICES_MAX);
        assert_eq!(devices.devices.last(), Some(&device(2, 200)));
        devices.keep(device(99, 300), 150);
        assert_eq!(
            devices.devices,
            [device(2, 200), device(99, 300)],
            "others are over"
        );
        assert!(devices.forget(&device(2, 0).device, 150) && !devices.forget("nothing", 150));
        assert_eq!(devices.devices, [device(99, 300)]);
    }

    /// Whose it was outlives it: removed, or evicted by one more, until its time is over or it is registered again.
    #[test]
    fn what_is_gone_is_remembered_until_its_time_is_over() {
        let ids = |devices: &Devices| -> Vec<String> {
            devices.gone.iter().map(|gone| gone.device.clone()).collect()
        };
        let mut devices = Devices::default();
        let text = serde_json::to_string(&devices).unwrap();
        assert_eq!(text, r#"{"devices":[]}"#, "as it was before there were any");
        assert_eq!(serde_json::from_str::<Devices>(&text).unwrap(), devices);
        for n in 0..=DEVICES_MAX {
            devices.keep(device(n, 100), 50);
        }
        let [evicted, removed] = [device(0, 100), device(1, 200)];
        assert_eq!(ids(&devices), std::slice::from_ref(&evicted.device));
        devices.keep(removed.clone(), 50);
        assert!(devices.forget(&removed.device, 50) && !devices.forget(&removed.device, 50));
        assert_eq!(ids(&devices), [evicted.device.clone(), removed.device.clone()]);
        let gone = &devices.gone[1];
        assert_eq!((gone.at, gone.until), (removed.at, removed.until));
        assert_eq!(devices.until(), Some(200));
        let text = serde_json::to_string(&devices).unwrap();
        assert_eq!(serde_json::from_str::<Devices>(&text).unwrap(), devices);
        let kept = text.matches("https://push.example/").count();
        assert_eq!(kept, devices.devices.len(), "no address of what is gone: {text}");
        devices.keep(evicted, 50);
        assert_eq!(
            ids(&devices),
            std::slice::from_ref(&removed.device),
            "registered again"
        );
        assert_eq!(devices.devices.len(), DEVICES_MAX);
        devices.sweep(100);
        assert_eq!((devices.devices.len(), devices.gone.len()), (0, 1));
        devices.sweep(200);
        assert_eq!((&devices, devices.until()), (&Devices::default(), None));
        for n in 0..GONE_MAX + 2 {
            devices.keep(device(n, 300), 200);
            assert!(devices.forget(&device(n, 0).device, 200));
        }
        assert_eq!((devices.devices.len(), devices.gone.len()), (0, GONE_MAX));
        assert_eq!(ids(&devices)[0], device(2, 0).device, "the newest");
        devices.keep(device(0, 250), 200);
        assert!(devices.forget(&device(0, 0).device, 250));
        assert!(!ids(&devices).contains(&device(0, 0).device), "it was over");
    }

    #[test]
    fn a_full_record_fits_into_the_bucket() {
        let mut devices = Devices::default();
        for n in 0..DEVICES_MAX + GONE_MAX {
            let mut one = device(n, 1 << 40);
            one.at = i64::MAX;
            one.subscription.endpoint = format!("{n:0>width$}", width = ENDPOINT_BYTES_MAX);
            one.device = one.subscription.device();
            one.name = Some("é".repeat(NAME_BYTES_MAX / 2));
            let used = serde_json::to_vec(&one.holder).unwrap().len();
            one.holder.roles = vec!["r".repeat(HOLDER_BYTES_MAX - used)];
            devices.keep(one, 0);
        }
        assert_eq!(
            (devices.devices.len(), devices.gone.len()),
            (DEVICES_MAX, GONE_MAX)
        );
        let bytes = serde_json::to_vec(&devices).unwrap().len();
        assert!(bytes < crate::stream::DEVICES_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn messages_are_strict_and_show_no_secret() {
        let text = r#"{"holder":{"user":"u1","roles":[]},"subscription":{"endpoint":"https://p/x","keys":{"p256dh":"p","auth":"a"}}}"#;
        let register: Register = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&register).unwrap(), text);
        let shown = format!("{register:?}");
        assert!(!shown.contains("https://p/x") && shown.contains("u1"), "{shown}");
        for strange in [
            "{}",
            r#"{"holder":{"user":"u1","roles":[]}}"#,
            r#"{"holder":{"user":"u1","roles":[],"x":1},"subscription":{"endpoint":"","keys":{"p256dh":"","auth":""}}}"#,
            r#"{"holder":{"user":"u1","roles":[]},"subscription":{"endpoint":"","keys":{"p256dh":""}}}"#,
            r#"{"holder":{"user":"u1","roles":[]},"subscription":{"endpoint":"","keys":{"p256dh":"","auth":""},"x":1}}"#,
        ] {
            assert!(serde_json::from_str::<Register>(strange).is_err(), "{strange}");
        }
        for verb in Verb::ALL {
            assert_eq!(Verb::of_name(verb.as_str()), Some(verb));
        }
    }
}
