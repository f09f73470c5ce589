//! Reads settings, remembers what was read and collects the mistakes.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::secret::without_credentials;
use super::similar::nearest;
use super::{Environment, Mistake, Mistakes, Secret};

/// The largest secret file read; a key is small, and a wrong path may be a disk.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// One variable that a service reads, for `--help` and `--print-config`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// Its default as one would write it; `None` where there is none.
    pub default: Option<String>,
    /// One line that says what it does, with the unit.
    pub doc: &'static str,
    /// What it holds now (the default if not set, `***` for a secret); `None` where it holds nothing.
    pub value: Option<String>,
    /// Whether it is set, rather than left at its default.
    pub set: bool,
    /// Whether it is a secret, so `<name>_FILE` exists too.
    pub secret: bool,
}

/// Reads variables one by one. A read never fails: a wrong value is remembered as a mistake and the default
/// (or an empty value) stands in, so that all mistakes are found in one go. Ask [`Reader::finish`] at the end.
#[derive(Debug)]
pub struct Reader<'a> {
    environment: &'a Environment,
    listed: Vec<Listed>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// Starts reading an environment.
    #[must_use]
    pub fn new(environment: &'a Environment) -> Self {
        let mistakes = environment.unreadable.iter().map(|name| Mistake {
            variable: name.clone(),
            value: Some("(not UTF-8)".to_owned()),
            expected: "text in UTF-8".to_owned(),
        });
        Self {
            environment,
            listed: Vec::new(),
            mistakes: mistakes.collect(),
        }
    }

    /// A text with a default.
    pub fn text(&mut self, name: &'static str, default: &str, doc: &'static str) -> String {
        self.read(name, Some(default), doc).unwrap_or_default()
    }

    /// A text that may be absent.
    pub fn optional_text(&mut self, name: &'static str, doc: &'static str) -> Option<String> {
        self.read(name, None, doc)
    }

    /// A text that must be set.
    pub fn required_text(&mut self, name: &'static str, doc: &'static str) -> String {
        let value = self.read(name, None, doc);
        self.required(name, value, "a text").unwrap_or_default()
    }

    /// A number in a range. Limits begin their range at 1: 0 is never "unlimited".
    pub fn number<T>(
        &mut self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
        doc: &'static str,
    ) -> T
    where
        T: Copy + PartialOrd + Display + FromStr,
    {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let text = self
            .read(name, Some(&default.to_string()), doc)
            .unwrap_or_default();
        match text.parse::<T>() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.mistake(name, expected);
                default
            }
        }
    }

    /// A whole number of seconds in a range, as a duration.
    pub fn seconds(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        doc: &'static str,
    ) -> Duration {
        Duration::from_secs(self.number(name, default, range, doc))
    }

    /// A whole number of milliseconds in a range, as a duration.
    pub fn milliseconds(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
        doc: &'static str,
    ) -> Duration {
        Duration::from_millis(self.number(name, default, range, doc))
    }

    /// An IP address with port, e.g. `127.0.0.1:8080`; port 0 lets the system choose.
    pub fn address(&mut self, name: &'static str, default: SocketAddr, doc: &'static str) -> SocketAddr {
        let expected = "an IP address with port, like 127.0.0.1:8080 or [::1]:8080";
        self.parse(name, &default.to_string(), expected, doc, |text| {
            text.parse().ok()
        })
        .unwrap_or(default)
    }

    /// A list of texts separated by commas; spaces around them are dropped, empty parts are a mistake.
    pub fn list(&mut self, name: &'static str, default: &str, doc: &'static str) -> Vec<String> {
        let text = self.read(name, Some(default), doc).unwrap_or_default();
        if text.is_empty() {
            return Vec::new();
        }
        let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        if parts.iter().any(String::is_empty) {
            self.mistake(name, "texts separated by single commas");
        }
        parts
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str, default: bool, doc: &'static str) -> bool {
        let text = if default { "true" } else { "false" };
        self.parse(name, text, "true or false", doc, |text| text.parse().ok())
            .unwrap_or(default)
    }

    /// One of several words, each standing for a value. `choices[0]` is the default.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        doc: &'static str,
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let default = words.first().copied().unwrap_or_default();
        self.parse(
            name,
            default,
            &format!("one of {}", words.join(", ")),
            doc,
            |text| {
                choices
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|(_, value)| *value)
            },
        )
        .or_else(|| choices.first().map(|(_, value)| *value))
    }

    /// A path that may be absent. Whether anything is there is for the one who opens it to say.
    pub fn optional_path(&mut self, name: &'static str, doc: &'static str) -> Option<PathBuf> {
        self.read(name, None, doc).map(PathBuf::from)
    }

    /// A path that must be set.
    pub fn path(&mut self, name: &'static str, doc: &'static str) -> PathBuf {
        let value = self.read(name, None, doc);
        self.required(name, value, "a path")
            .map(PathBuf::from)
            .unwrap_or_default()
    }

    /// A secret that may be absent: `name` itself, or `file_name` (which is `<name>_FILE`), whose file holds it;
    /// white space at the file's end is dropped. Both at once is a mistake.
    pub fn secret(
        &mut self,
        name: &'static str,
        file_name: &'static str,
        doc: &'static str,
    ) -> Option<Secret> {
        let (text, file) = (self.environment.get(name), self.environment.get(file_name));
        let masked = |set: bool| set.then(|| "***".to_owned());
        self.list_as(name, None, doc, masked(text.is_some()), text.is_some(), true);
        let file_doc = "A file that holds the variable above, instead of it.";
        self.list_as(
            file_name,
            None,
            file_doc,
            file.map(str::to_owned),
            file.is_some(),
            false,
        );
        match (text, file) {
            (Some(_), Some(_)) => {
                self.mistake(file_name, format!("only one of {name} and {file_name}"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(file)) => match read_secret(file) {
                Ok(secret) => Some(secret),
                Err(reason) => {
                    self.mistake(file_name, format!("a readable file with a secret ({reason})"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A secret that must be set, by either of its variables.
    pub fn required_secret(
        &mut self,
        name: &'static str,
        file_name: &'static str,
        doc: &'static str,
    ) -> Secret {
        let mistakes_before = self.mistakes.len();
        let secret = self.secret(name, file_name, doc);
        if secret.is_none() && self.mistakes.len() == mistakes_before {
            self.mistake(
                name,
                format!("a secret here or in the file that {file_name} names"),
            );
        }
        secret.unwrap_or_else(|| Secret::new(""))
    }

    /// Anything else with a default: `parse` says what the text means, `expected` what it should have been.
    pub fn parse<T>(
        &mut self,
        name: &'static str,
        default: &str,
        expected: &str,
        doc: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.read(name, Some(default), doc).unwrap_or_default();
        let value = parse(&text);
        if value.is_none() {
            self.mistake(name, expected);
        }
        value
    }

    /// Remembers a mistake that only the caller can see, e.g. two settings that exclude each other. The value
    /// shown is the variable's own.
    pub fn mistake(&mut self, name: &'static str, expected: impl Into<String>) {
        let secret = self
            .listed
            .iter()
            .any(|listed| listed.name == name && listed.secret);
        let value = self.environment.get(name).map(|value| match secret {
            true => "***".to_owned(),
            false => without_credentials(value),
        });
        self.mistakes.push(Mistake {
            variable: name.to_owned(),
            value,
            expected: expected.into(),
        });
    }

    /// Everything read so far, in the order of reading.
    #[must_use]
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All mistakes, among them every variable with our prefix that nobody read, with the name that was perhaps
    /// meant.
    pub fn finish(self) -> Result<Vec<Listed>, Mistakes> {
        let mut mistakes = self.mistakes;
        for name in self.environment.names() {
            if self.listed.iter().any(|listed| listed.name == name) {
                continue;
            }
            let meant = nearest(name, self.listed.iter().map(|listed| listed.name));
            let expected = match meant {
                Some(meant) => format!("no such variable; did you mean {meant}?"),
                None => "no such variable; --help lists those there are".to_owned(),
            };
            // The value is not shown: it may be a secret under a misspelt name.
            mistakes.push(Mistake {
                variable: name.to_owned(),
                value: Some("…".to_owned()),
                expected,
            });
        }
        if mistakes.is_empty() {
            Ok(self.listed)
        } else {
            Err(Mistakes(mistakes))
        }
    }

    fn read(&mut self, name: &'static str, default: Option<&str>, doc: &'static str) -> Option<String> {
        let set = self.environment.get(name).map(str::to_owned);
        let value = set
            .clone()
            .or_else(|| default.filter(|text| !text.is_empty()).map(str::to_owned));
        self.list_as(name, default, doc, value.clone(), set.is_some(), false);
        value
    }

    fn required(&mut self, name: &'static str, value: Option<String>, expected: &str) -> Option<String> {
        if value.is_none() {
            self.mistake(name, expected);
        }
        value
    }

    fn list_as(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        doc: &'static str,
        value: Option<String>,
        set: bool,
        secret: bool,
    ) {
        // Read twice (by two parts of one service) it is still one variable.
        if self.listed.iter().any(|listed| listed.name == name) {
            return;
        }
        let default = default.filter(|text| !text.is_empty()).map(str::to_owned);
        self.listed.push(Listed {
            name,
            default,
            doc,
            value: value.as_deref().map(without_credentials),
            set,
            secret,
        });
    }
}

fn read_secret(path: &str) -> Result<Secret, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > SECRET_FILE_BYTES_MAX {
        return Err(format!("{bytes} bytes, more than {SECRET_FILE_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    match text.trim_end() {
        "" => Err("it is empty".to_owned()),
        text => Ok(Secret::new(text)),
    }
}
