//! Which policy, definitions and page a development system runs with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use roomcast_access::Policy;
use roomcast_chassis::process::Failure;
use roomcast_proto::ids::AUDIENCE_ALL;
use serde_json::{Map, Value, json};

use super::home::Home;
use crate::find;
use crate::scenario::Scenario;

/// In force when neither a scenario nor a policy is named: rooms to try things in.
const DEFAULT_POLICY: &str = include_str!("default/policy.yaml");
const DEFAULT_METRICS: &str = include_str!("default/metrics.yaml");

/// The files, checked as far as that can be done here.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) policy: PathBuf,
    /// The roles it knows.
    pub(crate) roles: Vec<String>,
    /// `None`: nothing is computed, and no aggregator runs.
    pub(crate) metrics: Option<PathBuf>,
    pub(crate) schemas: Option<PathBuf>,
    pub(crate) page: Option<Value>,
    /// The mapping of the scenario's database.
    pub(crate) capture: Option<PathBuf>,
    pub(crate) scenario: Option<Arc<Scenario>>,
}

/// What the command line names.
pub(crate) struct Named<'a> {
    pub(crate) scenario: Option<&'a str>,
    pub(crate) policy: Option<&'a Path>,
    pub(crate) metrics: Option<&'a Path>,
    pub(crate) schemas: Option<&'a Path>,
}

impl Files {
    /// Finds them; what is named wins over the scenario's, and that over the default.
    ///
    /// # Errors
    /// 64: there is no such scenario or folder. 65: every mistake in the policy or scenario.
    pub(crate) fn find(named: &Named<'_>, home: &Home) -> Result<Self, Failure> {
        let folder = named.scenario.map(find::scenario).transpose()?;
        let of_scenario = |name: &str| {
            folder
                .as_ref()
                .map(|folder| folder.join(name))
                .filter(|path| path.is_file())
        };
        let given = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let policy = named.policy.map(given).or_else(|| of_scenario("policy.yaml"));
        let metrics = named.metrics.map(given).or_else(|| of_scenario("metrics.yaml"));
        let (policy, metrics) = match (policy, metrics) {
            (Some(policy), metrics) => (policy, metrics),
            (None, Some(metrics)) => (home.write("policy.yaml", DEFAULT_POLICY)?, Some(metrics)),
            (None, None) => (
                home.write("policy.yaml", DEFAULT_POLICY)?,
                Some(home.write("metrics.yaml", DEFAULT_METRICS)?),
            ),
        };
        let roles = roles_of(&policy)?;
        let schemas = match named.schemas {
            Some(path) if !path.is_dir() => {
                return Err(Failure::settings(format!(
                    "--schemas: {} is not a folder",
                    path.display()
                )));
            }
            Some(path) => Some(given(path)),
            None => folder
                .as_ref()
                .map(|folder| folder.join("schemas"))
                .filter(|path| path.is_dir()),
        };
        let scenario = folder
            .as_ref()
            .map(|folder| Scenario::load(folder))
            .transpose()?
            .map(Arc::new);
        let page = of_scenario("page.json")
            .map(|path| read_page(&path))
            .transpose()?;
        Ok(Self {
            capture: of_scenario("capture.yaml"),
            policy,
            roles,
            metrics,
            schemas,
            page,
            scenario,
        })
    }

    /// What the tokens of development users say beside their roles: the scenario knows.
    pub(crate) fn claims(&self) -> Map<String, Value> {
        let claims = self.scenario.iter().flat_map(|scenario| scenario.claims());
        claims
            .map(|(name, values)| (name.clone(), json!(values)))
            .collect()
    }

    /// The page's settings with the addresses that are known only now, written where the gateways read them.
    ///
    /// # Errors
    /// 69: the file cannot be written.
    pub(crate) fn write_page(
        &self,
        home: &Home,
        ingest: &str,
        admin: &Value,
    ) -> Result<Option<PathBuf>, Failure> {
        let Some(Value::Object(mut page)) = self.page.clone() else {
            return Ok(None);
        };
        page.insert("ingest".to_owned(), json!(ingest));
        page.insert("admin".to_owned(), admin.clone());
        home.write("page.json", &Value::Object(page).to_string())
            .map(Some)
    }
}

fn read_page(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
    let page: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::file(format!(
            "{}:{}:{}: {error}",
            path.display(),
            error.line(),
            error.column()
        ))
    })?;
    if page.is_object() {
        Ok(page)
    } else {
        Err(Failure::file(format!(
            "{}:1:1: expected an object",
            path.display()
        )))
    }
}

/// Checked before anything starts, so that its mistakes do not hide in a service's log.
/// The roles of a policy that holds.
fn roles_of(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
    Policy::parse(&text, &path.to_string_lossy())
        .map(|policy| {
            let roles = policy.audiences().filter(|name| *name != AUDIENCE_ALL);
            roles.map(str::to_owned).collect()
        })
        .map_err(|mistakes| {
            Failure::file(
                mistakes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_with(scenario: Option<&str>, policy: Option<&Path>) -> Result<(Files, Home), Failure> {
        let home = Home::open(None).unwrap();
        let files = Files::find(
            &Named {
                scenario,
                policy,
                metrics: None,
                schemas: None,
            },
            &home,
        )?;
        Ok((files, home))
    }

    #[test]
    fn the_default_and_the_scenarios_are_good() {
        let (files, home) = find_with(None, None).unwrap();
        assert!(files.policy.starts_with(home.path()) && files.metrics.is_some() && files.scenario.is_none());
        assert_eq!(files.write_page(&home, "http://x", &json!({})).unwrap(), None);
        let (files, home) = find_with(Some("bookings"), None).unwrap();
        let admin = json!({ "gateway": ["http://127.0.0.1:9080"] });
        let page = files
            .write_page(&home, "http://127.0.0.1:8081", &admin)
            .unwrap()
            .unwrap();
        let page: Value = serde_json::from_str(&std::fs::read_to_string(page).unwrap()).unwrap();
        assert_eq!(
            (&page["ingest"], &page["scenario"], &page["admin"]),
            (&json!("http://127.0.0.1:8081"), &json!("bookings"), &admin)
        );
        assert!(files.scenario.is_some());
    }

    #[test]
    fn a_policy_alone_has_no_metrics_and_a_broken_one_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, DEFAULT_POLICY).unwrap();
        assert!(find_with(None, Some(&path)).unwrap().0.metrics.is_none());
        std::fs::write(&path, "version: 1\nrolls: {}\n").unwrap();
        let failure = find_with(None, Some(&path)).unwrap_err();
        assert!(failure.message.contains("policy.yaml:2:1"), "{failure}");
        assert_eq!(failure.exit as u8, 65);
    }
}
