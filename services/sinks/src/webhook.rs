//! How a webhook is signed: as Standard Webhooks 1.0 says, which receivers have libraries for in every language.
//!
//! `webhook-id` names the notification: the same again after a lost answer has the same name, and a receiver takes it once.
//! `webhook-timestamp` is when it was sent, Unix seconds. `webhook-signature` is `v1,` and base64 of HMAC-SHA-256 over
//! `<id>.<timestamp>.<body>`, one for each secret, separated by spaces.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How a secret begins.
const PREFIX: &str = "whsec_";
/// Secrets of one webhook: the one in use, and the one before or after it.
pub const SECRETS_MAX: usize = 2;

/// What a receiver shares with the operator: one secret, or two while one takes the place of the other.
#[derive(Clone)]
pub struct Secrets(Vec<hmac::Key>);

/// Shows nothing.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Reads a file's text: a secret a line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not one or two lines of whsec_ and base64 of 24 to 64 bytes (`echo whsec_$(openssl rand -base64 32)` makes one)";
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let keys: Option<Vec<hmac::Key>> = lines.iter().map(|line| key(line)).collect();
        let keys = keys.filter(|keys| (1..=SECRETS_MAX).contains(&keys.len()));
        keys.map(Self).ok_or(WRONG)
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn signature(&self, id: &str, now_secs: i64, body: &[u8]) -> String {
        let one = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{now_secs}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

fn key(line: &str) -> Option<hmac::Key> {
    let secret = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    SECRET_BYTES
        .contains(&secret.len())
        .then(|| hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_signature_is_what_the_standard_computes() {
        // The example of the standard's own libraries.
        let secrets = Secrets::read(SECRET).unwrap();
        let made = secrets.signature(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for other in [
            secrets.signature(
                "msg_p5jXN8AQM9LWM0D4loKWxJel",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
            ),
            secrets.signature(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_331,
                br#"{"test": 2432232314}"#,
            ),
            secrets.signature(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232315}"#,
            ),
        ] {
            assert_ne!(other, made);
        }
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = Secrets::read(&format!("{other}\n{SECRET}\n")).unwrap();
        let both = both.signature(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert!(
            both.ends_with(&format!(" {made}")) && both.starts_with("v1,"),
            "{both}"
        );
    }

    #[test]
    fn secrets_are_long_and_few() {
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        let three = [SECRET; 3].join("\n");
        for bad in [
            "",
            "\n",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!",
            &short,
            &three,
        ] {
            assert!(Secrets::read(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", Secrets::read(SECRET).unwrap()), "Secrets");
    }
}
