//! Tokens as they come from issuers, and as they come from people who are not the issuer.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{TokenError, TokenRules, Verifier};
use crate::keys::{KeyFlaw, KeySet, KeysError};

const NOW: i64 = 1_790_000_000;

/// An issuer with one key of each kind, made anew from fixed seeds.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

impl Issuer {
    fn new(seed: u8) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self {
            ed: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(self.ed.public_key().as_ref()), "use": "sig" },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..]) },
        ]})
    }

    fn keys(&self) -> KeySet {
        KeySet::from_jwks(&self.jwks().to_string()).unwrap()
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(rules("https://issuer"), self.keys())
    }

    /// Signs any two texts with the Ed25519 key, whatever they are.
    fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_parts(&format!("{}.{}", b64(header), b64(claims)))
    }

    fn sign_parts(&self, signed: &str) -> String {
        format!("{signed}.{}", b64(self.ed.sign(signed.as_bytes()).as_ref()))
    }

    fn sign_ec(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", b64(signature.as_ref()))
    }
}

fn rules(issuer: &str) -> TokenRules {
    TokenRules {
        issuer: issuer.to_owned(),
        audience: "roomcast".to_owned(),
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

const ED: &str = r#"{"alg":"EdDSA","kid":"ed","typ":"JWT"}"#;
const EC: &str = r#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#;

fn good_claims() -> Value {
    json!({ "iss": "https://issuer", "aud": "roomcast", "sub": "u1", "exp": NOW + 900, "roles": ["staff"], "property_ids": [42] })
}

/// The good claims with one member set, or removed by `Value::Null`.
fn with(member: &str, value: Value) -> String {
    let mut claims = good_claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
        value => claims[member] = value,
    }
    claims.to_string()
}

/// The good claims with raw JSON put in front, for what no JSON writer writes.
fn raw(front: &str) -> String {
    format!("{{{front},{}", &good_claims().to_string()[1..])
}

fn raw_without(member: &str, front: &str) -> String {
    format!("{{{front},{}", &with(member, Value::Null)[1..])
}

fn header(front: &str) -> String {
    format!("{{{front},{}", &ED[1..])
}

/// Why the token is refused; `"accepted"` if it is not.
fn verdict(verifier: &Verifier, token: &str) -> &'static str {
    verifier
        .verify(token, NOW)
        .map_or_else(TokenError::reason, |_| "accepted")
}

#[test]
fn a_good_token_names_its_principal() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let claims = json!({
        "iss": "https://issuer", "aud": ["other", "roomcast"], "sub": "u1@acme:x", "exp": NOW + 86_400, "iat": NOW - 5, "nbf": NOW,
        "jti": "t-1", "tenant": "acme", "roles": ["staff", "SUPER_ADMIN"], "property_ids": [42, "43"],
    });
    for token in [
        issuer.sign(ED, &claims.to_string()),
        issuer.sign_ec(EC, &claims.to_string()),
    ] {
        let principal = verifier.verify(&token, NOW).unwrap();
        assert_eq!(principal.tenant.as_str(), "acme");
        assert_eq!(&*principal.subject, "u1@acme:x");
        assert_eq!(principal.roles, ["staff", "SUPER_ADMIN"]);
        assert_eq!(principal.expires_at, NOW + 86_400);
        assert_eq!(
            (principal.issued_at, principal.token_id.as_deref()),
            (Some(NOW - 5), Some("t-1"))
        );
        assert_eq!(
            Value::Object(principal.claims.clone()),
            json!({ "property_ids": [42, "43"] })
        );
        let shown = format!("{principal:?} {verifier:?}");
        assert!(!shown.contains("43") && !shown.contains("eyJ"), "{shown}");
    }
    let least =
        json!({ "iss": "https://issuer", "aud": "roomcast", "sub": "u1", "exp": NOW + 1 }).to_string();
    let principal = verifier.verify(&issuer.sign(ED, &least), NOW).unwrap();
    assert_eq!((principal.tenant.as_str(), principal.roles.len()), ("main", 0));
}

#[test]
fn what_issuers_really_send_is_accepted() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let good = good_claims().to_string();
    for (what, token) in [
        ("plain", issuer.sign(ED, &good)),
        ("ES256", issuer.sign_ec(EC, &good)),
        ("no typ", issuer.sign(r#"{"alg":"EdDSA","kid":"ed"}"#, &good)),
        (
            "typ at+jwt",
            issuer.sign(r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#, &good),
        ),
        (
            "typ in lower case",
            issuer.sign(r#"{"alg":"EdDSA","kid":"ed","typ":"jwt"}"#, &good),
        ),
        (
            "a jku that is never followed",
            issuer.sign(&header(r#""jku":"https://evil/jwks""#), &good),
        ),
        (
            "spaces in the JSON",
            issuer.sign(&format!(" {ED} "), &format!("\n{good}\n")),
        ),
        (
            "a fraction in exp",
            issuer.sign(ED, &with("exp", json!(NOW as f64 + 10.75))),
        ),
        (
            "exp in another notation",
            issuer.sign(ED, &raw_without("exp", r#""exp":1.79e9"#)),
        ),
        (
            "exp within the leeway",
            issuer.sign(ED, &with("exp", json!(NOW - 29))),
        ),
        (
            "exp a day and the leeway away",
            issuer.sign(ED, &with("exp", json!(NOW + 86_430))),
        ),
        (
            "nbf within the leeway",
            issuer.sign(ED, &with("nbf", json!(NOW + 30))),
        ),
        (
            "iat within the leeway",
            issuer.sign(ED, &with("iat", json!(NOW + 30))),
        ),
        (
            "sub of 128",
            issuer.sign(ED, &with("sub", json!("a".repeat(128)))),
        ),
        ("64 roles", issuer.sign(ED, &with("roles", json!(vec!["r"; 64])))),
        (
            "nested claims",
            issuer.sign(ED, &with("address", json!({ "a": [{ "b": null }] }))),
        ),
    ] {
        assert_eq!(verdict(&verifier, &token), "accepted", "{what}");
    }
}

/// Two issuers with the same key ids: each vouches for itself only.
#[test]
fn a_key_vouches_for_its_own_issuer_only() {
    let (one, two) = (Issuer::new(1), Issuer::new(2));
    let verifier =
        Verifier::new(rules("https://issuer"), one.keys()).trusting("https://two".to_owned(), two.keys());
    let of_two = with("iss", json!("https://two"));
    for (token, expected) in [
        (one.sign(ED, &good_claims().to_string()), "accepted"),
        (two.sign(ED, &of_two), "accepted"),
        (two.sign(ED, &good_claims().to_string()), "issuer"),
        (one.sign(ED, &of_two), "issuer"),
        (Issuer::new(3).sign(ED, &of_two), "signature"),
    ] {
        assert_eq!(verdict(&verifier, &token), expected);
    }
}

/// What is told does not say which check failed.
#[test]
fn answers_say_expired_or_invalid_and_no_more() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let refused = verifier.verify("a.b.c", NOW).unwrap_err();
    assert_eq!(refused.to_string(), "the token is not valid");
    let expired = verifier
        .verify(&issuer.sign(ED, &with("exp", json!(1))), NOW)
        .unwrap_err();
    assert_eq!(
        (expired, expired.to_string().as_str()),
        (TokenError::Expired, "the token has expired")
    );
    assert_eq!(
        (
            TokenError::Unready.reason(),
            TokenError::Unready.to_string().as_str()
        ),
        ("unready", "the token cannot be checked at the moment")
    );
}

/// The kinds of key whose confusion has broken verifiers: one RSA key, one shared secret.
mod claims;
mod confusion;
mod headers;
mod key_files;
mod shapes;
mod signatures;

proptest! {
    #[test]
    fn no_bytes_make_the_verifier_panic(text in "\\PC{0,120}", claims in "\\PC{0,120}", now in any::<i64>()) {
        let issuer = Issuer::new(1);
        let verifier = issuer.verifier();
        prop_assert!(verifier.verify(&text, now).is_err());
        prop_assert!(verifier.verify(&issuer.sign(&text, &claims), now).is_err());
        prop_assert!(verifier.verify(&issuer.sign(ED, &claims), now).is_err());
    }

    /// Whatever single character of a good token is changed, it is refused.
    #[test]
    fn every_change_is_noticed(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.=-]") {
        let issuer = Issuer::new(1);
        let token = issuer.sign(ED, &good_claims().to_string());
        let at = at.index(token.len());
        prop_assume!(token[at..=at] != with);
        let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        let verifier = issuer.verifier();
        prop_assert!(verifier.verify(&changed, NOW).is_err());
        // Nor does it help that the good one was seen before.
        prop_assert!(verifier.verify(&token, NOW).is_ok());
        prop_assert!(verifier.verify(&changed, NOW).is_err());
    }
}
