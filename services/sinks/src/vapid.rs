//! VAPID (RFC 8292): how push services know this server, and whom they may write to about it.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

/// How long a signature is good: RFC 8292 allows 24 h, and clocks differ.
const GOOD_FOR_SECS: i64 = 12 * 3_600;

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VapidError {
    /// The file holds no key.
    #[error(
        "is no P-256 key in PEM (`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one)"
    )]
    Key,
    /// The library refuses.
    #[error("nothing can be signed")]
    Library,
}

/// The key by which push services know this server.
pub struct Vapid {
    key: EncodingKey,
    public_key: String,
    contact: String,
}

/// Shows no key.
impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid")
            .field("contact", &self.contact)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    sub: &'a str,
}

impl Vapid {
    /// Reads the key from PEM (PKCS 8); `contact` is who a push service writes to: `mailto:` or `https://`.
    ///
    /// # Errors
    /// [`VapidError::Key`].
    pub fn read(pem: &[u8], contact: &str) -> Result<Self, VapidError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| VapidError::Key)?;
        let der = der.secret_pkcs8_der();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| VapidError::Key)?;
        Ok(Self {
            key: EncodingKey::from_ec_der(der),
            public_key: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            contact: contact.to_owned(),
        })
    }

    /// What a page gives its browser as `applicationServerKey`.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The value of `Authorization` for a push service, by its origin (`https://push.example`).
    ///
    /// # Errors
    /// [`VapidError::Library`].
    pub fn authorization(&self, origin: &str, now_secs: i64) -> Result<String, VapidError> {
        let claims = Claims {
            aud: origin,
            exp: now_secs.saturating_add(GOOD_FOR_SECS),
            sub: &self.contact,
        };
        let header = Header::new(Algorithm::ES256);
        let token = jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| VapidError::Library)?;
        Ok(format!("vapid t={token}, k={}", self.public_key))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::{Value, json};

    use super::*;

    /// What a push service does with the header; the claims.
    fn verified(header: &str) -> Option<Value> {
        let (token, key) = header.strip_prefix("vapid t=")?.split_once(", k=")?;
        let point = URL_SAFE_NO_PAD.decode(key).ok()?;
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = DecodingKey::from_ec_components(&encode(&point[1..33]), &encode(&point[33..])).ok()?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.validate_exp = false;
        jsonwebtoken::decode::<Value>(token, &key, &validation)
            .ok()
            .map(|read| read.claims)
    }

    #[test]
    fn the_example_of_the_standard_is_verified() {
        // RFC 8292, section 2.4.
        let example = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        let claims = json!({ "aud": "https://push.example.net", "exp": 1_453_523_768, "sub": "mailto:push@example.com" });
        assert_eq!(verified(example), Some(claims));
        let forged = example.replace("i3CYb7t4", "i3CYb7t5");
        assert_eq!(verified(&forged), None);
    }

    #[test]
    fn a_push_service_can_tell_who_sends() {
        let pem = include_bytes!("../tests/vapid.pem");
        let vapid = Vapid::read(pem, "mailto:ops@desk.example").unwrap();
        let header = vapid
            .authorization("https://push.example.net", 1_700_000_000)
            .unwrap();
        assert!(
            header.ends_with(&format!(", k={}", vapid.public_key())),
            "{header}"
        );
        let claims = json!({ "aud": "https://push.example.net", "exp": 1_700_043_200, "sub": "mailto:ops@desk.example" });
        assert_eq!(verified(&header), Some(claims));
        assert_eq!(
            format!("{vapid:?}"),
            r#"Vapid { contact: "mailto:ops@desk.example", .. }"#
        );
        for strange in [
            &b""[..],
            b"key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert_eq!(Vapid::read(strange, "mailto:a@b").unwrap_err(), VapidError::Key);
        }
    }
}
