//! Compiles the `.proto` sources to Rust with protox (no protoc binary) and gives every message its JSON form.

use std::io::Result;

/// Message fields that hold JSON text: raw in JSON frames, bytes in Protobuf frames. No bytes are an absent member.
const RAW_JSON: [&str; 8] = [
    "Publish.data",
    "Command.data",
    "FeedQuery.filter",
    "Preferences.set",
    "PlacedEvent.event",
    "CommandResult.data",
    "EventPush.event",
    "PreferencesKept.preferences",
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=roomcast");
    let descriptors = protox::compile(["roomcast/v1/client.proto"], ["."]).map_err(std::io::Error::other)?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    // A frame's oneof has its own JSON form, written by hand in frame.rs: exactly one member named after the message.
    let messages = descriptors.file.iter().flat_map(|file| &file.message_type);
    for message in messages {
        let name = message.name();
        if matches!(name, "ClientFrame" | "ServerFrame") {
            continue;
        }
        config.message_attribute(
            format!(".roomcast.v1.{name}"),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(rename_all = \"camelCase\", default)]",
        );
        for field in &message.field {
            if field.proto3_optional() {
                config.field_attribute(
                    format!(".roomcast.v1.{name}.{}", field.name()),
                    "#[serde(skip_serializing_if = \"Option::is_none\")]",
                );
            }
        }
    }
    for field in RAW_JSON {
        config.field_attribute(
            format!(".roomcast.v1.{field}"),
            "#[serde(with = \"crate::raw_json\", skip_serializing_if = \"bytes::Bytes::is_empty\")]",
        );
    }
    config.compile_fds(descriptors)
}
