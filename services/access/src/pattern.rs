//! Room patterns of the policy: plain tokens and `{claim}` tokens, joined by dots.
//!
//! A pattern never reaches NATS and never matches "everything": a `{claim}` token stands for the values that the token's
//! holder has in that claim, one room per value. What is compared is always a checked [`Room`].

use roomcast_proto::ids::{PERSONAL, ROOM_TOKENS_MAX, Room, is_token};

use crate::token::REGISTERED_CLAIMS;

/// The pattern that stands for every user's personal room: it can say who may publish there, never who may read.
pub const PERSONAL_ROOMS: &str = "user.{user}";

/// One token of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// Matches itself.
    Plain(Box<str>),
    /// Matches the values of a claim; the number is the claim's place in the policy's list of used claims.
    Claim(usize),
}

/// A room name that may have `{claim}` tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

/// The values that a principal has in each claim the policy uses: sorted, unique, tokens all of them.
pub(crate) type ClaimValues = Box<[Box<[Box<str>]>]>;

impl Pattern {
    /// Reads a pattern; `claims` collects the names of the claims that patterns use.
    ///
    /// # Errors
    /// The rule that is broken, in words for the author of the policy.
    pub(crate) fn parse(text: &str, claims: &mut Vec<String>) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > ROOM_TOKENS_MAX {
            return Err(format!("a room has at most {ROOM_TOKENS_MAX} tokens"));
        }
        if parts[0] == PERSONAL {
            return Err(format!(
                "`user` is reserved for personal rooms, which belong to their user alone; \
                 `{PERSONAL_ROOMS}` says who may publish to them"
            ));
        }
        let tokens = parts
            .iter()
            .map(|part| parse_token(part, claims))
            .collect::<Result<Vec<_>, _>>()?;
        if tokens.iter().all(|token| matches!(token, Token::Plain(_))) {
            Room::parse(text).map_err(|bad| bad.rule().to_owned())?;
        }
        Ok(Self { tokens })
    }

    /// The tokens; `None` stands for one that a claim fills.
    pub(crate) fn tokens(&self) -> Vec<Option<&str>> {
        fn plain(token: &Token) -> Option<&str> {
            match token {
                Token::Plain(plain) => Some(plain),
                Token::Claim(_) => None,
            }
        }
        self.tokens.iter().map(plain).collect()
    }

    /// As the policy writes it. `claims`: the policy's list of used claims.
    pub(crate) fn text(&self, claims: &[String]) -> String {
        let tokens = self.tokens.iter().map(|token| match token {
            Token::Plain(plain) => plain.to_string(),
            Token::Claim(claim) => format!("{{{}}}", claims.get(*claim).map_or("", String::as_str)),
        });
        tokens.collect::<Vec<_>>().join(".")
    }

    /// Whether there is no `{claim}` in it, so that it names one room.
    pub(crate) fn is_plain(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Plain(_)))
    }

    /// How many tokens a room must have to match.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether `room` is one of the rooms that this pattern opens to the holder of `values`. Personal rooms never are.
    pub(crate) fn matches(&self, room: &Room, values: &ClaimValues) -> bool {
        self.matches_with(room, |claim, token| {
            values.get(claim).is_some_and(|values| {
                values
                    .binary_search_by(|value| value.as_bytes().cmp(token))
                    .is_ok()
            })
        })
    }

    /// Whether `room` could be one of its rooms for anybody.
    pub(crate) fn could_match(&self, room: &Room) -> bool {
        self.matches_with(room, |_, _| true)
    }

    fn matches_with(&self, room: &Room, holds: impl Fn(usize, &[u8]) -> bool) -> bool {
        let mut tokens = room.tokens();
        let all = self.tokens.iter().all(|mine| match (mine, tokens.next()) {
            (Token::Plain(plain), Some(token)) => plain.as_bytes() == token,
            (Token::Claim(claim), Some(token)) => holds(*claim, token),
            (_, None) => false,
        });
        all && tokens.next().is_none() && !room.is_personal()
    }

    /// The rooms that this pattern opens to the holder of `values`, in order; at most `names_max` names are tried.
    ///
    /// Names that come out too long, or that a claim turned into a personal room, are left out.
    pub(crate) fn rooms<'a>(
        &'a self,
        values: &'a ClaimValues,
        names_max: usize,
    ) -> impl Iterator<Item = Room> + 'a {
        (0..self.room_count(values).min(names_max)).filter_map(move |index| {
            let name = self.name(values, index)?;
            Room::parse(&name).ok().filter(|room| !room.is_personal())
        })
    }

    /// How many names [`Pattern::rooms`] tries: the product of the numbers of values.
    pub(crate) fn room_count(&self, values: &ClaimValues) -> usize {
        self.tokens.iter().fold(1, |count: usize, token| match token {
            Token::Plain(_) => count,
            Token::Claim(claim) => count.saturating_mul(values.get(*claim).map_or(0, |values| values.len())),
        })
    }

    /// The `index`-th name: the index is read as a number whose digits choose the values, the last token turning fastest.
    fn name(&self, values: &ClaimValues, mut index: usize) -> Option<String> {
        let mut parts: Vec<&str> = Vec::with_capacity(self.tokens.len());
        for token in self.tokens.iter().rev() {
            parts.push(match token {
                Token::Plain(plain) => plain,
                Token::Claim(claim) => {
                    let values = values.get(*claim)?;
                    let value = values.get(index.checked_rem(values.len())?)?;
                    index /= values.len();
                    value
                }
            });
        }
        parts.reverse();
        Some(parts.join("."))
    }
}

fn parse_token(part: &str, claims: &mut Vec<String>) -> Result<Token, String> {
    if let Some(claim) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        if !is_token(claim) {
            return Err(format!(
                "`{part}` does not name a claim: 1 to 64 letters, digits, - or _"
            ));
        }
        if REGISTERED_CLAIMS.contains(&claim) {
            return Err(format!(
                "`{claim}` has a meaning of its own in every token and cannot stand in a room"
            ));
        }
        let known = claims.iter().position(|known| known == claim);
        return Ok(Token::Claim(known.unwrap_or_else(|| {
            claims.push(claim.to_owned());
            claims.len() - 1
        })));
    }
    if part.contains(['{', '}']) {
        return Err(format!(
            "`{part}`: a claim fills exactly one token, written {{claim}} between the dots"
        ));
    }
    if part.contains(['*', '>']) {
        return Err(format!(
            "`{part}`: rooms have no wildcards; {{claim}} opens one room per value of a claim"
        ));
    }
    if !is_token(part) {
        return Err("a room has tokens of 1 to 64 letters, digits, - or _ joined by dots".to_owned());
    }
    Ok(Token::Plain(part.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(lists: &[&[&str]]) -> ClaimValues {
        lists
            .iter()
            .map(|list| list.iter().map(|value| Box::from(*value)).collect())
            .collect()
    }

    #[test]
    fn patterns_follow_the_grammar() {
        let rows = [
            ("bookings", true),
            ("property.{ids}", true),
            ("{a}.{b}.x", true),
            ("a.b.c.d.e.f.g.{h}", true),
            ("a.b.c.d.e.f.g.h.i", false),
            ("", false),
            ("a..b", false),
            ("a.", false),
            ("property.*", false),
            ("property.>", false),
            ("property.x{ids}", false),
            ("property.{ids", false),
            ("property.{}", false),
            ("property.{a b}", false),
            ("property.{sub}", false),
            ("user", false),
            ("user.u1", false),
            ("user.{ids}", false),
            ("é", false),
        ];
        for (text, good) in rows {
            assert_eq!(Pattern::parse(text, &mut Vec::new()).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn a_claim_fills_exactly_one_token() {
        let mut claims = Vec::new();
        let pattern = Pattern::parse("property.{ids}.{kinds}", &mut claims).unwrap();
        assert_eq!(claims, ["ids", "kinds"]);
        let holder = values(&[&["42", "43"], &["cars"]]);
        for (room, mine, possible) in [
            ("property.42.cars", true, true),
            ("property.43.cars", true, true),
            ("property.44.cars", false, true),
            ("property.42.tours", false, true),
            ("property.42", false, false),
            ("property.42.cars.x", false, false),
            ("other.42.cars", false, false),
        ] {
            let room = Room::parse(room).unwrap();
            assert_eq!(pattern.matches(&room, &holder), mine, "{room}");
            assert_eq!(pattern.could_match(&room), possible, "{room}");
        }
        let rooms: Vec<String> = pattern.rooms(&holder, 9).map(String::from).collect();
        assert_eq!(rooms, ["property.42.cars", "property.43.cars"]);
        assert_eq!(pattern.rooms(&values(&[&["42"], &[]]), 9).count(), 0);
    }

    /// A claim with the value `user` must not turn `{kind}.{id}` into somebody's personal room.
    #[test]
    fn no_claim_opens_a_personal_room() {
        let pattern = Pattern::parse("{kind}.{id}", &mut Vec::new()).unwrap();
        let holder = values(&[&["shop", "user"], &["u2"]]);
        assert!(!pattern.matches(&Room::personal("u2"), &holder));
        assert!(pattern.rooms(&holder, 9).map(String::from).eq(["shop.u2"]));
    }
}
