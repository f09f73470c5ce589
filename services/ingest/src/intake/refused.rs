//! What of a request becomes dead letters: never what is stored, and each event once. Pure.
//!
//! Of an event for several users some copies may be stored and others refused, and so may one of the two events of a trigger. A letter
//! holds what is left, with the id of what is stored, so that whoever takes it again brings nobody the same twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use roomcast_proto::refusal::{Code, Refusal};
use serde_json::value::{RawValue, to_raw_value};

use super::{Request, Shape};
use crate::answer::{NotTaken, Receipt, Taken, has_stored};
use crate::dead_letter::is_kept;
use crate::error::{told, unavailable};
use crate::lines::Line;
use crate::metrics::{Door, Outcome};

/// A letter to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of which events of the request, by index.
    pub of: Range<usize>,
    /// Why.
    pub refusal: Refusal,
    /// What is left to be taken.
    pub bytes: Bytes,
    /// How many bytes were sent, where `bytes` is only the first of them.
    pub original_bytes: usize,
}

/// The letters of a request, by what became of its events.
///
/// Of a letter that was taken again everything that is left becomes letters, also what may be asked for again: nobody else has it, and
/// the letter itself is over. Where nothing of it is stored it stays what it is.
#[must_use]
pub fn letters(request: &Request<'_>, lines: &[Line], taken: &[Taken]) -> Vec<Kept> {
    let again = request.door == Door::Replay;
    if again && !taken.iter().any(has_stored) {
        return Vec::new();
    }
    let keeps = |refusal: &Refusal| again || is_kept(refusal.code);
    if request.shape == Shape::Together {
        return match together(taken) {
            Err(whole) if keeps(&whole.refusal) => vec![of_one(request, lines, taken, whole)],
            _ => Vec::new(),
        };
    }
    let refused = lines.iter().zip(taken).enumerate();
    let refused = refused.filter_map(|(index, (line, taken))| {
        let not_taken = taken.as_ref().err().filter(|one| keeps(&one.refusal))?;
        let sent = request.body.slice(line.place.clone());
        let (bytes, original_bytes) = match left_of(&sent, not_taken) {
            Some(left) => (Bytes::from(left), 0),
            None => (request.original.clone().unwrap_or(sent), line.original_bytes),
        };
        Some(Kept {
            of: index..index + 1,
            refusal: not_taken.refusal.clone(),
            original_bytes: original_bytes.max(bytes.len()),
            bytes,
        })
    });
    refused.collect()
}

/// Takes out the letters for which there is no room: who sent those events has them still, is told so, and may send them again when there
/// is. Of what is stored in part the letter stays: what was stored, and what is left, is told once.
pub fn over(kept: &mut Vec<Kept>, taken: &mut [Taken], refusal: &Refusal) {
    kept.retain(|kept| {
        let of = &mut taken[kept.of.clone()];
        let in_part = of.iter().any(has_stored);
        for not_taken in of.iter_mut().filter_map(|one| one.as_mut().err()) {
            if !in_part {
                not_taken.refusal = refusal.clone();
            }
        }
        in_part
    });
}

/// The one letter of events that are one: as they were sent, or an array of what is left of them.
fn of_one(request: &Request<'_>, lines: &[Line], taken: &[Taken], whole: NotTaken) -> Kept {
    let bytes = match whole.left {
        None => request.original.clone().unwrap_or_else(|| request.body.clone()),
        Some(_) => {
            let mut array = String::from("[");
            for (line, taken) in lines.iter().zip(taken) {
                let Err(not_taken) = taken else { continue };
                let sent = request.body.slice(line.place.clone());
                let left = left_of(&sent, not_taken);
                let comma = if array.len() > 1 { "," } else { "" };
                let _ = match left {
                    Some(left) => write!(array, "{comma}{left}"),
                    None => write!(array, "{comma}{}", String::from_utf8_lossy(&sent)),
                };
            }
            Bytes::from(array + "]")
        }
    };
    Kept {
        of: 0..taken.len(),
        refusal: whole.refusal,
        original_bytes: bytes.len(),
        bytes,
    }
}

/// What became of events that are one: refused when one of them is, because sending it again finds those that were stored.
///
/// # Errors
/// What is told of those that were refused, and whether the rest is stored.
pub fn together(taken: &[Taken]) -> Taken {
    let refused = || taken.iter().filter_map(|one| one.as_ref().err());
    if let Some(told) = told(refused().map(|one| &one.refusal)) {
        let (id, left) = refused()
            .find(|one| one.refusal == *told)
            .map_or((None, false), |one| (one.id.clone(), one.left.is_some()));
        let users = refused().flat_map(|one| one.left.iter().flatten().cloned());
        return Err(match taken.iter().any(has_stored) {
            false => NotTaken::new(told.clone(), id),
            // It says so already.
            true if left => NotTaken {
                refusal: told.clone(),
                id,
                left: Some(users.collect()),
            },
            true => NotTaken::in_part(told.clone(), id.unwrap_or_default(), users.collect()),
        });
    }
    let receipts = || taken.iter().filter_map(|one| one.as_ref().ok());
    let now = receipts().any(|receipt| receipt.outcome == Outcome::Stored);
    match receipts().next() {
        // Stored now, where one of them was.
        Some(first) => Ok(Receipt {
            outcome: if now { Outcome::Stored } else { first.outcome },
            ..first.clone()
        }),
        None => Err(NotTaken::new(unavailable("nothing was done"), None)),
    }
}

/// The event with its id and only the users whose copies are left. `None`: it is left as it was sent.
fn left_of(sent: &[u8], not_taken: &NotTaken) -> Option<String> {
    // What may be stored is found by a repeat only under the id it had.
    if not_taken.left.is_none() && not_taken.refusal.code != Code::Unknown {
        return None;
    }
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(sent).ok()?;
    members.insert("id".to_owned(), to_raw_value(not_taken.id.as_deref()?).ok()?);
    if let Some(left) = &not_taken.left {
        let users: Vec<String> = left.iter().map(|user| encoded(user)).collect();
        members.insert("users".to_owned(), to_raw_value(&users.join(",")).ok()?);
    }
    serde_json::to_string(&members).ok()
}

/// A subject as an event's `users` has it: what would be misread is percent-encoded.
fn encoded(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for character in user.chars() {
        if !matches!(character, '%' | ',') && !character.is_whitespace() {
            out.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
