//! A file as it is to be: whole beside the one whose place it takes, so that whoever reads that one never sees half of it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use roomcast_chassis::process::Failure;

/// What will take a file's place, with the same owner and rights; it goes away unless it does.
#[derive(Debug)]
pub(super) struct Next {
    /// The file itself, where a link was named.
    path: PathBuf,
    beside: PathBuf,
    placed: bool,
}

impl Next {
    /// Writes it; nothing is replaced yet.
    ///
    /// # Errors
    /// 69: it cannot be written, or could not belong to whom the file belongs, so that a service could no longer read it.
    pub(super) fn write(path: &Path, text: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
        let path = path.canonicalize().map_err(failed)?;
        let now = path.metadata().map_err(failed)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".next");
        let beside = PathBuf::from(beside);
        // One that was left by a process that was killed.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed)?;
        let next = Self {
            path,
            beside,
            placed: false,
        };
        next.fill(&file, text, &now)?;
        Ok(next)
    }

    fn fill(&self, mut file: &File, text: &str, now: &Metadata) -> Result<(), Failure> {
        let path = self.path.display();
        let failed = |error: std::io::Error| Failure::unavailable(format!("{path}: {error}"));
        let (owner, group) = (now.uid(), now.gid());
        fchown(file, Some(owner), Some(group)).map_err(|error| {
            Failure::unavailable(format!(
                "{path} belongs to user {owner} and group {group}, and what takes its place would not ({error}): nothing was changed; run \
                 this as that user or as root"
            ))
        })?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.set_permissions(now.permissions()).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Puts it in the place of the other, at once.
    ///
    /// # Errors
    /// 69: the other stays.
    pub(super) fn place(mut self) -> Result<(), Failure> {
        let placed = std::fs::rename(&self.beside, &self.path);
        placed.map_err(|error| Failure::unavailable(format!("{}: {error}", self.path.display())))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be taken away is by the next one.
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
