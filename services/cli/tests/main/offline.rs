//! Commands that need nothing running.

use std::os::unix::fs::PermissionsExt;

use crate::system::{ROOMCAST, complaint, repository, roomcast};

#[test]
fn help_and_mistakes_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, says) in [
        (&["--help"][..], 0, "Examples:"),
        (&["dev", "--help"], 0, "roomcast dev --scenario bookings"),
        (&["top", "--help"], 0, "roomcast top --once"),
        (&["tail", "--help"], 0, "roomcast tail bookings"),
        (&["--version"], 0, "roomcast"),
        (&[], 64, "Usage"),
        (&["devv"], 64, "'dev'"),
        (&["dev", "--gateways", "0"], 64, "1..=16"),
        (&["dev", "--nats-nodes", "2"], 64, "[possible values: 1, 3]"),
        (&["dev", "--scenario", "bokings"], 64, "no scenario \"bokings\""),
        (
            &["simulate", "--scenario", "bookings", "--speed", "0"],
            64,
            "0.01",
        ),
        (&["publish", "--room", "a b", "--type", "x"], 64, "--room"),
        (
            &["publish", "--room", "a", "--type", "x", "--data", "{"],
            64,
            "--data: not JSON",
        ),
        (
            &["publish", "--room", "a", "--type", "x"],
            69,
            "ROOMCAST_INGEST is neither set nor in .roomcast/dev.env",
        ),
        (&["tail", "a"], 69, "ROOMCAST_GATEWAY"),
        (&["top"], 69, "ROOMCAST_ADMIN"),
        (&["top", "--every", "10ms"], 64, "500ms"),
        (&["top", "--rooms", "0"], 64, "1..=500"),
        (&["token", "--user", "u", "--key", "absent.pem"], 65, "absent.pem"),
        (&["token", "--user", "u u", "--key", "absent.pem"], 64, "--user"),
        (
            &["token", "--user", "u", "--ttl", "25h", "--key", "absent.pem"],
            64,
            "24h",
        ),
        (&["check"], 64, "nothing to check"),
        (
            &["streams", "apply", "--nats", "nats://127.0.0.1:1"],
            69,
            "NATS at nats://127.0.0.1:1",
        ),
    ] {
        let output = roomcast(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert!(
            !said.contains('\x1b'),
            "colour on something that is not a terminal: {said}"
        );
    }
}

#[test]
fn check_says_where_a_mistake_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("policy.yaml"),
        "version: 1\nroles:\n  user: { permisions: [a] }\nrooms: []\n",
    )
    .unwrap();
    let output = roomcast(folder.path(), &["check", "--policy", "policy.yaml"]);
    assert_eq!(output.status.code(), Some(65));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("policy.yaml:3:11") && said.contains("permissions"),
        "{said}"
    );
    let output = roomcast(folder.path(), &["check", "--policy", "policy.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["files"][0]["file"], "policy.yaml");
    assert!(
        json["files"][0]["mistakes"][0].as_str().unwrap().contains("3:11"),
        "{json}"
    );
    let policy = repository().join("deploy/scenarios/bookings/policy.yaml");
    let output = roomcast(folder.path(), &["check", "--policy", policy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
}

/// A result that is missing is no success; a reader who has read enough is one.
#[test]
fn what_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let policy = repository().join("deploy/scenarios/bookings/policy.yaml");
    std::fs::write(folder.path().join("bad.yaml"), "version: 2\n").unwrap();
    let (check, bad) = (
        ["check", "--policy", policy.to_str().unwrap()],
        ["check", "--policy", "bad.yaml"],
    );
    let stories = [
        "simulate",
        "--scenario",
        "bookings",
        "--print",
        "--history",
        "1h",
        "--once",
    ];
    for (arguments, code) in [
        (&check[..], 69),
        (&bad, 65),
        (&["types", "--scenario", "bookings"], 69),
        (&stories, 69),
        (&["--help"], 69),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let run = |out: std::process::Stdio| {
            std::process::Command::new(ROOMCAST)
                .current_dir(folder.path())
                .args(arguments)
                .stdout(out)
                .output()
                .unwrap()
        };
        let output = run(full.into());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = complaint(&output);
        assert!(
            said.contains("standard output: No space left"),
            "{arguments:?}: {said}"
        );
        let output = run(closed.into());
        let code = if code == 69 { 0 } else { code };
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            complaint(&output)
        );
    }
}

#[test]
fn simulate_prints_the_same_stories_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = repository().join("deploy/scenarios/bookings");
    let print = |seed: &str| {
        let arguments = [
            "simulate",
            "--scenario",
            scenario.to_str().unwrap(),
            "--print",
            "--history",
            "1h",
            "--once",
            "--seed",
            seed,
        ];
        let output = roomcast(folder.path(), &arguments);
        assert!(output.status.success(), "{}", complaint(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        // Ids and times are those of publishing, and numbers follow the clock.
        let customers = lines.lines().map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["customer"].to_string()
        });
        customers.take(20).collect::<Vec<_>>()
    };
    let first = print("5");
    assert_eq!(first.len(), 20);
    assert_eq!(first, print("5"));
    assert_ne!(first, print("6"));
}

/// What stands in a file before a line that is no event is published all the same, and the line is named.
#[test]
fn what_is_good_before_a_mistake_is_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let event = |kind: &str| format!("{{\"type\":\"{kind}\",\n\"time\":\"2026-01-01T00:00:00Z\"}}\n");
    for (good, bad) in [
        (0, "x"),
        (3, "x"),
        (99, "{}"),
        (100, "{\"type\""),
        (101, "[]"),
        (200, ""),
    ] {
        let kinds: Vec<String> = (0..good).map(|number| format!("t{number}")).collect();
        let day: String = kinds.iter().map(|kind| event(kind)).collect();
        std::fs::write(folder.path().join("day.ndjson"), format!("{day}{bad}")).unwrap();
        let output = roomcast(folder.path(), &["simulate", "--print", "--from", "day.ndjson"]);
        let told = String::from_utf8(output.stdout.clone()).unwrap();
        let told = told.lines().map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["type"].as_str().unwrap().to_owned()
        });
        assert_eq!(told.collect::<Vec<_>>(), kinds, "{bad}");
        let said = complaint(&output);
        let code = if bad.is_empty() { 0 } else { 65 };
        assert_eq!(output.status.code(), Some(code), "{good} {bad}: {said}");
        let place = format!("day.ndjson:{}:1: not an event", 2 * good + 1);
        assert_eq!(said.contains(&place), code == 65, "{good} {bad}: {said}");
    }
}

#[test]
fn an_old_nats_server_is_refused_with_how_to_get_another() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("nats-server");
    std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.12.8'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Beside a copy of the binary, services that are only there to be found.
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy(ROOMCAST, bin.join("roomcast")).unwrap();
    for name in [
        "roomcast-ingest",
        "roomcast-metrics-aggregator",
        "roomcast-edge-gateway",
    ] {
        std::fs::copy(&old, bin.join(name)).unwrap();
    }
    let output = std::process::Command::new(bin.join("roomcast"))
        .args(["dev", "--ports", "free"])
        .current_dir(folder.path())
        .env("ROOMCAST_NATS_SERVER", &old)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = complaint(&output);
    assert!(
        said.contains("is version 2.12.8; 2.14.0 or newer is needed") && said.contains("make tools"),
        "{said}"
    );
    assert!(!folder.path().join(".roomcast").exists());
}

/// The types of the scenarios as the TypeScript compiler reads them, together with the client's own.
#[test]
fn types_are_the_same_each_time_and_compile() {
    let folder = tempfile::tempdir().unwrap();
    let scenarios = repository().join("deploy/scenarios");
    let mut uses = String::new();
    for entry in std::fs::read_dir(&scenarios).unwrap() {
        let entry = entry.unwrap();
        if !entry.path().join("schemas").is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = folder.path().join(format!("{name}.ts"));
        let schemas = entry.path().join("schemas");
        let arguments = ["types", "--schemas", schemas.to_str().unwrap()];
        let printed = roomcast(folder.path(), &arguments);
        assert!(printed.status.success(), "{}", complaint(&printed));
        let written = roomcast(
            folder.path(),
            &[&arguments[..], &["--out", file.to_str().unwrap()]].concat(),
        );
        assert!(written.status.success(), "{}", complaint(&written));
        assert_eq!(std::fs::read(&file).unwrap(), printed.stdout);
        uses += &format!(
            "import type {{ EventData as {name} }} from './{name}';\nexport type Of{name} = EventOf<{name}>;\n"
        );
    }
    assert!(uses.contains("bookings"), "{uses}");
    // A map of maps, and a type of event that is called like a type of TypeScript's.
    std::fs::create_dir(folder.path().join("schemas")).unwrap();
    for (name, schema) in [
        (
            "labels",
            r##"{"type":"object","additionalProperties":{"$ref":"#"}}"##,
        ),
        (
            "record",
            r##"{"type":"object","properties":{"of":{"$ref":"#/$defs/map"}},"$defs":{"map":{"additionalProperties":{"type":["number","null"]}}}}"##,
        ),
    ] {
        let schema = schema.replacen('{', &format!("{{\"x-roomcast-type\":\"{name}\","), 1);
        std::fs::write(folder.path().join(format!("schemas/{name}.json")), schema).unwrap();
    }
    let output = roomcast(
        folder.path(),
        &["types", "--schemas", "schemas", "--out", "own.ts"],
    );
    assert!(output.status.success(), "{}", complaint(&output));
    let client = repository().join("clients/js/src/event");
    let text = format!(
        "import type {{ EventOf }} from '{}';\nimport type {{ EventData as own }} from './own';\n{uses}
export const labels: own['labels'] = {{ a: {{ b: {{}} }} }};
export const record: own['record'] = {{ of: {{ n: null, m: 1.5 }} }};
export function title(event: EventOf<bookings>): string {{
  switch (event.type) {{
    case 'booking:new': return event.data.title + event.data.amount.toFixed(2);
    default: return event.data.id;
  }}
}}
// @ts-expect-error: an amount is no text
export const wrong: bookings['booking:new']['amount'] = '1';
// @ts-expect-error: there is no such category
export const none: bookings['booking:new']['category'] = 'boat';
",
        client.display()
    );
    std::fs::write(folder.path().join("use.ts"), text).unwrap();
    let compiler = repository().join("clients/node_modules/.bin/tsc");
    if !compiler.is_file() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "no TypeScript: make page"
        );
        eprintln!("SKIPPED: the TypeScript compiler is not here: make page");
        return;
    }
    let arguments = [
        "--strict",
        "--noEmit",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "use.ts",
    ];
    let output = std::process::Command::new(&compiler)
        .current_dir(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn types_of_broken_schemas_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("schemas")).unwrap();
    let run = || {
        roomcast(
            folder.path(),
            &["types", "--schemas", "schemas", "--out", "out.ts"],
        )
    };
    assert_eq!(run().status.code(), Some(65));
    std::fs::write(
        folder.path().join("schemas/a.json"),
        "{\"x-roomcast-type\":\"a\",\n\"typ\":1}",
    )
    .unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(65));
    assert!(
        complaint(&output).contains("schemas/a.json:2:7: unknown word \"typ\""),
        "{}",
        complaint(&output)
    );
    assert!(!folder.path().join("out.ts").exists());
    let output = roomcast(folder.path(), &["check", "--schemas", "schemas"]);
    assert_eq!(output.status.code(), Some(65));
}
