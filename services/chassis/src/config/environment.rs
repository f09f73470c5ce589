//! Where settings come from: a snapshot of the environment, so that tests need not touch the process's own.

use std::collections::BTreeMap;

use super::PREFIX;

/// The variables with our prefix, taken once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub(super) values: BTreeMap<String, String>,
    /// Names whose value is not UTF-8.
    pub(super) unreadable: Vec<String>,
}

impl Environment {
    /// Takes the variables of this process that begin with [`PREFIX`].
    #[must_use]
    pub fn from_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with(PREFIX) {
                continue;
            }
            match value.into_string() {
                Ok(value) => {
                    environment.values.insert(name, value);
                }
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// Takes given pairs; for tests and for programs that start services inside themselves.
    #[must_use]
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let values = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            values,
            unreadable: Vec::new(),
        }
    }

    /// The value, where set and not empty: `NAME=` means "not set", as compose files write it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All names with our prefix, readable or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.values
            .keys()
            .chain(&self.unreadable)
            .map(String::as_str)
            .filter(|name| name.starts_with(PREFIX))
    }
}
