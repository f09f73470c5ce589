//! JSON text inside JSON: kept byte for byte, neither parsed into a tree nor written anew.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Writes the bytes as they are. Empty ones stand for an absent member and are left out by the message.
///
/// # Errors
/// When the bytes are not JSON.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(serde::ser::Error::custom)?;
    raw.serialize(serializer)
}

/// Takes the next JSON value as its own text.
///
/// # Errors
/// When there is no valid JSON value.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(Bytes::from(String::from(Box::<str>::from(raw))))
}
