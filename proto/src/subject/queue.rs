//! Queues: what publishers that cannot wait for an answer leave in NATS, one stream for each of them.

use super::{BadInbound, Inbound, parse_inbound};
use crate::ids::{Audience, Room, Tenant, is_token};

/// Every message of every queue, in account `CORE`.
pub const QUEUED_ALL: &str = "inq.>";

/// `$KV.commands.CORE.queues`: which ingest drains the queues. No tenant is called so.
pub const QUEUES_LEASE: &str = "$KV.commands.CORE.queues";

/// `inq.<publisher>.<room…>.<audience>`: what a publisher puts into its own queue; the server puts the tenant in.
#[must_use]
pub fn queued(publisher: &str, room: &Room, audience: &Audience) -> String {
    format!("inq.{publisher}.{room}.{audience}")
}

/// `inq.<publisher>.>`: where a publisher may put something into its own queue.
#[must_use]
pub fn queue_of(publisher: &str) -> String {
    format!("inq.{publisher}.>")
}

/// The stream of a publisher's queue and the subjects it captures: `INQ_<tenant>_<publisher>`, `inq.<tenant>.<publisher>.>`. `None`:
/// the publisher's name is no token.
///
/// Two names may meet (`a_b` and `c`, `a` and `b_c`); creating the second stream then fails, because its subjects are others.
#[must_use]
pub fn queue_stream(tenant: &Tenant, publisher: &str) -> Option<(String, String)> {
    is_token(publisher).then(|| {
        (
            format!("INQ_{tenant}_{publisher}"),
            format!("inq.{tenant}.{publisher}.>"),
        )
    })
}

/// Reads the subject of a queued message: as if it had come on `in.`, from the tenant's account, and who sent it. The server wrote the
/// tenant and lets nobody use another's name; what it says of a sender in headers it takes out of what it stores.
///
/// # Errors
/// [`BadInbound`], with the tenant where it is known.
pub fn parse_queued(subject: &str) -> Result<(Inbound, &str), BadInbound> {
    let rest = subject.strip_prefix("inq.").ok_or(BadInbound::Shape)?;
    let (tenant, rest) = rest.split_once('.').ok_or(BadInbound::Shape)?;
    let (publisher, rest) = rest.split_once('.').ok_or(BadInbound::Shape)?;
    Tenant::parse(tenant).map_err(BadInbound::Tenant)?;
    parse_inbound(&format!("in.{tenant}.{rest}")).map(|inbound| (inbound, publisher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Origin;

    #[test]
    fn a_queue_is_one_publishers() {
        let tenant = Tenant::default();
        let stream = |publisher| queue_stream(&tenant, publisher);
        let erp = ("INQ_main_erp".to_owned(), "inq.main.erp.>".to_owned());
        assert_eq!(stream("erp"), Some(erp));
        for bad in ["", "a.b", "*", ">", "a b", "é"] {
            assert_eq!(stream(bad), None, "{bad:?}");
        }
        let (room, audience) = (Room::parse("property.42").unwrap(), Audience::all());
        assert_eq!(queued("erp", &room, &audience), "inq.erp.property.42.all");
    }

    #[test]
    fn a_queued_subject_says_what_an_inbound_one_says() {
        let (read, publisher) = parse_queued("inq.main.erp.property.42.staff").unwrap();
        assert_eq!(publisher, "erp");
        assert_eq!(
            (
                read.origin,
                read.tenant.as_str(),
                read.room.as_str(),
                read.audience.as_str()
            ),
            (Origin::Tenant, "main", "property.42", "staff")
        );
        type Bad = fn(&BadInbound) -> bool;
        let rows: [(&str, Bad); 8] = [
            ("inq", |bad| *bad == BadInbound::Shape),
            ("inq.main", |bad| *bad == BadInbound::Shape),
            ("inq.main.erp", |bad| *bad == BadInbound::Shape),
            ("inq.main.erp.all", |bad| *bad == BadInbound::Shape),
            ("in.main.erp.a.all", |bad| *bad == BadInbound::Shape),
            // Our own accounts have no queues: nobody speaks for others here.
            ("inq.GW.main.a.b.all", |bad| matches!(bad, BadInbound::Tenant(_))),
            ("inq.AGG.main.a.b.all", |bad| matches!(bad, BadInbound::Tenant(_))),
            ("inq.main.erp.user.a.b.all", |bad| {
                matches!(bad, BadInbound::Room(..))
            }),
        ];
        for (subject, expected) in rows {
            let bad = parse_queued(subject).unwrap_err();
            assert!(expected(&bad), "{subject}: {bad:?}");
        }
    }
}
