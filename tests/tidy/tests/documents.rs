//! Documents say what is so.

use roomcast_tidy::{files, read, root, shipped_rust};

/// Words in backticks that look like paths of this repository.
fn paths_named(text: &str) -> Vec<String> {
    let inline = text.split('`').skip(1).step_by(2);
    let mut paths: Vec<String> = inline
        .filter(|word| {
            word.contains('/')
                && !word.contains(char::is_whitespace)
                && !word.contains(['*', '{', '<', '$', ':', '(', '…', '='])
        })
        .filter(|word| {
            let first = word.split('/').next().unwrap_or_default();
            matches!(
                first,
                "services" | "proto" | "clients" | "tests" | "deploy" | "k8s" | ".ci"
            )
        })
        .map(|word| word.trim_end_matches('/').to_owned())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut checked = 0;
    for document in files("", ".md") {
        for path in paths_named(&document.text) {
            // Built, not kept.
            if path.contains("/dist") || path.contains("RESULTS.md") {
                continue;
            }
            assert!(root().join(&path).exists(), "{} names {path}", document.path);
            checked += 1;
        }
    }
    assert!(checked > 20, "the documents name files: {checked}");
}

#[test]
fn architecture_names_every_crate_and_the_files_of_the_path() {
    let text = read("ARCHITECTURE.md");
    for crate_dir in [
        "proto",
        "services/access",
        "services/capture",
        "services/cel",
        "services/chassis",
        "services/issuers",
        "services/rights",
        "services/admin",
        "services/ingest",
        "services/metrics-aggregator",
        "services/edge-gateway",
        "services/cli",
        "clients/js",
        "clients/dashboard",
        "tests/harness",
        "tests/e2e",
        "tests/tidy",
        "tests/load",
        "tests/faults",
    ] {
        assert!(
            text.contains(&format!("`{crate_dir}`")) || text.contains(&format!("`{crate_dir}/")),
            "{crate_dir}"
        );
    }
}

#[test]
fn the_contract_document_lists_every_close_code_and_refusal() {
    let text = read("proto/README.md");
    for source in ["proto/src/close.rs", "proto/src/refusal.rs"] {
        assert!(root().join(source).exists());
    }
    // The codes are read from the source, so that this test depends on no crate it judges.
    let close = read("proto/src/close.rs");
    let codes = close
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Close::")?.split_once("=> "))
        .map(|(_, v)| v.trim_end_matches(','));
    let mut seen = 0;
    for code in codes.filter(|v| v.chars().all(|c| c.is_ascii_digit())) {
        assert!(text.contains(code), "close code {code} is not in proto/README.md");
        seen += 1;
    }
    assert_eq!(seen, 16);
    let refusal = read("proto/src/refusal.rs");
    let mut seen = 0;
    for line in refusal
        .lines()
        .filter(|l| l.starts_with("    ") && l.contains(" = \"") && l.trim_end().ends_with(';'))
    {
        let Some(code) = line.split('"').nth(1) else {
            continue;
        };
        assert!(
            text.contains(&format!("`{code}`")),
            "refusal {code} is not in proto/README.md"
        );
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
}

/// Names of metrics declared in the services.
fn metrics() -> Vec<String> {
    let mut names: Vec<String> = shipped_rust()
        .iter()
        .flat_map(|f| {
            f.text
                .split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|w| {
            w.starts_with("roomcast_")
                && w.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_metric_is_on_a_board_and_boards_name_only_metrics_that_exist() {
    let boards = files("deploy/grafana", ".json");
    assert!(!boards.is_empty());
    let all: String = boards.iter().map(|b| b.text.as_str()).collect();
    let metrics = metrics();
    assert!(metrics.len() > 20, "{metrics:?}");
    let missing: Vec<&String> = metrics.iter().filter(|name| !mentions(&all, name)).collect();
    assert!(missing.is_empty(), "on no board: {missing:?}");
    assert_eq!(
        unknown(&all, &metrics),
        [""; 0],
        "named on a board, and nobody exports it"
    );
}

/// Metrics that are named in a text and that nobody exports.
fn unknown<'a>(text: &'a str, metrics: &[String]) -> Vec<&'a str> {
    let named = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|w| w.starts_with("roomcast_"));
    let exported = |name: &str| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|s| name.strip_suffix(s))
            .unwrap_or(name);
        metrics.iter().any(|m| m == name || m == base)
    };
    named.filter(|name| !exported(name)).collect()
}

/// Values of a key in YAML, one a line: `- alert: Name`, `runbook: path`.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    lines
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .collect()
}

#[test]
fn every_alert_has_its_page_and_its_cases_and_names_metrics_that_exist() {
    let text = |folder| {
        files(folder, ".yaml")
            .into_iter()
            .map(|file| file.text)
            .collect::<String>()
    };
    let (rules, cases) = (text("deploy/prometheus/rules"), text("deploy/prometheus/tests"));
    let metrics = metrics();
    assert_eq!(
        unknown(&rules, &metrics),
        [""; 0],
        "named in a rule, and nobody exports it"
    );
    let alerts: std::collections::BTreeSet<&str> = values(&rules, "alert").into_iter().collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    let cases = values(&cases, "name");
    for alert in &alerts {
        for what in ["fires", "stays silent"] {
            assert!(
                cases.contains(&format!("{alert} {what}").as_str()),
                "no case: {alert} {what}"
            );
        }
    }
    for runbook in values(&rules, "runbook") {
        assert!(root().join(runbook).exists(), "{runbook}");
    }
    let pages = files("deploy/runbooks", ".md");
    let pages: std::collections::BTreeSet<&str> = pages
        .iter()
        .filter_map(|page| page.path.strip_prefix("deploy/runbooks/")?.strip_suffix(".md"))
        .filter(|page| *page != "README")
        .collect();
    assert_eq!(pages, alerts, "pages and alerts");
    for page in files("deploy/runbooks", ".md") {
        assert_eq!(
            unknown(&page.text, &metrics),
            [""; 0],
            "{} names it, and nobody exports it",
            page.path
        );
        for part in ["\n## Look\n", "\n## Do\n"] {
            assert!(
                page.path.ends_with("README.md") || page.text.contains(part),
                "{}",
                page.path
            );
        }
        let named = page
            .text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| w.starts_with("Roomcast") && *w != "Roomcast");
        for name in named {
            assert!(alerts.contains(name), "{} names {name}", page.path);
        }
    }
}

fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .any(|w| {
            w == name
                || ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|s| w.strip_suffix(s) == Some(name))
        })
}

#[test]
fn every_scenario_has_its_files() {
    for name in ["bookings", "deliveries", "property", "repair", "restaurant"] {
        for file in [
            "policy.yaml",
            "metrics.yaml",
            "scenario.yaml",
            "page.json",
            "README.md",
            "schemas",
        ] {
            assert!(
                root().join("deploy/scenarios").join(name).join(file).exists(),
                "{name}/{file}"
            );
        }
    }
}
