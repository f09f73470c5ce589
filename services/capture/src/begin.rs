//! How a capture begins: by what is stored about it, and what the database has. Pure.

use crate::mapping::{Mapping, SlotLost};
use crate::position::{Lsn, Place, Position, Snapshots, Timelines};

/// The slot as the database has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// `None`: it belongs to no plugin of ours.
    pub is_ours: bool,
    /// The database it was made in.
    pub database: String,
    /// Who holds it: process, name and address.
    pub held_by: Option<String>,
    /// Whether the log it needs is gone.
    pub lost: bool,
    /// Up to where changes were confirmed.
    pub confirmed: u64,
    /// Whether standbys keep a copy of it.
    pub failover: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Go on behind the position, and publish the rows of before that were not: of tables that are new in the mapping, or all where that
    /// was interrupted. The slot has what changed since it was made, so it is kept.
    Resume(Position),
    /// A new slot, a snapshot of the tables that have one, and the outbox rows that were not published.
    Fresh {
        /// Whether there is a slot to be dropped first.
        drop: bool,
        /// What is kept of the position before.
        outbox: crate::position::Numbers,
        /// Why, for the log; empty on the very first start.
        why: String,
    },
    /// Go on where the slot is: somebody made it for us.
    Adopt,
    /// Nothing; an operator has to decide.
    Stop(String),
}

/// Decides.
#[must_use]
pub fn begin(
    mapping: &Mapping,
    stored: Option<Position>,
    slot: Option<&Slot>,
    system: &str,
    database: &str,
    timelines: &Timelines,
) -> Begin {
    let name = &mapping.slot;
    if let Some(slot) = slot {
        if !slot.is_ours || slot.database != database {
            return Begin::Stop(format!(
                "the slot {name} is not one of pgoutput in the database {database}; to mend it: name another slot in the mapping, or SELECT \
                 pg_drop_replication_slot('{name}');"
            ));
        }
        if let Some(holder) = &slot.held_by {
            return Begin::Stop(format!(
                "the slot {name} is in use by {holder}; to mend it: stop that process, or SELECT pg_terminate_backend(active_pid) FROM \
                 pg_replication_slots WHERE slot_name = '{name}';"
            ));
        }
    }
    let Some(stored) = stored else {
        return match slot {
            None => Begin::Fresh {
                drop: false,
                outbox: Default::default(),
                why: String::new(),
            },
            Some(slot) if slot.lost => Begin::Fresh {
                drop: true,
                outbox: Default::default(),
                why: format!("the log that the slot {name} needs is gone"),
            },
            Some(_) => Begin::Adopt,
        };
    };
    let goes_on = stored.system == system && slot.is_some_and(|slot| !slot.lost);
    if !goes_on && is_unbegun(&stored) {
        return Begin::Fresh {
            drop: slot.is_some(),
            outbox: stored.outbox,
            why: "the snapshot was interrupted".to_owned(),
        };
    }
    let why = if stored.system != system {
        format!(
            "this is another database cluster ({system}) than the one that was followed ({})",
            stored.system
        )
    } else {
        match slot {
            None => format!("the slot {name} is gone (a fail-over to a standby loses it)"),
            Some(slot) if slot.lost => {
                format!("the log that the slot {name} needs is gone (max_slot_wal_keep_size)")
            }
            Some(_) => return Begin::Resume(cut_back(stored, timelines)),
        }
    };
    // Outbox rows are found again by their numbers: nothing is missing then, and nothing to decide.
    let only_outbox = mapping.tables.is_empty();
    if only_outbox || mapping.slot_lost == SlotLost::Snapshot {
        return Begin::Fresh {
            drop: slot.is_some(),
            outbox: stored.outbox,
            why,
        };
    }
    Begin::Stop(format!(
        "{why}; changes committed after {} may be missing. To mend it: set `slot_lost: snapshot` in the mapping and start again: a new slot \
         is made, the rows of tables with a `snapshot` type are published as they are now, and outbox rows go on by their numbers",
        Lsn(stored.place.lsn)
    ))
}

/// Whether it was written before the slot was made; one of a version before this, until its first snapshot was done.
fn is_unbegun(stored: &Position) -> bool {
    !stored.snapshot_done && stored.place.lsn == 0
}

/// Which rows of before have been published, by what is stored about it: `None` by versions before this, which knew all or nothing.
#[must_use]
pub fn snapshots(mapping: &Mapping, position: Option<&Position>, stored: Option<Snapshots>) -> Snapshots {
    match (position, stored) {
        (None, _) => Snapshots::default(),
        // A version before this does not take back what is stored beside the position when it begins anew.
        (Some(position), _) if is_unbegun(position) => Snapshots::default(),
        (Some(_), Some(stored)) => stored.of(mapping),
        (Some(position), None) if position.snapshot_done => Snapshots::all(mapping),
        (Some(_), None) => Snapshots::default(),
    }
}

/// After a fail-over, what the database lost is not skipped when it is written anew at the same position.
fn cut_back(mut stored: Position, timelines: &Timelines) -> Position {
    if let Some(end) = timelines.cut(stored.timeline, stored.place) {
        stored.place = Place::through(end);
    }
    stored.timeline = timelines.now();
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(slot_lost: &str, tables: bool) -> Mapping {
        let tables = if tables {
            "tables:\n  - { table: t, room: r, audience: all, types: { insert: x }, columns: all }\n"
        } else {
            ""
        };
        let text = format!("version: 1\nsource: s\nslot_lost: {slot_lost}\noutbox: o\n{tables}");
        Mapping::parse(&text, "m.yaml", None).unwrap()
    }

    fn stored() -> Position {
        Position {
            system: "1".to_owned(),
            timeline: 1,
            place: Place::through(0x50),
            events_seq: 9,
            snapshot_done: true,
            outbox: crate::position::Numbers::default(),
        }
    }

    fn slot() -> Slot {
        Slot {
            is_ours: true,
            database: "shop".to_owned(),
            ..Slot::default()
        }
    }

    #[track_caller]
    fn check(mapping: &Mapping, stored: Option<Position>, slot: Option<Slot>, expected: &str) {
        let timelines = Timelines::new(2, "1\t0/40\tx\n");
        let found = begin(mapping, stored, slot.as_ref(), "1", "shop", &timelines);
        let said = match found {
            Begin::Resume(position) => format!("resume {:X} on {}", position.place.lsn, position.timeline),
            Begin::Fresh { drop, why, .. } => format!("fresh {drop} {why}"),
            Begin::Adopt => "adopt".to_owned(),
            Begin::Stop(why) => format!("stop {why}"),
        };
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn what_is_stored_and_what_is_there_decide() {
        let (stops, snaps) = (mapping("stop", true), mapping("snapshot", true));
        check(&stops, None, None, "fresh false ");
        check(&stops, None, Some(slot()), "adopt");
        // On a new timeline that left the old one at 0/40, what was published beyond is not skipped.
        check(&stops, Some(stored()), Some(slot()), "resume 40 on 2");
        let unfinished = Position {
            snapshot_done: false,
            ..stored()
        };
        // The slot has what changed while the snapshot was taken.
        check(&stops, Some(unfinished.clone()), Some(slot()), "resume 40 on 2");
        check(&stops, Some(unfinished), None, "stop the slot roomcast is gone");
        let unbegun = Position {
            snapshot_done: false,
            place: Place::default(),
            ..stored()
        };
        check(
            &stops,
            Some(unbegun.clone()),
            None,
            "fresh false the snapshot was interrupted",
        );
        check(&stops, Some(unbegun), Some(slot()), "resume 0 on 2");
        check(&stops, Some(stored()), None, "stop the slot roomcast is gone");
        check(
            &snaps,
            Some(stored()),
            None,
            "fresh false the slot roomcast is gone",
        );
        check(
            &mapping("stop", false),
            Some(stored()),
            None,
            "fresh false the slot",
        );
        let lost = Slot { lost: true, ..slot() };
        check(&stops, Some(stored()), Some(lost.clone()), "stop the log that");
        check(
            &snaps,
            Some(stored()),
            Some(lost.clone()),
            "fresh true the log that",
        );
        check(&stops, None, Some(lost), "fresh true the log that");
        let elsewhere = Position {
            system: "2".to_owned(),
            ..stored()
        };
        check(
            &stops,
            Some(elsewhere),
            Some(slot()),
            "stop this is another database cluster",
        );
        let held = Slot {
            held_by: Some("process 7".to_owned()),
            ..slot()
        };
        check(
            &snaps,
            Some(stored()),
            Some(held),
            "stop the slot roomcast is in use by process 7; to mend it: stop that process, or SELECT pg_terminate_backend",
        );
        let foreign = Slot {
            is_ours: false,
            ..slot()
        };
        check(
            &snaps,
            None,
            Some(foreign),
            "stop the slot roomcast is not one of pgoutput",
        );
        let other = Slot {
            database: "other".to_owned(),
            ..slot()
        };
        check(
            &snaps,
            None,
            Some(other),
            "stop the slot roomcast is not one of pgoutput",
        );
    }

    #[test]
    fn rows_of_before_are_published_once_for_each_table() {
        let table = |name: &str, kind: &str| {
            format!("  - {{ table: {name}, room: r, audience: all, types: {{ {kind}: x }}, columns: all }}\n")
        };
        let text = format!(
            "version: 1\nsource: s\noutbox: o\ntables:\n{}{}{}",
            table("a", "snapshot"),
            table("b", "snapshot"),
            table("c", "insert")
        );
        let mapping = Mapping::parse(&text, "m.yaml", None).unwrap();
        let named = |names: &[&str]| -> Snapshots { serde_json::from_value(names.into()).unwrap() };
        let position = |snapshot_done, lsn| {
            Some(Position {
                snapshot_done,
                place: Place::through(lsn),
                ..stored()
            })
        };
        let (all, none) = (named(&["public.a", "public.b", "public.o"]), Snapshots::default());
        for (position, beside, expected) in [
            (None, Some(all.clone()), &none),
            (position(false, 0), Some(all.clone()), &none),
            (position(false, 0), None, &none),
            (position(false, 9), None, &none),
            (position(true, 9), None, &all),
            (position(true, 9), Some(all.clone()), &all),
            (
                position(false, 9),
                Some(named(&["public.a"])),
                &named(&["public.a"]),
            ),
            // A table that left the mapping is forgotten, and one that came to it is not known.
            (
                position(true, 9),
                Some(named(&["public.b", "public.gone"])),
                &named(&["public.b"]),
            ),
        ] {
            let shown = format!("{position:?} {beside:?}");
            let found = snapshots(&mapping, position.as_ref(), beside);
            assert_eq!(found, *expected, "{shown}");
            assert_eq!(found.has_all(&mapping), *expected == all, "{shown}");
        }
    }
}
