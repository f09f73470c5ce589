//! Devices that users register for pushes: one record per user, changed under compare-and-set.
//!
//! Called by [`crate::door_service`]. Whose device it is comes from the gateway, which has verified the token; nobody is told of another's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_chassis::fetch::Url;
use roomcast_chassis::jetstream::JetStream;
use roomcast_proto::device::{
    Device, Devices, ENDPOINT_BYTES_MAX, HOLDER_BYTES_MAX, List, Listed, NAME_BYTES_MAX, Register,
    Registered, Remove, Removed, Shown, Verb,
};
use roomcast_proto::ids::Tenant;
use roomcast_proto::limits::ATTRIBUTE_BYTES_MAX;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{devices_key, stream};
use roomcast_sinks::address;
use roomcast_sinks::config::{Config, PushConfig};
use roomcast_sinks::push;

use crate::door_service::{self, Answer};
use crate::key_value::{Decision, KeyValue, KeyValueError};
use crate::metrics::IngestMetrics;

/// Seconds of a day.
const DAY_SECS: i64 = 24 * 3_600;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeviceDesk {
    keys: KeyValue,
    config: Option<Arc<Config>>,
}

impl DeviceDesk {
    /// Without a `config` that says `push` there are no devices.
    #[must_use]
    pub fn new(jetstream: JetStream, config: Option<Arc<Config>>, metrics: IngestMetrics) -> Self {
        Self {
            keys: KeyValue::new(jetstream, stream::DEVICES, metrics),
            config,
        }
    }

    /// Answers one request. `now_millis`: Unix.
    ///
    /// # Errors
    /// `not_found` where no pushes are sent, `bad_request`, `too_large`, `unavailable` (nothing was done), `unknown` (ask again), `internal`.
    pub async fn answer(&self, tenant: &Tenant, verb: &str, body: &[u8], now_millis: i64) -> Answer {
        let verb = Verb::of_name(verb).ok_or_else(door_service::no_such_verb)?;
        let config = self.config.as_deref();
        let Some((config, push)) = config.and_then(|config| Some((config, config.push.as_ref()?))) else {
            return Err(Refusal::new(Code::NotFound, "no pushes are sent here"));
        };
        let now_secs = now_millis.div_euclid(1_000);
        match verb {
            Verb::Register => {
                let register: Register = door_service::read(body)?;
                check(&register, config, push)?;
                let device = Device {
                    device: register.subscription.device(),
                    subscription: register.subscription,
                    holder: register.holder,
                    name: register.name,
                    at: now_millis,
                    until: now_secs.saturating_add(i64::from(push.days) * DAY_SECS),
                };
                let key = devices_key(tenant, &device.holder.user);
                let decide = |value: Option<&Bytes>| kept(value, &device, now_secs);
                let decided = self.keys.update(&key, decide).await;
                door_service::write(&decided.map_err(|error| error.refusal())??)
            }
            Verb::Remove => {
                let Remove { user, device } = door_service::read(body)?;
                check_user(&user)?;
                let key = devices_key(tenant, &user);
                let decided = forget(&self.keys, &key, &device, i64::MAX, now_secs).await;
                decided.map_err(|error| error.refusal())?;
                door_service::write(&Removed {})
            }
            Verb::List => {
                let List { user } = door_service::read(body)?;
                check_user(&user)?;
                let held = self.keys.read(&devices_key(tenant, &user)).await;
                let held = read(held.map_err(|error| error.refusal())?.as_ref())?;
                let mut devices = held.devices;
                devices.retain(|device| device.until > now_secs);
                door_service::write(&Listed {
                    public_key: push.vapid.public_key().to_owned(),
                    devices: devices.into_iter().map(shown).collect(),
                })
            }
        }
    }
}

fn shown(device: Device) -> Shown {
    Shown {
        device: device.device,
        name: device.name,
        until: device.until,
    }
}

/// Forgets a device of a record but for whose it was, unless it was registered again after `at_millis`.
///
/// # Errors
/// [`KeyValueError`]: it may be there still.
pub(super) async fn forget(
    keys: &KeyValue,
    key: &str,
    device: &str,
    at_millis: i64,
    now_secs: i64,
) -> Result<(), KeyValueError> {
    let decide = |value: Option<&Bytes>| {
        let Ok(mut devices) = read(value) else {
            return Decision::Keep(());
        };
        let newer = |kept: &Device| kept.device == device && kept.at > at_millis;
        if devices.devices.iter().any(newer) || !devices.forget(device, now_secs) {
            return Decision::Keep(());
        }
        written(&devices, now_secs, ()).unwrap_or(Decision::Keep(()))
    };
    keys.update(key, decide).await
}

fn kept(value: Option<&Bytes>, device: &Device, now_secs: i64) -> Decision<Result<Registered, Refusal>> {
    let mut devices = match read(value) {
        Ok(devices) => devices,
        Err(refusal) => return Decision::Keep(Err(refusal)),
    };
    devices.keep(device.clone(), now_secs);
    let registered = Registered {
        device: device.device.clone(),
        until: device.until,
    };
    written(&devices, now_secs, Ok(registered)).unwrap_or_else(|refusal| Decision::Keep(Err(refusal)))
}

/// The record is kept until the last of its devices counts no more, or would have; an empty one for a moment, so that whoever follows the bucket sees it.
fn written<T>(devices: &Devices, now_secs: i64, outcome: T) -> Result<Decision<T>, Refusal> {
    let left = devices
        .until()
        .map_or(DAY_SECS, |until| until.saturating_sub(now_secs).max(60));
    let value = serde_json::to_vec(devices)
        .map_err(|_| Refusal::new(Code::Internal, "the devices cannot be written"))?;
    Ok(Decision::Set {
        value: value.into(),
        ttl: Some(Duration::from_secs(u64::try_from(left).unwrap_or_default())),
        outcome,
    })
}

/// What a key holds. A record that cannot be read is not overwritten: somebody has to look at it.
fn read(value: Option<&Bytes>) -> Result<Devices, Refusal> {
    let Some(value) = value else {
        return Ok(Devices::default());
    };
    serde_json::from_slice(value).map_err(|error| {
        tracing::error!(%error, "what is kept of a user's devices cannot be read: {error}");
        Refusal::new(Code::Internal, "what is kept cannot be read")
    })
}

fn check(register: &Register, config: &Config, push: &PushConfig) -> Result<(), Refusal> {
    check_user(&register.holder.user)?;
    // The place stands in the words: over NATS a refusal has no pointer.
    let bad = |place: &str, rule: &str| Err(Refusal::new(Code::BadRequest, format!("{place}: {rule}")));
    if let Some(name) = &register.name
        && (name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control))
    {
        return bad("name", &format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    let endpoint = &register.subscription.endpoint;
    let url = Url::parse(endpoint)
        .ok()
        .filter(|_| endpoint.len() <= ENDPOINT_BYTES_MAX);
    // What a name leads to is looked at when it is sent to; an address can be judged at once.
    let may = |url: &Url| match url.host().parse::<IpAddr>() {
        Ok(ip) => address::may(ip, &config.private),
        Err(_) => true,
    };
    if !url.is_some_and(|url| push.may(&url) && may(&url)) {
        return bad("subscription.endpoint", "pushes do not go there");
    }
    if push::encrypt(&register.subscription, b"").is_err() {
        return bad("subscription.keys", "are not those of a device");
    }
    let holder = serde_json::to_vec(&register.holder).map_or(usize::MAX, |holder| holder.len());
    if holder > HOLDER_BYTES_MAX {
        let detail = format!("roles and claims of the token have more than {HOLDER_BYTES_MAX} bytes");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    Ok(())
}

fn check_user(user: &str) -> Result<(), Refusal> {
    let right = (1..=ATTRIBUTE_BYTES_MAX).contains(&user.len());
    right
        .then_some(())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "a user is needed"))
}
