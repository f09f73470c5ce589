//! Settings: what is read, what is a mistake, and that all mistakes come at once.

use std::time::Duration;

use roomcast_chassis::config::{Environment, Reader, Secret};
use roomcast_chassis::process::{self, Common};

use crate::server::SERVICE;

/// Reads one number, as a service does its limits, and all the common settings.
fn read(pairs: &[(&str, &str)]) -> Result<(Common, u64), Vec<String>> {
    let environment = Environment::from_pairs(pairs.iter().copied());
    let read = |reader: &mut Reader<'_>| reader.number("ROOMCAST_ROOMS_MAX", 10, 1..=100, "Rooms.");
    match process::settings(&environment, &SERVICE, read) {
        Ok((common, rooms, _)) => Ok((common, rooms)),
        Err(mistakes) => Err(mistakes.0.iter().map(ToString::to_string).collect()),
    }
}

#[track_caller]
fn check(name: &str, value: &str, expected: Option<&str>) {
    match (read(&[(name, value)]), expected) {
        (Ok(_), None) => {}
        (Err(found), Some(expected)) => assert_eq!(found, [expected]),
        (found, expected) => panic!("{name}={value}: {found:?} instead of {expected:?}"),
    }
}

#[test]
fn defaults_need_no_variable() {
    let (common, rooms) = read(&[]).unwrap();
    assert_eq!(
        (rooms, common.replicas, common.drain),
        (10, 3, Duration::from_secs(30))
    );
    assert_eq!(common.admin_listen.to_string(), "127.0.0.1:9089");
    assert_eq!(common.nats.api_prefix, "$JS.API");
}

#[test]
fn every_kind_of_value_has_its_mistakes() {
    let rooms = "ROOMCAST_ROOMS_MAX";
    check(rooms, "100", None);
    check(rooms, "", None);
    check(
        rooms,
        "0",
        Some("ROOMCAST_ROOMS_MAX is \"0\": expected a number from 1 to 100"),
    );
    check(
        rooms,
        "-1",
        Some("ROOMCAST_ROOMS_MAX is \"-1\": expected a number from 1 to 100"),
    );
    check(
        rooms,
        "101",
        Some("ROOMCAST_ROOMS_MAX is \"101\": expected a number from 1 to 100"),
    );
    check(
        rooms,
        "ten",
        Some("ROOMCAST_ROOMS_MAX is \"ten\": expected a number from 1 to 100"),
    );
    check(
        rooms,
        "1e1",
        Some("ROOMCAST_ROOMS_MAX is \"1e1\": expected a number from 1 to 100"),
    );
    check(
        "ROOMCAST_DRAIN_SECONDS",
        "0",
        Some("ROOMCAST_DRAIN_SECONDS is \"0\": expected a number from 1 to 3600"),
    );
    check("ROOMCAST_REPLICAS", "1", None);
    check(
        "ROOMCAST_REPLICAS",
        "2",
        Some("ROOMCAST_REPLICAS is \"2\": expected one of 3, 1"),
    );
    check("ROOMCAST_ADMIN_LISTEN", "[::1]:0", None);
    let address = "expected an IP address with port, like 127.0.0.1:8080 or [::1]:8080";
    check(
        "ROOMCAST_ADMIN_LISTEN",
        "9080",
        Some(&format!("ROOMCAST_ADMIN_LISTEN is \"9080\": {address}")),
    );
    check("ROOMCAST_LOG_FORMAT", "json", None);
    check(
        "ROOMCAST_LOG_FORMAT",
        "xml",
        Some("ROOMCAST_LOG_FORMAT is \"xml\": expected one of text, json"),
    );
    check("ROOMCAST_LOG", "info,roomcast_ingest=debug", None);
    let filter =
        "expected a level (error, warn, info, debug, trace) or a filter like info,roomcast_ingest=debug";
    check(
        "ROOMCAST_LOG",
        "roomcast=loud",
        Some(&format!("ROOMCAST_LOG is \"roomcast=loud\": {filter}")),
    );
}

#[test]
fn unknown_variables_are_mistakes_with_what_was_perhaps_meant() {
    let slip = "ROOMCAST_ROOM_MAX is \"…\": expected no such variable; did you mean ROOMCAST_ROOMS_MAX?";
    check("ROOMCAST_ROOM_MAX", "3", Some(slip));
    let other = "ROOMCAST_COLOUR_OF_ALL is \"…\": expected no such variable; --help lists those there are";
    check("ROOMCAST_COLOUR_OF_ALL", "blue", Some(other));
    check("PATH", "/bin", None);
}

#[test]
fn all_mistakes_come_at_once() {
    let wrong = [
        ("ROOMCAST_ROOMS_MAX", "0"),
        ("ROOMCAST_ADMIN_LISTEN", "here"),
        ("ROOMCAST_REPLICAS", "5"),
        ("ROOMCAST_NATS_USER", "gw"),
        ("ROOMCAST_LOGS", "info"),
    ];
    let found = read(&wrong).unwrap_err();
    assert_eq!(found.len(), wrong.len(), "{found:?}");
    for (name, _) in wrong {
        assert!(
            found.iter().any(|mistake| mistake.starts_with(name)),
            "{name} in {found:?}"
        );
    }
}

#[test]
fn secrets_come_from_a_variable_or_a_file_and_never_show() {
    const NAMES: (&str, &str) = ("ROOMCAST_KEY", "ROOMCAST_KEY_FILE");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, empty) = (file("good", "hunter2 x\n"), file("empty", "\n"));
    let check = |pairs: &[(&str, &str)], expected: Result<&str, &str>| {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let mut reader = Reader::new(&environment);
        let secret = reader.required_secret(NAMES.0, NAMES.1, "The key.");
        let shown = format!("{secret:?} {secret} {:?}", reader.listed());
        assert!(!shown.contains("hunter2"), "{shown}");
        match (reader.finish(), expected) {
            (Ok(_), Ok(expected)) => assert_eq!(secret, Secret::new(expected)),
            (Err(mistakes), Err(part)) => {
                let text = mistakes.to_string();
                assert!(
                    text.contains(part) && mistakes.0.len() == 1 && !text.contains("hunter2"),
                    "{text}"
                );
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    };
    check(&[(NAMES.0, "hunter2")], Ok("hunter2"));
    check(&[(NAMES.1, &good)], Ok("hunter2 x"));
    check(
        &[(NAMES.0, "hunter2"), (NAMES.1, &good)],
        Err("only one of ROOMCAST_KEY and ROOMCAST_KEY_FILE"),
    );
    check(&[(NAMES.1, &empty)], Err("it is empty"));
    check(
        &[(NAMES.1, "/nowhere/key")],
        Err("ROOMCAST_KEY_FILE is \"/nowhere/key\""),
    );
    check(
        &[],
        Err("ROOMCAST_KEY is not set: expected a secret here or in the file that ROOMCAST_KEY_FILE names"),
    );
    check(
        &[("ROOMCAST_KEYFILE", "hunter2"), (NAMES.0, "hunter2")],
        Err("did you mean ROOMCAST_KEY_FILE?"),
    );
}

#[test]
fn lists_flags_and_paths_are_read() {
    let check = |name: &'static str, value: &str, expected: Option<&[&str]>| {
        let environment = Environment::from_pairs([(name, value)]);
        let mut reader = Reader::new(&environment);
        let list = reader.list("ROOMCAST_ORIGINS", "", "Origins.");
        reader.flag("ROOMCAST_STRICT", false, "Strict.");
        assert_eq!(reader.finish().is_ok(), expected.is_some(), "{name}={value}");
        if let Some(expected) = expected {
            assert_eq!(list, expected);
        }
    };
    check("ROOMCAST_ORIGINS", "", Some(&[]));
    check("ROOMCAST_ORIGINS", "a, b ,c", Some(&["a", "b", "c"]));
    check("ROOMCAST_ORIGINS", "a,,b", None);
    check("ROOMCAST_ORIGINS", "a,", None);
    check("ROOMCAST_STRICT", "true", Some(&[]));
    check("ROOMCAST_STRICT", "yes", None);
    let environment = Environment::from_pairs([("ROOMCAST_OTHER_FILE", "/tmp/x")]);
    let mut reader = Reader::new(&environment);
    assert_eq!(
        reader.optional_path("ROOMCAST_OTHER_FILE", "A file."),
        Some("/tmp/x".into())
    );
    reader.path("ROOMCAST_POLICY_FILE", "The policy.");
    let mistakes = reader.finish().unwrap_err().to_string();
    assert_eq!(
        mistakes,
        "1 mistake in the settings:\n  ROOMCAST_POLICY_FILE is not set: expected a path"
    );
}
