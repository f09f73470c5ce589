//! `roomcast check`: what operators write, checked without starting anything.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use roomcast_access::Policy;
use roomcast_capture::Mapping;
use roomcast_capture::checks::judge;
use roomcast_capture::database::Database;
use roomcast_capture::session::Session;
use roomcast_chassis::process::Failure;
use serde_json::json;
use tokio::process::Command;

use crate::find;
use crate::scenario::Scenario;
use crate::terminal::{Colour, Stream, print};

/// Checks files: every mistake as file:line:column, and exit code 65 if there is one.
///
/// Without a flag, checks the policy, the metric definitions, the mapping of a database, the schemas and the scenario in the working directory, those that are there. Metric
/// definitions are the aggregator's: its binary is asked (roomcast-metrics-aggregator --check-config), with the policy if there is
/// one, so that audiences are checked too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast check --policy policy.yaml --metrics metrics.yaml\n  \
    roomcast check --scenario bookings\n  \
    roomcast check --capture capture.yaml --database postgres://capture:secret@db/shop\n  \
    roomcast check --policy policy.yaml --json")]
pub(crate) struct Options {
    /// A policy.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Metric definitions.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// A mapping of a database's tables to events (capture.yaml).
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Also ask this database (postgres://user:password@host/database) whether it is as the mapping needs it: what is not says what to run.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "ROOMCAST_CAPTURE_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
    /// A folder of schemas.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// A scenario, by name or folder: its scenario.yaml, policy.yaml, metrics.yaml and schemas.
    #[arg(long, value_name = "NAME|DIR")]
    scenario: Option<String>,
    /// Print one JSON object {"files":[{"file","mistakes":[…],"warnings":[…]}]}.
    #[arg(long)]
    json: bool,
}

/// A file and what is wrong in it, a line each.
struct Checked {
    file: PathBuf,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

/// Checks.
///
/// # Errors
/// 64: nothing to check. 65: a mistake. 69: the aggregator's binary is not here.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let named = [
        &options.policy,
        &options.metrics,
        &options.capture,
        &options.schemas,
    ];
    let folder = match &options.scenario {
        Some(name) => Some(find::scenario(name)?),
        None if named.iter().all(|path| path.is_none()) => Some(PathBuf::from(".")),
        None => None,
    };
    let lying = |name: &str| {
        folder
            .as_ref()
            .map(|folder| folder.join(name))
            .filter(|path| path.is_file())
    };
    let policy = options.policy.clone().or_else(|| lying("policy.yaml"));
    let metrics = options.metrics.clone().or_else(|| lying("metrics.yaml"));
    let capture = options.capture.clone().or_else(|| lying("capture.yaml"));
    let scenario = lying("scenario.yaml");
    let schemas = folder.as_ref().map(|folder| folder.join("schemas"));
    let schemas = options.schemas.clone().or(schemas.filter(|path| path.is_dir()));
    let mut checked = Vec::new();
    // A policy or schemas with mistakes are told about themselves, and nothing is compared with them.
    let mut sound_policy = None;
    if let Some(path) = &policy {
        let mistakes = policy_mistakes(path);
        sound_policy = Some(path.as_path()).filter(|_| mistakes.is_empty());
        checked.push(Checked {
            file: path.clone(),
            mistakes,
            warnings: Vec::new(),
        });
    }
    if let Some(path) = &metrics {
        let sound = schemas
            .as_deref()
            .filter(|path| roomcast_schemas::folder::load(path).is_ok());
        let (mistakes, warnings) = match metrics_checked(path, sound_policy, sound).await? {
            Ok(warnings) => (Vec::new(), warnings),
            Err(mistakes) => (mistakes, Vec::new()),
        };
        checked.push(Checked {
            file: path.clone(),
            mistakes,
            warnings,
        });
    }
    if let Some(path) = &capture {
        checked.push(Checked {
            file: path.clone(),
            mistakes: mapping_mistakes(path, sound_policy, options.database.as_deref()).await?,
            warnings: Vec::new(),
        });
    }
    if let Some(path) = schemas {
        let found = roomcast_schemas::folder::load(&path).err().unwrap_or_default();
        checked.push(Checked {
            file: path,
            mistakes: found.iter().map(ToString::to_string).collect(),
            warnings: Vec::new(),
        });
    }
    if let Some(path) = scenario {
        let found = path.parent().and_then(|folder| Scenario::load(folder).err());
        checked.push(Checked {
            file: path,
            mistakes: found.map(|failure| failure.message).into_iter().collect(),
            warnings: Vec::new(),
        });
    }
    if checked.is_empty() {
        return Err(Failure::settings(
            "nothing to check here; name files with --policy, --metrics, --schemas or --scenario",
        ));
    }
    report(&checked, options.json);
    if checked.iter().all(|file| file.mistakes.is_empty()) {
        Ok(())
    } else {
        Err(Failure::file(""))
    }
}

fn policy_mistakes(path: &Path) -> Vec<String> {
    let name = path.to_string_lossy();
    match std::fs::read_to_string(path) {
        Ok(text) => Policy::parse(&text, &name)
            .err()
            .into_iter()
            .flatten()
            .map(|mistake| mistake.to_string())
            .collect(),
        Err(error) => vec![format!("{name}: {error}")],
    }
}

/// Mistakes in the file; where there are none and a database is given, what is wrong there.
///
/// # Errors
/// 64: not an address. 69: the database cannot be asked.
async fn mapping_mistakes(
    path: &Path,
    policy: Option<&Path>,
    database: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let name = path.to_string_lossy();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Ok(vec![format!("{name}: {error}")]),
    };
    let policy = policy.and_then(|path| Policy::parse(&std::fs::read_to_string(path).ok()?, "policy").ok());
    let mapping = match Mapping::parse(&text, &name, policy.as_ref()) {
        Ok(mapping) => mapping,
        Err(mistakes) => return Ok(mistakes.iter().map(ToString::to_string).collect()),
    };
    let Some(address) = database else {
        return Ok(Vec::new());
    };
    let database = Database::parse(address).map_err(|bad| Failure::settings(format!("--database: {bad}")))?;
    let asked = async {
        let mut session = Session::open(&database, &mapping).await?;
        session.facts(&mapping).await
    };
    let facts = asked
        .await
        .map_err(|error| Failure::unavailable(error.to_string()))?;
    let problems = judge(&mapping, &facts);
    Ok(problems
        .iter()
        .map(|problem| match problem.at.line {
            0 => format!("{name}: {}; to mend it: {}", problem.what, problem.run),
            line => format!(
                "{name}:{line}:{}: {}; to mend it: {}",
                problem.at.column, problem.what, problem.run
            ),
        })
        .collect())
}

/// Asks the aggregator: what it warns of where all is right, else the mistakes.
///
/// # Errors
/// 69: there is no aggregator to ask, or it finds fault with something else than the file.
pub(crate) async fn metrics_checked(
    metrics: &Path,
    policy: Option<&Path>,
    schemas: Option<&Path>,
) -> Result<Result<Vec<String>, Vec<String>>, Failure> {
    let aggregator = find::service("roomcast-metrics-aggregator")?;
    let mut command = Command::new(&aggregator);
    command
        .arg("--check-config")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOMCAST_")) {
        command.env_remove(name);
    }
    command.env("ROOMCAST_METRICS_FILE", metrics);
    if let Some(policy) = policy {
        command.env("ROOMCAST_POLICY_FILE", policy);
    }
    if let Some(schemas) = schemas {
        command.env("ROOMCAST_SCHEMAS_DIR", schemas);
    }
    let failed =
        |error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", aggregator.display()));
    let output = command.output().await.map_err(|error| failed(&error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.lines().map(|line| {
        line.strip_prefix("roomcast-metrics-aggregator: ")
            .unwrap_or(line)
            .trim()
            .to_owned()
    });
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    match output.status.code() {
        Some(0) => {
            let warnings = lines.iter().filter_map(|line| line.strip_prefix("warning: "));
            Ok(Ok(warnings.map(str::to_owned).collect()))
        }
        Some(65) => Ok(Err(lines)),
        _ => Err(failed(&lines.join("\n"))),
    }
}

fn report(checked: &[Checked], json: bool) {
    if json {
        let files = checked
            .iter()
            .map(|found| json!({ "file": found.file.to_string_lossy(), "mistakes": found.mistakes, "warnings": found.warnings }));
        print(&json!({ "files": files.collect::<Vec<_>>() }).to_string());
        return;
    }
    for found in checked {
        if found.mistakes.is_empty() {
            print(&format!(
                "{} {}",
                Stream::Out.paint(Colour::Green, "good"),
                found.file.display()
            ));
        }
        for warning in &found.warnings {
            print(&format!(
                "{} {warning}",
                Stream::Out.paint(Colour::Yellow, "look at")
            ));
        }
        for mistake in &found.mistakes {
            print(&format!("{} {mistake}", Stream::Out.paint(Colour::Red, "wrong")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_a_policy_have_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "version: 1\nroles:\n  user: { permisions: [a] }\n").unwrap();
        let mistakes = policy_mistakes(&path);
        assert!(
            mistakes
                .iter()
                .any(|mistake| mistake.contains("policy.yaml:3:11:")),
            "{mistakes:?}"
        );
        assert_eq!(policy_mistakes(&folder.path().join("absent.yaml")).len(), 1);
        let good = find::scenario("bookings").unwrap().join("policy.yaml");
        assert_eq!(policy_mistakes(&good), Vec::<String>::new());
    }
}
