//! Tokens of people who hold none of our keys, and key files.

use roomcast_access::{KeySet, TokenRules, Verifier};

const NOW: i64 = 1_790_000_000;
/// A public key whose private half nobody has kept.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed","use":"sig","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Nobody comes in, and no key file brings the process down.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let rules = TokenRules {
        issuer: "https://issuer".to_owned(),
        audience: "roomcast".to_owned(),
    };
    let keys = KeySet::from_jwks(KEYS).expect("our own key file");
    let verifier = Verifier::new(rules, keys);
    assert!(verifier.verify(&text, NOW).is_err(), "{text}");
    let read = [KeySet::from_file(&text, true), KeySet::from_endpoint(&text)];
    for keys in read.into_iter().flatten() {
        assert!(!format!("{keys:?}").contains("\"k\""), "keys are not shown");
    }
}
