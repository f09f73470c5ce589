//! What an operator may set, and the two files the settings name.

use std::io::Write;
use std::path::{Path, PathBuf};

use roomcast_access::Policy;
use roomcast_admin::AdminSettings;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;
use roomcast_schemas::folder;

use crate::admin::Against;
use crate::definition::Definitions;

/// The largest file that is read; a wrong path may be a disk.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The settings of the aggregator, besides those every service has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ROOMCAST_METRICS_FILE`
    pub metrics_file: PathBuf,
    /// `ROOMCAST_POLICY_FILE`: only to check that audiences exist.
    pub policy_file: Option<PathBuf>,
    /// `ROOMCAST_SCHEMAS_DIR`: only to check what metrics say about the data of events.
    pub schemas_dir: Option<PathBuf>,
    /// `ROOMCAST_ADMIN_…`: who may enter the admin port.
    pub admin: AdminSettings,
    /// `ROOMCAST_INSTANCE`: the name under which leases are held.
    pub instance: Option<String>,
}

impl Settings {
    /// Reads them all; mistakes are collected by the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let settings = Self {
            metrics_file: reader.path(
                "ROOMCAST_METRICS_FILE",
                "The metric definitions (metrics.yaml). Changes are put in force at once; what they do not concern goes on.",
            ),
            policy_file: reader.optional_path(
                "ROOMCAST_POLICY_FILE",
                "The policy; with it, audiences of metrics are checked. Not needed otherwise.",
            ),
            schemas_dir: reader.optional_path(
                "ROOMCAST_SCHEMAS_DIR",
                "The schemas of events; with them, fields and comparisons of metrics are checked. Not needed otherwise.",
            ),
            admin: AdminSettings::read(reader),
            instance: reader.optional_text(
                "ROOMCAST_INSTANCE",
                "Name of this instance, unique among the aggregators; one that comes back under its name goes on at once. Not set: host and admin port.",
            ),
        };
        if settings.instance.as_ref().is_some_and(|name| name.len() > 128) {
            reader.mistake("ROOMCAST_INSTANCE", "at most 128 bytes");
        }
        settings
    }

    /// Reads the files the settings name, offline: what `--check-config` does.
    ///
    /// # Errors
    /// Exit code 65 with every mistake as `file:line:column`.
    pub fn check(&self) -> Result<(), Failure> {
        self.admin.check()?;
        for warning in self.definitions()?.warnings {
            // Beside the answer, which is that all is right.
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
        Ok(())
    }

    /// Reads the definitions.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn definitions(&self) -> Result<Definitions, Failure> {
        self.parse(&self.text()?)
    }

    /// Reads the text of the definitions.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn text(&self) -> Result<String, Failure> {
        read(&self.metrics_file)
    }

    /// Reads definitions from their text.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn parse(&self, text: &str) -> Result<Definitions, Failure> {
        let against = self.against()?;
        let file = self.metrics_file.display().to_string();
        Definitions::parse_with(text, &file, against.policy.as_ref(), against.schemas.as_ref()).map_err(lines)
    }

    /// Reads what definitions are checked against.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn against(&self) -> Result<Against, Failure> {
        let policy = match &self.policy_file {
            Some(path) => Some(Policy::parse(&read(path)?, &path.display().to_string()).map_err(lines)?),
            None => None,
        };
        let schemas = match &self.schemas_dir {
            Some(path) => Some(folder::load(path).map_err(lines)?),
            None => None,
        };
        Ok(Against { policy, schemas })
    }
}

fn lines(mistakes: Vec<roomcast_access::Mistake>) -> Failure {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Failure::file(lines.join("\n"))
}

fn read(path: &Path) -> Result<String, Failure> {
    let fail = |reason: String| Failure::file(format!("{}:1:1: {reason}", path.display()));
    let size = std::fs::metadata(path)
        .map_err(|error| fail(error.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(fail(format!("{size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}
