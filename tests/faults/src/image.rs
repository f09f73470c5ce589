//! A file system of one node's own, in a file: it can lose power, and it can be full, and nothing else on the machine notices.
//!
//! The power cut is the file system's own shutdown without a flush of its log: what it has not handed to the device is gone. What a
//! disk does that lies about flushes is not modelled.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Size of an image: enough for a run's events and every stream's files, quickly full.
const BYTES: u64 = 192 << 20;
/// `FS_IOC_SHUTDOWN` with `NOLOGFLUSH`, on the path given. Python, because no Rust here is unsafe.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

/// An ext4 file system on a loop device, mounted; unmounted with the value.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {said}",
        arguments.join(" ")
    );
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

impl Image {
    /// Makes one in `dir` and mounts it.
    ///
    /// # Errors
    /// Where this machine does not let us: not root, no loop devices, no ext4.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let (file, at) = (dir.join("image"), dir.join("mounted"));
        std::fs::create_dir_all(&at)?;
        std::fs::File::create(&file)?.set_len(BYTES)?;
        run("mkfs.ext4", &["-q", text(&file)])?;
        let image = Self { file, at };
        image.mount()?;
        Ok(image)
    }

    /// Whether this machine can do all that is done with images; else why not.
    ///
    /// # Errors
    /// The reason.
    pub fn can() -> anyhow::Result<()> {
        let dir = roomcast_harness::folder();
        let mut image = Self::new(dir.path())?;
        std::fs::write(image.path().join("x"), "x")?;
        image.cut()?;
        ensure!(
            std::fs::write(image.path().join("y"), "y").is_err(),
            "the file system takes writes after its power was cut"
        );
        image.power_on()?;
        image.fill()?;
        image.empty()
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "loop", text(&self.file), text(&self.at)])
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts its power: from here on nothing reaches it, and what it had not written is lost. Every file on it is broken until
    /// [`Image::power_on`].
    ///
    /// # Errors
    /// Where the file system does not take the call.
    pub fn cut(&mut self) -> anyhow::Result<()> {
        run("python3", &["-c", SHUTDOWN, text(&self.at)])
    }

    /// Mounts it again, as after a power cut. Nobody may have a file of it open.
    ///
    /// # Errors
    /// Where it cannot be mounted.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        run("umount", &[text(&self.at)])?;
        self.mount()
    }

    /// Fills it to the last block; again, when something has made room meanwhile.
    ///
    /// # Errors
    /// Where it cannot be written to at all.
    pub fn fill(&self) -> anyhow::Result<()> {
        let filler = self.at.join("filler");
        // In ever smaller pieces, until nothing fits.
        for bytes in ["1M", "64K", "4K"] {
            let script = "while dd if=/dev/zero of=\"$1\" bs=$2 count=1 oflag=append conv=notrunc status=none 2>/dev/null; do :; done";
            run("sh", &["-c", script, "fill", text(&filler), bytes])?;
        }
        Ok(())
    }

    /// Makes the room again that [`Image::fill`] took.
    ///
    /// # Errors
    /// Where the file cannot be removed.
    pub fn empty(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.at.join("filler"))?)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazy: a server that is being killed may hold it a moment longer.
        let _ = run("umount", &["-l", text(&self.at)]);
    }
}
