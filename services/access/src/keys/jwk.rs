//! One key of a JWKS, read strictly: what its type, its purpose and its numbers must be before a token is checked with it.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{KID_BYTES_MAX, KeyAlgorithm, KeyFlaw, Material, RSA_BITS, SECRET_BYTES, VerifyKey};

/// Members that only private or secret keys have (RFC 7518 §6, RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// Two numbers of 32 bytes (RFC 7518 §3.4, RFC 8032).
const CURVE_SIGNATURE_BYTES: usize = 64;
/// The least exponent: what nearly every key has, and the least of FIPS 186-5.
const EXPONENT_MIN: u64 = 65_537;

/// Reads one key. `allow_hs`: whether it may be a shared secret.
pub(super) fn read(jwk: &Value, allow_hs: bool) -> Result<(String, VerifyKey), KeyFlaw> {
    let Value::Object(jwk) = jwk else {
        return Err(KeyFlaw::NotAnObject);
    };
    let text = |member: &str| jwk.get(member).and_then(Value::as_str);
    let shared = text("kty") == Some("oct");
    if shared && !allow_hs {
        return Err(KeyFlaw::SecretNotAllowed);
    }
    if let Some(member) = PRIVATE_MEMBERS
        .into_iter()
        .find(|member| jwk.contains_key(*member) && !(shared && *member == "k"))
    {
        return Err(KeyFlaw::Private(member));
    }
    let kid = text("kid")
        .filter(|kid| (1..=KID_BYTES_MAX).contains(&kid.len()))
        .ok_or(KeyFlaw::Kid)?;
    let algorithm = match (text("kty"), text("crv")) {
        (Some("OKP"), Some("Ed25519")) => KeyAlgorithm::EdDsa,
        (Some("EC"), Some("P-256")) => KeyAlgorithm::Es256,
        (Some("RSA"), None) => KeyAlgorithm::Rs256,
        (Some("oct"), None) => KeyAlgorithm::Hs256,
        (kty, crv) => {
            let name = [kty.unwrap_or("(none)"), crv.unwrap_or("")]
                .join(" ")
                .trim_end()
                .to_owned();
            return Err(KeyFlaw::Unsupported(name));
        }
    };
    check_purpose(jwk, algorithm)?;
    let (material, signature_bytes) = match algorithm {
        KeyAlgorithm::EdDsa => (curve(&ED25519, &coordinate(jwk, "x")?)?, CURVE_SIGNATURE_BYTES),
        KeyAlgorithm::Es256 => {
            let point = [&[4], &*coordinate(jwk, "x")?, &*coordinate(jwk, "y")?].concat();
            (curve(&ECDSA_P256_SHA256_FIXED, &point)?, CURVE_SIGNATURE_BYTES)
        }
        KeyAlgorithm::Rs256 => {
            let (n, e) = (modulus(jwk)?, exponent(jwk)?);
            let bytes = n.len();
            let key = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            (
                Material::Public(Arc::new(key.map_err(|_| KeyFlaw::Modulus)?)),
                bytes,
            )
        }
        KeyAlgorithm::Hs256 => {
            let secret = bytes(jwk, "k").filter(|secret| SECRET_BYTES.contains(&secret.len()));
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.ok_or(KeyFlaw::Secret)?);
            (Material::Shared(Arc::new(key)), 32)
        }
    };
    let key = VerifyKey {
        algorithm,
        signature_bytes,
        material,
        vouched: Arc::default(),
    };
    Ok((kid.to_owned(), key))
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

fn bytes(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.get(member)?.as_str()?).ok()
}

/// A whole number, big-endian. Zeros in front, which some issuers add though RFC 7518 §2 forbids it, are dropped.
fn number(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    let bytes = bytes(jwk, member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes.get(zeros..)?.to_vec())
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte & 1 == 1)
}

/// The modulus of an RSA key.
fn modulus(jwk: &Map<String, Value>) -> Result<Vec<u8>, KeyFlaw> {
    let n = number(jwk, "n").filter(|n| is_odd(n)).ok_or(KeyFlaw::Modulus)?;
    let leading = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (n.len() * 8).saturating_sub(leading as usize);
    RSA_BITS.contains(&bits).then_some(n).ok_or(KeyFlaw::Modulus)
}

/// The exponent of an RSA key; at most 32 bits, because every check pays for its length.
fn exponent(jwk: &Map<String, Value>) -> Result<Vec<u8>, KeyFlaw> {
    let e = number(jwk, "e").filter(|e| is_odd(e) && e.len() <= 4);
    let e = e.ok_or(KeyFlaw::Exponent)?;
    let value = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    (value >= EXPONENT_MIN).then_some(e).ok_or(KeyFlaw::Exponent)
}

/// One coordinate of 32 bytes.
fn coordinate(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyFlaw> {
    bytes(jwk, member)
        .filter(|bytes| bytes.len() == 32)
        .ok_or(KeyFlaw::Coordinate(member))
}

/// A point that is not on the curve would refuse every token later, with nobody knowing why.
fn curve<A: VerificationAlgorithm>(algorithm: &'static A, point: &[u8]) -> Result<Material, KeyFlaw> {
    ParsedPublicKey::new(algorithm, point)
        .map(|key| Material::Public(Arc::new(key)))
        .map_err(|_| KeyFlaw::Coordinate("x"))
}
