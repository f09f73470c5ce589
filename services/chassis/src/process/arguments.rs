//! The few arguments a service has, and what they print.

use super::{Common, Service};
use crate::config::{Environment, Listed, Reader};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Run,
    Check,
    Print,
    Health,
    Version,
    Help,
}

pub(super) fn command(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut command = Command::Run;
    for argument in arguments {
        let asked = match argument.as_str() {
            "--check-config" => Command::Check,
            "--print-config" => Command::Print,
            "--health" => Command::Health,
            "--version" | "-V" => Command::Version,
            "--help" | "-h" => Command::Help,
            unknown => return Err(format!("unknown argument {unknown:?}")),
        };
        if command != Command::Run && command != asked {
            return Err(format!("{argument} cannot be combined with another argument"));
        }
        command = asked;
    }
    Ok(command)
}

pub(super) fn help<S>(service: &Service, read: impl FnOnce(&mut Reader<'_>) -> S) -> String {
    let environment = Environment::default();
    let mut reader = Reader::new(&environment);
    read(&mut reader);
    Common::read(&mut reader, service);
    let mut text = format!(
        "{name}: {about}\n\nUsage: {name} [--check-config | --print-config | --health | --version | --help]\n\n  \
         --check-config  say whether the settings and the files they name are right, and end\n  \
         --print-config  print all settings as they are in force, secrets masked, and end\n  \
         --health        ask the process with these settings whether it is ready, and end\n  \
         --version       print version and commit, and end\n  --help          print this, and end\n\n\
         Exit codes: 0 ended as asked, 64 wrong settings, 65 wrong file, 69 something needed cannot be used, 70 our \
         mistake.\n\nSettings are environment variables; NAME= means not set.\n",
        name = service.name,
        about = service.about,
    );
    for listed in reader.listed() {
        let default = listed
            .default
            .as_deref()
            .map_or_else(String::new, |default| format!(" [{default}]"));
        text.push_str(&format!("\n  {}{default}\n      {}\n", listed.name, listed.doc));
    }
    text.trim_end().to_owned()
}

pub(super) fn printed(listed: &[Listed]) -> String {
    let line = |listed: &Listed| match (&listed.value, listed.set) {
        (Some(value), true) => format!("{}={value}", listed.name),
        (Some(value), false) => format!("{}={value}  # default", listed.name),
        (None, _) => format!("# {} is not set", listed.name),
    };
    listed.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &[&str], expected: Result<Command, &str>) {
        let found = command(arguments.iter().map(|argument| (*argument).to_owned()));
        match (&found, &expected) {
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            _ => assert_eq!(found, expected.map_err(str::to_owned)),
        }
    }

    #[test]
    fn arguments_are_few_and_unknown_ones_are_mistakes() {
        check(&[], Ok(Command::Run));
        check(&["--check-config"], Ok(Command::Check));
        check(&["--print-config"], Ok(Command::Print));
        check(&["--health"], Ok(Command::Health));
        check(&["-V"], Ok(Command::Version));
        check(&["--help", "--help"], Ok(Command::Help));
        check(&["--check-confg"], Err("unknown argument \"--check-confg\""));
        check(&["--help", "--version"], Err("cannot be combined"));
        check(&["run"], Err("unknown argument"));
    }
}
