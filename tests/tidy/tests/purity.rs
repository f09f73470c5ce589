//! Decisions stay away from clocks, sockets and each other; names are spelled in one place.

use roomcast_tidy::{Source, files, is_test_file, read, shipped_rust};

/// Places where one of `words` stands in code that ships.
fn uses(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.shipped() {
            for word in words {
                if line.contains(word) {
                    found.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    found
}

const CLOCKS: [&str; 5] = [
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "now_v7",
];
const OUTSIDE: [&str; 8] = [
    "std::fs",
    "std::net",
    "tokio::",
    "async fn",
    ".await",
    "async_nats",
    "std::env",
    "std::process",
];

#[test]
fn access_reads_no_clock_and_touches_nothing() {
    let access: Vec<Source> = files("services/access/src", ".rs")
        .into_iter()
        .filter(|f| !is_test_file(&f.path))
        .collect();
    assert!(access.len() > 4, "access is where it was");
    assert_eq!(
        uses(&access, &[CLOCKS.as_slice(), OUTSIDE.as_slice()].concat()),
        Vec::<String>::new()
    );
}

#[test]
fn the_contract_has_no_runtime() {
    let proto: Vec<Source> = files("proto/src", ".rs");
    let found = uses(
        &proto,
        &[
            OUTSIDE.as_slice(),
            &["Instant::now", "SystemTime", "Timestamp::now"],
        ]
        .concat(),
    );
    assert_eq!(found, Vec::<String>::new());
}

/// The state machines: everything they know comes in as an argument.
const PURE: [&str; 18] = [
    "services/edge-gateway/src/session",
    "services/edge-gateway/src/outbox",
    "services/edge-gateway/src/spine.rs",
    "services/edge-gateway/src/spine/",
    "services/edge-gateway/src/ring",
    "services/edge-gateway/src/ws",
    "services/edge-gateway/src/wheel",
    "services/metrics-aggregator/src/engine",
    "services/cel/src",
    "services/capture/src/begin.rs",
    "services/capture/src/checks",
    "services/capture/src/event",
    "services/capture/src/follow",
    "services/capture/src/mapping",
    "services/capture/src/outbox.rs",
    "services/capture/src/pgoutput.rs",
    "services/capture/src/position.rs",
    "services/capture/src/value.rs",
];

#[test]
fn state_machines_decide_without_clock_or_socket() {
    let all = shipped_rust();
    for stem in PURE {
        let part: Vec<Source> = all.iter().filter(|f| f.path.starts_with(stem)).cloned().collect();
        assert!(!part.is_empty() || stem.ends_with('/'), "{stem} is where it was");
        let words = [
            CLOCKS.as_slice(),
            &["async fn", ".await", "std::net", "tokio::", "async_nats"],
        ]
        .concat();
        assert_eq!(uses(&part, &words), Vec::<String>::new(), "{stem}");
    }
}

#[test]
fn a_subject_is_spelled_only_in_the_contract() {
    let spelled = [
        "\"evt.", "\"live.", "\"slive.", "\"st.", "\"eph.", "\"dlq.", "\"in.", "\"inq.", "\"cmd.", "\"svc.",
        "\"prs.", "\"ctl.", "\"audit.", "\"$KV.", "\"kvl.",
    ];
    let services: Vec<Source> = shipped_rust()
        .into_iter()
        .filter(|f| f.path.starts_with("services/"))
        .collect();
    assert_eq!(uses(&services, &spelled), Vec::<String>::new());
}

/// A route that is not in the OpenAPI document is one that nobody checks: there is one way to add one, with its description.
#[test]
fn routes_are_added_with_their_description() {
    let mut found = uses(&shipped_rust(), &[".route(", ".route_service(", ".nest("]);
    found.retain(|place| !place.starts_with("services/chassis/src/routes.rs:"));
    assert_eq!(
        found,
        Vec::<String>::new(),
        "see `Routes` in services/chassis/src/routes.rs"
    );
}

#[test]
fn a_permit_can_only_be_made_by_the_policy() {
    let all = shipped_rust();
    let permits: Vec<&Source> = all
        .iter()
        .filter(|f| f.path == "services/access/src/permit.rs")
        .collect();
    let [permit] = permits.as_slice() else {
        panic!("permit.rs is where it was")
    };
    let mut inside = None;
    for (number, line) in permit.shipped() {
        if line.contains("pub struct Subscribe") || line.contains("pub struct Publish") {
            inside = Some(());
        } else if line.trim() == "}" {
            inside = None;
        } else if inside.is_some() {
            assert!(
                !line.trim_start().starts_with("pub "),
                "permit.rs:{number}: a public field would let anyone make one"
            );
        }
        assert!(
            !line.contains("pub fn new"),
            "permit.rs:{number}: permits have no public constructor"
        );
    }
}

#[test]
fn every_queue_is_bounded() {
    let all: Vec<Source> = shipped_rust()
        .into_iter()
        .filter(|f| !f.path.starts_with("services/cli/"))
        .collect();
    assert_eq!(
        uses(&all, &["unbounded_channel", "UnboundedSender"]),
        Vec::<String>::new()
    );
    // The one queue without a bound of its own type: mio's waker needs the standard one, so the inbox counts its backlog itself.
    let mut counted = uses(
        &all,
        &["std::sync::mpsc::{Receiver, Sender, channel}", "mpsc::channel()"],
    );
    // `sync` only gives it its turn in a model.
    let counts = ["shard/inbox.rs:", "sync.rs:"].map(|file| format!("services/edge-gateway/src/{file}"));
    counted.retain(|place| !counts.iter().any(|file| place.starts_with(file)));
    assert_eq!(counted, Vec::<String>::new());
    assert!(read("services/edge-gateway/src/shard/inbox.rs").contains("INBOX_MAX"));
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let mut all = files("services", ".rs");
    all.extend(files("proto", ".rs"));
    all.extend(files("tests", ".rs"));
    all.extend(files("clients", ".ts"));
    all.extend(files("clients", ".tsx"));
    all.retain(|f| !f.path.starts_with("tests/tidy/"));
    let words = [
        "todo!(",
        "unimplemented!(",
        "FIXME",
        "#[ignore",
        ".skip(",
        "it.only(",
        "describe.only(",
    ];
    let found: Vec<String> = uses(&all, &words)
        .into_iter()
        .filter(|f| !f.ends_with(": .skip(") || f.contains(".ts"))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}
