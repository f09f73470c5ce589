//! How users want to be told of notifications: what they set and ask for, over whichever transport; ingest keeps it.

use roomcast_proto::frame::{Preferences as PreferencesFrame, PreferencesKept};
use roomcast_proto::readstate::{KeptPreferences, Read, ReadState, SetPreferences, Verb};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::Service;
use serde_json::{Map, Value};

use crate::asking::{Asking, Who};

/// What is set; nothing: they are asked for.
pub type Set = Option<Map<String, Value>>;

/// Reads a `preferences`.
///
/// # Errors
/// `bad_request`.
pub fn read(frame: &PreferencesFrame) -> Result<Set, Refusal> {
    if frame.set.is_empty() {
        return Ok(None);
    }
    let set = serde_json::from_slice::<Option<Map<String, Value>>>(&frame.set);
    set.map_err(|_| Refusal::new(Code::BadRequest, "set is an object").at("/preferences/set"))
}

/// Sets and answers them.
///
/// # Errors
/// `bad_request`, `unavailable`, `unknown` (ask again).
///
/// # Cancel safety
/// Dropped, they may be set or not.
pub async fn run(asking: &Asking, who: &Who, set: Set) -> Result<PreferencesKept, Refusal> {
    let user = who.user.as_ref().to_owned();
    let (tenant, service) = (&who.tenant, Service::ReadState);
    let kept = match set {
        Some(set) => {
            let verb = Verb::Preferences.as_str();
            let question = SetPreferences { user, set };
            asking
                .service::<_, KeptPreferences>(tenant, service, verb, &question)
                .await?
        }
        None => {
            let verb = Verb::Read.as_str();
            let state = asking
                .service::<_, ReadState>(tenant, service, verb, &Read { user })
                .await?;
            KeptPreferences {
                version: state.version,
                preferences: state.preferences,
            }
        }
    };
    let preferences = serde_json::to_vec(&kept.preferences)
        .map_err(|_| Refusal::new(Code::Internal, "the preferences cannot be written"))?;
    Ok(PreferencesKept {
        version: kept.version,
        preferences: preferences.into(),
    })
}
