//! Where the policy is.

use std::path::{Path, PathBuf};

use roomcast_access::Policy;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;

/// Largest policy that is read, bytes. A bucket's value is smaller still.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// `ROOMCAST_POLICY_FILE`.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// The file. Followed while the service runs; the key `policy` of the `cfg` bucket, where there is one, takes its place.
    pub file: PathBuf,
}

impl PolicySettings {
    /// Reads them.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            file: reader.path(
                "ROOMCAST_POLICY_FILE",
                "The policy: roles, permissions, rooms (policy.yaml). Changes are put in force at once; the key \
                 `policy` of the bucket `cfg` takes its place.",
            ),
        }
    }

    /// Reads the policy offline.
    ///
    /// # Errors
    /// Exit code 65 with every mistake as `file:line:column`.
    pub fn load(&self) -> Result<Policy, Failure> {
        let name = self.file.display().to_string();
        let text = read(&self.file).map_err(|reason| Failure::file(format!("{name}:1:1: {reason}")))?;
        Policy::parse(&text, &name).map_err(|mistakes| Failure::file(lines(&mistakes)))
    }
}

/// The text of a file of bounded size.
///
/// # Errors
/// The reason, in words.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Mistakes, one a line.
pub(crate) fn lines(mistakes: &[roomcast_access::Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
