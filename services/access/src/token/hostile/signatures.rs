//! Signatures that are not the issuer's.

use super::*;

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
