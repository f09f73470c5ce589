//! Claims that do not entitle, whoever signed them, and the clock they are held against.

use super::*;

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
