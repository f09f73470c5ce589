//! The command line holds together, and is what documents say it is.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::Arguments;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

/// Words as a shell reads them: quotes hold together, what follows a mark of the shell is not the command's.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#' | '|' | '>' | ';' | '&') if word.is_empty() => break,
            (None, ';') => break,
            (None, c) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    // What stands for something is something.
    words.iter().map(|word| word.replace(['<', '>'], "")).collect()
}

/// Calls of `roomcast` in a document: between backticks in its text, and at the beginning of lines of its blocks.
fn calls(document: &str) -> Vec<Vec<String>> {
    let (mut block, mut texts) = (false, Vec::new());
    for line in document.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            texts.push(line.to_owned());
        } else {
            texts.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let called = |text: &String| {
        let words = words(text);
        let program = words.first()?.rsplit('/').next()?;
        (program == "roomcast" && words.len() > 1).then_some(words)
    };
    texts.iter().filter_map(called).collect()
}

/// What the command line does not know of a call. That something is left out is no mistake of a sentence.
fn unknown(call: &[String]) -> Option<String> {
    let left_out = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    let error = Arguments::try_parse_from(call).err()?;
    let no_value = error.get(ContextKind::InvalidValue) == Some(&ContextValue::String(String::new()));
    (!left_out.contains(&error.kind()) && !no_value).then(|| error.to_string())
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !matches!(&*name, "target" | "node_modules" | "dist") {
                documents(&path, found);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn documents_call_it_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut found, mut seen) = (Vec::new(), 0);
    documents(&root, &mut found);
    for document in found {
        for call in calls(&std::fs::read_to_string(&document).unwrap()) {
            if let Some(error) = unknown(&call) {
                panic!("{}: {}: {error}", document.display(), call.join(" "));
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "calls in documents: {seen}");
}

#[test]
fn a_call_that_is_not_so_is_seen() {
    for (document, wrong) in [
        ("`roomcast top`", false),
        ("`roomcast try`: it asks for a policy", false),
        ("`roomcast check --policy policy.yaml`", false),
        ("`roomcast check policy.yaml`", true),
        ("`roomcast topp`", true),
        ("`roomcast simulate --from` takes a file", false),
        ("`roomcast streams apply --queue <tenant>/<publisher>`", false),
        (
            "```sh\nroomcast streams apply --replicas 3   # a --comment\n```",
            false,
        ),
        ("```sh\nroomcast streams apply --copies 3\n```", true),
        (
            "```sh\ntarget/debug/roomcast publish --room bookings \\\n  --data '{\"a b\": 1}' | cat --bytes\n```",
            false,
        ),
        (
            "```sh\nroomcast metrics try metrics.yaml --from yesterday\n```",
            true,
        ),
    ] {
        let calls = calls(document);
        assert_eq!(calls.len(), 1, "{document}");
        assert_eq!(unknown(&calls[0]).is_some(), wrong, "{document}");
    }
}
