use roomcast_chassis::config::Environment;

use super::*;
use crate::bucket::Rate;
use crate::outbox;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
    let needed = [
        ("ROOMCAST_POLICY_FILE", "policy.yaml"),
        ("ROOMCAST_JWT_KEYS_FILE", "keys.json"),
        ("ROOMCAST_JWT_ISSUER", "https://issuer.example"),
    ];
    let environment = Environment::from_pairs(needed.iter().chain(pairs).copied());
    let mut reader = Reader::new(&environment);
    let settings = Settings::read(&mut reader);
    reader
        .finish()
        .map(|_| settings)
        .map_err(|mistakes| mistakes.to_string())
}

#[test]
fn what_the_page_is_told_is_one_object() {
    let folder = tempfile::tempdir().unwrap();
    for (text, good) in [
        (r#"{"ingest":"http://127.0.0.1:1"}"#, true),
        ("{}", true),
        ("[]", false),
        ("true", false),
        ("{} {}", false),
        ("", false),
    ] {
        let file = folder.path().join("page.json");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let settings = read(&[("ROOMCAST_PAGE_CONFIG_FILE", &file)]).unwrap();
        assert_eq!(settings.load_page_config().is_ok(), good, "{text}");
    }
}

#[test]
fn defaults_are_those_of_the_reference() {
    let settings = read(&[]).unwrap();
    assert_eq!(
        settings.clients.outbox,
        outbox::Limits {
            bytes_max: 1_048_576,
            frames_max: 1_024
        }
    );
    assert_eq!(
        settings.clients.session.requests,
        Rate {
            per_second: 20,
            burst: 60
        }
    );
    assert_eq!(
        settings.admission.rate,
        Rate {
            per_second: 2_500,
            burst: 5_000
        }
    );
    assert_eq!(
        (settings.head.within, settings.head.bytes_max),
        (Duration::from_secs(5), 16_384)
    );
    assert!(settings.shards >= 1);
}

/// Numbers that are no limits on anybody.
const NO_LIMITS: [&str; 5] = [
    "ROOMCAST_LISTEN",
    "ROOMCAST_REPLICAS",
    "ROOMCAST_SHARDS",
    "ROOMCAST_JWKS_INTERVAL_SECONDS",
    "ROOMCAST_JWKS_REFRESH_SECONDS",
];

/// A row of the README's tables: setting, usual value, bounds, where it is counted.
struct Row<'a> {
    name: &'a str,
    usual: &'a str,
    bounds: String,
    counted: &'a str,
}

fn documented() -> Vec<Row<'static>> {
    let rows = include_str!("../../README.md").lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &[_, name, usual, bounds, _, counted, _] = cells.as_slice() else {
            return None;
        };
        let name = name.strip_prefix("`ROOMCAST_")?.strip_suffix('`')?;
        Some(Row {
            name,
            usual,
            bounds: format!("a number from {}", bounds.replace(", ", " to ")),
            counted: counted.trim_matches('`'),
        })
    });
    rows.collect()
}

fn numbers() -> Vec<(&'static str, String)> {
    let environment = Environment::from_pairs(Vec::<(&str, &str)>::new());
    let mut reader = Reader::new(&environment);
    Settings::read(&mut reader);
    let is_number = |text: &String| text.parse::<u64>().is_ok();
    let listed = reader
        .listed()
        .iter()
        .filter(|listed| !NO_LIMITS.contains(&listed.name));
    listed
        .filter_map(|listed| Some((listed.name, listed.default.clone().filter(is_number)?)))
        .collect()
}

#[test]
fn every_limit_is_in_the_readme_as_it_is_and_nought_is_a_mistake() {
    let (numbers, rows) = (numbers(), documented());
    let all: Vec<(&str, &str)> = numbers.iter().map(|(name, _)| (*name, "0")).collect();
    let mistakes = read(&all).err().unwrap();
    for (name, default) in &numbers {
        let row = rows
            .iter()
            .find(|row| name.strip_prefix("ROOMCAST_") == Some(row.name));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README"));
        assert_eq!(row.usual, default, "{name}");
        let said = format!("{name} is \"0\": expected {}\n", row.bounds);
        assert!(format!("{mistakes}\n").contains(&said), "{said} in {mistakes}");
    }
    assert_eq!(rows.len(), numbers.len(), "each is there once, and nothing else");
    let rates = read(&[("ROOMCAST_OPERATION_RATES", "history=0/1")])
        .err()
        .unwrap();
    assert!(rates.contains("ROOMCAST_OPERATION_RATES"), "{rates}");
    for (_, name, rate) in crate::allowance::Operation::ALL {
        let said = format!("`{name}={}/{}`", rate.per_second, rate.burst);
        assert!(include_str!("../../README.md").contains(&said), "{said}");
    }
}

#[test]
fn every_counter_in_the_readme_is_there_and_every_limit_that_is_counted() {
    let metrics = roomcast_chassis::metrics::Metrics::new("gateway").unwrap();
    let _gateway = crate::metrics::GatewayMetrics::new(&metrics).unwrap();
    let hub = crate::hub::HubSettings::default();
    let _hub = crate::hub::Hub::new(hub, Box::new(|_| None), &metrics).unwrap();
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
    let has = |family: &str, label: &str| {
        let name = format!("roomcast_gateway_{family}_total");
        let label = format!("=\"{label}\"");
        text.lines()
            .any(|line| line.starts_with(&name) && (label == "=\"\"" || line.contains(&label)))
    };
    let rows = documented();
    for row in rows.iter().filter(|row| !row.counted.is_empty()) {
        let (family, label) = row.counted.split_once(": ").unwrap_or((row.counted, ""));
        assert!(has(family, label), "{}: {}", row.name, row.counted);
    }
    for (_, limit) in crate::limit::Limit::ALL {
        let said = format!("`limited: {limit}`");
        assert!(include_str!("../../README.md").contains(&said), "{said}");
    }
}

#[test]
fn origins_are_checked() {
    let mistakes = read(&[("ROOMCAST_ALLOWED_ORIGINS", "https://desk.example,*")])
        .err()
        .unwrap();
    assert!(mistakes.contains("which \"*\" is not"), "{mistakes}");
    assert!(
        read(&[(
            "ROOMCAST_ALLOWED_ORIGINS",
            "http://127.0.0.1:8080, http://localhost:8080"
        )])
        .is_ok()
    );
}
