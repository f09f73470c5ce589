//! `roomcast replay`: what was refused, seen and taken again, each at most once.

use std::path::Path;

use crate::system::{Dev, complaint, repository, roomcast};

/// What the command said, and how it ended.
fn replay(folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let output = roomcast(folder, &[&["replay"], arguments].concat());
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        complaint(&output)
    );
    (said, output.status.code())
}

fn publish(folder: &Path, id: &str, audience: &str) -> Option<i32> {
    let arguments = [
        "publish",
        "--room",
        "bookings",
        "--audience",
        audience,
        "--type",
        "booking:new",
        "--id",
        id,
        "--data",
        // As people write it.
        "{\n\t\"n\": 1.50\n}",
    ];
    roomcast(folder, &arguments).status.code()
}

#[test]
fn what_was_refused_is_seen_mended_and_taken_once() {
    let policy = repository().join("deploy/scenarios/bookings/policy.yaml");
    let Some(dev) = Dev::start(&["--policy", policy.to_str().unwrap()]) else {
        return;
    };
    let folder = dev.folder.path();
    assert_eq!(replay(folder, &[]), (String::new(), Some(0)));
    for id in ["one", "two", "three"] {
        assert_ne!(publish(folder, id, "nobody"), Some(0), "refused");
    }
    let (listed, code) = replay(folder, &["--reason", "unknown_audience", "--since", "1h"]);
    assert_eq!((listed.lines().count(), code), (3, Some(0)), "{listed}");
    assert!(listed.contains(" main unknown_audience from "), "{listed}");
    assert_eq!(replay(folder, &["--reason", "late"]).0, "");
    assert_eq!(replay(folder, &["--until", "1h"]).0, "");
    let position = listed.split(' ').next().unwrap().to_owned();
    let (shown, _) = replay(folder, &["--show", &position]);
    assert!(
        shown.contains("\"one\"") && shown.contains("\n\t\"n\": 1.50\n"),
        "{shown}"
    );

    // As it is, it is refused as before, and may be taken later all the same.
    let (said, code) = replay(folder, &[&position]);
    assert!(said.contains("unknown_audience") && code == Some(69), "{said}");
    let mended = shown
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .replace("nobody", "staff");
    let file = folder.join("mended.json");
    std::fs::write(&file, mended).unwrap();
    let with_file = [&position, "--mended", file.to_str().unwrap()];
    assert_eq!(
        replay(folder, &with_file),
        (format!("{position} taken\n"), Some(0))
    );
    let (said, code) = replay(folder, &with_file);
    assert!(
        said.contains("conflict: it was taken before") && code == Some(69),
        "{said}"
    );
    // It is the event that was sent: its own repeat is found.
    assert_eq!(publish(folder, "one", "staff"), Some(0));
    let output = roomcast(folder, &["record", "--since", "10m", "--out", "day.ndjson"]);
    assert!(output.status.success(), "{}", complaint(&output));
    let day = std::fs::read_to_string(folder.join("day.ndjson")).unwrap();
    assert_eq!(day.lines().count(), 1, "{day}");
    assert!(serde_json::from_str::<serde_json::Value>(&day).is_ok(), "{day}");
    let (said, code) = replay(folder, &["--all"]);
    assert_eq!(code, Some(69), "{said}");
    assert_eq!(said.matches(" unknown_audience").count(), 2, "{said}");
    assert_eq!(said.matches(" conflict").count(), 1, "{said}");
    // A refusal of a letter makes no further letter.
    assert_eq!(replay(folder, &[]).0.lines().count(), 3);
    let (said, code) = replay(folder, &["4711"]);
    assert!(said.contains("not_found") && code == Some(69), "{said}");
}
