//! The folder a development system keeps its state in: streams, keys, passwords.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use roomcast_chassis::process::Failure;

use crate::dev_env::write_private;
use crate::token;

/// The folder, held while `dev` runs.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    temporary: bool,
    /// Two systems over one store would ruin it.
    _lock: File,
}

impl Home {
    /// Uses `given`, or makes a temporary folder that is removed at the end.
    ///
    /// # Errors
    /// 69: it cannot be made, or another `dev` uses it.
    pub(crate) fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match given {
            Some(given) => std::path::absolute(given).unwrap_or_else(|_| given.to_owned()),
            None => std::env::temp_dir().join(format!(
                "roomcast-dev-{}-{:08x}",
                std::process::id(),
                fastrand::u32(..)
            )),
        };
        let failed =
            |error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", path.display()));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| failed(&error))?;
        let lock = File::create(path.join("lock")).map_err(|error| failed(&error))?;
        lock.try_lock()
            .map_err(|_| failed(&"another roomcast dev uses this folder"))?;
        Ok(Self {
            path,
            temporary: given.is_none(),
            _lock: lock,
        })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in it that only its owner may read.
    ///
    /// # Errors
    /// 69.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        write_private(&path, content.as_bytes())
            .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// The key pair tokens are signed and checked with: (private key, public keys). Made once per folder, so that pages that are open
    /// stay signed in over a restart.
    ///
    /// # Errors
    /// 69 or 70.
    pub(crate) fn keys(&self) -> Result<(PathBuf, PathBuf), Failure> {
        self.pair("keys/signing.pem", "keys/jwks.json")
    }

    /// The same for admin tokens: another pair, so that neither kind of token could ever pass for the other.
    ///
    /// # Errors
    /// As [`Home::keys`].
    pub(crate) fn admin_keys(&self) -> Result<(PathBuf, PathBuf), Failure> {
        self.pair("keys/admin.pem", "keys/admin-jwks.json")
    }

    fn pair(&self, private: &str, public: &str) -> Result<(PathBuf, PathBuf), Failure> {
        let paths = (self.path.join(private), self.path.join(public));
        if paths.0.is_file() && paths.1.is_file() {
            return Ok(paths);
        }
        let (pem, jwks) = token::development_keys()?;
        Ok((self.write(private, &pem)?, self.write(public, &jwks)?))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_and_a_given_one_stays() {
        let temporary = Home::open(None).unwrap();
        let path = temporary.path().to_owned();
        temporary.write("a/b", "x").unwrap();
        drop(temporary);
        assert!(!path.exists());

        let folder = tempfile::tempdir().unwrap();
        let given = Home::open(Some(folder.path())).unwrap();
        let keys = given.keys().unwrap();
        let pem = std::fs::read(&keys.0).unwrap();
        let second = Home::open(Some(folder.path())).unwrap_err();
        assert!(second.message.contains("another roomcast dev"), "{second}");
        drop(given);
        let again = Home::open(Some(folder.path())).unwrap();
        assert_eq!(std::fs::read(again.keys().unwrap().0).unwrap(), pem);
        assert_ne!(std::fs::read(again.admin_keys().unwrap().0).unwrap(), pem);
    }
}
