//! Who may come in.

use roomcast_chassis::config::Reader;
use roomcast_issuers::Tenancy;

use crate::admission;
use crate::bucket::Rate;

pub(super) fn read(reader: &mut Reader<'_>, tenancy: Tenancy) -> admission::Limits {
    const MOST: u64 = 1_000_000;
    const ALL: usize = 1_000_000;
    let connections_max = reader.number(
        "ROOMCAST_CONNECTIONS_MAX",
        10_000,
        1..=ALL,
        "Connections of the process.",
    );
    let per_tenant_max = reader.number(
        "ROOMCAST_CONNECTIONS_PER_TENANT_MAX",
        2_000,
        1..=ALL,
        "Connections of one tenant, where there are several (ROOMCAST_CURSOR_KEYS is set); one alone may have all.",
    );
    admission::Limits {
        connections_max,
        per_tenant_max: if tenancy.cursors.is_sealed() {
            per_tenant_max
        } else {
            connections_max
        },
        per_user_max: reader.number(
            "ROOMCAST_CONNECTIONS_PER_USER_MAX",
            10,
            1..=ALL,
            "Connections of one user: tabs and devices.",
        ),
        // Browsers open up to six connections at once before they ask for anything, and several people share an address.
        strangers_per_address_max: reader.number(
            "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
            32,
            1..=ALL,
            "Connections of one address that have not shown a token or a request yet. Raise it where many share an address.",
        ),
        per_address_max: reader.number(
            "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX",
            100,
            1..=ALL,
            "Connections of one address (IPv6: of one /64). Raise it behind a balancer that hides addresses.",
        ),
        strangers_max: reader.number(
            "ROOMCAST_UNAUTHENTICATED_MAX",
            2_000,
            1..=ALL,
            "Connections that have not shown a token or a request yet.",
        ),
        rate: Rate {
            per_second: reader.number(
                "ROOMCAST_CONNECT_RATE",
                2_500,
                1..=MOST,
                "New connections a second.",
            ),
            burst: reader.number(
                "ROOMCAST_CONNECT_BURST",
                5_000,
                1..=MOST,
                "New connections at once.",
            ),
        },
        address_rate: Rate {
            per_second: reader.number(
                "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
                20,
                1..=MOST,
                "New connections a second of one address.",
            ),
            burst: reader.number(
                "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
                100,
                1..=MOST,
                "New connections at once of one address.",
            ),
        },
    }
}
