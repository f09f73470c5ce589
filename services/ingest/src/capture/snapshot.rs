//! The rows that are there when a slot begins: read as they were at that moment, so that the stream goes on exactly behind them.

use std::sync::Arc;

use roomcast_capture::checks::Facts;
use roomcast_capture::event::{Bound, Change, Made, Op, Stamp};
use roomcast_capture::follow::{Line, Stuck, line, snapshot_id, time_of_unix};
use roomcast_capture::mapping::{Name, Table};
use roomcast_capture::outbox::Outbox;
use roomcast_capture::pgoutput::Row;
use roomcast_capture::position::{Place, Position};
use roomcast_capture::session::{self, Session};

use super::kept::Kept;
use super::{Capture, Ended};
use crate::now_micros;

impl Capture {
    /// Publishes the outbox rows that were not published, and the rows of every table that has a snapshot, as of `lsn`.
    ///
    /// A crash in between makes another slot and another snapshot: rows of tables come again under other ids, outbox rows do not.
    pub(super) async fn snapshot(
        &self,
        session: &mut Session,
        facts: &Facts,
        kept: &mut Kept,
        position: &mut Position,
        lsn: u64,
    ) -> Result<(), Ended> {
        if let Some(name) = &self.mapping.outbox {
            self.outbox_rows(session, facts, kept, position, name).await?;
        }
        let time = time_of_unix(now_micros());
        let mut index = 0;
        for table in self.mapping.snapshots() {
            let rows = self
                .table_rows(session, facts, table, position.timeline, lsn, &time, &mut index)
                .await?;
            let name = &table.name;
            tracing::info!(table = %name, rows, "capture read {rows} rows of {name} that were there before");
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what names the events of one snapshot")]
    async fn table_rows(
        &self,
        session: &mut Session,
        facts: &Facts,
        table: &Table,
        timeline: u32,
        lsn: u64,
        time: &str,
        index: &mut u64,
    ) -> Result<u64, Ended> {
        let snapshot = session.open_rows(&table.name, facts, "").await?;
        let stuck = |unbound| session::Error::Stuck(Stuck::Unbound(unbound));
        let bound = Bound::new(Arc::new(table.clone()), &snapshot.relation).map_err(stuck)?;
        let mut count = 0;
        loop {
            let rows = session.rows().await?;
            if rows.is_empty() {
                break;
            }
            let mut lines: Vec<Line> = Vec::with_capacity(rows.len());
            let mut out = Vec::new();
            for row in &rows {
                let id = snapshot_id(timeline, lsn, *index);
                *index += 1;
                let change = Change {
                    op: Op::Snapshot,
                    row: Some(row),
                    before: None,
                };
                let stamp = Stamp {
                    id: &id,
                    time,
                    source: &self.origin,
                };
                out.clear();
                if bound.write(&change, &stamp, &mut out) == Made::Event {
                    lines.push(line(&out, Place::default(), None));
                    count += 1;
                }
            }
            self.store(lines.iter().collect()).await?;
        }
        session.close_rows().await?;
        Ok(count)
    }

    async fn outbox_rows(
        &self,
        session: &mut Session,
        facts: &Facts,
        kept: &mut Kept,
        position: &mut Position,
        name: &Name,
    ) -> Result<(), Ended> {
        let condition = format!("id >= {} ORDER BY id", position.outbox.first_open());
        let snapshot = session.open_rows(name, facts, &condition).await?;
        let stuck = |column| session::Error::Stuck(Stuck::Outbox(column));
        let outbox = Outbox::new(&snapshot.relation).map_err(stuck)?;
        let time = time_of_unix(now_micros());
        let mut count = 0;
        loop {
            let rows = session.rows().await?;
            if rows.is_empty() {
                break;
            }
            let open = |row: &&Row| {
                let number = outbox.number(row);
                number.is_none_or(|number| !position.outbox.contains(number))
            };
            let write = |row: &Row| {
                let mut out = Vec::new();
                outbox.write(row, &self.origin, &time, &mut out);
                line(&out, Place::default(), outbox.number(row))
            };
            let lines: Vec<Line> = rows.iter().filter(open).map(write).collect();
            self.store(lines.iter().collect()).await?;
            count += lines.len();
            lines
                .iter()
                .filter_map(|line| line.number)
                .for_each(|number| position.outbox.insert(number));
            kept.write(position, true).await?;
        }
        session.close_rows().await?;
        tracing::info!(
            rows = count,
            "capture read {count} rows of the outbox that were not published"
        );
        Ok(())
    }
}
