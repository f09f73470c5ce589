//! What is no token at all, by its shape.

use super::*;

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
