//! How a process ends: exit codes and the words that go with them.

use std::fmt;
use std::process::ExitCode;

use crate::config::Mistakes;

/// Exit codes, after sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Ended as asked.
    Ok = 0,
    /// The settings or arguments are wrong.
    Settings = 64,
    /// A file an operator wrote is wrong: `file:line:column` was printed.
    File = 65,
    /// Something this process needs cannot be used: NATS too old, a stream that differs, an address in use.
    Unavailable = 69,
    /// A mistake of ours, or an end that had to cut tasks off.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a process ends: exit code and the words for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong and how to mend it; may have several lines.
    pub message: String,
}

impl Failure {
    /// The settings are wrong in a way only the service can see.
    pub fn settings(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Settings,
            message: message.to_string(),
        }
    }

    /// A file is wrong; the message says `file:line:column`.
    pub fn file(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::File,
            message: message.to_string(),
        }
    }

    /// Something needed cannot be used.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Unavailable,
            message: message.to_string(),
        }
    }

    /// A mistake of ours.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Internal,
            message: message.to_string(),
        }
    }
}

impl From<prometheus::Error> for Failure {
    fn from(error: prometheus::Error) -> Self {
        Self::internal(format!("a metric cannot be declared: {error}"))
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::settings(mistakes)
    }
}
