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

#[test]
fn hostile_shapes_are_refused() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let good = good_claims().to_string();
    let token = issuer.sign(ED, &good);
    let parts: Vec<&str> = token.split('.').collect();
    let [h, c, s] = parts[..] else {
        unreachable!("three parts")
    };
    let standard = STANDARD.encode(good_claims().to_string() + "???>>>");
    let rows = [
        ("empty", String::new(), "shape"),
        ("one part", h.to_owned(), "shape"),
        ("two parts", format!("{h}.{c}"), "shape"),
        ("no signature", format!("{h}.{c}."), "shape"),
        ("no claims", format!("{h}..{s}"), "shape"),
        ("no header", format!(".{c}.{s}"), "shape"),
        ("dots alone", "..".to_owned(), "shape"),
        ("trailing dot", format!("{token}."), "shape"),
        ("leading dot", format!(".{token}"), "shape"),
        ("four parts", format!("{token}.{s}"), "shape"),
        ("five parts, encrypted", format!("{h}.{c}.{s}.{s}.{s}"), "shape"),
        (
            "9 KiB",
            issuer.sign(ED, &with("x", json!("a".repeat(9_000)))),
            "too_large",
        ),
        ("a megabyte of dots", ".".repeat(1 << 20), "too_large"),
        ("leading space", format!(" {token}"), "encoding"),
        ("trailing space", format!("{token} "), "signature"),
        ("newline at the end", format!("{token}\n"), "signature"),
        ("a space inside", format!("{h} .{c}.{s}"), "encoding"),
        ("Bearer in front", format!("Bearer {token}"), "encoding"),
        (
            "padded header, signed",
            issuer.sign_parts(&format!("{}.{c}", URL_SAFE.encode(ED))),
            "encoding",
        ),
        ("padded signature", format!("{token}="), "signature"),
        (
            "padded and signed claims",
            issuer.sign_parts(&format!("{h}.{}==", b64("x"))),
            "encoding",
        ),
        (
            "standard alphabet, signed",
            issuer.sign_parts(&format!("{h}.{standard}+/")),
            "encoding",
        ),
        ("letters beyond ASCII", format!("{h}.{c}é.{s}"), "signature"),
        ("a zero byte", format!("{h}.{c}\0.{s}"), "signature"),
        (
            "header of another alphabet",
            format!("{}.{c}.{s}", h.replace('J', "Ｊ")),
            "encoding",
        ),
        (
            "loose last bits of the signature",
            format!("{h}.{c}.{}", loosen(s)),
            "signature",
        ),
        ("header is not JSON", issuer.sign("hello", &good), "header"),
        ("header is a list", issuer.sign(r#"["EdDSA"]"#, &good), "header"),
        ("header is null", issuer.sign("null", &good), "header"),
        ("header twice", issuer.sign(&format!("{ED}{ED}"), &good), "header"),
        (
            "header with a byte order mark",
            issuer.sign(&format!("\u{feff}{ED}"), &good),
            "header",
        ),
        (
            "header is not UTF-8",
            issuer.sign_parts(&format!("{}.{c}", b64(b"{\"alg\":\"\xff\"}"))),
            "header",
        ),
        ("claims are not JSON", issuer.sign(ED, "hello"), "claims"),
        (
            "claims are a list",
            issuer.sign(ED, &format!("[{good}]")),
            "claims",
        ),
        ("claims are text", issuer.sign(ED, "\"u1\""), "claims"),
        ("claims are empty JSON", issuer.sign(ED, "{}"), "issuer"),
        (
            "claims are not UTF-8",
            issuer.sign_parts(&format!("{h}.{}", b64(b"{\"sub\":\"\xff\"}"))),
            "claims",
        ),
        (
            "something after the claims",
            issuer.sign(ED, &format!("{good}x")),
            "claims",
        ),
        (
            "a token inside a token",
            issuer.sign(ED, &format!("{token:?}")),
            "claims",
        ),
        (
            "deep claims",
            issuer.sign(
                ED,
                &raw(&format!("\"x\":{}{}", "[".repeat(1_000), "]".repeat(1_000))),
            ),
            "claims",
        ),
    ];
    for (what, token, expected) in rows {
        assert_eq!(verdict(&verifier, &token), expected, "{what}");
    }
}

/// The last character of a signature of 64 bytes carries 4 bits of nothing; set one of them.
fn loosen(signature: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (front, last) = signature.split_at(signature.len() - 1);
    let at = ALPHABET.find(last).unwrap();
    format!("{front}{}", &ALPHABET[at + 1..at + 2])
}

#[test]
fn hostile_headers_are_refused() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let good = good_claims().to_string();
    let long = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, "k".repeat(65));
    let rows: [(&str, &str, &str); 36] = [
        ("alg none", r#"{"alg":"none","kid":"ed"}"#, "algorithm"),
        ("alg None", r#"{"alg":"None","kid":"ed"}"#, "algorithm"),
        ("alg empty", r#"{"alg":"","kid":"ed"}"#, "algorithm"),
        ("alg missing", r#"{"kid":"ed"}"#, "algorithm"),
        ("alg null", r#"{"alg":null,"kid":"ed"}"#, "algorithm"),
        ("alg a number", r#"{"alg":1,"kid":"ed"}"#, "algorithm"),
        ("alg a list", r#"{"alg":["EdDSA"],"kid":"ed"}"#, "algorithm"),
        ("alg in lower case", r#"{"alg":"eddsa","kid":"ed"}"#, "algorithm"),
        ("alg with a space", r#"{"alg":"EdDSA ","kid":"ed"}"#, "algorithm"),
        (
            "HS256 with a public key",
            r#"{"alg":"HS256","kid":"ed"}"#,
            "algorithm",
        ),
        ("HS512", r#"{"alg":"HS512","kid":"ed"}"#, "algorithm"),
        ("RS256", r#"{"alg":"RS256","kid":"ed"}"#, "algorithm"),
        ("PS256", r#"{"alg":"PS256","kid":"ed"}"#, "algorithm"),
        (
            "ES256 for the Ed25519 key",
            r#"{"alg":"ES256","kid":"ed"}"#,
            "algorithm",
        ),
        (
            "ES256 for the other key",
            r#"{"alg":"ES256","kid":"ec"}"#,
            "signature",
        ),
        (
            "EdDSA for the EC key",
            r#"{"alg":"EdDSA","kid":"ec"}"#,
            "algorithm",
        ),
        ("ES384", r#"{"alg":"ES384","kid":"ec"}"#, "algorithm"),
        (
            "alg twice",
            r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#,
            "header",
        ),
        (
            "alg twice, once escaped",
            r#"{"\u0061lg":"none","alg":"EdDSA","kid":"ed"}"#,
            "header",
        ),
        ("kid missing", r#"{"alg":"EdDSA"}"#, "key_id"),
        ("kid empty", r#"{"alg":"EdDSA","kid":""}"#, "key_id"),
        ("kid null", r#"{"alg":"EdDSA","kid":null}"#, "key_id"),
        ("kid a number", r#"{"alg":"EdDSA","kid":1}"#, "key_id"),
        ("kid a list", r#"{"alg":"EdDSA","kid":["ed"]}"#, "key_id"),
        ("kid an object", r#"{"alg":"EdDSA","kid":{"a":"ed"}}"#, "key_id"),
        ("kid twice", r#"{"alg":"EdDSA","kid":"ec","kid":"ed"}"#, "header"),
        ("kid of 65", &long, "key_id"),
        ("kid unknown", r#"{"alg":"EdDSA","kid":"other"}"#, "unknown_key"),
        (
            "kid a path",
            r#"{"alg":"EdDSA","kid":"../../dev/null"}"#,
            "unknown_key",
        ),
        (
            "kid an injection",
            r#"{"alg":"EdDSA","kid":"ed' OR '1'='1"}"#,
            "unknown_key",
        ),
        (
            "kid of another case",
            r#"{"alg":"EdDSA","kid":"ED"}"#,
            "unknown_key",
        ),
        (
            "typ of something else",
            r#"{"alg":"EdDSA","kid":"ed","typ":"JWE"}"#,
            "type",
        ),
        (
            "typ of a proof",
            r#"{"alg":"EdDSA","kid":"ed","typ":"dpop+jwt"}"#,
            "type",
        ),
        (
            "typ a list",
            r#"{"alg":"EdDSA","kid":"ed","typ":["JWT"]}"#,
            "type",
        ),
        ("typ null", r#"{"alg":"EdDSA","kid":"ed","typ":null}"#, "type"),
        ("typ empty", r#"{"alg":"EdDSA","kid":"ed","typ":""}"#, "type"),
    ];
    for (what, header, expected) in rows {
        assert_eq!(
            verdict(&verifier, &issuer.sign(header, &good)),
            expected,
            "{what}"
        );
    }
    for front in [
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""b64":false,"crit":["b64"]"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""enc":"A256GCM""#,
    ] {
        assert_eq!(
            verdict(&verifier, &issuer.sign(&header(front), &good)),
            "critical",
            "{front}"
        );
    }
}

#[test]
fn hostile_signatures_are_refused() {
    let issuer = Issuer::new(1);
    let thief = Issuer::new(2);
    let verifier = issuer.verifier();
    let good = good_claims().to_string();
    let ed = issuer.sign(ED, &good);
    let ec = issuer.sign_ec(EC, &good);
    let front = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
    let der = {
        let pkcs8 = issuer.ec.to_pkcs8v1().unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        let signature = key.sign(&SystemRandom::new(), front(&ec).as_bytes()).unwrap();
        format!("{}.{}", front(&ec), b64(signature.as_ref()))
    };
    let own_key = thief.jwks()["keys"][0].to_string();
    let admin = b64(with("sub", json!("admin")));
    let swapped = |token: &str| {
        let parts: Vec<&str> = token.split('.').collect();
        format!("{}.{admin}.{}", parts[0], parts[2])
    };
    let rows = [
        ("another's key", thief.sign(ED, &good), "signature"),
        ("another's key, ES256", thief.sign_ec(EC, &good), "signature"),
        (
            "another's key, offered as jwk",
            thief.sign(&header(&format!("\"jwk\":{own_key}")), &good),
            "signature",
        ),
        (
            "another's key, offered by jku",
            thief.sign(&header(r#""jku":"https://evil/jwks""#), &good),
            "signature",
        ),
        (
            "another's key, offered as x5c",
            thief.sign(&header(r#""x5c":["MIIB"]"#), &good),
            "signature",
        ),
        ("claims exchanged", swapped(&ed), "signature"),
        ("claims exchanged, ES256", swapped(&ec), "signature"),
        (
            "all zero",
            format!("{}.{}", front(&ed), b64([0; 64])),
            "signature",
        ),
        (
            "all zero, ES256",
            format!("{}.{}", front(&ec), b64([0; 64])),
            "signature",
        ),
        (
            "all ones, ES256",
            format!("{}.{}", front(&ec), b64([0xff; 64])),
            "signature",
        ),
        ("DER instead of two numbers", der, "signature"),
        (
            "63 bytes",
            format!("{}.{}", front(&ed), b64([7; 63])),
            "signature",
        ),
        (
            "65 bytes",
            format!("{}.{}", front(&ed), b64([7; 65])),
            "signature",
        ),
        ("cut off", ed[..ed.len() - 4].to_owned(), "signature"),
        ("one more", format!("{ed}AAAA"), "signature"),
        (
            "another token's",
            format!(
                "{}.{}",
                front(&ed),
                issuer.sign(ED, "{}").rsplit_once('.').unwrap().1
            ),
            "signature",
        ),
    ];
    for (what, token, expected) in rows {
        assert_eq!(verdict(&verifier, &token), expected, "{what}");
    }
}

#[test]
fn hostile_claims_are_refused() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let none = || Value::Null;
    let rows = [
        ("no iss", with("iss", none()), "issuer"),
        ("other iss", with("iss", json!("https://evil")), "issuer"),
        (
            "iss with a slash more",
            with("iss", json!("https://issuer/")),
            "issuer",
        ),
        ("list as iss", with("iss", json!(["https://issuer"])), "issuer"),
        ("null as iss", raw_without("iss", "\"iss\":null"), "issuer"),
        ("no aud", with("aud", none()), "audience"),
        ("other aud", with("aud", json!("roomcast-admin")), "audience"),
        ("empty aud", with("aud", json!("")), "audience"),
        ("empty list as aud", with("aud", json!([])), "audience"),
        (
            "aud with a number in the list",
            with("aud", json!(["roomcast", 1])),
            "audience",
        ),
        (
            "aud a list in a list",
            with("aud", json!([["roomcast"]])),
            "audience",
        ),
        (
            "object as aud",
            with("aud", json!({ "roomcast": true })),
            "audience",
        ),
        ("aud of another case", with("aud", json!("Roomcast")), "audience"),
        ("no sub", with("sub", none()), "subject"),
        ("empty sub", with("sub", json!("")), "subject"),
        ("null as sub", raw_without("sub", "\"sub\":null"), "subject"),
        ("number as sub", with("sub", json!(1)), "subject"),
        ("list as sub", with("sub", json!(["u1"])), "subject"),
        ("sub with a dot", with("sub", json!("u.1")), "subject"),
        ("sub a wildcard", with("sub", json!("*")), "subject"),
        ("sub all below", with("sub", json!(">")), "subject"),
        ("sub with a space", with("sub", json!("u 1")), "subject"),
        (
            "sub with a line break",
            with("sub", json!("u1\nrole: admin")),
            "subject",
        ),
        ("sub with a zero byte", with("sub", json!("u1\0")), "subject"),
        (
            "sub that looks like another",
            with("sub", json!("аdmin")),
            "subject",
        ),
        ("sub of 129", with("sub", json!("a".repeat(129))), "subject"),
        ("sub twice", raw(r#""sub":"admin""#), "claims"),
        ("sub twice, once escaped", raw(r#""s\u0075b":"admin""#), "claims"),
        ("no exp", with("exp", none()), "expiry"),
        ("null as exp", raw_without("exp", "\"exp\":null"), "expiry"),
        ("text as exp", with("exp", json!("1790000900")), "expiry"),
        ("list as exp", with("exp", json!([NOW + 900])), "expiry"),
        ("truth as exp", with("exp", json!(true)), "expiry"),
        ("negative exp", with("exp", json!(-1)), "expiry"),
        ("exp twice", raw(&format!("\"exp\":{}", NOW + 9)), "claims"),
        ("exp 1e400", raw_without("exp", "\"exp\":1e400"), "claims"),
        ("exp NaN", raw_without("exp", "\"exp\":NaN"), "claims"),
        ("exp Infinity", raw_without("exp", "\"exp\":Infinity"), "claims"),
        ("exp 1e300", raw_without("exp", "\"exp\":1e300"), "expiry"),
        ("exp 2^64 - 1", with("exp", json!(u64::MAX)), "expiry"),
        ("exp 2^63 - 1", with("exp", json!(i64::MAX)), "expiry"),
        ("exp in milliseconds", with("exp", json!(NOW * 1000)), "expiry"),
        (
            "exp in hexadecimal",
            raw_without("exp", "\"exp\":0x7fffffff"),
            "claims",
        ),
        (
            "exp beyond a day",
            with("exp", json!(NOW + 86_431)),
            "expiry_too_far",
        ),
        (
            "exp in ten years",
            with("exp", json!(NOW + 315_360_000)),
            "expiry_too_far",
        ),
        ("expired", with("exp", json!(NOW - 30)), "expired"),
        (
            "expired by a fraction",
            with("exp", json!(NOW as f64 - 30.0 + 0.5)),
            "expired",
        ),
        ("exp 0", with("exp", json!(0)), "expired"),
        (
            "expired and of another issuer",
            json!({ "iss": "x", "exp": 1 }).to_string(),
            "issuer",
        ),
        ("nbf in the future", with("nbf", json!(NOW + 31)), "not_before"),
        ("text as nbf", with("nbf", json!("0")), "not_before"),
        ("nbf 1e300", raw("\"nbf\":1e300"), "not_before"),
        ("null as nbf", raw("\"nbf\":null"), "not_before"),
        ("iat in the future", with("iat", json!(NOW + 31)), "issued_at"),
        ("text as iat", with("iat", json!("now")), "issued_at"),
        ("number as jti", with("jti", json!(7)), "token_id"),
        ("empty jti", with("jti", json!("")), "token_id"),
        ("jti of 129", with("jti", json!("j".repeat(129))), "token_id"),
        ("jti with a line break", with("jti", json!("a\nb")), "token_id"),
        ("tenant of ours", with("tenant", json!("CORE")), "tenant"),
        ("tenant SYS", with("tenant", json!("SYS")), "tenant"),
        ("tenant a wildcard", with("tenant", json!("*")), "tenant"),
        ("tenant with a dot", with("tenant", json!("main.room")), "tenant"),
        ("tenant with an @", with("tenant", json!("a@b")), "tenant"),
        ("empty tenant", with("tenant", json!("")), "tenant"),
        ("null as tenant", raw("\"tenant\":null"), "tenant"),
        ("list as tenant", with("tenant", json!(["main"])), "tenant"),
        ("tenant of 65", with("tenant", json!("t".repeat(65))), "tenant"),
        ("text as roles", with("roles", json!("admin")), "roles"),
        (
            "object as roles",
            with("roles", json!({ "admin": true })),
            "roles",
        ),
        ("number among roles", with("roles", json!(["staff", 1])), "roles"),
        ("empty role", with("roles", json!([""])), "roles"),
        ("role of 129", with("roles", json!(["r".repeat(129)])), "roles"),
        ("65 roles", with("roles", json!(vec!["r"; 65])), "roles"),
        ("roles twice", raw(r#""roles":["admin"]"#), "claims"),
        (
            "a claim twice, deep inside",
            raw(r#""x":{"a":1,"a":2}"#),
            "claims",
        ),
    ];
    for (what, claims, expected) in rows {
        assert_eq!(verdict(&verifier, &issuer.sign(ED, &claims)), expected, "{what}");
    }
}

#[test]
fn the_clock_of_the_caller_decides() {
    let issuer = Issuer::new(1);
    let verifier = issuer.verifier();
    let token = issuer.sign(ED, &with("nbf", json!(NOW)));
    for (now, expected) in [
        (NOW - 31, "not_before"),
        (NOW - 30, "accepted"),
        (NOW + 929, "accepted"),
        (NOW + 930, "expired"),
        (NOW - 90_000, "expiry_too_far"),
        (i64::MAX, "expired"),
        (i64::MIN, "expiry_too_far"),
    ] {
        let found = verifier
            .verify(&token, now)
            .map_or_else(TokenError::reason, |_| "accepted");
        assert_eq!(found, expected, "{now}");
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

#[test]
fn key_files_hold_usable_public_keys_only() {
    let issuer = Issuer::new(1);
    let good = issuer.jwks();
    let changed = |index: usize, member: &str, value: Value| {
        let mut file = good.clone();
        match value {
            Value::Null => drop(file["keys"][index].as_object_mut().unwrap().remove(member)),
            value => file["keys"][index][member] = value,
        }
        KeySet::from_jwks(&file.to_string()).map(|keys| keys.count())
    };
    let flaw = |index, flaw| Err(KeysError::Key { index, flaw });
    assert_eq!(changed(0, "x5t", json!("abc")), Ok(2));
    assert_eq!(changed(0, "alg", json!("EdDSA")), Ok(2));
    assert_eq!(changed(0, "d", json!("c2VjcmV0")), flaw(0, KeyFlaw::Private("d")));
    assert_eq!(changed(1, "k", json!("c2VjcmV0")), flaw(1, KeyFlaw::Private("k")));
    assert_eq!(changed(0, "kid", Value::Null), flaw(0, KeyFlaw::Kid));
    assert_eq!(changed(0, "kid", json!("")), flaw(0, KeyFlaw::Kid));
    assert_eq!(changed(0, "kid", json!(1)), flaw(0, KeyFlaw::Kid));
    assert_eq!(changed(0, "kid", json!("k".repeat(65))), flaw(0, KeyFlaw::Kid));
    assert_eq!(
        changed(1, "kid", json!("ed")),
        flaw(1, KeyFlaw::KidTwice("ed".to_owned()))
    );
    assert_eq!(
        changed(0, "kty", json!("RSA")),
        flaw(0, KeyFlaw::Unsupported("RSA Ed25519".to_owned()))
    );
    assert_eq!(
        changed(0, "kty", Value::Null),
        flaw(0, KeyFlaw::Unsupported("(none) Ed25519".to_owned()))
    );
    assert_eq!(
        changed(0, "crv", json!("Ed448")),
        flaw(0, KeyFlaw::Unsupported("OKP Ed448".to_owned()))
    );
    assert_eq!(
        changed(1, "crv", json!("P-384")),
        flaw(1, KeyFlaw::Unsupported("EC P-384".to_owned()))
    );
    assert_eq!(
        changed(1, "alg", json!("ES384")),
        flaw(1, KeyFlaw::Purpose("alg", "ES256"))
    );
    assert_eq!(
        changed(0, "alg", json!("HS256")),
        flaw(0, KeyFlaw::Purpose("alg", "EdDSA"))
    );
    assert_eq!(
        changed(0, "use", json!("enc")),
        flaw(0, KeyFlaw::Purpose("use", "EdDSA"))
    );
    assert_eq!(
        changed(0, "key_ops", json!(["sign"])),
        flaw(0, KeyFlaw::Purpose("key_ops", "EdDSA"))
    );
    assert_eq!(changed(0, "x", Value::Null), flaw(0, KeyFlaw::Coordinate("x")));
    assert_eq!(
        changed(0, "x", json!(b64([1; 31]))),
        flaw(0, KeyFlaw::Coordinate("x"))
    );
    assert_eq!(changed(1, "y", json!("????")), flaw(1, KeyFlaw::Coordinate("y")));
    assert_eq!(
        changed(1, "y", json!(b64([9; 32]))),
        flaw(1, KeyFlaw::Coordinate("x"))
    );
    let many: Vec<Value> = (0..65).map(|_| json!({})).collect();
    for file in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys":{}}"#.to_owned(),
        r#"{"keys":[]}"#.to_owned(),
        r#"{"keys":[1]}"#.to_owned(),
        json!({ "keys": many }).to_string(),
        format!(r#"{{"keys":[],{}"#, &good.to_string()[1..]),
        " ".repeat(300_000),
    ] {
        let refused = KeySet::from_jwks(&file);
        assert!(refused.is_err(), "{}", &file[..file.len().min(40)]);
    }
}

#[test]
fn a_development_key_is_recognised() {
    let mut file = Issuer::new(1).jwks();
    assert!(!KeySet::from_jwks(&file.to_string()).unwrap().is_development());
    file["keys"][0]["kid"] = json!("roomcast-dev");
    let keys = KeySet::from_jwks(&file.to_string()).unwrap();
    assert!(keys.is_development() && Verifier::new(rules("i"), keys).is_development());
}

/// The kinds of key whose confusion has broken verifiers: one RSA key, one shared secret.
mod confusion;

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
