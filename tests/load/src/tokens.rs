//! An issuer with a key for every algorithm, so that what each costs a gateway can be told apart.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// A shared secret.
    Hs256,
    /// RSA with 2,048 bits.
    Rs256,
    /// Ed25519.
    Eddsa,
    /// P-256.
    Es256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Eddsa, Self::Es256];

    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Eddsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One key of each kind.
pub struct Issuer {
    secret: Vec<u8>,
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    rsa: RsaKeyPair,
    random: SystemRandom,
    signed: AtomicU64,
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What stands before the modulus in the DER of a public key of 2,048 bits: a sequence, and a whole number with a leading zero.
const RSA_DER_HEAD: usize = 9;
const RSA_BYTES: usize = 256;
/// Checks of a signature that are timed, each alone.
const CHECKS: usize = 501;

impl Issuer {
    /// New keys.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new() -> anyhow::Result<Self> {
        let mut secret = vec![0; 32];
        rand::fill(&mut secret)?;
        Ok(Self {
            secret,
            ed25519: Ed25519KeyPair::generate()?,
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            rsa: RsaKeyPair::generate(KeySize::Rsa2048)?,
            random: SystemRandom::new(),
            signed: AtomicU64::new(0),
        })
    }

    /// What the services read: the public keys, and the secret.
    ///
    /// # Errors
    /// When a key cannot be written down.
    pub fn jwks(&self) -> anyhow::Result<String> {
        let point = self.p256.public_key().as_ref();
        let rsa: &[u8] = &AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(self.rsa.public_key())
            .map(|der| der.as_ref().to_vec())?;
        let modulus = modulus(rsa).ok_or_else(|| anyhow::anyhow!("an RSA key of another form"))?;
        let keys = json!({ "keys": [
            { "kty": "oct", "alg": "HS256", "use": "sig", "kid": "HS256", "k": encoded(&self.secret) },
            { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "EdDSA",
              "x": encoded(self.ed25519.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "ES256",
              "x": encoded(&point[1..33]), "y": encoded(&point[33..65]) },
            { "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "RS256", "n": encoded(modulus), "e": "AQAB" },
        ] });
        Ok(keys.to_string())
    }

    /// A token for an hour; no two are the same, so none is one that a gateway remembers.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn token(
        &self,
        algorithm: Algorithm,
        user: &str,
        role: &str,
        rooms: &[String],
    ) -> anyhow::Result<String> {
        let name = algorithm.name();
        let now = roomcast_harness::token::now();
        let id = self.signed.fetch_add(1, Ordering::Relaxed).to_string();
        let claims: Value = json!({
            "iss": roomcast_harness::token::ISSUER, "aud": "roomcast", "sub": user, "iat": now, "exp": now + 3_600,
            "jti": id, "roles": [role], "rooms": rooms,
        });
        let header = json!({ "alg": name, "typ": "JWT", "kid": name });
        let signed = format!(
            "{}.{}",
            encoded(header.to_string().as_bytes()),
            encoded(claims.to_string().as_bytes())
        );
        let bytes = signed.as_bytes();
        let signature = match algorithm {
            Algorithm::Hs256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
                hmac::sign(&key, bytes).as_ref().to_vec()
            }
            Algorithm::Eddsa => self.ed25519.sign(bytes).as_ref().to_vec(),
            Algorithm::Es256 => self.p256.sign(&self.random, bytes)?.as_ref().to_vec(),
            Algorithm::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &self.random, bytes, &mut signature)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", encoded(&signature)))
    }

    /// What this machine takes now for checks of one signature alone, microseconds each. By the library and from the form of the key
    /// that the services use.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn check_micros(&self, algorithm: Algorithm) -> anyhow::Result<Vec<f64>> {
        let token = self.token(algorithm, "viewer1", "viewer", &["7".to_owned()])?;
        let (message, signature) = token.rsplit_once('.').unwrap_or_default();
        let (message, signature) = (message.as_bytes(), URL_SAFE_NO_PAD.decode(signature)?);
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let check = || match algorithm {
            Algorithm::Hs256 => hmac::verify(
                &hmac::Key::new(hmac::HMAC_SHA256, &self.secret),
                message,
                &signature,
            ),
            Algorithm::Eddsa => {
                UnparsedPublicKey::new(&ED25519, self.ed25519.public_key()).verify(message, &signature)
            }
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.p256.public_key())
                .verify(message, &signature),
            Algorithm::Rs256 => rsa.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature),
        };
        let timed = |_| {
            let start = Instant::now();
            check()?;
            Ok(start.elapsed().as_secs_f64() * 1e6)
        };
        (0..CHECKS).map(timed).collect()
    }
}

/// The modulus in the DER of a public key, of PKCS#1 or with X.509's head before it.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    const HEAD: [u8; RSA_DER_HEAD] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    let at = der.windows(HEAD.len()).position(|window| window == HEAD)? + HEAD.len();
    der.get(at..at + RSA_BYTES)
}

#[cfg(test)]
mod tests {
    use roomcast_access::{KeySet, TokenRules, Verifier};

    use super::*;

    #[test]
    fn the_services_accept_the_tokens() {
        let issuer = Issuer::new().unwrap();
        let keys = KeySet::from_file(&issuer.jwks().unwrap(), true).unwrap();
        let rules = TokenRules {
            issuer: roomcast_harness::token::ISSUER.to_owned(),
            audience: "roomcast".to_owned(),
        };
        let verifier = Verifier::new(rules, keys);
        for algorithm in Algorithm::ALL {
            let token = issuer
                .token(algorithm, "u1", "viewer", &["7".to_owned()])
                .unwrap();
            let now = roomcast_harness::token::now();
            let principal = verifier.verify(&token, now).unwrap();
            assert_eq!(&*principal.subject, "u1", "{algorithm}");
            let micros = issuer.check_micros(algorithm).unwrap();
            assert!(micros.iter().all(|each| *each > 0.0), "{algorithm}");
            let (head, forged) = token.rsplit_once('.').unwrap();
            let other = forged.replacen(&forged[..1], if forged.starts_with('A') { "B" } else { "A" }, 1);
            assert!(
                verifier.verify(&format!("{head}.{other}"), now).is_err(),
                "{algorithm}"
            );
        }
    }
}
