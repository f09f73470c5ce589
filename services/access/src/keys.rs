//! The public keys that tokens are checked with, read from a JWKS (RFC 7517).
//!
//! A key brings its own algorithm; what a token says about algorithms is only compared with it. Read once at start and
//! at each reload by the services; looked up once per token. No URL is ever followed from here.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::json;

/// The `kid` of keys that `roomcast dev` makes. A service that holds one serves loopback addresses only.
pub const DEVELOPMENT_KID: &str = "roomcast-dev";
/// Longest `kid` in bytes.
pub const KID_BYTES_MAX: usize = 64;
/// Most keys in one file: an issuer that rotates has two or three.
pub const KEYS_MAX: usize = 64;
/// Largest key file in bytes: 64 keys of 4 KiB.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Members that only private or secret keys have (RFC 7518 §6, RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What is wrong with a key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Not a JSON object with a list `keys`, or too large.
    #[error("not a JWKS: {0}")]
    Unreadable(String),
    /// One key of the list cannot be used; counted from 0.
    #[error("keys[{index}]: {flaw}")]
    Key {
        /// Which element of `keys`.
        index: usize,
        /// What is wrong with it.
        flaw: KeyFlaw,
    },
}

/// Why one key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFlaw {
    /// An element of `keys` is not an object.
    #[error("not an object")]
    NotAnObject,
    /// The file would hand the power to sign to everybody who may read it.
    #[error("holds the private member {0:?}; a key file has public keys only")]
    Private(&'static str),
    /// No `kid`, or not 1 to 64 bytes of text.
    #[error("needs a `kid`, text of 1 to 64 bytes")]
    Kid,
    /// Two keys with one `kid`.
    #[error("`kid` {0:?} is used twice")]
    KidTwice(String),
    /// A key type or curve that is not supported.
    #[error("key type {0} is not supported; use OKP with Ed25519 (EdDSA) or EC with P-256 (ES256)")]
    Unsupported(String),
    /// `alg`, `use` or `key_ops` contradicts what the key would be used for.
    #[error("`{0}` does not fit a key that verifies {1} signatures")]
    Purpose(&'static str, &'static str),
    /// A coordinate is missing, is not base64url, has the wrong length or is no point of the curve.
    #[error("`{0}` is missing or is not a coordinate of this curve")]
    Coordinate(&'static str),
}

/// A signature algorithm, fixed by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAlgorithm {
    EdDsa,
    Es256,
}

impl KeyAlgorithm {
    /// The name in a token's header.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    /// Length of a signature; both are two numbers of 32 bytes (RFC 7518 §3.4, RFC 8032).
    const fn signature_bytes(self) -> usize {
        match self {
            Self::EdDsa | Self::Es256 => 64,
        }
    }
}

/// One public key and the one algorithm it is good for.
#[derive(Clone)]
pub(crate) struct VerifyKey {
    algorithm: KeyAlgorithm,
    key: DecodingKey,
}

impl VerifyKey {
    pub(crate) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Whether `signature` (base64url) signs `message` under this key.
    pub(crate) fn verifies(&self, signature: &str, message: &str) -> bool {
        // Decoded here as well, only for its length: a wrong length never reaches the cryptography.
        let length = URL_SAFE_NO_PAD.decode(signature).map_or(0, |bytes| bytes.len());
        let algorithm = match self.algorithm {
            KeyAlgorithm::EdDsa => Algorithm::EdDSA,
            KeyAlgorithm::Es256 => Algorithm::ES256,
        };
        length == self.algorithm.signature_bytes()
            && jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm)
                .unwrap_or(false)
    }
}

/// The public keys of one issuer, by `kid`.
#[derive(Clone)]
pub struct KeySet {
    keys: HashMap<String, VerifyKey>,
}

impl KeySet {
    /// Reads a JWKS of public keys: OKP Ed25519 (for EdDSA) and EC P-256 (for ES256).
    ///
    /// # Errors
    /// [`KeysError`] with the place and the reason; nothing of the file is used then.
    pub fn from_jwks(text: &str) -> Result<Self, KeysError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(KeysError::Unreadable("larger than 256 KiB".to_owned()));
        }
        let file = json::object(text.as_bytes()).map_err(|e| KeysError::Unreadable(e.to_string()))?;
        let Some(Value::Array(list)) = file.get("keys") else {
            return Err(KeysError::Unreadable(
                "expected an object with a list `keys`".to_owned(),
            ));
        };
        if list.is_empty() || list.len() > KEYS_MAX {
            return Err(KeysError::Unreadable(format!(
                "expected 1 to {KEYS_MAX} keys, found {}",
                list.len()
            )));
        }
        let mut keys = HashMap::with_capacity(list.len());
        for (index, jwk) in list.iter().enumerate() {
            let (kid, key) = read_key(jwk).map_err(|flaw| KeysError::Key { index, flaw })?;
            if keys.contains_key(&kid) {
                return Err(KeysError::Key {
                    index,
                    flaw: KeyFlaw::KidTwice(kid),
                });
            }
            keys.insert(kid, key);
        }
        Ok(Self { keys })
    }

    /// Whether a development key is among them: then every listener of the service must be on loopback.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.keys.contains_key(DEVELOPMENT_KID)
    }

    /// How many keys there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&VerifyKey> {
        self.keys.get(kid)
    }
}

/// Shows the key ids only.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

fn read_key(jwk: &Value) -> Result<(String, VerifyKey), KeyFlaw> {
    let Value::Object(jwk) = jwk else {
        return Err(KeyFlaw::NotAnObject);
    };
    if let Some(member) = PRIVATE_MEMBERS
        .into_iter()
        .find(|member| jwk.contains_key(*member))
    {
        return Err(KeyFlaw::Private(member));
    }
    let text = |member: &str| jwk.get(member).and_then(Value::as_str);
    let kid = text("kid")
        .filter(|kid| (1..=KID_BYTES_MAX).contains(&kid.len()))
        .ok_or(KeyFlaw::Kid)?;
    let algorithm = match (text("kty"), text("crv")) {
        (Some("OKP"), Some("Ed25519")) => KeyAlgorithm::EdDsa,
        (Some("EC"), Some("P-256")) => KeyAlgorithm::Es256,
        (kty, crv) => {
            let name = [kty.unwrap_or("(none)"), crv.unwrap_or("")]
                .join(" ")
                .trim_end()
                .to_owned();
            return Err(KeyFlaw::Unsupported(name));
        }
    };
    check_purpose(jwk, algorithm)?;
    let key = match algorithm {
        KeyAlgorithm::EdDsa => {
            let x = coordinate(jwk, "x")?;
            check_point(&ED25519, &x)?;
            DecodingKey::from_ed_der(&x)
        }
        KeyAlgorithm::Es256 => {
            let point = [&[4], &*coordinate(jwk, "x")?, &*coordinate(jwk, "y")?].concat();
            check_point(&ECDSA_P256_SHA256_FIXED, &point)?;
            DecodingKey::from_ec_der(&point)
        }
    };
    Ok((kid.to_owned(), VerifyKey { algorithm, key }))
}

/// Refuses keys whose own file says that they are for something else.
fn check_purpose(jwk: &Map<String, Value>, algorithm: KeyAlgorithm) -> Result<(), KeyFlaw> {
    let fits = |member: &'static str, good: bool| {
        if good {
            Ok(())
        } else {
            Err(KeyFlaw::Purpose(member, algorithm.name()))
        }
    };
    fits("alg", jwk.get("alg").is_none_or(|alg| alg == algorithm.name()))?;
    fits("use", jwk.get("use").is_none_or(|purpose| purpose == "sig"))?;
    let verify = |ops: &Value| {
        ops.as_array()
            .is_some_and(|ops| ops.iter().any(|op| op == "verify"))
    };
    fits("key_ops", jwk.get("key_ops").is_none_or(verify))
}

/// One coordinate of 32 bytes.
fn coordinate(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyFlaw> {
    jwk.get(member)
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .filter(|bytes| bytes.len() == 32)
        .ok_or(KeyFlaw::Coordinate(member))
}

/// A point that is not on the curve would refuse every token later, with nobody knowing why.
fn check_point<A: VerificationAlgorithm>(algorithm: &'static A, point: &[u8]) -> Result<(), KeyFlaw> {
    ParsedPublicKey::new(algorithm, point)
        .map(drop)
        .map_err(|_| KeyFlaw::Coordinate("x"))
}
