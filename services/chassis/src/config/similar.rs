//! "Did you mean": the known name nearest to an unknown one.

/// The candidate nearest to `name`, if near enough to be a slip rather than another word: at most a third of
/// its letters differ. Costs O(candidates × length²); used once per mistake at start.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance * 3 <= significant(candidate).max(3))
        .map(|(_, candidate)| candidate)
}

/// Letters that tell one variable from another: those behind the common prefix.
fn significant(name: &str) -> usize {
    name.strip_prefix(super::PREFIX).unwrap_or(name).chars().count()
}

/// Levenshtein's distance: insertions, deletions and replacements from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        let known = [
            "ROOMCAST_LISTEN",
            "ROOMCAST_NATS_URL",
            "ROOMCAST_NATS_USER",
            "ROOMCAST_LOG",
        ];
        assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
    }

    #[test]
    fn nearest_finds_slips_and_not_other_words() {
        check("ROOMCAST_LISTN", Some("ROOMCAST_LISTEN"));
        check("ROOMCAST_NATS_URI", Some("ROOMCAST_NATS_URL"));
        check("ROOMCAST_NATSURL", Some("ROOMCAST_NATS_URL"));
        check("ROOMCAST_LOGS", Some("ROOMCAST_LOG"));
        check("ROOMCAST_COLOUR_OF_THE_SKY", None);
        check("ROOMCAST_X", None);
    }
}
