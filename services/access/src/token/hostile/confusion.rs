use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaPublicKeyComponents,
};

use roomcast_proto::ids::Tenant;

use super::*;
use crate::jwks::{Endpoint, Fetched, Schedule};

/// Made once: finding primes takes a while in a test build.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

const SECRET: &[u8] = b"32 bytes that nobody may guess..";
const RS: &str = r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#;
const HS: &str = r#"{"alg":"HS256","kid":"hs","typ":"JWT"}"#;

fn public() -> RsaPublicKeyComponents<Vec<u8>> {
    RSA.public_key().into()
}

fn rsa_jwk() -> Value {
    let RsaPublicKeyComponents { n, e } = public();
    json!({ "kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": b64(n), "e": b64(e) })
}

fn hs_jwk(kid: &str, secret: &[u8]) -> Value {
    json!({ "kty": "oct", "kid": kid, "alg": "HS256", "k": b64(secret) })
}

fn file(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn sign_rsa(how: &'static dyn RsaEncoding, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(how, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .unwrap();
    format!("{signed}.{}", b64(signature))
}

fn sign_hmac(secret: &[u8], header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", b64(tag))
}

#[test]
fn each_key_is_good_for_its_own_algorithm_only() {
    let keys = KeySet::from_file(&file(&[rsa_jwk(), hs_jwk("hs", SECRET)]), true).unwrap();
    let verifier = Verifier::new(rules("https://issuer"), keys);
    let good = good_claims().to_string();
    let der: PublicKeyX509Der<'_> = RSA.public_key().as_der().unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    let token = sign_rsa(&RSA_PKCS1_SHA256, RS, &good);
    let (front, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let rows = [
        ("RS256", token.clone(), "accepted"),
        ("HS256", sign_hmac(SECRET, HS, &good), "accepted"),
        (
            "the public key as a secret: its modulus",
            sign_hmac(&public().n, &header("HS256", "rsa"), &good),
            "algorithm",
        ),
        (
            "the public key as a secret: DER",
            sign_hmac(der.as_ref(), &header("HS256", "rsa"), &good),
            "algorithm",
        ),
        (
            "the public key as a secret: PEM",
            sign_hmac(pem.as_bytes(), &header("HS256", "rsa"), &good),
            "algorithm",
        ),
        (
            "the same, called RS256",
            sign_hmac(&public().n, RS, &good),
            "signature",
        ),
        (
            "the secret's signature under the RSA key",
            sign_hmac(SECRET, &header("HS256", "rsa"), &good),
            "algorithm",
        ),
        (
            "RS256 under the secret's id",
            sign_rsa(&RSA_PKCS1_SHA256, &header("RS256", "hs"), &good),
            "algorithm",
        ),
        (
            "RS256 called HS256",
            sign_rsa(&RSA_PKCS1_SHA256, HS, &good),
            "signature",
        ),
        (
            "PS256",
            sign_rsa(&RSA_PSS_SHA256, &header("PS256", "rsa"), &good),
            "algorithm",
        ),
        (
            "PS256 called RS256",
            sign_rsa(&RSA_PSS_SHA256, RS, &good),
            "signature",
        ),
        (
            "RS512",
            sign_rsa(&RSA_PKCS1_SHA512, &header("RS512", "rsa"), &good),
            "algorithm",
        ),
        (
            "RS512 called RS256",
            sign_rsa(&RSA_PKCS1_SHA512, RS, &good),
            "signature",
        ),
        ("another secret", sign_hmac(&[7; 32], HS, &good), "signature"),
        ("no secret at all", sign_hmac(b"", HS, &good), "signature"),
        (
            "none under the RSA key",
            sign_rsa(&RSA_PKCS1_SHA256, &header("none", "rsa"), &good),
            "algorithm",
        ),
        (
            "none under the secret",
            sign_hmac(SECRET, &header("none", "hs"), &good),
            "algorithm",
        ),
        (
            "a signature cut short",
            format!("{front}.{}", b64(&signature[1..])),
            "signature",
        ),
        (
            "a signature with a zero in front",
            format!("{front}.{}", b64([&[0], &*signature].concat())),
            "signature",
        ),
        (
            "a signature of zeros",
            format!("{front}.{}", b64(vec![0; signature.len()])),
            "signature",
        ),
        (
            "a signature of one",
            format!(
                "{front}.{}",
                b64([vec![0; signature.len() - 1], vec![1]].concat())
            ),
            "signature",
        ),
        (
            "half a tag",
            {
                let token = sign_hmac(SECRET, HS, &good);
                token[..token.len() - 21].to_owned()
            },
            "signature",
        ),
        (
            "other claims",
            {
                let other = sign_rsa(&RSA_PKCS1_SHA256, RS, &with("sub", json!("u2")));
                let claims = other.split('.').nth(1).unwrap();
                format!("{}.{claims}.{}", b64(RS), b64(&signature))
            },
            "signature",
        ),
    ];
    for (what, token, expected) in rows {
        assert_eq!(verdict(&verifier, &token), expected, "{what}");
    }
}

/// Two issuers, one key id: an RSA key here, a secret there, and each vouches for itself only.
#[test]
fn the_same_key_id_at_two_issuers_is_two_keys() {
    let mut rsa = rsa_jwk();
    rsa["kid"] = json!("k1");
    let rsa = KeySet::from_jwks(&file(&[rsa])).unwrap();
    let secret = KeySet::from_file(&file(&[hs_jwk("k1", SECRET)]), true).unwrap();
    let verifier = Verifier::new(rules("https://issuer"), rsa).trusting("https://two".to_owned(), secret);
    let (rs, hs) = (r#"{"alg":"RS256","kid":"k1"}"#, r#"{"alg":"HS256","kid":"k1"}"#);
    let (of_one, of_two) = (good_claims().to_string(), with("iss", json!("https://two")));
    for (what, token, expected) in [
        ("one's own", sign_rsa(&RSA_PKCS1_SHA256, rs, &of_one), "accepted"),
        ("two's own", sign_hmac(SECRET, hs, &of_two), "accepted"),
        (
            "one speaks for two",
            sign_rsa(&RSA_PKCS1_SHA256, rs, &of_two),
            "issuer",
        ),
        ("two speaks for one", sign_hmac(SECRET, hs, &of_one), "issuer"),
        (
            "one's public key as two's secret",
            sign_hmac(&public().n, hs, &of_two),
            "signature",
        ),
    ] {
        assert_eq!(verdict(&verifier, &token), expected, "{what}");
    }
}

/// An identity provider for each tenant: a good signature does not make one of them the other's.
#[test]
fn an_issuer_speaks_for_its_tenants_alone() {
    let (one, two) = (Issuer::new(1), Issuer::new(2));
    let tenant = |name: &str| Tenant::parse(name).unwrap();
    let verifier = Verifier::new(rules("https://issuer"), one.keys())
        .trusting("https://two".to_owned(), two.keys())
        .bound("https://issuer", [tenant("main"), tenant("acme")])
        .bound("https://two", [tenant("other")]);
    let only = verifier.clone().serving(tenant("acme"));
    let claims = |iss: &str, name: Option<&str>| {
        let mut claims = good_claims();
        claims["iss"] = json!(iss);
        if let Some(name) = name {
            claims["tenant"] = json!(name);
        }
        claims.to_string()
    };
    let (a, b) = ("https://issuer", "https://two");
    for (what, token, expected, where_one_is_served) in [
        (
            "its own",
            one.sign(ED, &claims(a, Some("acme"))),
            "accepted",
            "accepted",
        ),
        (
            "its own, unsaid",
            one.sign(ED, &claims(a, None)),
            "accepted",
            "other_tenant",
        ),
        (
            "the other's own",
            two.sign(ED, &claims(b, Some("other"))),
            "accepted",
            "other_tenant",
        ),
        (
            "the other's tenant",
            one.sign(ED, &claims(a, Some("other"))),
            "other_tenant",
            "other_tenant",
        ),
        (
            "one's tenant",
            two.sign(ED, &claims(b, Some("acme"))),
            "other_tenant",
            "other_tenant",
        ),
        (
            "one's tenant, unsaid",
            two.sign(ED, &claims(b, None)),
            "other_tenant",
            "other_tenant",
        ),
        (
            "nobody's tenant",
            one.sign(ED, &claims(a, Some("third"))),
            "other_tenant",
            "other_tenant",
        ),
        (
            "one's tenant in one's name",
            two.sign(ED, &claims(a, Some("acme"))),
            "issuer",
            "issuer",
        ),
        (
            "its own in another's name",
            two.sign(ED, &claims(a, Some("other"))),
            "issuer",
            "issuer",
        ),
        (
            "a tenant that is none",
            one.sign(ED, &claims(a, Some("a.b"))),
            "tenant",
            "tenant",
        ),
    ] {
        assert_eq!(verdict(&verifier, &token), expected, "{what}");
        assert_eq!(verdict(&only, &token), where_one_is_served, "{what}, one served");
    }
    // Late as well as another's: nobody learns that it would have been good.
    let mut late = good_claims();
    (late["tenant"], late["exp"]) = (json!("other"), json!(NOW - 60));
    assert_eq!(
        verdict(&verifier, &one.sign(ED, &late.to_string())),
        "other_tenant"
    );
    assert_eq!(verifier.unbound(), None);
}

#[test]
fn weak_keys_are_refused() {
    #[track_caller]
    fn check(jwk: &Value, allow_hs: bool, expected: Result<usize, KeyFlaw>) {
        let found = KeySet::from_file(&file(std::slice::from_ref(jwk)), allow_hs).map(|keys| keys.count());
        assert_eq!(
            found,
            expected.map_err(|flaw| KeysError::Key { index: 0, flaw }),
            "{jwk}"
        );
    }
    let rsa = |member: &str, value: Value| {
        let mut jwk = rsa_jwk();
        jwk[member] = value;
        jwk
    };
    let number = |bits: usize, last: u8| {
        let mut bytes = vec![0xa5; bits / 8];
        bytes[0] = 0x80;
        bytes[bits / 8 - 1] = last;
        json!(b64(bytes))
    };
    check(&rsa_jwk(), false, Ok(1));
    check(
        &rsa("alg", Value::Null),
        false,
        Err(KeyFlaw::Purpose("alg", "RS256")),
    );
    for alg in ["PS256", "RS384", "RS512", "HS256", "RSA-OAEP"] {
        check(
            &rsa("alg", json!(alg)),
            false,
            Err(KeyFlaw::Purpose("alg", "RS256")),
        );
    }
    check(
        &rsa("use", json!("enc")),
        false,
        Err(KeyFlaw::Purpose("use", "RS256")),
    );
    check(&rsa("d", json!("AQAB")), false, Err(KeyFlaw::Private("d")));
    check(&rsa("k", json!(b64(SECRET))), true, Err(KeyFlaw::Private("k")));
    for (n, expected) in [
        (number(2_048, 1), Ok(1)),
        (number(4_096, 1), Ok(1)),
        (number(1_024, 1), Err(KeyFlaw::Modulus)),
        (number(2_040, 1), Err(KeyFlaw::Modulus)),
        (number(4_104, 1), Err(KeyFlaw::Modulus)),
        (number(2_048, 2), Err(KeyFlaw::Modulus)),
        (
            json!(b64([&[0; 128][..], &[0xa5; 128]].concat())),
            Err(KeyFlaw::Modulus),
        ),
        (json!(b64([&[0][..], &public().n].concat())), Ok(1)),
        (json!(""), Err(KeyFlaw::Modulus)),
        (json!("????"), Err(KeyFlaw::Modulus)),
        (Value::Null, Err(KeyFlaw::Modulus)),
    ] {
        check(&rsa("n", n), false, expected);
    }
    for (e, expected) in [
        (&[1, 0, 1][..], Ok(1)),
        (&[0xff, 0xff, 0xff, 0xff], Ok(1)),
        (&[1], Err(KeyFlaw::Exponent)),
        (&[3], Err(KeyFlaw::Exponent)),
        (&[0, 3], Err(KeyFlaw::Exponent)),
        (&[17], Err(KeyFlaw::Exponent)),
        (&[0xff, 0xff], Err(KeyFlaw::Exponent)),
        (&[1, 0, 0], Err(KeyFlaw::Exponent)),
        (&[0], Err(KeyFlaw::Exponent)),
        (&[], Err(KeyFlaw::Exponent)),
        (&[1, 0, 0, 0, 1], Err(KeyFlaw::Exponent)),
    ] {
        check(&rsa("e", json!(b64(e))), false, expected);
    }
    check(&hs_jwk("hs", SECRET), true, Ok(1));
    check(&hs_jwk("hs", SECRET), false, Err(KeyFlaw::SecretNotAllowed));
    check(&hs_jwk("hs", &SECRET[1..]), true, Err(KeyFlaw::Secret));
    check(&hs_jwk("hs", b""), true, Err(KeyFlaw::Secret));
    check(&hs_jwk("hs", &[1; 1_025]), true, Err(KeyFlaw::Secret));
}

/// What issuers publish for others does no harm, and a secret is never taken from an address.
#[test]
fn an_endpoint_gives_its_usable_public_keys_only() {
    #[track_caller]
    fn check(keys: &[Value], expected: Option<usize>) {
        let found = KeySet::from_endpoint(&file(keys));
        assert_eq!(found.as_ref().ok().map(KeySet::count), expected, "{found:?}");
    }
    let encryption = json!({ "kty": "RSA", "kid": "enc", "use": "enc", "alg": "RSA-OAEP", "n": b64(public().n), "e": "AQAB" });
    let mut development = rsa_jwk();
    development["kid"] = json!("roomcast-dev");
    check(
        &[
            rsa_jwk(),
            encryption.clone(),
            hs_jwk("hs", SECRET),
            development.clone(),
            json!(7),
        ],
        Some(1),
    );
    check(&[encryption], None);
    check(&[hs_jwk("hs", SECRET)], None);
    check(&[development], None);
    check(&[rsa_jwk(), rsa_jwk()], None);
    // Not so a list without any: the issuer says that none counts.
    check(&[], Some(0));
}

/// A key that comes and goes at an endpoint, seen by tokens.
#[test]
fn fetched_keys_count_as_long_as_they_are_published() {
    let issuer = Issuer::new(1);
    let endpoint = Endpoint::new(Schedule {
        interval_secs: 10,
        refresh_secs: 600,
    });
    let verifier =
        Verifier::of("roomcast".to_owned()).fetching("https://issuer".to_owned(), endpoint.clone());
    let (rs, ed) = (
        sign_rsa(&RSA_PKCS1_SHA256, RS, &good_claims().to_string()),
        issuer.sign(ED, &good_claims().to_string()),
    );
    assert_eq!((verifier.has_keys(), verdict(&verifier, &rs)), (false, "unready"));
    let answer = |now, keys: &[Value], expected| {
        let now = Duration::from_secs(now);
        assert!(endpoint.begin(now));
        assert_eq!(endpoint.finish(now, Some(file(keys).as_bytes())), expected);
    };
    answer(0, &[rsa_jwk()], Fetched::Changed);
    assert_eq!((verifier.has_keys(), verdict(&verifier, &rs)), (true, "accepted"));
    // The key is new to us: it may come with the next fetch, and it does not.
    assert_eq!(verdict(&verifier, &ed), "unready");
    answer(20, &[rsa_jwk()], Fetched::Same);
    assert_eq!(
        (verdict(&verifier, &ed), verifier.generation()),
        ("unknown_key", 1)
    );
    answer(620, &[issuer.jwks()["keys"][0].clone()], Fetched::Changed);
    assert_eq!((verdict(&verifier, &ed), verifier.generation()), ("accepted", 2));
    assert_ne!(verdict(&verifier, &rs), "accepted");
    // The last one as well: then nobody comes in by this issuer, and what was accepted is looked at again.
    answer(1_220, &[], Fetched::Changed);
    assert_eq!(
        (verdict(&verifier, &ed), verifier.generation()),
        ("unknown_key", 3)
    );
    assert!(!verifier.is_development());
}
