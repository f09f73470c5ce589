//! Headers that ask for another key, another algorithm or another rule.

use super::*;

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
