//! The chains of the audit record, followed: entry by entry as the stream holds them, whatever does not fit is named.
//!
//! Pure. A life is one process of one service: its entries are numbered from 1, and each holds the digest of the one before. What was
//! changed or taken out in the middle shows by itself; what was cut off at the end shows against a head that the service has logged.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;

/// Findings that are listed; the rest is counted.
const FINDINGS_MAX: usize = 100;

/// What is read of an entry.
#[derive(Deserialize)]
struct Entry {
    life: String,
    number: u64,
    previous: String,
}

/// The last of a life's entries so far.
#[derive(Debug)]
struct Last {
    subject: String,
    number: u64,
    digest: String,
}

/// A head that a service has logged: what its last entry was at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    life: String,
    number: u64,
    digest: String,
    /// Where it was stored; `None`: it was recorded, and nobody knows of a place.
    position: Option<u64>,
}

impl Head {
    /// All heads in a text, e.g. a log: words of the form `<life>.<number>.<digest>` or `<life>.<number>.<digest>.<position>`.
    pub(crate) fn all_in(text: &str) -> Vec<Self> {
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let word = |word: &str| {
            let mut parts = word.split('.');
            let (life, number, digest) = (parts.next()?, parts.next()?, parts.next()?);
            let position = parts.next().map(str::parse).transpose().ok()?;
            let fits = hex(life, 32) && hex(digest, 64) && parts.next().is_none();
            let number = number.parse().ok().filter(|_| fits)?;
            Some(Self {
                life: life.to_owned(),
                number,
                digest: digest.to_owned(),
                position,
            })
        };
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .filter_map(word)
            .collect()
    }
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    lives: BTreeMap<String, Last>,
    heads: Vec<Head>,
    /// Position of the newest message.
    position: Option<u64>,
    /// The oldest position that the stream still has: what stood before it is gone by age.
    first: u64,
    entries: u64,
    findings: Vec<String>,
    more: u64,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Entries read.
    pub(crate) entries: u64,
    /// Lives they are of.
    pub(crate) lives: usize,
    /// What does not fit, each in words.
    pub(crate) findings: Vec<String>,
}

pub(crate) fn hex_digest(body: &[u8]) -> String {
    digest(&SHA256, body)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Chains {
    /// Nothing read yet. `first`: the oldest position that the stream still has; what is older has aged out.
    pub(crate) fn new(first: u64, heads: Vec<Head>) -> Self {
        Self {
            heads,
            position: first.checked_sub(1),
            first,
            ..Self::default()
        }
    }

    /// Follows one message; they come by position.
    pub(crate) fn follow(&mut self, position: u64, subject: &str, body: &[u8]) {
        if let Some(before) = self
            .position
            .replace(position)
            .filter(|before| before + 1 < position)
        {
            self.miss(before + 1, position - 1);
        }
        self.entries += 1;
        let Ok(Entry {
            life,
            number,
            previous,
        }) = serde_json::from_slice::<Entry>(body)
        else {
            return self.find(format!("position {position}, {subject}: not an entry"));
        };
        let at = format!("position {position}, {subject}, life {life}");
        let digest = hex_digest(body);
        match self.lives.get(&life) {
            // Sent again because its acknowledgement was lost.
            Some(last) if last.number == number && last.digest == digest => return,
            Some(last) if number <= last.number => {
                let last = last.number;
                self.find(format!("{at}: entry {number} comes after entry {last}"));
            }
            Some(last) if number > last.number + 1 => {
                let missing = range(last.number + 1, number - 1);
                self.find(format!("{at}: {missing} missing"));
            }
            Some(last) if last.subject != subject => {
                let other = last.subject.clone();
                self.find(format!(
                    "{at}: entry {number} stands on another subject than {other}"
                ));
            }
            Some(last) if last.digest != previous => {
                self.find(format!(
                    "{at}: entry {} was changed: entry {number} has another digest of it",
                    number - 1
                ));
            }
            // What aged out took its beginnings along: of lives that began before the first entry that is left, nobody knows.
            None if number > 1 && !self.is_aged() => {
                self.find(format!("{at}: {} missing", range(1, number - 1)));
            }
            Some(_) | None => {}
        }
        for head in &self.heads {
            if head.life == life && head.number == number && head.digest != digest {
                let found = format!("{at}: entry {number} is not the one whose digest was logged");
                self.findings.push(found);
            }
        }
        self.lives.insert(
            life,
            Last {
                subject: subject.to_owned(),
                number,
                digest,
            },
        );
    }

    /// Whether beginnings of lives may be gone.
    fn is_aged(&self) -> bool {
        self.first > 1
    }

    fn miss(&mut self, from: u64, to: u64) {
        self.find(format!("positions {from} to {to} of the stream are missing"));
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// Everything was read. `last`: the newest position that the stream has had.
    pub(crate) fn finish(mut self, last: u64) -> Verdict {
        let read = self.position.unwrap_or_default();
        if read < last {
            self.miss(read + 1, last);
        }
        let heads = std::mem::take(&mut self.heads);
        let first = self.first;
        for Head {
            life,
            number,
            position,
            ..
        } in heads
        {
            // Where it stood is known; else it may have aged out with all of its life, where anything has.
            let must_be_there = position.map_or(!self.is_aged(), |position| position >= first);
            match self.lives.get(&life).map(|last| last.number) {
                Some(last) if last < number => {
                    self.find(format!(
                        "life {life}: {} missing, which the log knows of",
                        range(last + 1, number)
                    ));
                }
                None if must_be_there => self.find(format!(
                    "life {life}: all of it is missing, entries to {number} were logged"
                )),
                Some(_) | None => {}
            }
        }
        if self.more > 0 {
            self.findings.push(format!("and {} more", self.more));
        }
        Verdict {
            entries: self.entries,
            lives: self.lives.len(),
            findings: self.findings,
        }
    }
}

fn range(from: u64, to: u64) -> String {
    if from == to {
        format!("entry {from} is")
    } else {
        format!("entries {from} to {to} are")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIFE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    /// A life's entries as a service writes them.
    fn life(life: &str, count: u64) -> Vec<Vec<u8>> {
        let mut previous = String::new();
        let entry = |number: u64| {
            let body =
                json!({ "life": life, "number": number, "previous": previous, "kind": "test" }).to_string();
            previous = hex_digest(body.as_bytes());
            body.into_bytes()
        };
        (1..=count).map(entry).collect()
    }

    fn verify(first: u64, messages: &[(u64, Vec<u8>)], heads: &str) -> Vec<String> {
        verify_up_to(0, first, messages, heads)
    }

    fn verify_up_to(last: u64, first: u64, messages: &[(u64, Vec<u8>)], heads: &str) -> Vec<String> {
        let mut chains = Chains::new(first, Head::all_in(heads));
        for (position, body) in messages {
            chains.follow(*position, "audit.ingest.a", body);
        }
        chains.finish(last).findings
    }

    fn placed(from: u64, bodies: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
        (from..).zip(bodies.iter().cloned()).collect()
    }

    #[track_caller]
    fn check(found: &[String], parts: &[&str]) {
        assert_eq!(found.len(), parts.len(), "{found:?}");
        for (found, part) in found.iter().zip(parts) {
            assert!(found.contains(part), "{part:?} in {found:?}");
        }
    }

    #[test]
    fn whatever_was_done_to_a_chain_is_found() {
        let whole = life(LIFE, 6);
        check(&verify(1, &placed(1, &whole), ""), &[]);
        // Two processes side by side.
        let mixed: Vec<Vec<u8>> = whole
            .iter()
            .cloned()
            .zip(life(OTHER, 6))
            .flat_map(|(a, b)| [a, b])
            .collect();
        check(&verify(1, &placed(1, &mixed), ""), &[]);
        // Sent twice.
        let mut twice = whole.clone();
        twice.insert(3, whole[2].clone());
        check(&verify(1, &placed(1, &twice), ""), &[]);
        // Taken out: out of the stream, and out of a stream that was then written anew.
        let mut holed = placed(1, &whole);
        holed.remove(2);
        check(
            &verify(1, &holed, ""),
            &["positions 3 to 3 of the stream", "entry 3 is missing"],
        );
        let mut without = whole.clone();
        without.remove(2);
        check(&verify(1, &placed(1, &without), ""), &["entry 3 is missing"]);
        check(
            &verify(1, &placed(1, &whole[2..]), ""),
            &["entries 1 to 2 are missing"],
        );
        // Changed, also by one who mends what follows in number, but not in digest.
        let mut changed = whole.clone();
        changed[2] = String::from_utf8(changed[2].clone())
            .unwrap()
            .replace("test", "tset")
            .into_bytes();
        check(&verify(1, &placed(1, &changed), ""), &["entry 3 was changed"]);
        let mut foreign = whole.clone();
        foreign[2] = b"{}".to_vec();
        check(
            &verify(1, &placed(1, &foreign), ""),
            &["not an entry", "entry 3 is missing"],
        );
        let mut swapped = whole.clone();
        swapped.swap(2, 3);
        check(
            &verify(1, &placed(1, &swapped), ""),
            &[
                "entry 3 is missing",
                "entry 3 comes after entry 4",
                "entry 4 is missing",
            ],
        );
    }

    /// Entries at the end that were taken out, or that nobody has read: nothing after them shows it.
    #[test]
    fn the_end_of_the_stream_is_missed() {
        let whole = life(LIFE, 6);
        check(&verify_up_to(6, 1, &placed(1, &whole), ""), &[]);
        // More has come since.
        check(&verify_up_to(4, 1, &placed(1, &whole), ""), &[]);
        check(
            &verify_up_to(6, 1, &placed(1, &whole[..4]), ""),
            &["positions 5 to 6 of the stream"],
        );
        check(&verify_up_to(6, 1, &[], ""), &["positions 1 to 6 of the stream"]);
        check(&verify_up_to(6, 6, &[], ""), &["positions 6 to 6 of the stream"]);
        // All of it has aged out; there never was anything.
        check(&verify_up_to(6, 7, &[], ""), &[]);
        check(&verify_up_to(0, 0, &[], ""), &[]);
        check(&verify_up_to(0, 1, &[], ""), &[]);
    }

    #[test]
    fn what_has_aged_out_is_not_missed() {
        let whole = life(LIFE, 6);
        check(&verify(3, &placed(3, &whole[2..]), ""), &[]);
        let later: Vec<Vec<u8>> = whole[2..]
            .iter()
            .cloned()
            .chain(life(OTHER, 6)[3..].to_vec())
            .collect();
        check(&verify(3, &placed(3, &later), ""), &[]);
        // And inside what is left, everything must be there.
        let mut holed = placed(3, &whole[2..]);
        holed.remove(1);
        check(
            &verify(3, &holed, ""),
            &["positions 4 to 4", "entry 4 is missing"],
        );
    }

    #[test]
    fn a_logged_head_shows_what_was_cut_off_and_what_was_written_anew() {
        let whole = life(LIFE, 6);
        let head = |life: &str, number: u64, digest: &str| {
            format!("audit record head={life}.{number}.{digest} so far\n")
        };
        let true_head = head(LIFE, 5, &hex_digest(&whole[4]));
        check(&verify(1, &placed(1, &whole), &true_head), &[]);
        check(
            &verify(1, &placed(1, &whole[..3]), &true_head),
            &["entries 4 to 5 are missing"],
        );
        check(
            &verify(1, &placed(1, &life(OTHER, 2)), &true_head),
            &["all of it is missing"],
        );
        // Where the beginning of the stream has aged out, a life that is not there at all is missed by where it stood.
        let rest = placed(7, &life(OTHER, 2));
        for (position, missing) in [("", false), (".6", false), (".7", true), (".9", true)] {
            let logged = head(LIFE, 5, &format!("{}{position}", hex_digest(&whole[4])));
            let expected: &[&str] = if missing { &["all of it is missing"] } else { &[] };
            check(&verify(7, &rest, &logged), expected);
        }
        // A whole life, written anew with other words and good digests.
        let mut previous = String::new();
        let anew: Vec<Vec<u8>> = (1..=6)
            .map(|number: u64| {
                let body = json!({ "life": LIFE, "number": number, "previous": previous, "kind": "lie" })
                    .to_string();
                previous = hex_digest(body.as_bytes());
                body.into_bytes()
            })
            .collect();
        check(&verify(1, &placed(1, &anew), ""), &[]);
        check(
            &verify(1, &placed(1, &anew), &true_head),
            &["not the one whose digest was logged"],
        );
    }

    #[test]
    fn heads_are_found_among_other_words() {
        let digest = "ab".repeat(32);
        let text = format!(
            "{{\"message\":\"audit record stands at {LIFE}.12.{digest}\"}} 1.2.3 {LIFE}.x.{digest} {LIFE}.3.{digest}.4 \
             {LIFE}.3.{digest}.x {LIFE}.3.{digest}.4.5"
        );
        let found = Head::all_in(&text);
        let read = |head: &Head| (head.number, head.position);
        assert_eq!(
            found.iter().map(read).collect::<Vec<_>>(),
            [(12, None), (3, Some(4))]
        );
        assert!(found.iter().all(|head| head.digest == digest));
    }
}
