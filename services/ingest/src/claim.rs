//! Who a NATS request is from, by what only the server and the gateways write.

use async_nats::HeaderMap;
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::subject::{Inbound, Origin, header};
use serde::Deserialize;

/// What a message says about who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// A NATS user of the tenant's account.
    Publisher(String),
    /// An end user, vouched for by a gateway.
    User(Box<GatewayUser>),
    /// The aggregator.
    Aggregator,
}

/// What a gateway says about the user it publishes for: JSON in `Rc-User`, its id alone or with roles and claims.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayUser {
    /// The user's id.
    pub sub: String,
    /// Its roles, as its token has them.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its other claims; room patterns may name them.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// What the server says about who sent a request; other members are of no interest here.
#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    acc: String,
    #[serde(default)]
    user: String,
}

/// Why the sender cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// `Rc-User` from an account that may not speak for users.
    ForgedUser,
    /// The server did not say who it is, or a gateway did not say for whom: an account without `share`.
    Unnamed,
}

/// The value of a header that counts: the last, because the server appends its own.
#[must_use]
pub fn last<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    // By a look at each, of which there are few: the map's own search makes a name of the text first, and hashes it.
    let is_it = |(given, _): &(&async_nats::HeaderName, _)| AsRef::<str>::as_ref(*given) == name;
    let (_, values) = headers?.iter().find(is_it)?;
    values.last().map(async_nats::HeaderValue::as_str)
}

/// What the server says about who sent a message of a tenant's own user, as text: the same for all messages of a connection until its round
/// trip is measured anew. `None`: of others, who say it themselves.
#[must_use]
pub fn said_by_server<'a>(inbound: &Inbound, headers: Option<&'a HeaderMap>) -> Option<&'a str> {
    let is_own = inbound.origin == Origin::Tenant && last(headers, header::USER).is_none();
    is_own.then(|| last(headers, header::REQUEST_INFO)).flatten()
}

fn request_info(headers: Option<&HeaderMap>) -> Option<RequestInfo> {
    serde_json::from_str(last(headers, header::REQUEST_INFO)?).ok()
}

/// The sender's name for a dead letter.
#[must_use]
pub fn publisher(headers: Option<&HeaderMap>) -> String {
    request_info(headers).map_or_else(|| "nats/?".to_owned(), |info| format!("nats/{}", info.user))
}

/// Whose user sent a message whose subject cannot be read as a whole: the server writes the tenant in front. `None`: it is no tenant's.
#[must_use]
pub fn tenant_of(subject: &str) -> Option<Tenant> {
    subject
        .split('.')
        .nth(1)
        .and_then(|tenant| Tenant::parse(tenant).ok())
}

/// Who sent a message, by its subject and headers.
///
/// # Errors
/// [`Stranger`]: nobody who may publish.
pub fn claimed(inbound: &Inbound, headers: Option<&HeaderMap>) -> Result<Claimed, Stranger> {
    let user = last(headers, header::USER);
    if user.is_some() && inbound.origin != Origin::Gateway {
        return Err(Stranger::ForgedUser);
    }
    match inbound.origin {
        Origin::Aggregator => Ok(Claimed::Aggregator),
        Origin::Gateway => user
            .and_then(gateway_user)
            .map(|user| Claimed::User(Box::new(user)))
            .ok_or(Stranger::Unnamed),
        Origin::Tenant => {
            let info = request_info(headers).ok_or(Stranger::Unnamed)?;
            // The account is part of the subject, too; that both agree is the server's promise, checked all the same.
            let named = !info.user.is_empty() && info.acc == inbound.tenant.as_str();
            if named {
                Ok(Claimed::Publisher(info.user))
            } else {
                Err(Stranger::Unnamed)
            }
        }
    }
}

fn gateway_user(text: &str) -> Option<GatewayUser> {
    let id = serde_json::from_str::<String>(text);
    let user = match id {
        Ok(sub) => GatewayUser {
            sub,
            roles: Vec::new(),
            claims: serde_json::Map::new(),
        },
        Err(_) => serde_json::from_str(text).ok()?,
    };
    // What has no name has no personal room either.
    (!user.sub.is_empty() && Room::personal(&user.sub).is_personal()).then_some(user)
}

#[cfg(test)]
mod tests {
    use roomcast_proto::subject;

    use super::*;

    fn message(subject: &str, headers: &[(&str, &str)]) -> (Inbound, HeaderMap) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        (subject::parse_inbound(subject).unwrap(), map)
    }

    #[track_caller]
    fn check(subject: &str, headers: &[(&str, &str)], expected: Result<Claimed, Stranger>) {
        let (inbound, map) = message(subject, headers);
        assert_eq!(claimed(&inbound, Some(&map)), expected, "{subject} {headers:?}");
    }

    #[test]
    fn a_subject_that_is_too_short_is_its_tenants_all_the_same() {
        for (subject, expected) in [
            ("in.acme.x", Some("acme")),
            ("inq.acme.erp", Some("acme")),
            ("in.GW.main", None),
            ("in", None),
        ] {
            let found = tenant_of(subject);
            assert_eq!(found.as_ref().map(Tenant::as_str), expected, "{subject}");
        }
    }

    #[test]
    fn only_the_server_says_who_sent_it() {
        let info = |user: &str| format!(r#"{{"acc":"main","user":"{user}","rtt":5}}"#);
        let (erp, crm) = (info("erp"), info("crm"));
        let named = |user: &str| Ok(Claimed::Publisher(user.to_owned()));
        check("in.main.a.all", &[("Nats-Request-Info", &erp)], named("erp"));
        check(
            "in.main.a.all",
            &[("Nats-Request-Info", &crm), ("Nats-Request-Info", &erp)],
            named("erp"),
        );
        check("in.main.a.all", &[], Err(Stranger::Unnamed));
        check(
            "in.acme.a.all",
            &[("Nats-Request-Info", &erp)],
            Err(Stranger::Unnamed),
        );
        check(
            "in.main.a.all",
            &[("Nats-Request-Info", "{}")],
            Err(Stranger::Unnamed),
        );
        check(
            "in.main.a.all",
            &[("Nats-Request-Info", "x")],
            Err(Stranger::Unnamed),
        );
    }

    #[test]
    fn a_sender_is_remembered_by_the_servers_word_alone() {
        let erp = r#"{"acc":"main","user":"erp"}"#;
        let info = ("Nats-Request-Info", erp);
        for (subject, headers, said) in [
            ("in.main.a.all", vec![info], Some(erp)),
            (
                "in.main.a.all",
                vec![("Nats-Request-Info", "forged"), info],
                Some(erp),
            ),
            ("in.main.a.all", vec![], None),
            // Who was good before and says now that it speaks for a user is looked at anew.
            ("in.main.a.all", vec![info, ("Rc-User", "\"u1\"")], None),
            ("in.GW.main.a.all", vec![info, ("Rc-User", "\"u1\"")], None),
            ("in.AGG.main.a.all", vec![info], None),
        ] {
            let (inbound, map) = message(subject, &headers);
            assert_eq!(
                said_by_server(&inbound, Some(&map)),
                said,
                "{subject} {headers:?}"
            );
        }
    }

    #[test]
    fn only_gateways_speak_for_users() {
        let user = |sub: &str, roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            Ok(Claimed::User(Box::new(GatewayUser {
                sub: sub.to_owned(),
                roles,
                claims: serde_json::Map::new(),
            })))
        };
        let info = ("Nats-Request-Info", r#"{"acc":"main","user":"erp"}"#);
        check(
            "in.main.a.all",
            &[info, ("Rc-User", "\"u1\"")],
            Err(Stranger::ForgedUser),
        );
        check(
            "in.AGG.main.a.all",
            &[("Rc-User", "\"u1\"")],
            Err(Stranger::ForgedUser),
        );
        check("in.AGG.main.a.all", &[], Ok(Claimed::Aggregator));
        check("in.GW.main.a.all", &[("Rc-User", "\"u1\"")], user("u1", &[]));
        check(
            "in.GW.main.a.all",
            &[("Rc-User", r#"{"sub":"u1","roles":["staff"]}"#)],
            user("u1", &["staff"]),
        );
        check(
            "in.GW.main.a.all",
            &[("Rc-User", r#"{"sub":"u1","tenant":"acme"}"#)],
            Err(Stranger::Unnamed),
        );
        check("in.GW.main.a.all", &[("Rc-User", "\"\"")], Err(Stranger::Unnamed));
        check("in.GW.main.a.all", &[("Rc-User", "u1")], Err(Stranger::Unnamed));
        check("in.GW.main.a.all", &[], Err(Stranger::Unnamed));
    }
}
