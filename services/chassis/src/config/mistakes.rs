//! What is wrong with the settings, all of it at once.

use std::fmt;

/// One wrong variable: what it is called, what it holds, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable's name.
    pub variable: String,
    /// Its value; `None` where it is not set. Secrets are masked.
    pub value: Option<String>,
    /// What would have been right, in words.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {value:?}: expected {}", self.variable, self.expected),
            None => write!(f, "{} is not set: expected {}", self.variable, self.expected),
        }
    }
}

/// Every mistake found; never empty. The process ends with exit code 64 and nothing is started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {many} in the settings:", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}
