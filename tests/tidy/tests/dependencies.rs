//! Dependencies point one way, and each is used.

use std::collections::BTreeSet;
use std::process::Command;

use roomcast_tidy::{files, read, root};
use serde_json::Value;

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn ours(package: &Value, kind: Option<&str>) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap();
    let named = dependencies
        .iter()
        .filter(|d| d["kind"].as_str() == kind)
        .filter_map(|d| d["name"].as_str());
    named
        .filter(|name| name.starts_with("roomcast-"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn services_never_import_each_other() {
    let allowed: [(&str, &[&str]); 20] = [
        (
            "roomcast-faults",
            &["roomcast-chassis", "roomcast-harness", "roomcast-proto"],
        ),
        ("roomcast-proto", &[]),
        ("roomcast-chassis", &[]),
        ("roomcast-access", &["roomcast-proto"]),
        ("roomcast-cel", &[]),
        (
            "roomcast-capture",
            &["roomcast-proto", "roomcast-access", "roomcast-cel"],
        ),
        (
            "roomcast-issuers",
            &["roomcast-proto", "roomcast-access", "roomcast-chassis"],
        ),
        (
            "roomcast-admin",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-chassis",
                "roomcast-issuers",
            ],
        ),
        (
            "roomcast-rights",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-admin",
                "roomcast-chassis",
            ],
        ),
        ("roomcast-schemas", &["roomcast-proto", "roomcast-access"]),
        (
            "roomcast-sinks",
            &["roomcast-proto", "roomcast-access", "roomcast-chassis"],
        ),
        (
            "roomcast-ingest",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-admin",
                "roomcast-capture",
                "roomcast-chassis",
                "roomcast-issuers",
                "roomcast-rights",
                "roomcast-schemas",
                "roomcast-sinks",
            ],
        ),
        (
            "roomcast-metrics-aggregator",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-admin",
                "roomcast-cel",
                "roomcast-chassis",
                "roomcast-schemas",
            ],
        ),
        (
            "roomcast-edge-gateway",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-admin",
                "roomcast-chassis",
                "roomcast-issuers",
                "roomcast-rights",
            ],
        ),
        (
            "roomcast-cli",
            &[
                "roomcast-proto",
                "roomcast-access",
                "roomcast-capture",
                "roomcast-chassis",
                "roomcast-schemas",
            ],
        ),
        ("roomcast-harness", &["roomcast-proto"]),
        (
            "roomcast-load",
            &[
                "roomcast-proto",
                "roomcast-chassis",
                "roomcast-harness",
                "roomcast-metrics-aggregator",
            ],
        ),
        ("roomcast-e2e", &[]),
        (
            "roomcast-fuzz",
            &["roomcast-proto", "roomcast-access", "roomcast-edge-gateway"],
        ),
        ("roomcast-tidy", &[]),
    ];
    let packages = packages();
    assert_eq!(packages.len(), allowed.len(), "a new crate needs a line here");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let (_, may) = allowed
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name}"));
        for dependency in ours(package, None) {
            assert!(may.contains(&dependency.as_str()), "{name} imports {dependency}");
        }
    }
}

/// Crates that generated code names.
const USED_WITHOUT_NAME: [&str; 1] = ["prost"];

#[test]
fn every_declared_dependency_is_used() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let manifest = package["manifest_path"].as_str().unwrap();
        let folder = manifest.strip_suffix("/Cargo.toml").unwrap();
        let folder = folder.strip_prefix(&format!("{}/", root().display())).unwrap();
        let sources: String = files(folder, ".rs").into_iter().map(|f| f.text).collect();
        for dependency in package["dependencies"].as_array().unwrap() {
            let crate_name = dependency["name"].as_str().unwrap().replace('-', "_");
            let used = sources.contains(&format!("{crate_name}::"))
                || sources.contains(&format!("use {crate_name};"));
            assert!(
                used || USED_WITHOUT_NAME.contains(&crate_name.as_str()),
                "{name} does not use {crate_name}"
            );
        }
    }
}

#[test]
fn every_workspace_dependency_is_wanted_and_has_its_reason() {
    let manifest = read("Cargo.toml");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let members: String = packages()
        .iter()
        .map(|p| std::fs::read_to_string(p["manifest_path"].as_str().unwrap()).unwrap())
        .collect();
    let mut commented = false;
    for line in section.lines() {
        if line.starts_with('#') {
            commented = true;
        } else if let Some((name, _)) = line.split_once(" = ") {
            assert!(
                commented || name.starts_with("roomcast-"),
                "{name} stands in a group without a reason"
            );
            let wanted = members.contains(&format!("{name}.workspace"))
                || members.contains(&format!("{name} = {{ workspace"));
            assert!(wanted, "{name} is wanted by nobody");
        } else {
            commented = false;
        }
    }
}

#[test]
fn banned_crates_stay_out_of_the_build() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--offline",
            "--prefix",
            "none",
            "--edges",
            "normal,build,dev",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(built.contains("tokio"), "the tree was read");
    for banned in [
        "openssl-sys",
        "ring",
        "rsa",
        "serde_yaml",
        "serde_yml",
        "evalexpr",
        "jwks-cache",
        "figment",
    ] {
        assert!(!built.contains(banned), "{banned} is in the build");
    }
}
