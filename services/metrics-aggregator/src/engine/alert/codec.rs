//! How a rule's state is stored: one chunk, in the form and version of all stored state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Audience, Room};

use super::instance::{Instance, Phase};
use super::{Notice, Together, Watched};
use crate::engine::codec::{Corrupt, FORMAT, Reader, Writer};
use crate::engine::decimal::Decimal;

/// The first version that has rules.
pub const FORMAT_FIRST: u8 = 4;

pub(super) fn write(watched: &Watched) -> Vec<u8> {
    let mut out = Writer::default();
    out.fixed(&[FORMAT]);
    out.count(usize::from(watched.target.is_some()));
    if let Some((room, audience)) = &watched.target {
        out.bytes(room.as_str().as_bytes());
        out.bytes(audience.as_str().as_bytes());
    }
    out.count(watched.instances.len());
    for (group, instance) in &watched.instances {
        out.bytes(group.as_bytes());
        write_instance(&mut out, instance);
    }
    out.count(usize::from(watched.together.is_some()));
    if let Some(together) = &watched.together {
        out.signed(together.since.into());
        out.unsigned(together.renewed.into());
        out.signed(together.said.into());
        out.count(together.groups.len());
        for group in &together.groups {
            out.bytes(group.as_bytes());
        }
    }
    out.count(watched.waiting.len());
    for notice in &watched.waiting {
        for text in [
            &*notice.id,
            &notice.dedup,
            notice.room.as_str(),
            notice.audience.as_str(),
            notice.priority.as_str(),
            &notice.data,
        ] {
            out.bytes(text.as_bytes());
        }
        out.signed(notice.time_micros.into());
    }
    out.finish()
}

fn write_instance(out: &mut Writer, instance: &Instance) {
    match instance.phase {
        Phase::Quiet => out.fixed(&[0]),
        Phase::Pending(since) => {
            out.fixed(&[1]);
            out.signed(since.into());
        }
        Phase::Firing { since, ended, said } => {
            out.fixed(&[2 + u8::from(said)]);
            out.signed(since.into());
            out.optional(ended);
        }
    }
    out.count(instance.samples.len());
    for (at, number) in &instance.samples {
        out.signed((*at).into());
        out.count(usize::from(number.is_some()));
        if let Some(number) = number {
            out.signed(number.units());
        }
    }
}

/// Reads what [`write`] wrote; the rule itself is put in by the caller.
pub(super) fn read(alert: &str, bytes: &[u8]) -> Result<Watched, Corrupt> {
    let mut input = Reader::new(bytes);
    if !(FORMAT_FIRST..=FORMAT).contains(&input.byte()?) {
        return Err(Corrupt("a rule of another version"));
    }
    let speaks_to = match input.byte()? {
        0 => None,
        1 => Some(target(&mut input)?),
        _ => return Err(Corrupt("a flag is neither 0 nor 1")),
    };
    let mut instances = BTreeMap::new();
    for _ in 0..input.count()? {
        let group: Arc<str> = input.text()?.into();
        instances.insert(group, read_instance(&mut input)?);
    }
    let together = match input.byte()? {
        0 => None,
        1 => {
            let (since, renewed, said) = (input.signed64()?, input.unsigned64()?, input.signed64()?);
            let groups = (0..input.count()?).map(|_| input.text().map(Into::into));
            let groups: BTreeSet<Arc<str>> = groups.collect::<Result<_, _>>()?;
            Some(Together {
                since,
                renewed,
                said,
                groups,
            })
        }
        _ => return Err(Corrupt("a flag is neither 0 nor 1")),
    };
    let mut waiting = Vec::new();
    for _ in 0..input.count()? {
        let (id, dedup) = (input.text()?.to_owned(), input.text()?.to_owned());
        let (room, audience) = target(&mut input)?;
        let priority = Priority::from_name(input.text()?).ok_or(Corrupt("a priority that is none"))?;
        waiting.push(Notice {
            id,
            dedup,
            room,
            audience,
            priority,
            data: input.text()?.to_owned(),
            time_micros: input.signed64()?,
        });
    }
    if !input.is_empty() {
        return Err(Corrupt("more bytes than expected"));
    }
    Ok(Watched {
        rule: None,
        alert: alert.to_owned(),
        target: speaks_to,
        instances,
        together,
        waiting,
        dirty: false,
        written: 0,
    })
}

fn target(input: &mut Reader<'_>) -> Result<(Room, Audience), Corrupt> {
    let room = Room::parse(input.text()?).map_err(|_| Corrupt("a room that is none"))?;
    let audience = Audience::parse(input.text()?).map_err(|_| Corrupt("an audience that is none"))?;
    Ok((room, audience))
}

fn read_instance(input: &mut Reader<'_>) -> Result<Instance, Corrupt> {
    let phase = match input.byte()? {
        0 => Phase::Quiet,
        1 => Phase::Pending(input.signed64()?),
        kind @ (2 | 3) => Phase::Firing {
            since: input.signed64()?,
            ended: input.optional()?,
            said: kind == 3,
        },
        _ => return Err(Corrupt("a phase that does not exist")),
    };
    let mut samples = Vec::new();
    for _ in 0..input.count()? {
        let at = input.signed64()?;
        let number = match input.byte()? {
            0 => None,
            1 => Some(Decimal::from_units(input.signed()?)),
            _ => return Err(Corrupt("a flag is neither 0 nor 1")),
        };
        samples.push((at, number));
    }
    Ok(Instance { phase, samples })
}
