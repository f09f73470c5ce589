//! How much may be asked at the same time: settings.

use roomcast_chassis::config::Reader;
use roomcast_issuers::Tenancy;

/// How much may be under way at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one connection.
    pub per_connection: u32,
    /// Of one user, over all its connections to this gateway.
    pub per_user: u32,
    /// Of one tenant.
    pub per_tenant: u32,
    /// Of this gateway; backends that answer late count until they have, at most 30 s.
    pub all: usize,
    /// Bytes of notifications in one answer.
    pub page_bytes_max: usize,
}

impl Limits {
    /// Reads `ROOMCAST_ASKS_…`; `page_bytes_max` is that of every answer.
    pub fn read(reader: &mut Reader<'_>, tenancy: Tenancy, page_bytes_max: usize) -> Self {
        let per_tenant = reader.number(
            "ROOMCAST_ASKS_PER_TENANT_MAX",
            512,
            1..=1_000_000,
            "Commands and publishes of one tenant under way at the same time, where there are several (ROOMCAST_CURSOR_KEYS is set); one \
             alone may have all.",
        );
        let several = tenancy.cursors.is_sealed();
        Self {
            page_bytes_max,
            per_tenant: if several { per_tenant } else { u32::MAX },
            per_connection: reader.number(
                "ROOMCAST_ASKS_PER_CONNECTION_MAX",
                8,
                1..=1_024,
                "Commands and publishes of one connection under way at the same time.",
            ),
            per_user: reader.number(
                "ROOMCAST_ASKS_PER_USER_MAX",
                16,
                1..=10_000,
                "Commands and publishes of one user under way at the same time.",
            ),
            all: reader.number(
                "ROOMCAST_ASKS_MAX",
                1_024,
                1..=1_000_000,
                "Commands and publishes of all clients under way at the same time.",
            ),
        }
    }
}
