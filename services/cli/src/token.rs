//! `roomcast token`, and the signer of development tokens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roomcast_access::keys::DEVELOPMENT_KID;
use roomcast_access::token::{LIFETIME_SECS_MAX, REGISTERED_CLAIMS};
use roomcast_chassis::process::Failure;
use serde_json::{Map, Value, json};

use crate::terminal::print;

/// Issuer of development tokens.
pub(crate) const DEVELOPMENT_ISSUER: &str = "roomcast-dev";
/// Audience of everything but the admin ports.
pub(crate) const AUDIENCE: &str = "roomcast";
/// Audience of the admin ports.
pub(crate) const ADMIN_AUDIENCE: &str = "roomcast-admin";

/// Signs a token and prints it, alone on a line.
///
/// The key is an Ed25519 or P-256 private key, PKCS#8 in PEM. `roomcast dev` makes one; its path is `token_key_file` in the line
/// that `roomcast dev --json` prints.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast token --user u1 --role staff --key keys/signing.pem\n  \
    roomcast token --user u1 --role property_owner --claim property_ids=42,43 --ttl 1h --key keys/signing.pem")]
pub(crate) struct Options {
    /// Whose token it is: 1 to 128 bytes of letters, digits and _ @ : -
    #[arg(long)]
    user: String,
    /// A role; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A claim for room patterns, text or a list: property_ids=42,43. Begins it with [ or { or ", the value is JSON.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// How long it holds, at most 24h.
    #[arg(long, default_value = "1h", value_parser = crate::duration::parse)]
    ttl: Duration,
    /// File with the private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the key in the services' key file.
    #[arg(long, default_value = DEVELOPMENT_KID)]
    kid: String,
    /// The tenant; absent, a token speaks for `main`.
    #[arg(long)]
    tenant: Option<String>,
    /// Issuer, as the services are told by ROOMCAST_JWT_ISSUER.
    #[arg(long, default_value = DEVELOPMENT_ISSUER)]
    issuer: String,
    /// Audience: roomcast, or roomcast-admin for admin ports.
    #[arg(long, default_value = AUDIENCE)]
    audience: String,
    /// Print one JSON object {"token","expiresAt"} instead.
    #[arg(long)]
    json: bool,
}

/// What a token says.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    pub(crate) roles: Vec<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) others: Map<String, Value>,
    pub(crate) lifetime: Duration,
}

impl Claims {
    /// A user with one role, for as long as tokens may hold.
    pub(crate) fn of(subject: &str, role: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            roles: vec![role.to_owned()],
            tenant: None,
            others: Map::new(),
            lifetime: Duration::from_secs(LIFETIME_SECS_MAX.unsigned_abs()),
        }
    }
}

/// Signs tokens with one key.
#[derive(Clone)]
pub(crate) struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    kid: String,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads a PEM private key.
    ///
    /// # Errors
    /// Exit 65: the file is not one.
    pub(crate) fn load(path: &Path, kid: &str, issuer: &str, audience: &str) -> Result<Self, Failure> {
        let pem =
            std::fs::read(path).map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
        Self::from_pem(&pem, kid, issuer, audience).ok_or_else(|| {
            Failure::file(format!(
                "{}: expected an Ed25519 or P-256 private key, PKCS#8 in PEM",
                path.display()
            ))
        })
    }

    fn from_pem(pem: &[u8], kid: &str, issuer: &str, audience: &str) -> Option<Self> {
        let (key, algorithm) = match EncodingKey::from_ed_pem(pem) {
            Ok(key) => (key, Algorithm::EdDSA),
            Err(_) => (EncodingKey::from_ec_pem(pem).ok()?, Algorithm::ES256),
        };
        let owned = |text: &str| text.to_owned();
        Some(Self {
            key,
            algorithm,
            kid: owned(kid),
            issuer: owned(issuer),
            audience: owned(audience),
        })
    }

    /// Signs. `now` is in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Exit 65: the key cannot sign.
    pub(crate) fn sign(&self, claims: &Claims, now: i64) -> Result<String, Failure> {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        let mut body = claims.others.clone();
        let lifetime = i64::try_from(claims.lifetime.as_secs()).unwrap_or(LIFETIME_SECS_MAX);
        let registered = json!({
            "iss": self.issuer, "aud": self.audience, "sub": claims.subject, "iat": now, "exp": now + lifetime,
            "roles": claims.roles,
        });
        if let Value::Object(registered) = registered {
            body.extend(registered);
        }
        if let Some(tenant) = &claims.tenant {
            body.insert("tenant".to_owned(), json!(tenant));
        }
        jsonwebtoken::encode(&header, &body, &self.key)
            .map_err(|error| Failure::file(format!("the key cannot sign: {error}")))
    }
}

/// A development key pair: the private key in PEM, and the public one as a JWKS.
///
/// # Errors
/// Exit 70: the system gives no random numbers.
pub(crate) fn development_keys() -> Result<(String, String), Failure> {
    let failed = |_| Failure::internal("cannot make a key");
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(private.as_ref())
    );
    Ok((pem, jwks(pair.public_key().as_ref())))
}

fn jwks(public: &[u8]) -> String {
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": DEVELOPMENT_KID, "x": URL_SAFE_NO_PAD.encode(public),
    });
    json!({ "keys": [key] }).to_string()
}

/// Prints a token.
///
/// # Errors
/// Exit 64 for claims that no service would accept, 65 for the key.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let most = Duration::from_secs(LIFETIME_SECS_MAX.unsigned_abs());
    if options.ttl > most {
        return Err(Failure::settings(
            "--ttl: the services accept no token that holds longer than 24h",
        ));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_@:-".contains(&b);
    if !(1..=128).contains(&options.user.len()) || !options.user.bytes().all(good) {
        return Err(Failure::settings(
            "--user: expected 1 to 128 bytes of letters, digits and _ @ : -",
        ));
    }
    if let Some(Err(bad)) = options.tenant.as_deref().map(roomcast_proto::ids::Tenant::parse) {
        return Err(Failure::settings(format!("--tenant: {bad}")));
    }
    let signer = Signer::load(&options.key, &options.kid, &options.issuer, &options.audience)?;
    let claims = Claims {
        subject: options.user.clone(),
        roles: options.roles.clone(),
        tenant: options.tenant.clone(),
        others: options.claims.iter().cloned().collect(),
        lifetime: options.ttl,
    };
    let now = jiff::Timestamp::now();
    let token = signer.sign(&claims, now.as_second())?;
    if options.json {
        let expires = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now) + options.ttl;
        print(&json!({ "token": token, "expiresAt": expires.to_string() }).to_string());
    } else {
        print(&token);
    }
    Ok(())
}

/// Reads `name=value`.
fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=VALUE")?;
    if REGISTERED_CLAIMS.contains(&name) {
        return Err(format!("{name} has a flag of its own"));
    }
    let value = if value.starts_with(['[', '{', '"']) {
        serde_json::from_str(value).map_err(|error| format!("not JSON: {error}"))?
    } else if value.contains(',') {
        value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect()
    } else {
        Value::from(value)
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use roomcast_access::{KeySet, TokenError, TokenRules, Verifier};

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn signer() -> (Signer, Verifier) {
        roomcast_chassis::process::install_crypto();
        let (pem, jwks) = development_keys().unwrap();
        let signer = Signer::from_pem(pem.as_bytes(), DEVELOPMENT_KID, DEVELOPMENT_ISSUER, AUDIENCE).unwrap();
        let rules = TokenRules {
            issuer: DEVELOPMENT_ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
        };
        (signer, Verifier::new(rules, KeySet::from_jwks(&jwks).unwrap()))
    }

    #[test]
    fn tokens_are_those_the_services_accept() {
        let (signer, verifier) = signer();
        assert!(verifier.is_development());
        let mut claims = Claims::of("u1", "staff");
        claims
            .others
            .insert("property_ids".to_owned(), json!(["42", "43"]));
        let token = signer.sign(&claims, NOW).unwrap();
        let principal = verifier.verify(&token, NOW).unwrap();
        assert_eq!(
            (&*principal.subject, principal.roles.as_slice()),
            ("u1", &["staff".to_owned()][..])
        );
        assert_eq!(principal.tenant.as_str(), "main");
        assert_eq!(principal.claims["property_ids"], json!(["42", "43"]));
        assert_eq!(
            verifier.verify(&token, NOW + LIFETIME_SECS_MAX + 60),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn tokens_of_another_key_are_not() {
        let ((signer, _), (_, verifier)) = (signer(), signer());
        let token = signer.sign(&Claims::of("u1", "staff"), NOW).unwrap();
        assert!(verifier.verify(&token, NOW).is_err());
    }

    #[test]
    fn claims_are_text_lists_or_json() {
        let rows = [
            ("property_ids=42,43", Some(json!(["42", "43"]))),
            ("property_ids=42", Some(json!("42"))),
            ("a=[1,2]", Some(json!([1, 2]))),
            ("a={\"b\":1}", Some(json!({ "b": 1 }))),
            ("a=", Some(json!(""))),
            ("a=[1", None),
            ("a", None),
            ("=1", None),
            ("sub=x", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_claim(text).ok().map(|(_, value)| value), expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        assert!(
            Signer::from_pem(
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "k",
                "i",
                "a"
            )
            .is_none()
        );
        assert!(Signer::from_pem(b"", "k", "i", "a").is_none());
        let missing = Signer::load(Path::new("/nowhere/key.pem"), "k", "i", "a").unwrap_err();
        assert!(missing.message.starts_with("/nowhere/key.pem:"), "{missing}");
    }
}
