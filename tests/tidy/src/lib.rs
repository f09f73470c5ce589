//! Reads the repository as text, so that the rules we gave ourselves are tests and not intentions.

use std::path::{Path, PathBuf};

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().unwrap_or(here)
}

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// The lines of a Rust file that ship: without comments, and without what stands in `#[cfg(test)]` modules at its end.
    #[must_use]
    pub fn shipped(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            let code = line.split_once("//").map_or(line, |(code, _)| {
                // A URL in a string is no comment.
                if code.ends_with(':') { line } else { code }
            });
            if !code.trim().is_empty() {
                lines.push((number + 1, code.to_owned()));
            }
        }
        lines
    }
}

/// Files below a folder whose name ends so. What is built, fetched or hidden is left out.
#[must_use]
pub fn files(under: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(under), ending, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(dir: &Path, ending: &str, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "node_modules" | "dist" | "output")
                && !name.starts_with('.')
            {
                walk(&path, ending, found);
            }
        } else if name.ends_with(ending)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path
                .strip_prefix(root())
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// Rust files that ship: those of services and proto, without their tests.
#[must_use]
pub fn shipped_rust() -> Vec<Source> {
    let mut all = files("services", ".rs");
    all.extend(files("proto", ".rs"));
    all.retain(|f| f.path.contains("/src/") && !is_test_file(&f.path));
    all
}

/// Whether a file below `src` holds only tests.
#[must_use]
pub fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/")
        || path.contains("/simulation/")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
        || name.starts_with("test_")
}

/// The text of one file.
#[must_use]
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}
