//! Writes the seeds of a target as files, for libFuzzer: `corpus <target> <directory>`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(directory)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: corpus <target> <directory>");
        return ExitCode::from(64);
    };
    let directory = std::path::Path::new(&directory);
    for (n, seed) in roomcast_fuzz::seeds::seeds(&target).into_iter().enumerate() {
        if let Err(error) = std::fs::write(directory.join(format!("seed-{n:04}")), seed) {
            eprintln!("cannot write to {}: {error}", directory.display());
            return ExitCode::from(73);
        }
    }
    ExitCode::SUCCESS
}
