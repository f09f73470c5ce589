//! Web push: a message for one device, encrypted for it alone (RFC 8291, in one record of RFC 8188).
//!
//! The push service in between learns when something is sent and how long it is, nothing else.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast_proto::device::Subscription;

/// Longest plain text: a body of 4,096 bytes, which every push service takes (RFC 8030 §7.2), less the record's overhead of 103.
pub const PLAIN_BYTES_MAX: usize = 3_993;
/// An uncompressed point of P-256, bytes.
const POINT_BYTES: usize = POINT_BYTES_SAID as usize;
/// The same as a record says it.
const POINT_BYTES_SAID: u8 = 65;
/// The secret of a subscription, bytes.
const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// A record holds the whole message.
const RECORD_BYTES: u32 = 4_096;
/// Behind the text of the last record.
const LAST: u8 = 2;

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The keys of the subscription are none.
    #[error("the keys of the subscription are not those of a device")]
    Keys,
    /// The text is too long.
    #[error("longer than {PLAIN_BYTES_MAX} bytes")]
    TooLong,
    /// No random numbers, or the library refuses.
    #[error("nothing can be encrypted")]
    Library,
}

impl From<Unspecified> for PushError {
    fn from(_: Unspecified) -> Self {
        Self::Library
    }
}

/// Encrypts a message for a device: the body of the request to its push service.
///
/// # Errors
/// [`PushError`]. With an empty text: whether the subscription's keys are keys at all.
pub fn encrypt(subscription: &Subscription, plain: &[u8]) -> Result<Vec<u8>, PushError> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt)?;
    encrypt_with(subscription, plain, &PrivateKey::generate(&ECDH_P256)?, salt)
}

fn encrypt_with(
    subscription: &Subscription,
    plain: &[u8],
    private: &PrivateKey,
    salt: [u8; SALT_BYTES],
) -> Result<Vec<u8>, PushError> {
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(PushError::TooLong);
    }
    let theirs = bytes_of::<POINT_BYTES>(&subscription.keys.p256dh)?;
    let auth = bytes_of::<AUTH_BYTES>(&subscription.keys.auth)?;
    let ours = private.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, &theirs);
    // RFC 8291 §3.4: both public keys and the secret go into what RFC 8188 §2.2 derives key and nonce from.
    let input = agreement::agree(private, peer, PushError::Keys, |shared| {
        let both = Salt::new(HKDF_SHA256, &auth).extract(shared);
        derive::<32>(&both, &[b"WebPush: info\0", &theirs, ours.as_ref()])
    })?;
    let record_key = Salt::new(HKDF_SHA256, &salt).extract(&input);
    let key = derive::<KEY_BYTES>(&record_key, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce = derive::<NONCE_BYTES>(&record_key, &[b"Content-Encoding: nonce\0"])?;
    let mut record = [plain, &[LAST]].concat();
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut record,
    )?;
    let mut body = Vec::with_capacity(SALT_BYTES + 5 + POINT_BYTES + record.len());
    body.extend_from_slice(&salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(POINT_BYTES_SAID);
    body.extend_from_slice(ours.as_ref());
    body.extend_from_slice(&record);
    Ok(body)
}

/// How many bytes are derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(from: &Prk, info: &[&[u8]]) -> Result<[u8; N], PushError> {
    let mut bytes = [0; N];
    from.expand(info, Length(N))?.fill(&mut bytes)?;
    Ok(bytes)
}

/// Browsers write base64url without padding; some libraries add it.
fn bytes_of<const N: usize>(text: &str) -> Result<[u8; N], PushError> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(PushError::Keys)
}

#[cfg(test)]
mod tests {
    use roomcast_proto::device::Keys;

    use super::*;

    fn device() -> Subscription {
        Subscription {
            endpoint: "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV".into(),
            keys: Keys {
                p256dh:
                    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
                        .into(),
                auth: "BTBZMqHH6r4Tts7J_aSIgg".into(),
            },
            expiration_time: None,
        }
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        // RFC 8291, appendix A.
        let private = URL_SAFE_NO_PAD
            .decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")
            .unwrap();
        let private = PrivateKey::from_private_key(&ECDH_P256, &private).unwrap();
        let salt = bytes_of("DGv6ra1nlYgDCS1FRnbzlw").unwrap();
        let text = b"When I grow up, I want to be a watermelon";
        let made = encrypt_with(&device(), text, &private, salt).unwrap();
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(made), expected);
    }

    #[test]
    fn strange_subscriptions_and_long_texts_are_refused() {
        let device = device();
        assert_eq!(encrypt(&device, &[b'x'; PLAIN_BYTES_MAX]).unwrap().len(), 4_096);
        let long = encrypt(&device, &[b'x'; PLAIN_BYTES_MAX + 1]);
        assert_eq!(long, Err(PushError::TooLong));
        let off_the_curve = URL_SAFE_NO_PAD.encode([[4].as_slice(), &[7; 64]].concat());
        let padded = format!("{}=", device.keys.p256dh);
        let rows = [
            (&*padded, &*device.keys.auth, true),
            ("", &device.keys.auth, false),
            ("!!", &device.keys.auth, false),
            (&device.keys.auth, &device.keys.auth, false),
            (&off_the_curve, &device.keys.auth, false),
            (&device.keys.p256dh, "", false),
            (&device.keys.p256dh, &device.keys.p256dh, false),
        ];
        for (p256dh, auth, right) in rows {
            let mut other = device.clone();
            other.keys = Keys {
                p256dh: p256dh.into(),
                auth: auth.into(),
            };
            let made = encrypt(&other, b"").map(drop);
            assert_eq!(
                made,
                if right { Ok(()) } else { Err(PushError::Keys) },
                "{p256dh} {auth}"
            );
        }
        assert_ne!(
            encrypt(&device, b"a"),
            encrypt(&device, b"a"),
            "salt and key are new each time"
        );
    }
}
