//! Which database is followed, and by which mapping.

use std::path::PathBuf;

use roomcast_access::Policy;
use roomcast_capture::Mapping;
use roomcast_capture::database::Database;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;

/// `ROOMCAST_CAPTURE_…`
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// `ROOMCAST_CAPTURE_FILE`: which tables' changes become which events.
    pub file: PathBuf,
    /// `ROOMCAST_CAPTURE_DATABASE`, with its password.
    pub database: Database,
}

impl CaptureSettings {
    /// Reads them; `None` where no database is followed.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let file = reader.optional_path(
            "ROOMCAST_CAPTURE_FILE",
            "Mapping file (capture.yaml): which tables of a PostgreSQL database become which events. None: no database is followed.",
        );
        let address = reader.secret(
            "ROOMCAST_CAPTURE_DATABASE",
            "ROOMCAST_CAPTURE_DATABASE_FILE",
            "The database of the mapping file: postgres://user:password@host:5432/database?sslmode=verify-full; the user needs REPLICATION.",
        );
        let database = match (&address, &file) {
            (None, None) => return None,
            (Some(_), None) => {
                reader.mistake(
                    "ROOMCAST_CAPTURE_FILE",
                    "a mapping file for ROOMCAST_CAPTURE_DATABASE",
                );
                return None;
            }
            (None, Some(_)) => {
                reader.mistake(
                    "ROOMCAST_CAPTURE_DATABASE",
                    "the address of the database to follow",
                );
                return None;
            }
            (Some(address), Some(_)) => Database::parse(address.expose()),
        };
        match database {
            Ok(database) => file.map(|file| Self { file, database }),
            Err(bad) => {
                reader.mistake("ROOMCAST_CAPTURE_DATABASE", bad.to_string());
                None
            }
        }
    }

    /// Reads the mapping file.
    ///
    /// # Errors
    /// Exit code 65 with every mistake as `file:line:column`.
    pub fn load(&self, policy: &Policy) -> Result<Mapping, Failure> {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::file(format!("{name}:1:1: {error}")))?;
        Mapping::parse(&text, &name, Some(policy)).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Failure::file(lines.join("\n"))
        })
    }
}
