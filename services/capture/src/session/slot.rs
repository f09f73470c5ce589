//! The slot: looked at, made, dropped.

use super::{Error, Session, flag, text};
use crate::begin::Slot;
use crate::mapping::Mapping;
use crate::position::Lsn;
use crate::sql::{literal, quoted};

impl Session {
    /// The slot, if there is one of the name.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn slot(&mut self, mapping: &Mapping) -> Result<Option<Slot>, Error> {
        let rows = self
            .ask(&format!(
                "SELECT coalesce(s.plugin = 'pgoutput', false), coalesce(s.database, ''), s.wal_status = 'lost', \
                 coalesce(s.confirmed_flush_lsn, '0/0'), s.active_pid, coalesce(a.application_name, '?'), coalesce(host(a.client_addr), \
                 'this machine'), coalesce((to_jsonb(s) ->> 'failover')::bool, false) FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = {}",
                literal(&mapping.slot)
            ))
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let at = |column| text(&rows, 0, column);
        let held_by = at(4).map(|pid| {
            let (name, from) = (at(5).unwrap_or("?"), at(6).unwrap_or("?"));
            format!("process {pid} ({name}, from {from})")
        });
        Ok(Some(Slot {
            is_ours: flag(&rows, 0),
            database: at(1).unwrap_or_default().to_owned(),
            lost: flag(&rows, 2),
            confirmed: at(3).and_then(Lsn::parse).map_or(0, |lsn| lsn.0),
            held_by,
            failover: flag(&rows, 7),
        }))
    }

    /// Bytes of the log that the slot keeps the database from removing, and bytes that were not confirmed; `None` without a slot.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn lag(&mut self, mapping: &Mapping) -> Result<Option<(u64, u64)>, Error> {
        let rows = self
            .ask(&format!(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, pg_wal_lsn_diff(pg_current_wal_lsn(), \
                 confirmed_flush_lsn)::int8 FROM pg_replication_slots WHERE slot_name = {}",
                literal(&mapping.slot)
            ))
            .await?;
        let number = |column| text(&rows, 0, column).and_then(|text| text.parse().ok());
        Ok(number(0).zip(number(1)))
    }

    /// Drops the slot.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn drop_slot(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let sql = format!("SELECT pg_drop_replication_slot({})", literal(&mapping.slot));
        self.ask(&sql).await.map(drop)
    }

    /// Has standbys keep a copy of the slot, from now on.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn let_fail_over(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let slot = quoted(&mapping.slot);
        let sql = format!("ALTER_REPLICATION_SLOT {slot} (FAILOVER true)");
        self.ask(&sql).await.map(drop)
    }

    /// Makes the slot and begins to read the tables as they are at its beginning; gives that place.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn create_slot(&mut self, mapping: &Mapping) -> Result<u64, Error> {
        let failover = mapping.failover.map_or("", |_| ", FAILOVER true");
        let slot = quoted(&mapping.slot);
        self.read_at(&format!("{slot} LOGICAL pgoutput (SNAPSHOT 'use'{failover})"))
            .await
    }

    /// Begins to read the tables as they are at a place in the log, and gives it: what was committed before it is there, and the stream of
    /// any slot has the rest. Only a slot says that place, so there is one more until this session ends.
    ///
    /// # Errors
    /// As [`Session::open`]; also where a transaction goes on for longer than one question may take.
    pub async fn read_beside(&mut self) -> Result<u64, Error> {
        let rows = self.ask("SELECT pg_backend_pid()").await?;
        let process = text(&rows, 0, 0).ok_or(Error::Answer("pg_backend_pid"))?;
        let slot = quoted(&format!("roomcast_rows_{process}"));
        self.read_at(&format!("{slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'use')"))
            .await
    }

    async fn read_at(&mut self, slot: &str) -> Result<u64, Error> {
        self.read_now().await?;
        let sql = format!("CREATE_REPLICATION_SLOT {slot}");
        let rows = self.ask(&sql).await?;
        text(&rows, 0, 1)
            .and_then(Lsn::parse)
            .map(|lsn| lsn.0)
            .ok_or(Error::Answer("CREATE_REPLICATION_SLOT"))
    }

    /// Begins to read the tables as they are now.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn read_now(&mut self) -> Result<(), Error> {
        let sql = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.ask(sql).await.map(drop)
    }

    /// The end of the log: whatever was committed before this call is before it.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn end_of_log(&mut self) -> Result<u64, Error> {
        let rows = self.ask("SELECT pg_current_wal_insert_lsn()").await?;
        text(&rows, 0, 0)
            .and_then(Lsn::parse)
            .map(|lsn| lsn.0)
            .ok_or(Error::Answer("pg_current_wal_insert_lsn"))
    }
}
