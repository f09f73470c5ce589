//! What an operator may set about the admin port, and the keys it names.

use std::net::SocketAddr;
use std::path::PathBuf;

use roomcast_access::keys::{DEVELOPMENT_KID, FILE_BYTES_MAX};
use roomcast_access::{KeySet, TokenRules, Verifier};
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;
use roomcast_issuers::ADMIN_AUDIENCE;

use crate::hosts::Hosts;
use crate::pages::Pages;

const KEYS_FILE: &str = "ROOMCAST_ADMIN_JWT_KEYS_FILE";
const ISSUER: &str = "ROOMCAST_ADMIN_JWT_ISSUER";
const HOSTS: &str = "ROOMCAST_ADMIN_HOSTS";
const ORIGINS: &str = "ROOMCAST_ADMIN_ORIGINS";

/// The settings about the admin port's routes.
#[derive(Clone, Debug, Default)]
pub struct AdminSettings {
    /// `ROOMCAST_ADMIN_JWT_KEYS_FILE` and `ROOMCAST_ADMIN_JWT_ISSUER`; without them there are no admin routes.
    keys: Option<(PathBuf, String)>,
    /// `ROOMCAST_ADMIN_HOSTS`: names under which the admin port is reached, beside those of this machine.
    hosts: Vec<String>,
    /// `ROOMCAST_ADMIN_ORIGINS`: origins of pages that may ask; none by default.
    origins: Vec<String>,
}

/// The admin keys, read.
#[derive(Debug)]
pub struct AdminKeys {
    pub(crate) verifier: Verifier,
    pub(crate) hosts: Hosts,
    pub(crate) pages: Pages,
}

impl AdminSettings {
    /// Reads them; mistakes are collected by the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let file = reader.optional_path(
            KEYS_FILE,
            "Public keys (JWKS) that admin tokens are signed with, aud roomcast-admin; without it there is no /admin/v1.",
        );
        let issuer = reader.optional_text(ISSUER, "What iss of an admin token must be.");
        let hosts = reader.list(
            HOSTS,
            "",
            "Names under which the admin port is reached, separated by commas, beside its address and those of this machine.",
        );
        let origins = reader.list(
            ORIGINS,
            "",
            "Origins of pages that may ask the admin port, separated by commas, exact, like https://desk.example; none by default.",
        );
        if file.is_some() != issuer.is_some() {
            let name = if file.is_some() { ISSUER } else { KEYS_FILE };
            reader.mistake(name, format!("{KEYS_FILE} and {ISSUER} together, or neither"));
        }
        if hosts.iter().any(|host| !Hosts::is_name(host)) {
            reader.mistake(HOSTS, "names or addresses without port, like gateway-0.gateways");
        }
        if origins.iter().any(|origin| !Pages::is_origin(origin)) {
            reader.mistake(
                ORIGINS,
                "origins like https://desk.example or http://127.0.0.1:8080",
            );
        }
        Self {
            keys: file.zip(issuer),
            hosts,
            origins,
        }
    }

    /// Reads the key file, offline; what `--check-config` does.
    ///
    /// # Errors
    /// Exit code 65 for a file that is no JWKS of public keys.
    pub fn check(&self) -> Result<(), Failure> {
        self.verifier().map(drop)
    }

    /// Reads the keys; `None` where none are set. `listen` is the admin port's address.
    ///
    /// # Errors
    /// As [`AdminSettings::check`]; 64 for a development key on an address that others reach.
    pub fn load(&self, listen: SocketAddr) -> Result<Option<AdminKeys>, Failure> {
        let Some(verifier) = self.verifier()? else {
            return Ok(None);
        };
        if verifier.is_development() && !listen.ip().is_loopback() {
            return Err(Failure::settings(format!(
                "{KEYS_FILE} holds a development key (kid {DEVELOPMENT_KID}), and {listen} is not a loopback address: use keys of \
                 your own or listen on 127.0.0.1"
            )));
        }
        let hosts = Hosts::new(listen.ip(), &self.hosts);
        let pages = Pages::new(&self.origins);
        Ok(Some(AdminKeys {
            verifier,
            hosts,
            pages,
        }))
    }

    fn verifier(&self) -> Result<Option<Verifier>, Failure> {
        let Some((file, issuer)) = &self.keys else {
            return Ok(None);
        };
        let fail = |reason: String| Failure::file(format!("{}:1:1: {reason}", file.display()));
        let size = std::fs::metadata(file)
            .map_err(|error| fail(error.to_string()))?
            .len();
        if usize::try_from(size).map_or(true, |size| size > FILE_BYTES_MAX) {
            return Err(fail(format!("{size} bytes, at most {FILE_BYTES_MAX} are read")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        // Public keys only: whoever may read a shared secret could make themselves an administrator.
        let keys = KeySet::from_jwks(&text).map_err(|error| fail(error.to_string()))?;
        let rules = TokenRules {
            issuer: issuer.clone(),
            audience: ADMIN_AUDIENCE.to_owned(),
        };
        Ok(Some(Verifier::new(rules, keys)))
    }
}
