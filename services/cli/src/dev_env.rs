//! `.roomcast/dev.env`: where a development system is and how to speak to it. `dev` writes it, example publishers read it.
//!
//! One `NAME=value` per line, values without blanks or quotes, so that a shell can source it and ten lines of any language read it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use roomcast_chassis::process::Failure;

/// Where it lies, from the working directory.
pub(crate) const PATH: &str = ".roomcast/dev.env";

/// HTTP address of a gateway.
pub(crate) const GATEWAY: &str = "ROOMCAST_GATEWAY";
/// HTTP address of an ingest.
pub(crate) const INGEST: &str = "ROOMCAST_INGEST";
/// A publisher's token.
pub(crate) const TOKEN: &str = "ROOMCAST_TOKEN";
/// A reader's token.
pub(crate) const VIEWER_TOKEN: &str = "ROOMCAST_VIEWER_TOKEN";
/// An administrator's token.
pub(crate) const ADMIN_TOKEN: &str = "ROOMCAST_ADMIN_TOKEN";
/// Addresses of all admin ports, separated by commas.
pub(crate) const ADMIN: &str = "ROOMCAST_ADMIN";
/// Address of NATS.
pub(crate) const NATS: &str = "ROOMCAST_NATS";
/// A publisher's NATS user.
pub(crate) const NATS_USER: &str = "ROOMCAST_NATS_PUBLISHER_USER";
/// Its password.
pub(crate) const NATS_PASSWORD: &str = "ROOMCAST_NATS_PUBLISHER_PASSWORD";
/// Its inbox prefix.
pub(crate) const NATS_INBOX: &str = "ROOMCAST_NATS_PUBLISHER_INBOX";
/// The NATS user of a backend, which carries out commands.
pub(crate) const NATS_BACKEND_USER: &str = "ROOMCAST_NATS_BACKEND_USER";
/// Its password.
pub(crate) const NATS_BACKEND_PASSWORD: &str = "ROOMCAST_NATS_BACKEND_PASSWORD";

/// The NATS user that may read streams and nothing else.
pub(crate) const NATS_READER_USER: &str = "ROOMCAST_NATS_READER_USER";
/// Its password.
pub(crate) const NATS_READER_PASSWORD: &str = "ROOMCAST_NATS_READER_PASSWORD";

/// Largest file read: ours has about two kilobytes.
const BYTES_MAX: usize = 64 * 1024;

/// What the file says, overridden name by name by the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DevEnv {
    values: BTreeMap<String, String>,
}

impl DevEnv {
    /// Reads the file of the working directory; without one, only the environment counts.
    ///
    /// # Errors
    /// Exit 65 when there is a file that cannot be used.
    pub(crate) fn load() -> Result<Self, Failure> {
        match std::fs::read(PATH) {
            Ok(bytes) if bytes.len() <= BYTES_MAX => Self::parse(&String::from_utf8_lossy(&bytes)),
            Ok(_) => Err(Failure::file(format!(
                "{PATH}: larger than 64 KiB, so it is not ours"
            ))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::file(format!("{PATH}: {error}"))),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
                return Err(Failure::file(format!(
                    "{PATH}:{}:1: expected NAME=value",
                    index + 1
                )));
            };
            values.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Self { values })
    }

    /// The value of a name: from the environment, else from the file.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let set = std::env::var(name).ok().filter(|value| !value.is_empty());
        set.or_else(|| self.values.get(name).cloned())
    }

    /// The value of a name that must be there.
    ///
    /// # Errors
    /// Exit 69 with where it usually comes from.
    pub(crate) fn require(&self, name: &str) -> Result<String, Failure> {
        self.get(name).ok_or_else(|| {
            Failure::unavailable(format!(
                "{name} is neither set nor in {PATH}; run this where `roomcast dev` runs, or set it"
            ))
        })
    }

    /// Adds or replaces a value.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    fn render(&self) -> String {
        let mut text =
            "# Written by `roomcast dev`, removed when it ends. Holds secrets of this machine only.\n"
                .to_owned();
        for (name, value) in &self.values {
            text.push_str(&format!("{name}={value}\n"));
        }
        text
    }
}

/// The file while `dev` runs; removed on drop, unless somebody else has written it since.
#[derive(Debug)]
pub(crate) struct Written {
    path: PathBuf,
    content: String,
}

impl Written {
    /// Writes it under `folder` with mode 0600, in one step: a reader sees the old file or the new one.
    ///
    /// # Errors
    /// Exit 69 when the folder cannot be written.
    pub(crate) fn new(folder: &Path, env: &DevEnv) -> Result<Self, Failure> {
        let path = folder.join(PATH);
        let content = env.render();
        write_private(&path, content.as_bytes())
            .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
        Ok(Self { path, content })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces what it says.
    ///
    /// # Errors
    /// As [`Written::new`].
    pub(crate) fn replace(&mut self, env: &DevEnv) -> Result<(), Failure> {
        self.content = env.render();
        write_private(&self.path, self.content.as_bytes())
            .map_err(|error| Failure::unavailable(format!("{}: {error}", self.path.display())))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if std::fs::read(&self.path).is_ok_and(|found| found == self.content.as_bytes()) {
            let _ = std::fs::remove_file(&self.path);
            // Only when it is empty: others may keep things there.
            let _ = self.path.parent().map(std::fs::remove_dir);
        }
    }
}

/// Writes a file that only its owner may read, in one step; folders on the way are made, for the owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _ = std::fs::remove_file(&draft);
    // create_new: never through a link that somebody else has put there, never with somebody else's mode.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(content)?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        let mut env = DevEnv::default();
        env.set(GATEWAY, "http://127.0.0.1:8080");
        env.set("ROOMCAST_X_TEST", "a=b");
        assert_eq!(DevEnv::parse(&env.render()), Ok(env.clone()));
        assert_eq!(env.get("ROOMCAST_X_TEST").as_deref(), Some("a=b"));
        assert_eq!(env.get("ROOMCAST_NOT_THERE"), None);
        let missing = env.require("ROOMCAST_NOT_THERE").unwrap_err();
        assert!(missing.message.contains("ROOMCAST_NOT_THERE"), "{missing}");
    }

    #[test]
    fn a_line_that_is_not_one_is_named() {
        let error = DevEnv::parse("# fine\n\nA=1\nnonsense\n").unwrap_err();
        assert!(error.message.starts_with(".roomcast/dev.env:4:1:"), "{error}");
        assert!(DevEnv::parse("=x").is_err());
    }

    #[test]
    fn the_file_is_private_and_goes_with_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let mut env = DevEnv::default();
        env.set("A", "1");
        let mut written = Written::new(folder.path(), &env).unwrap();
        let path = folder.path().join(PATH);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        env.set("A", "2");
        written.replace(&env).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("A=2\n"));
        drop(written);
        assert!(!path.exists());
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn a_file_that_somebody_else_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let written = Written::new(folder.path(), &DevEnv::default()).unwrap();
        std::fs::write(folder.path().join(PATH), "B=1\n").unwrap();
        drop(written);
        assert!(folder.path().join(PATH).exists());
    }
}
