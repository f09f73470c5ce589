//! The strict verifier of tokens (JWT, RFC 7519, with the advice of RFC 8725).
//!
//! Called with whatever a stranger sent. A token is either wholly right or refused, and the caller learns no more than
//! `Expired` or `Invalid`: which check failed is a label for a counter, never an answer. The signature is checked before
//! any claim is looked at. `now` is an argument; the clock is never read here.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast_proto::ids::Tenant;
use serde_json::Value;

use crate::json;
use crate::jwks::{Endpoint, Hope};
use crate::keys::{KID_BYTES_MAX, KeySet, VerifyKey};
use crate::principal::Principal;

/// Longest token in bytes; looked at before anything else is.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the issuer's clock may be from ours, seconds.
pub const LEEWAY_SECS: i64 = 30;
/// How far in the future a token may end, seconds: a day, because what was stolen should die of itself.
pub const LIFETIME_SECS_MAX: i64 = 24 * 60 * 60;
/// Most roles in one token: more than twice what any of the known deployments gives one user.
pub const ROLES_MAX: usize = 64;
/// Longest role name in a token, bytes.
pub const ROLE_BYTES_MAX: usize = 128;
/// Longest `sub` and `jti`, bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Claims with a meaning of their own; everything else may stand in room patterns.
pub const REGISTERED_CLAIMS: [&str; 9] = ["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "tenant", "roles"];

/// What tokens must say besides being signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The one issuer (`iss`) whose keys these are.
    pub issuer: String,
    /// What `aud` must contain: `roomcast`, or `roomcast-admin` on admin ports.
    pub audience: String,
}

/// Why a token was refused, in the three words that may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Right in every way, but its time is over: the client should get a new one.
    #[error("the token has expired")]
    Expired,
    /// Nobody can say yet: the keys of an issuer are being fetched, or its endpoint does not answer. The client should come
    /// back with the same token.
    #[error("the token cannot be checked at the moment")]
    Unready,
    /// Anything else.
    #[error("the token is not valid")]
    Invalid(Flaw),
}

impl TokenError {
    /// The check that failed, from a closed set: a label for a counter, not for an answer.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unready => "unready",
            Self::Invalid(Flaw(label)) => label,
        }
    }
}

/// The check that an invalid token failed. Opaque, so that no answer is built from it; see [`TokenError::reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw(&'static str);

const UNKNOWN_KEY: Flaw = Flaw("unknown_key");

/// Where the keys of an issuer come from.
#[derive(Debug, Clone)]
enum Keys {
    /// A file; the same until the service starts again.
    Fixed(KeySet),
    /// An endpoint; changed by whoever fetches.
    Fetched(Endpoint),
}

impl Keys {
    /// Asks the key of this name, if there is one.
    fn ask<T>(&self, kid: &str, question: impl FnOnce(&VerifyKey) -> T) -> Option<T> {
        match self {
            Self::Fixed(keys) => keys.get(kid).map(question),
            Self::Fetched(endpoint) => endpoint.key(kid).as_ref().map(question),
        }
    }
}

/// One issuer, its keys, and whom it may speak for.
#[derive(Debug, Clone)]
struct Trust {
    issuer: String,
    keys: Keys,
    /// The tenants whose users it may name; `None`: any.
    tenants: Option<BTreeSet<Tenant>>,
}

/// Checks tokens against the keys of the issuers it trusts. Clones see the same fetched keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    audience: String,
    /// A key vouches only for the issuer it came from, so keys stay apart by issuer even when key ids are the same.
    trusted: Vec<Trust>,
    /// The one tenant served; `None`: any.
    tenant: Option<Tenant>,
}

impl Verifier {
    /// A verifier for one issuer's keys.
    #[must_use]
    pub fn new(rules: TokenRules, keys: KeySet) -> Self {
        Self::of(rules.audience).trusting(rules.issuer, keys)
    }

    /// A verifier that trusts nobody yet. `audience`: what `aud` must contain.
    #[must_use]
    pub fn of(audience: String) -> Self {
        Self {
            audience,
            trusted: Vec::new(),
            tenant: None,
        }
    }

    /// Trusts one more issuer with keys of its own, for the same audience.
    #[must_use]
    pub fn trusting(self, issuer: String, keys: KeySet) -> Self {
        self.trust(issuer, Keys::Fixed(keys))
    }

    /// Trusts one more issuer, whose keys are fetched into `endpoint`.
    #[must_use]
    pub fn fetching(self, issuer: String, endpoint: Endpoint) -> Self {
        self.trust(issuer, Keys::Fetched(endpoint))
    }

    fn trust(mut self, issuer: String, keys: Keys) -> Self {
        self.trusted.push(Trust {
            issuer,
            keys,
            tenants: None,
        });
        self
    }

    /// Lets an issuer speak for users of these tenants alone.
    #[must_use]
    pub fn bound(mut self, issuer: &str, tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let tenants: BTreeSet<Tenant> = tenants.into_iter().collect();
        for trust in self.trusted.iter_mut().filter(|trust| trust.issuer == issuer) {
            trust.tenants = Some(tenants.clone());
        }
        self
    }

    /// The first of several issuers that may speak for any tenant: whoever holds its keys is every tenant's user.
    #[must_use]
    pub fn unbound(&self) -> Option<&str> {
        let unbound = self.trusted.iter().find(|trust| trust.tenants.is_none())?;
        (self.trusted.len() > 1).then_some(&unbound.issuer)
    }

    /// Refuses tokens of every other tenant.
    #[must_use]
    pub fn serving(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Whether any of the keys is a development key; see [`KeySet::is_development`]. Fetched keys never are.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.trusted
            .iter()
            .any(|trust| matches!(&trust.keys, Keys::Fixed(keys) if keys.is_development()))
    }

    /// Whether there is a key to check any token with, or was until its issuer took it back.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.trusted.iter().any(|trust| match &trust.keys {
            Keys::Fixed(_) => true,
            Keys::Fetched(endpoint) => endpoint.has_keys(),
        })
    }

    /// Grows whenever fetched keys change. What was verified under an older generation must be verified again: read it
    /// before [`Verifier::verify`], keep it with the result.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let fetched = self.trusted.iter().filter_map(|trust| match &trust.keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(endpoint) => Some(endpoint.changes()),
        });
        fetched.fold(0, u64::saturating_add)
    }

    /// Whether users of this tenant come in here.
    #[must_use]
    pub fn serves(&self, tenant: &Tenant) -> bool {
        self.tenant.as_ref().is_none_or(|served| served == tenant)
    }

    /// Turns a token into the principal it speaks for. `now` is in seconds since the Unix epoch.
    ///
    /// Costs one signature check, where the same token was not good lately, and a few microseconds; a token without a known
    /// `kid` costs no signature check.
    ///
    /// # Errors
    /// [`TokenError::Expired`] only for a token that is right in every other way; [`TokenError::Unready`] for a key id that
    /// nobody knows while fetching may help; else [`TokenError::Invalid`].
    pub fn verify(&self, token: &str, now: i64) -> Result<Principal, TokenError> {
        let (trust, claims) = self.open(token).map_err(|flaw| self.explain(flaw, token))?;
        let principal =
            read_claims(claims, &trust.issuer, &self.audience, now).map_err(TokenError::Invalid)?;
        let tenant = &principal.tenant;
        let served = self.serves(tenant);
        let own = trust.tenants.as_ref().is_none_or(|own| own.contains(tenant));
        if !(served && own) {
            return Err(TokenError::Invalid(Flaw("other_tenant")));
        }
        if now >= principal.ends_at() {
            return Err(TokenError::Expired);
        }
        Ok(principal)
    }

    /// A key id that nobody knows may be a new one: the issuers' endpoints are asked again, as often as they may be.
    fn explain(&self, flaw: Flaw, token: &str) -> TokenError {
        let mut hope = false;
        if flaw == UNKNOWN_KEY {
            for trust in &self.trusted {
                if let Keys::Fetched(endpoint) = &trust.keys {
                    hope |= endpoint.missed(token) == Hope::Soon;
                }
            }
        }
        if hope {
            TokenError::Unready
        } else {
            TokenError::Invalid(flaw)
        }
    }

    /// Everything up to and including the signature; answers with the issuer whose key signed, and the claims.
    fn open(&self, token: &str) -> Result<(&Trust, Claims), Flaw> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Flaw("too_large"));
        }
        let (header, claims, signature) = split(token).ok_or(Flaw("shape"))?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Flaw("encoding"))?;
        let header = json::members(&header, &HEADER_MEMBERS).map_err(|_| Flaw("header"))?;
        let header = read_header(header)?;
        let signed = &token[..token.len() - signature.len() - 1];
        let trust = self.signer(&header, signed, signature)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Flaw("encoding"))?;
        let claims = json::members(&claims, &REGISTERED_CLAIMS).map_err(|_| Flaw("claims"))?;
        Ok((trust, claims))
    }

    /// The issuer whose key `kid` made the signature. Issuers may use the same key id, so each of theirs is tried.
    fn signer(&self, header: &Header, signed: &str, signature: &str) -> Result<&Trust, Flaw> {
        let mut flaw = UNKNOWN_KEY;
        for trust in &self.trusted {
            match trust
                .keys
                .ask(&header.kid, |key| check_signature(key, header, signed, signature))
            {
                None => {}
                Some(Ok(())) => return Ok(trust),
                Some(Err(worse)) => flaw = worse,
            }
        }
        Err(flaw)
    }
}

fn check_signature(key: &VerifyKey, header: &Header, signed: &str, signature: &str) -> Result<(), Flaw> {
    if header.algorithm != key.algorithm().name() {
        return Err(Flaw("algorithm"));
    }
    if key.verifies(signature, signed) {
        Ok(())
    } else {
        Err(Flaw("signature"))
    }
}

/// Exactly three parts, none of them empty.
fn split(token: &str) -> Option<(&str, &str, &str)> {
    let mut parts = token.split('.');
    let three = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && ![three.0, three.1, three.2].contains(&"");
    whole.then_some(three)
}

/// The members of a header that are looked at.
const HEADER_MEMBERS: [&str; 7] = ["alg", "kid", "typ", "crit", "b64", "zip", "enc"];

/// The claims of a token, those of [`REGISTERED_CLAIMS`] apart from the others.
type Claims = json::Members<{ REGISTERED_CLAIMS.len() }>;

/// What counts in a token's header.
struct Header {
    algorithm: String,
    kid: String,
}

/// Reads the header. `jku`, `x5u`, `x5c` and `jwk` are never looked at: keys come from the configuration, whatever a
/// token offers. What would change how the token is to be read (`crit`, `b64`, `zip`, `enc`) is refused. A missing
/// `typ` is accepted, because RFC 7519 §5.1 makes it optional and widely used issuers leave it out; a wrong one is not.
fn read_header(header: json::Members<{ HEADER_MEMBERS.len() }>) -> Result<Header, Flaw> {
    let [algorithm, kid, typ, crit, b64, zip, enc] = header.named;
    if [crit, b64, zip, enc].iter().any(Option::is_some) {
        return Err(Flaw("critical"));
    }
    let known_type = |typ: &Value| {
        typ.as_str().is_some_and(|typ| {
            ["JWT", "at+jwt"]
                .iter()
                .any(|known| typ.eq_ignore_ascii_case(known))
        })
    };
    if !typ.as_ref().is_none_or(known_type) {
        return Err(Flaw("type"));
    }
    match (kid, algorithm) {
        (Some(Value::String(kid)), algorithm) if (1..=KID_BYTES_MAX).contains(&kid.len()) => {
            match algorithm {
                Some(Value::String(algorithm)) => Ok(Header { algorithm, kid }),
                _ => Err(Flaw("algorithm")),
            }
        }
        _ => Err(Flaw("key_id")),
    }
}

/// Checks every claim but expiry, which the caller looks at last: only what is otherwise right is called expired.
fn read_claims(claims: Claims, issuer: &str, audience: &str, now: i64) -> Result<Principal, Flaw> {
    let [iss, aud, sub, exp, iat, nbf, jti, tenant, roles] = claims.named;
    if iss.as_ref().and_then(Value::as_str) != Some(issuer) {
        return Err(Flaw("issuer"));
    }
    if !aud.is_some_and(|aud| names_audience(&aud, audience)) {
        return Err(Flaw("audience"));
    }
    let subject = match sub {
        Some(Value::String(subject)) if is_subject(&subject) => subject.into(),
        _ => return Err(Flaw("subject")),
    };
    let expires_at = exp.and_then(seconds).ok_or(Flaw("expiry"))?;
    if expires_at > now.saturating_add(LIFETIME_SECS_MAX + LEEWAY_SECS) {
        return Err(Flaw("expiry_too_far"));
    }
    let latest_start = now.saturating_add(LEEWAY_SECS);
    let not_before = optional(nbf, seconds).ok_or(Flaw("not_before"))?;
    if not_before.is_some_and(|at| at > latest_start) {
        return Err(Flaw("not_before"));
    }
    let issued_at = optional(iat, seconds).ok_or(Flaw("issued_at"))?;
    if issued_at.is_some_and(|at| at > latest_start) {
        return Err(Flaw("issued_at"));
    }
    let token_id = optional(jti, token_id).ok_or(Flaw("token_id"))?;
    let tenant = optional(tenant, |tenant| Tenant::parse(tenant.as_str()?).ok()).ok_or(Flaw("tenant"))?;
    let roles = optional(roles, role_names).ok_or(Flaw("roles"))?;
    Ok(Principal {
        tenant: tenant.unwrap_or_default(),
        subject,
        roles: roles.unwrap_or_default(),
        claims: claims.others,
        expires_at,
        issued_at,
        token_id,
    })
}

/// `Some(None)` when the claim is absent, `None` when it is there and wrong. A claim that is `null` is wrong.
fn optional<T>(claim: Option<Value>, read: impl Fn(Value) -> Option<T>) -> Option<Option<T>> {
    match claim {
        None => Some(None),
        Some(value) => read(value).map(Some),
    }
}

/// `aud` is text or a list of text (RFC 7519 §4.1.3); a list with anything else in it is refused whole.
fn names_audience(aud: &Value, audience: &str) -> bool {
    match aud {
        Value::String(one) => one == audience,
        Value::Array(many) => many.iter().all(Value::is_string) && many.iter().any(|one| one == audience),
        _ => false,
    }
}

fn is_subject(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_@:-".contains(&b);
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

fn token_id(jti: Value) -> Option<String> {
    let Value::String(jti) = jti else { return None };
    let good = (1..=ID_BYTES_MAX).contains(&jti.len()) && !jti.contains(char::is_control);
    good.then_some(jti)
}

fn role_names(roles: Value) -> Option<Vec<String>> {
    let Value::Array(roles) = roles else { return None };
    let name = |role: Value| match role {
        Value::String(role) if (1..=ROLE_BYTES_MAX).contains(&role.len()) => Some(role),
        _ => None,
    };
    if roles.len() > ROLES_MAX {
        return None;
    }
    roles.into_iter().map(name).collect()
}

/// A NumericDate (RFC 7519 §2) in whole seconds. Fractions are cut off, so a token never lives longer than it says.
/// Negative times and those beyond the year 9999 are refused: nobody means them.
fn seconds(value: Value) -> Option<i64> {
    const LATEST: i64 = 253_402_300_799;
    let whole = match value.as_i64() {
        Some(whole) => whole,
        None => whole_part(value.as_f64()?)?,
    };
    (0..=LATEST).contains(&whole).then_some(whole)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked first, and a fraction is to be cut off"
)]
fn whole_part(value: f64) -> Option<i64> {
    (0.0..1e15).contains(&value).then_some(value as i64)
}

#[cfg(test)]
mod hostile;
