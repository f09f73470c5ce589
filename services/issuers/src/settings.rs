//! What an operator may set about tokens, and the key files and lists it names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use roomcast_access::issuers::{self, Allowed, Issuer, Source};
use roomcast_access::jwks::Schedule;
use roomcast_access::keys::DEVELOPMENT_KID;
use roomcast_access::{Endpoint, KeySet, Verifier};
use roomcast_chassis::config::Reader;
use roomcast_chassis::fetch::Url;
use roomcast_chassis::process::Failure;

use crate::fetching::Published;

/// The largest file that is read; a wrong path may be a disk.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The audience of admin tokens, which never is that of users.
pub const ADMIN_AUDIENCE: &str = "roomcast-admin";

const ISSUER: &str = "ROOMCAST_JWT_ISSUER";
const KEYS_FILE: &str = "ROOMCAST_JWT_KEYS_FILE";
const JWKS_URL: &str = "ROOMCAST_JWT_JWKS_URL";
const ISSUERS_FILE: &str = "ROOMCAST_JWT_ISSUERS_FILE";
const ALLOW_HS: &str = "ROOMCAST_JWT_ALLOW_HS";

/// The settings about tokens.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// `ROOMCAST_JWT_AUDIENCE`
    pub audience: String,
    /// `ROOMCAST_JWT_ISSUER` with `ROOMCAST_JWT_KEYS_FILE` or `ROOMCAST_JWT_JWKS_URL`; `None` where a file lists several.
    pub one: Option<Issuer>,
    /// `ROOMCAST_JWT_ISSUERS_FILE`
    pub file: Option<PathBuf>,
    /// `ROOMCAST_JWT_ALLOW_HS`
    pub allow_hs: bool,
    /// `ROOMCAST_JWKS_INTERVAL_SECONDS`, `ROOMCAST_JWKS_REFRESH_SECONDS`
    pub schedule: Schedule,
}

impl IssuerSettings {
    /// Reads them; mistakes are collected by the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let issuer = reader.optional_text(ISSUER, "What iss of a token must be, where there is one issuer.");
        let keys_file = reader.optional_path(KEYS_FILE, "The issuer's keys, a JWKS file.");
        let url = reader.optional_text(
            JWKS_URL,
            "The address of the issuer's public keys (JWKS), instead of a file; https, or http on this machine.",
        );
        let file = reader.optional_path(
            ISSUERS_FILE,
            "Instead of the three above: a list of {issuer, keys_file | jwks_url, allow_hs?, tenants?}, YAML or JSON; with several issuers and sealed cursors (several tenants) each says whose tenants' users it names.",
        );
        let settings = Self {
            audience: reader.text("ROOMCAST_JWT_AUDIENCE", "roomcast", "What a token's aud must contain."),
            allow_hs: reader.flag(
                ALLOW_HS,
                false,
                "Whether key files may hold shared secrets (HS256); whoever checks such tokens can also make them.",
            ),
            schedule: Schedule {
                interval_secs: reader.number(
                    "ROOMCAST_JWKS_INTERVAL_SECONDS",
                    10,
                    1..=3_600,
                    "Least seconds between two fetches of an issuer's keys, whatever tokens come.",
                ),
                refresh_secs: reader.number(
                    "ROOMCAST_JWKS_REFRESH_SECONDS",
                    600,
                    1..=86_400,
                    "Seconds after which keys are fetched again: so long at most counts one that was taken back, while fetches succeed.",
                ),
            },
            one: None,
            file,
        };
        if settings.audience == ADMIN_AUDIENCE {
            reader.mistake(
                "ROOMCAST_JWT_AUDIENCE",
                "another audience than that of admin tokens: they open the admin ports and nothing else",
            );
        }
        if settings.file.is_some() {
            if issuer.is_some() || keys_file.is_some() || url.is_some() {
                reader.mistake(
                    ISSUERS_FILE,
                    format!("either this or {ISSUER} with {KEYS_FILE} or {JWKS_URL}"),
                );
            }
            return settings;
        }
        if issuer.is_none() {
            reader.mistake(ISSUER, format!("a text, or {ISSUERS_FILE} for several issuers"));
        }
        if let Some(Err(wrong)) = url.as_deref().map(Url::parse) {
            reader.mistake(JWKS_URL, format!("an address that may be fetched from ({wrong})"));
        }
        if url.is_some() && settings.allow_hs {
            reader.mistake(
                ALLOW_HS,
                format!("false with {JWKS_URL}: secrets are never fetched"),
            );
        }
        let source = match (keys_file, url) {
            (Some(path), None) => Some(Source::File {
                path: path.display().to_string(),
                allow_hs: settings.allow_hs,
            }),
            (None, Some(url)) => Some(Source::Url(url)),
            (None, None) => {
                reader.mistake(KEYS_FILE, format!("a path, or an address in {JWKS_URL}"));
                None
            }
            (Some(_), Some(_)) => {
                reader.mistake(JWKS_URL, format!("only one of {KEYS_FILE} and {JWKS_URL}"));
                None
            }
        };
        let one = issuer.zip(source).map(|(issuer, source)| Issuer {
            issuer,
            source,
            tenants: None,
        });
        Self { one, ..settings }
    }

    /// Reads the files, offline; nothing is fetched yet.
    ///
    /// # Errors
    /// Exit code 65 with the place of every mistake in the first file that has some.
    pub fn load(&self) -> Result<Trusted, Failure> {
        let mut trusted = Trusted {
            verifier: Verifier::of(self.audience.clone()),
            published: Vec::new(),
            development: None,
        };
        for issuer in self.issuers()? {
            trusted = trusted.with(issuer, self.schedule)?;
        }
        Ok(trusted)
    }

    /// The one issuer, or those of the list, with paths from the folder the list lies in.
    fn issuers(&self) -> Result<Vec<Issuer>, Failure> {
        let Some(file) = &self.file else {
            return Ok(self.one.iter().cloned().collect());
        };
        let url = |url: &str| Url::parse(url).map(drop).map_err(str::to_owned);
        let allowed = Allowed {
            hs: self.allow_hs,
            url: &url,
        };
        let mut list =
            issuers::parse(&read(file)?, &file.display().to_string(), &allowed).map_err(|mistakes| {
                let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                Failure::file(lines.join("\n"))
            })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        for issuer in &mut list {
            if let Source::File { path, .. } = &mut issuer.source {
                *path = folder.join(&*path).display().to_string();
            }
        }
        Ok(list)
    }
}

/// The issuers as they were read, before anything is fetched.
#[derive(Debug)]
pub struct Trusted {
    /// Checks tokens; its clones see what is fetched later.
    pub verifier: Verifier,
    pub(crate) published: Vec<Published>,
    /// The file with a development key.
    development: Option<String>,
}

impl Trusted {
    fn with(mut self, issuer: Issuer, schedule: Schedule) -> Result<Self, Failure> {
        let name = issuer.issuer.clone();
        match issuer.source {
            Source::File { path, allow_hs } => {
                let keys = KeySet::from_file(&read(Path::new(&path))?, allow_hs)
                    .map_err(|error| Failure::file(format!("{path}:1:1: {error}")))?;
                if keys.is_development() {
                    self.development = Some(path);
                }
                self.verifier = self.verifier.trusting(issuer.issuer, keys);
            }
            Source::Url(url) => {
                let url = Url::parse(&url)
                    .map_err(|wrong| Failure::settings(format!("{url} cannot be fetched from: {wrong}")))?;
                let endpoint = Endpoint::new(schedule);
                self.verifier = self.verifier.fetching(issuer.issuer.clone(), endpoint.clone());
                self.published.push(Published {
                    issuer: issuer.issuer,
                    url,
                    endpoint,
                });
            }
        }
        if let Some(tenants) = issuer.tenants {
            self.verifier = self.verifier.bound(&name, tenants);
        }
        Ok(self)
    }

    /// A development key is known to whoever read the folder it was made in: with one, only this machine is served.
    ///
    /// # Errors
    /// Exit code 64 with the first of `listeners` that is not loopback.
    pub fn refuse_open_development(&self, listeners: &[SocketAddr]) -> Result<(), Failure> {
        let open = listeners.iter().find(|address| !address.ip().is_loopback());
        match (&self.development, open) {
            (Some(file), Some(open)) => Err(Failure::settings(format!(
                "{file} holds a development key (kid {DEVELOPMENT_KID}), and {open} is not a loopback address: anybody could \
                 make tokens; use keys of your own or listen on 127.0.0.1"
            ))),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let fail = |reason: String| Failure::file(format!("{}:1:1: {reason}", path.display()));
    let size = std::fs::metadata(path)
        .map_err(|error| fail(error.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(fail(format!("{size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests;
