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
        self.forget(&device.device);
        self.devices.retain(|kept| kept.until > now_secs);
        self.devices.push(device);
        let above = self.devices.len().saturating_sub(DEVICES_MAX);
        self.devices.drain(..above);
    }

    /// Forgets a device; whether it was there.
    pub fn forget(&mut self, device: &str) -> bool {
        let before = self.devices.len();
        self.devices.retain(|kept| kept.device != device);
        self.devices.len() < before
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
        assert!(devices.forget(&device(2, 0).device) && !devices.forget("nothing"));
        assert_eq!(devices.devices, [device(99, 300)]);
    }

    #[test]
    fn a_full_record_fits_into_the_bucket() {
        let mut devices = Devices::default();
        for n in 0..DEVICES_MAX {
            let mut one = device(n, 1 << 40);
            one.subscription.endpoint = format!("{n:0>width$}", width = ENDPOINT_BYTES_MAX);
            one.device = one.subscription.device();
            one.name = Some("é".repeat(NAME_BYTES_MAX / 2));
            let used = serde_json::to_vec(&one.holder).unwrap().len();
            one.holder.roles = vec!["r".repeat(HOLDER_BYTES_MAX - used)];
            devices.keep(one, 0);
        }
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
