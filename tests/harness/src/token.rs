//! Tokens and keys for tests, signed with a library of its own, so that a mistake of ours does not cancel itself out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Issuer of the tokens made here and by `roomcast dev`.
pub const ISSUER: &str = "roomcast-dev";
/// Key id of development keys.
pub const KEY_ID: &str = "roomcast-dev";

/// An Ed25519 key that signs tokens.
pub struct Signer {
    pair: aws_lc_rs::signature::Ed25519KeyPair,
    kid: String,
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Signer {
    /// A new key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().expect("randomness");
        Self {
            pair,
            kid: KEY_ID.to_owned(),
        }
    }

    /// A new key with a key id of its own; issuers publish no development keys.
    #[must_use]
    pub fn named(kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            ..Self::new()
        }
    }

    /// The key in a PEM PKCS#8 file, as `roomcast dev` writes it.
    ///
    /// # Panics
    /// When the file is not one.
    #[must_use]
    pub fn from_pem(text: &str) -> Self {
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(body)
            .expect("PEM holds base64");
        let pair =
            aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("an Ed25519 key");
        Self {
            pair,
            kid: KEY_ID.to_owned(),
        }
    }

    /// The public half as a JWKS.
    #[must_use]
    pub fn jwks(&self) -> String {
        use aws_lc_rs::signature::KeyPair as _;
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x }] }).to_string()
    }

    /// Signs any claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.kid }), claims)
    }

    /// Signs any claims under any header.
    #[must_use]
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    /// A good token for a user with roles, for `seconds`, with more claims.
    #[must_use]
    pub fn token_with(&self, user: &str, roles: &[&str], seconds: i64, more: &Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": "roomcast", "sub": user, "iat": now(), "exp": now() + seconds, "roles": roles,
        });
        if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
            claims.extend(more.clone());
        }
        self.sign(&claims)
    }

    /// A good token for an hour.
    #[must_use]
    pub fn token(&self, user: &str, roles: &[&str]) -> String {
        self.token_with(user, roles, 3600, &Value::Null)
    }
}

/// A token that is bad in one way.
pub struct Hostile {
    /// The way, in words.
    pub what: &'static str,
    /// The check that refuses it, as it is counted.
    pub check: &'static str,
    /// The token.
    pub token: String,
}

impl Signer {
    /// A user's token, made bad in one way each. Those that can be are signed with this key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn hostile(&self, user: &str, roles: &[&str]) -> Vec<Hostile> {
        let good = json!({
            "iss": ISSUER, "aud": "roomcast", "sub": user, "iat": now(), "exp": now() + 3600, "roles": roles,
        });
        let head = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.kid });
        let changed = |of: &Value, name: &str, value: Value| {
            let mut all = of.clone();
            match value {
                Value::Null => drop(all.as_object_mut().map(|all| all.remove(name))),
                value => all[name] = value,
            }
            all
        };
        let claim = |what, check, name: &str, value| Hostile {
            what,
            check,
            token: self.sign(&changed(&good, name, value)),
        };
        let header = |what, check, name: &str, value| Hostile {
            what,
            check,
            token: self.sign_with(&changed(&head, name, value), &good),
        };
        let far = now() + 100_000;
        vec![
            claim("another issuer", "issuer", "iss", json!("https://evil.example")),
            claim("no issuer", "issuer", "iss", Value::Null),
            claim(
                "the audience of admins",
                "audience",
                "aud",
                json!("roomcast-admin"),
            ),
            claim("no audience", "audience", "aud", Value::Null),
            claim(
                "an audience in a list of anything",
                "audience",
                "aud",
                json!(["roomcast", 7]),
            ),
            claim("not yet", "not_before", "nbf", json!(now() + 600)),
            claim("an end too far away", "expiry_too_far", "exp", json!(far)),
            claim("no end", "expiry", "exp", Value::Null),
            claim("an end that is text", "expiry", "exp", json!(far.to_string())),
            claim("issued tomorrow", "issued_at", "iat", json!(now() + 600)),
            claim("another tenant", "other_tenant", "tenant", json!("acme")),
            claim("a tenant that is a pattern", "tenant", "tenant", json!("*")),
            claim("nobody", "subject", "sub", Value::Null),
            claim("a user that is a subject", "subject", "sub", json!("a.>")),
            claim("roles as text", "roles", "roles", json!("SUPER_ADMIN")),
            claim(
                "an id of one kilobyte",
                "token_id",
                "jti",
                json!("x".repeat(1_000)),
            ),
            header(
                "an extension that must be understood",
                "critical",
                "crit",
                json!(["exp"]),
            ),
            header("a payload that is not encoded", "critical", "b64", json!(false)),
            header("compressed", "critical", "zip", json!("DEF")),
            header("another type", "type", "typ", json!("JWE")),
            header("an unknown key", "unknown_key", "kid", json!("another")),
            header("no key", "key_id", "kid", Value::Null),
            header("no algorithm", "algorithm", "alg", json!("none")),
            header("the public key as a secret", "algorithm", "alg", json!("HS256")),
            Hostile {
                what: "another's signature",
                check: "signature",
                token: Self::named(&self.kid).sign(&good),
            },
            Hostile {
                what: "claims that are a list",
                check: "claims",
                token: self.sign(&json!([good])),
            },
        ]
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}
