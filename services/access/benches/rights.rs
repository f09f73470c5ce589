//! What a decision costs: a token, its rights under a policy, a room.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use roomcast_access::{KeySet, Policy, TokenRules, Verifier};
use roomcast_proto::ids::{Audience, Room};
use serde_json::json;

const NOW: i64 = 1_770_000_000;
const POLICY: &str = "version: 1
roles:
  user: { permissions: [notifications.view] }
  staff: { inherits: [user], permissions: [dashboard.view] }
  owner: { inherits: [user], permissions: [property.view, property.manage] }
rooms:
  - { room: notifications, subscribe: notifications.view, auto_join: true }
  - { room: os_dashboard, subscribe: dashboard.view, auto_join: true }
  - { room: \"property.{property_ids}\", subscribe: property.view, publish: property.manage }
";

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token for three properties, signed by `sign`.
fn token(algorithm: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = json!({ "alg": algorithm, "typ": "JWT", "kid": algorithm });
    let claims = json!({
        "iss": "bench", "aud": "roomcast", "sub": "user-4711", "iat": NOW, "exp": NOW + 3_600,
        "roles": ["staff", "owner"], "property_ids": ["42", "43", "44"],
    });
    let signed = format!(
        "{}.{}",
        encoded(header.to_string().as_bytes()),
        encoded(claims.to_string().as_bytes())
    );
    format!("{signed}.{}", encoded(&sign(signed.as_bytes())))
}

fn main() {
    let criterion = &mut Criterion::default().configure_from_args();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (secret, random) = ([7_u8; 32], SystemRandom::new());
    let point = p256.public_key().as_ref();
    let keys = json!({ "keys": [
        { "kty": "oct", "alg": "HS256", "kid": "HS256", "k": encoded(&secret) },
        { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "EdDSA", "x": encoded(ed25519.public_key().as_ref()) },
        { "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "ES256", "x": encoded(&point[1..33]), "y": encoded(&point[33..65]) },
    ] });
    let rules = TokenRules {
        issuer: "bench".to_owned(),
        audience: "roomcast".to_owned(),
    };
    let verifier = Verifier::new(rules, KeySet::from_file(&keys.to_string(), true).unwrap());
    let shared = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let tokens = [
        token("HS256", |text| hmac::sign(&shared, text).as_ref().to_vec()),
        token("EdDSA", |text| ed25519.sign(text).as_ref().to_vec()),
        token("ES256", |text| {
            p256.sign(&random, text).unwrap().as_ref().to_vec()
        }),
    ];
    for (token, name) in tokens.iter().zip(["HS256", "EdDSA", "ES256"]) {
        verifier.verify(token, NOW).unwrap();
        criterion.bench_function(&format!("token: {name}"), |b| {
            b.iter(|| verifier.verify(black_box(token), NOW));
        });
    }

    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let principal = verifier.verify(&tokens[0], NOW).unwrap();
    criterion.bench_function("rights of a principal", |b| {
        b.iter(|| policy.rights(black_box(&principal)));
    });
    let rights = policy.rights(&principal);
    let rooms = ["os_dashboard", "property.43", "property.99"].map(|name| Room::parse(name).unwrap());
    for room in &rooms {
        criterion.bench_function(&format!("subscribe: {room}"), |b| {
            b.iter(|| rights.subscribe(black_box(room)));
        });
    }
    let all = Audience::all();
    criterion.bench_function("publish: property.43", |b| {
        b.iter(|| rights.publish(black_box(&rooms[1]), &all));
    });
    criterion.final_summary();
}
