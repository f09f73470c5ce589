//! Files of keys that must not be used.

use super::*;

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
