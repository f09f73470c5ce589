//! What a check may cost at most, counted before a schema counts: how often it can look at one value of an event's data.
//!
//! Twenty lines of `allOf` and `$ref` can double with each line, or at each level of the data. Whoever writes such a schema by mistake is
//! told so, instead of every publisher waiting for it.

use roomcast_proto::limits::JSON_DEPTH_MAX;

/// Levels of nesting that an event's data can have: all but the event's own object.
const LEVELS: usize = JSON_DEPTH_MAX - 1;
/// Most looks at one value, along the way to the deepest: some milliseconds.
pub(crate) const LOOKS_MAX: u64 = 10_000;

/// Which schemas one schema uses, by their places in the list.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) here: Vec<usize>,
    pub(crate) one_member: Vec<usize>,
    pub(crate) any_member: Vec<usize>,
    pub(crate) one_element: Vec<usize>,
    pub(crate) any_element: Vec<usize>,
}

/// A schema that refers to itself without going deeper into the data: a check would never end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endless(pub(crate) usize);

/// The looks that checking data against the first schema may take, along the worst way from the whole data to its deepest value.
pub(crate) fn weigh(schemas: &[Uses]) -> Result<u64, Endless> {
    let mut below = vec![0; schemas.len()];
    for _ in 0..=LEVELS {
        let mut level = Level {
            schemas,
            below: &below,
            now: vec![Looks::Unknown; schemas.len()],
        };
        let now: Result<Vec<u64>, Endless> = (0..schemas.len()).map(|schema| level.looks(schema)).collect();
        below = now?;
    }
    Ok(below.first().copied().unwrap_or(0))
}

#[derive(Clone, Copy)]
enum Looks {
    Unknown,
    BeingCounted,
    Known(u64),
}

struct Level<'a> {
    schemas: &'a [Uses],
    /// The looks of each schema, one level of the data deeper.
    below: &'a [u64],
    now: Vec<Looks>,
}

impl Level<'_> {
    fn looks(&mut self, schema: usize) -> Result<u64, Endless> {
        match self.now[schema] {
            Looks::Known(looks) => return Ok(looks),
            Looks::BeingCounted => return Err(Endless(schema)),
            Looks::Unknown => self.now[schema] = Looks::BeingCounted,
        }
        let uses = &self.schemas[schema];
        let of = |schemas: &[usize]| schemas.iter().map(|used| self.below[*used]).collect::<Vec<_>>();
        let most = |one: &[usize], any: &[usize]| {
            let one = of(one).into_iter().max().unwrap_or(0);
            of(any).into_iter().fold(one, u64::saturating_add)
        };
        let members = most(&uses.one_member, &uses.any_member);
        let elements = most(&uses.one_element, &uses.any_element);
        let mut looks = members.max(elements).saturating_add(1);
        for used in &uses.here {
            looks = looks.saturating_add(self.looks(*used)?);
        }
        self.now[schema] = Looks::Known(looks);
        Ok(looks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(uses: &[usize]) -> Uses {
        Uses {
            here: uses.to_vec(),
            ..Uses::default()
        }
    }

    fn members(uses: &[usize]) -> Uses {
        Uses {
            one_member: uses.to_vec(),
            ..Uses::default()
        }
    }

    #[test]
    fn looks_are_counted_along_the_worst_way() {
        // One object with two members of one level.
        assert_eq!(weigh(&[members(&[1, 2]), here(&[]), here(&[])]), Ok(2));
        // A chain that doubles: 0 uses 1 twice, 1 uses 2 twice.
        assert_eq!(weigh(&[here(&[1, 1]), here(&[2, 2]), here(&[])]), Ok(7));
        // A tree of any depth is looked at once a level.
        assert_eq!(weigh(&[members(&[0, 0])]), Ok(LEVELS as u64 + 1));
        // A list whose elements are looked at twice a level doubles with each.
        let twice = Uses {
            any_element: vec![0, 0],
            ..Uses::default()
        };
        assert_eq!(weigh(&[twice]), Ok((1 << (LEVELS + 1)) - 1));
        assert_eq!(weigh(&[]), Ok(0));
    }

    #[test]
    fn what_goes_round_on_one_value_is_endless() {
        assert_eq!(weigh(&[here(&[0])]), Err(Endless(0)));
        assert_eq!(weigh(&[members(&[1]), here(&[2]), here(&[1])]), Err(Endless(1)));
    }
}
