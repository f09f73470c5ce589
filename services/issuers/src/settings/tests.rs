//! What an operator writes, and what is said of it.

use roomcast_chassis::config::Environment;
use roomcast_chassis::process::Exit;

use super::*;

fn settings(pairs: &[(&str, &str)]) -> Result<IssuerSettings, Vec<String>> {
    let environment = Environment::from_pairs(pairs.iter().copied());
    let mut reader = Reader::new(&environment);
    let settings = IssuerSettings::read(&mut reader);
    let finished = reader.finish();
    finished.map(|_| settings).map_err(|mistakes| {
        let names = mistakes.0.into_iter().map(|mistake| mistake.variable);
        names.collect()
    })
}

#[test]
fn one_issuer_or_a_list() {
    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: &[&str]) {
        let found = settings(pairs).err().unwrap_or_default();
        assert_eq!(found, expected, "{pairs:?}");
    }
    let (issuer, keys) = ((ISSUER, "a"), (KEYS_FILE, "keys.json"));
    let (url, list) = ((JWKS_URL, "https://a/jwks"), (ISSUERS_FILE, "issuers.yaml"));
    check(&[issuer, keys], &[]);
    check(&[issuer, url], &[]);
    check(&[list], &[]);
    check(&[issuer, (JWKS_URL, "http://127.0.0.1:1/jwks")], &[]);
    check(&[issuer, keys, (ALLOW_HS, "true")], &[]);
    check(&[list, (ALLOW_HS, "true")], &[]);
    check(&[], &[ISSUER, KEYS_FILE]);
    check(&[issuer], &[KEYS_FILE]);
    check(&[keys], &[ISSUER]);
    check(&[issuer, keys, url], &[JWKS_URL]);
    check(&[list, issuer], &[ISSUERS_FILE]);
    check(&[list, keys], &[ISSUERS_FILE]);
    check(&[list, url], &[ISSUERS_FILE]);
    check(&[issuer, (JWKS_URL, "http://a/jwks")], &[JWKS_URL]);
    check(&[issuer, (JWKS_URL, "file:///etc/keys")], &[JWKS_URL]);
    check(&[issuer, url, (ALLOW_HS, "true")], &[ALLOW_HS]);
    check(&[issuer, keys, (ALLOW_HS, "yes")], &[ALLOW_HS]);
    check(
        &[issuer, url, ("ROOMCAST_JWKS_INTERVAL_SECONDS", "0")],
        &["ROOMCAST_JWKS_INTERVAL_SECONDS"],
    );
    check(
        &[issuer, url, ("ROOMCAST_JWKS_REFRESH_SECONDS", "0")],
        &["ROOMCAST_JWKS_REFRESH_SECONDS"],
    );
}

const SECRET: &str =
    r#"{"keys":[{"kty":"oct","kid":"hs","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}]}"#;
const SHORT: &str = r#"{"keys":[{"kty":"oct","kid":"hs","k":"MDEyMw"}]}"#;

#[test]
fn files_are_read_or_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [
        ("secret.json", SECRET),
        ("short.json", SHORT),
        (
            "list.yaml",
            "- { issuer: a, keys_file: secret.json, allow_hs: true }\n- { issuer: b, jwks_url: 'https://b' }\n",
        ),
        ("empty.json", r#"{"keys":[]}"#),
        ("silent.yaml", "- { issuer: a, keys_file: secret.json }\n"),
        ("plain.yaml", "- { issuer: b, jwks_url: 'http://b' }\n"),
        ("absent.yaml", "- { issuer: b, keys_file: nowhere.json }\n"),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let check = |pairs: &[(&str, &str)], expected: Result<usize, &str>| {
        let loaded = settings(pairs).unwrap().load();
        match (loaded, expected) {
            (Ok(trusted), Ok(published)) => assert_eq!(trusted.published.len(), published),
            (Err(failure), Err(words)) => {
                assert_eq!(failure.exit, Exit::File);
                assert!(failure.message.contains(words), "{failure}");
            }
            (loaded, expected) => panic!("{pairs:?}: {loaded:?}, not {expected:?}"),
        }
    };
    let (issuer, hs) = ((ISSUER, "a"), (ALLOW_HS, "true"));
    check(&[issuer, (KEYS_FILE, &path("secret.json")), hs], Ok(0));
    check(
        &[issuer, (KEYS_FILE, &path("secret.json"))],
        Err(
            "secret.json:1:1: keys[0]: holds a shared secret (kty oct); HS256 is refused unless ROOMCAST_JWT_ALLOW_HS=true",
        ),
    );
    check(
        &[issuer, (KEYS_FILE, &path("short.json")), hs],
        Err("`k` must be a secret of 32 to 1024 bytes"),
    );
    // An address may publish no key; a file without any is a mistake.
    check(
        &[issuer, (KEYS_FILE, &path("empty.json"))],
        Err("empty.json:1:1: not a JWKS: expected 1 to 64 keys, found 0"),
    );
    check(
        &[issuer, (KEYS_FILE, &path("nowhere.json"))],
        Err("nowhere.json:1:1: "),
    );
    check(&[(ISSUERS_FILE, &path("list.yaml")), hs], Ok(1));
    check(
        &[(ISSUERS_FILE, &path("list.yaml"))],
        Err("list.yaml:1:50: `allow_hs` needs ROOMCAST_JWT_ALLOW_HS=true as well"),
    );
    check(
        &[(ISSUERS_FILE, &path("silent.yaml")), hs],
        Err("holds a shared secret"),
    );
    check(
        &[(ISSUERS_FILE, &path("plain.yaml"))],
        Err("plain.yaml:1:26: bad `jwks_url`"),
    );
    check(&[(ISSUERS_FILE, &path("absent.yaml"))], Err("nowhere.json:1:1: "));
    check(&[(ISSUERS_FILE, &path("gone.yaml"))], Err("gone.yaml:1:1: "));
}
