//! The rows that were there before: read as they were at one place in the log, so that the stream goes on exactly behind them.

use std::sync::Arc;

use roomcast_capture::checks::Facts;
use roomcast_capture::event::{Bound, Change, Made, Op, Stamp};
use roomcast_capture::follow::{From, Line, Stuck, line, snapshot_id, time_of_unix};
use roomcast_capture::mapping::Table;
use roomcast_capture::outbox::Outbox;
use roomcast_capture::pgoutput::Row;
use roomcast_capture::position::Place;
use roomcast_capture::session::{self, Session};

use super::{Capture, Ended, GoingOn};
use crate::now_micros;

impl Capture {
    /// Publishes the rows of every table that has a snapshot and whose rows were not published, as of `lsn`.
    ///
    /// A crash in between has the rows of the table that was being read come again, under other ids.
    pub(super) async fn snapshot(
        &self,
        session: &mut Session,
        facts: &Facts,
        going_on: &mut GoingOn,
        lsn: u64,
    ) -> Result<(), Ended> {
        let time = time_of_unix(now_micros());
        let mut index = 0;
        for table in self.mapping.snapshots() {
            let name = &table.name;
            if going_on.snapshots.contains(name) {
                continue;
            }
            let timeline = going_on.position.timeline;
            let rows = self
                .table_rows(session, facts, table, timeline, lsn, &time, &mut index)
                .await?;
            going_on.snapshots.insert(name);
            going_on.kept.write_snapshots(&going_on.snapshots).await?;
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

    /// Publishes the outbox rows that were not. Where the stream may bring some of them as well, which is where the position does not
    /// cover what is stored, their numbers go into `from`.
    pub(super) async fn outbox_rows(
        &self,
        session: &mut Session,
        facts: &Facts,
        going_on: &mut GoingOn,
        from: &mut From,
    ) -> Result<(), Ended> {
        let Some(name) = &self.mapping.outbox else {
            return Ok(());
        };
        let condition = format!("id >= {} ORDER BY id", going_on.position.outbox.first_open());
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
                number.is_none_or(|number| !going_on.position.outbox.contains(number))
            };
            let write = |row: &Row| {
                let mut out = Vec::new();
                outbox.write(row, &self.origin, &time, &mut out);
                line(&out, Place::default(), outbox.number(row))
            };
            let lines: Vec<Line> = rows.iter().filter(open).map(write).collect();
            going_on.freshen().await?;
            self.store(lines.iter().collect()).await?;
            count += lines.len();
            for number in lines.iter().filter_map(|line| line.number) {
                going_on.position.outbox.insert(number);
                if !going_on.covered {
                    from.numbers.insert(number);
                }
            }
            going_on.write().await?;
        }
        session.close_rows().await?;
        going_on.snapshots.insert(name);
        going_on.kept.write_snapshots(&going_on.snapshots).await?;
        tracing::info!(
            rows = count,
            "capture read {count} rows of the outbox that were not published"
        );
        Ok(())
    }
}
