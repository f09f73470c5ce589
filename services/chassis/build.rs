//! Puts the commit into release builds.
//!
//! `ROOMCAST_COMMIT` wins (images are built without a repository). Otherwise a release build reads git; a
//! development build says `development`, because following HEAD would rebuild every service at each commit and
//! a hash that is not followed would be a lie. Never fails: outside git the commit is `unknown`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=ROOMCAST_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let given = std::env::var("ROOMCAST_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match given {
        Some(commit) => commit,
        None if release => {
            println!("cargo:rerun-if-changed=../../.git/HEAD");
            println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
            from_git().unwrap_or_else(|| "unknown".to_owned())
        }
        None => "development".to_owned(),
    };
    println!("cargo:rustc-env=ROOMCAST_BUILD_COMMIT={commit}");
}

fn from_git() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
