//! Who the clients of a measurement are, and how they speak: the options that all of them share.

use std::fmt;

use clap::{Args, ValueEnum};
use roomcast_load::tokens::Algorithm;
use roomcast_proto::frame::Encoding;

/// Whose the connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Users {
    /// Each its own user's, with a token and a personal room of its own.
    Distinct,
    /// All one user's, with one token.
    One,
}

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Written {
    /// As JSON.
    Json,
    /// As Protobuf.
    Protobuf,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Protobuf => "Protobuf",
        })
    }
}

/// Options of every measurement with clients; what is not given is the budget's.
#[derive(Debug, Clone, Copy, Args)]
pub struct Load {
    /// How many connections.
    #[arg(long)]
    pub connections: Option<usize>,
    /// Over how many rooms they are spread.
    #[arg(long)]
    pub rooms: Option<usize>,
    /// Events a second.
    #[arg(long)]
    pub rate: Option<u32>,
    /// Length of one measurement.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Size of an event as it is stored, bytes.
    #[arg(long, default_value_t = 300)]
    pub bytes: usize,
    /// How often it is measured.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Signature of the tokens.
    #[arg(long, value_enum, default_value_t = Algorithm::Eddsa)]
    pub algorithm: Algorithm,
    /// Whose the connections are.
    #[arg(long, value_enum, default_value_t = Users::Distinct)]
    pub users: Users,
    /// How frames are written.
    #[arg(long, value_enum, default_value_t = Written::Json)]
    pub encoding: Written,
}

impl Load {
    /// What the budgets are measured with.
    #[must_use]
    pub fn usual(rounds: usize, seconds: u64) -> Self {
        Self {
            connections: None,
            rooms: None,
            rate: None,
            seconds: Some(seconds),
            bytes: 300,
            rounds,
            algorithm: Algorithm::Eddsa,
            users: Users::Distinct,
            encoding: Written::Json,
        }
    }

    /// The encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self.encoding {
            Written::Json => Encoding::Json,
            Written::Protobuf => Encoding::Protobuf,
        }
    }
}
