//! The keys that tokens are checked with, read from a JWKS (RFC 7517).
//!
//! A key brings its own algorithm; what a token says about algorithms is only compared with it. Read at start from a file,
//! and by [`crate::jwks`] from what an issuer's endpoint answers; looked up once per token. No URL is ever followed from here.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::json;

mod jwk;
mod vouched;

use vouched::Vouched;

/// The `kid` of keys that `roomcast dev` makes. A service that holds one serves loopback addresses only.
pub const DEVELOPMENT_KID: &str = "roomcast-dev";
/// Longest `kid` in bytes.
pub const KID_BYTES_MAX: usize = 64;
/// Most keys in one file: an issuer that rotates has two or three.
pub const KEYS_MAX: usize = 64;
/// Largest key file in bytes: 64 keys of 4 KiB.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// Sizes of an RSA key, bits: less is within reach of attackers, more costs every check too much.
pub const RSA_BITS: RangeInclusive<usize> = 2_048..=4_096;
/// Sizes of a shared secret, bytes: at least the digest's (RFC 7518 §3.2).
pub const SECRET_BYTES: RangeInclusive<usize> = 32..=1_024;

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
    #[error(
        "key type {0} is not supported; use OKP with Ed25519 (EdDSA), EC with P-256 (ES256) or RSA (RS256)"
    )]
    Unsupported(String),
    /// `alg`, `use` or `key_ops` contradicts what the key would be used for.
    #[error("`{0}` does not fit a key that verifies {1} signatures")]
    Purpose(&'static str, &'static str),
    /// A coordinate is missing, is not base64url, has the wrong length or is no point of the curve.
    #[error("`{0}` is missing or is not a coordinate of this curve")]
    Coordinate(&'static str),
    /// An RSA modulus that is missing, even, too small or too large.
    #[error("`n` must be an odd number of 2048 to 4096 bits")]
    Modulus,
    /// An RSA exponent that is missing, even, too small or too large; small ones have been fatal too often.
    #[error("`e` must be an odd number from 65537 to 4294967295")]
    Exponent,
    /// A shared secret where nobody allowed one.
    #[error(
        "holds a shared secret (kty oct); HS256 is refused unless ROOMCAST_JWT_ALLOW_HS=true, and allow_hs in a list of issuers, allow it"
    )]
    SecretNotAllowed,
    /// A shared secret that is missing, can be guessed or is absurdly long.
    #[error("`k` must be a secret of 32 to 1024 bytes")]
    Secret,
    /// The key id of development keys, from an endpoint.
    #[error("`kid` roomcast-dev belongs to development keys, which come from a file only")]
    Development,
}

/// A signature algorithm, fixed by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAlgorithm {
    EdDsa,
    Es256,
    Rs256,
    Hs256,
}

impl KeyAlgorithm {
    /// The name in a token's header.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }
}

/// What signatures are checked with: made when the keys are read, because a service reads its keys once and checks a signature for each
/// client that comes. Making an RSA key anew takes a sixth as long as the check itself.
#[derive(Clone)]
enum Material {
    Shared(Arc<hmac::Key>),
    Public(Arc<ParsedPublicKey>),
}

/// One key and the one algorithm it is good for.
#[derive(Clone)]
pub(crate) struct VerifyKey {
    algorithm: KeyAlgorithm,
    /// Length of its signatures.
    signature_bytes: usize,
    material: Material,
    /// What this key and the others of its set have vouched for.
    vouched: Arc<Vouched>,
}

impl VerifyKey {
    pub(crate) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Whether `signature` (base64url) signs `message`, the rest of the token, under this key. A token whose header names
    /// another key of the set must never be asked about here: the set remembers good ones for all its keys.
    pub(crate) fn verifies(&self, signature: &str, message: &str) -> bool {
        match self.algorithm {
            // Checked as fast as remembered.
            KeyAlgorithm::Hs256 => self.signs(signature, message),
            _ => self
                .vouched
                .or_else(message, signature, || self.signs(signature, message)),
        }
    }

    fn signs(&self, signature: &str, message: &str) -> bool {
        // A wrong length never reaches the cryptography.
        if signature.len() != (4 * self.signature_bytes).div_ceil(3) {
            return false;
        }
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            return false;
        };
        match &self.material {
            Material::Shared(key) => hmac::verify(key, message.as_bytes(), &signature).is_ok(),
            Material::Public(key) => key.verify_sig(message.as_bytes(), &signature).is_ok(),
        }
    }
}

/// The keys of one issuer, by `kid`.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, VerifyKey>,
    vouched: Arc<Vouched>,
}

impl KeySet {
    /// Reads a JWKS of public keys: OKP Ed25519 (for EdDSA), EC P-256 (for ES256) and RSA (for RS256).
    ///
    /// # Errors
    /// [`KeysError`] with the place and the reason; nothing of the file is used then.
    pub fn from_jwks(text: &str) -> Result<Self, KeysError> {
        Self::from_file(text, false)
    }

    /// The same; with `allow_hs` the file may hold shared secrets (`oct`, for HS256) as well, and must be kept like one.
    ///
    /// # Errors
    /// As [`KeySet::from_jwks`].
    pub fn from_file(text: &str, allow_hs: bool) -> Result<Self, KeysError> {
        let mut set = Self::default();
        let list = elements(text)?;
        if list.is_empty() {
            return Err(wrong_count(0));
        }
        for (index, jwk) in list.iter().enumerate() {
            let read = jwk::read(jwk, allow_hs).and_then(|(kid, key)| set.add(kid, key));
            read.map_err(|flaw| KeysError::Key { index, flaw })?;
        }
        Ok(set)
    }

    /// Reads what an issuer's endpoint answered. Public keys only, never a development key. Keys that are of no use here
    /// are left out, because issuers publish them for others to use (RFC 7517 §5): keys for encryption, other algorithms.
    /// An empty list is a set as well: the issuer says that no key of it counts.
    ///
    /// # Errors
    /// [`KeysError`]: not a JWKS, keys of which none can be used (with what is wrong with the first), a `kid` used twice.
    pub fn from_endpoint(text: &str) -> Result<Self, KeysError> {
        let (mut set, mut first) = (Self::default(), None);
        for (index, jwk) in elements(text)?.iter().enumerate() {
            let usable = jwk::read(jwk, false).and_then(|(kid, key)| match kid == DEVELOPMENT_KID {
                true => Err(KeyFlaw::Development),
                false => Ok((kid, key)),
            });
            match usable {
                Ok((kid, key)) => set.add(kid, key).map_err(|flaw| KeysError::Key { index, flaw })?,
                Err(flaw) => first = first.or(Some(KeysError::Key { index, flaw })),
            }
        }
        match first {
            Some(error) if set.keys.is_empty() => Err(error),
            _ => Ok(set),
        }
    }

    fn add(&mut self, kid: String, mut key: VerifyKey) -> Result<(), KeyFlaw> {
        if self.keys.contains_key(&kid) {
            return Err(KeyFlaw::KidTwice(kid));
        }
        key.vouched = Arc::clone(&self.vouched);
        self.keys.insert(kid, key);
        Ok(())
    }

    /// Whether a development key is among them: then every listener of the service must be on loopback.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.keys.contains_key(DEVELOPMENT_KID)
    }

    /// How many keys there are; none only of an endpoint that publishes none.
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

/// The list `keys` of a JWKS.
fn elements(text: &str) -> Result<Vec<Value>, KeysError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(KeysError::Unreadable("larger than 256 KiB".to_owned()));
    }
    let mut file = json::object(text.as_bytes()).map_err(|e| KeysError::Unreadable(e.to_string()))?;
    let Some(Value::Array(list)) = file.remove("keys") else {
        return Err(KeysError::Unreadable(
            "expected an object with a list `keys`".to_owned(),
        ));
    };
    if list.len() > KEYS_MAX {
        return Err(wrong_count(list.len()));
    }
    Ok(list)
}

fn wrong_count(found: usize) -> KeysError {
    KeysError::Unreadable(format!("expected 1 to {KEYS_MAX} keys, found {found}"))
}
