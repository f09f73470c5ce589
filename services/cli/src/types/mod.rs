//! `roomcast types`: TypeScript from the schemas of events.

mod typescript;

use std::path::PathBuf;

use clap::Args;
use roomcast_chassis::process::Failure;
use roomcast_schemas::{Catalog, folder};

use crate::find;
use crate::terminal::print;

/// Writes TypeScript from a folder of schemas: one type for each event's data, and `EventData`, which ties them to the events' types.
///
/// The same schemas give the same text. Where a type has several versions its data is their union, as long as all of them are
/// taken. What a schema asks beyond a shape (lengths, patterns, ranges) is not in the types.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast types --schemas schemas --out src/events.ts\n  \
    roomcast types --scenario bookings")]
pub(crate) struct Options {
    /// A folder of schemas.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "scenario",
        required_unless_present = "scenario"
    )]
    schemas: Option<PathBuf>,
    /// A scenario, by name or folder: its schemas.
    #[arg(long, value_name = "NAME|DIR")]
    scenario: Option<String>,
    /// Write the file instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the types.
///
/// # Errors
/// 64: no such scenario. 65: a mistake in a schema. 69: the file cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = match (&options.schemas, &options.scenario) {
        (Some(folder), _) => folder.clone(),
        (None, Some(name)) => find::scenario(name)?.join("schemas"),
        (None, None) => return Err(Failure::settings("name a folder with --schemas, or a --scenario")),
    };
    let catalog: Catalog = folder::load(&folder).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failure::file(lines.join("\n"))
    })?;
    if catalog.is_empty() {
        return Err(Failure::file(format!(
            "there is no schema in {}",
            folder.display()
        )));
    }
    let text = typescript::write(&catalog);
    match &options.out {
        None => {
            print(text.trim_end());
            Ok(())
        }
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display()))),
    }
}
