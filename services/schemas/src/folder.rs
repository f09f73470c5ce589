//! The files of a folder: every `*.json` is a schema.

use std::path::Path;

use roomcast_access::Mistake;

use crate::{Catalog, Schema};

/// Most files in a folder.
pub const FILES_MAX: usize = 1_000;
/// Largest file in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most bytes of all files together.
pub const FOLDER_BYTES_MAX: u64 = 8 << 20;

/// What stands in a folder: name and text of each file, by name.
pub type Files = Vec<(String, String)>;

/// Reads the files. Costs a few system calls per file.
///
/// # Errors
/// The first that cannot be read, with its name and why; too many, or too much.
pub fn read(folder: &Path) -> Result<Files, Mistake> {
    let listed = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error.to_string()))?;
    let mut paths = Vec::new();
    for entry in listed {
        let path = entry
            .map_err(|error| unreadable(folder, &error.to_string()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        let words = format!("{} schemas, at most {FILES_MAX} are read", paths.len());
        return Err(unreadable(folder, &words));
    }
    paths.sort();
    let mut left = FOLDER_BYTES_MAX;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let failed = |error: &std::io::Error| unreadable(&path, &error.to_string());
        let bytes = std::fs::metadata(&path).map_err(|error| failed(&error))?.len();
        if bytes > FILE_BYTES_MAX {
            let words = format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read");
            return Err(unreadable(&path, &words));
        }
        left = left
            .checked_sub(bytes)
            .ok_or_else(|| unreadable(folder, &format!("more than {FOLDER_BYTES_MAX} bytes of schemas")))?;
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        files.push((path.to_string_lossy().into_owned(), text));
    }
    Ok(files)
}

/// Understands them.
///
/// # Errors
/// The mistakes of all files.
pub fn parse(files: &Files) -> Result<Catalog, Vec<Mistake>> {
    let (mut schemas, mut mistakes) = (Vec::new(), Vec::new());
    for (name, text) in files {
        match Schema::parse(name, text) {
            Ok(schema) => schemas.push(schema),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() {
        Catalog::new(schemas)
    } else {
        Err(mistakes)
    }
}

/// Reads and understands a folder.
///
/// # Errors
/// As [`read`] and [`parse`].
pub fn load(folder: &Path) -> Result<Catalog, Vec<Mistake>> {
    parse(&read(folder).map_err(|mistake| vec![mistake])?)
}

fn unreadable(path: &Path, why: &str) -> Mistake {
    Mistake {
        file: path.to_string_lossy().into_owned(),
        line: 0,
        column: 0,
        message: why.to_owned(),
        suggestion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_by_name_and_within_its_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(load(folder.path()).unwrap().len(), 0);
        write("b.json", r#"{"x-roomcast-type":"b"}"#);
        write("a.json", r#"{"x-roomcast-type":"a"}"#);
        write("notes.txt", "not a schema");
        let files = read(folder.path()).unwrap();
        let names: Vec<&str> = files
            .iter()
            .map(|(name, _)| name.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(names, ["a.json", "b.json"]);
        assert_eq!(parse(&files).unwrap().len(), 2);
        write("c.json", "{");
        write("d.json", "[]");
        let mistakes = load(folder.path()).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        write(
            "c.json",
            &" ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1),
        );
        let mistakes = load(folder.path()).unwrap_err();
        assert!(mistakes[0].message.contains("at most 262144"), "{mistakes:?}");
        assert!(load(&folder.path().join("absent")).is_err());
    }
}
