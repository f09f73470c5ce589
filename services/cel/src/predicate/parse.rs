//! From the text of a `where` to an [`Expr`]; whatever is not in the subset is refused with its place and what there is instead.

use super::{Comparison, Computed, Expr, Literal, Operand};
use crate::decimal::{Decimal, Exact};
use crate::row::{Attribute, Path};

/// Longest condition in bytes.
const BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses and `!`.
const DEPTH_MAX: u32 = 32;
/// What may be written, said in every mistake about something else.
const SUPPORTED: &str = "supported are data.x.y, type, source, subject, id, room, audience, priority, texts, numbers, true, false, null, \
     == != < <= > >=, && || !, in [..], has(data.x) and parentheses";

/// A condition with the fields it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The condition.
    pub expr: Expr,
    /// Its fields; their places are what [`Operand::Field`] holds.
    pub paths: Vec<Path>,
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Characters before the place of the mistake.
    pub offset: usize,
    /// The mistake, in words.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(String),
    Sign(&'static str),
    End,
}

/// Reads a condition.
///
/// # Errors
/// The first mistake with its place.
pub fn parse(text: &str) -> Result<Parsed, Wrong> {
    parse_after(text, Vec::new())
}

/// Reads a condition whose fields are added to those that are known already.
///
/// # Errors
/// The first mistake with its place.
pub fn parse_after(text: &str, paths: Vec<Path>) -> Result<Parsed, Wrong> {
    let mut parser = Parser::of(text, paths)?;
    let expr = parser.any()?;
    match parser.peek() {
        Token::End => Ok(Parsed {
            expr,
            paths: parser.paths,
        }),
        _ => Err(parser.unexpected("&&, || or the end")),
    }
}

/// Reads a value that is computed: a field, a literal, a condition, or `condition ? value : value`. Its fields are added to those that
/// are known already.
///
/// # Errors
/// The first mistake with its place.
pub fn parse_computed(text: &str, paths: Vec<Path>) -> Result<(Computed, Vec<Path>), Wrong> {
    let mut parser = Parser::of(text, paths)?;
    let computed = parser.computed()?;
    match parser.peek() {
        Token::End => Ok((computed, parser.paths)),
        _ => Err(parser.unexpected("&&, ||, ? or the end")),
    }
}

struct Lexer<'a> {
    rest: &'a str,
    offset: usize,
}

impl<'a> Lexer<'a> {
    fn run(mut self) -> Result<Vec<(usize, Token)>, Wrong> {
        let mut tokens = Vec::new();
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            let at = self.offset;
            let token = self.next()?;
            let end = token == Token::End;
            tokens.push((at, token));
            if end {
                return Ok(tokens);
            }
        }
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.offset += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Result<Token, Wrong> {
        const SIGNS: [&str; 16] = [
            "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ",", "?", ":",
        ];
        let Some(first) = self.rest.bytes().next() else {
            return Ok(Token::End);
        };
        if let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) {
            self.advance(sign.len());
            return Ok(Token::Sign(sign));
        }
        match first {
            b'"' | b'\'' => self.text(char::from(first)),
            b'0'..=b'9' | b'-' => self.number(),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let len = self
                    .rest
                    .bytes()
                    .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
                    .count();
                Ok(Token::Name(self.advance(len).to_owned()))
            }
            _ => {
                let sign = self.rest.chars().next().unwrap_or(' ');
                Err(self.wrong(format!("`{sign}` is not supported here; {SUPPORTED}")))
            }
        }
    }

    fn wrong(&self, message: String) -> Wrong {
        Wrong {
            offset: self.offset,
            message,
        }
    }

    fn number(&mut self) -> Result<Token, Wrong> {
        let mut before = b' ';
        let len = self
            .rest
            .bytes()
            .enumerate()
            .take_while(|(i, b)| {
                let sign = matches!(b, b'-' | b'+') && (*i == 0 || matches!(before, b'e' | b'E'));
                before = *b;
                sign || b.is_ascii_alphanumeric() || *b == b'.'
            })
            .count();
        let text = &self.rest[..len];
        if Exact::parse(text).is_none() {
            return Err(self.wrong(format!("`{text}` is not a number; {SUPPORTED}")));
        }
        Ok(Token::Number(self.advance(len).to_owned()))
    }

    fn text(&mut self, quote: char) -> Result<Token, Wrong> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.advance(at + 1);
                    return Ok(Token::Text(out));
                }
                '\\' => {
                    let escaped = chars.next().map(|(_, c)| c);
                    let plain = match escaped {
                        Some('n') => Some('\n'),
                        Some('t') => Some('\t'),
                        Some('r') => Some('\r'),
                        Some(c @ ('\\' | '"' | '\'' | '`' | '?')) => Some(c),
                        Some('u') => {
                            let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                            (digits.len() == 4)
                                .then(|| u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32))
                                .flatten()
                        }
                        _ => None,
                    };
                    match plain {
                        Some(c) => out.push(c),
                        None => {
                            return Err(self.wrong(
                                "this text has an escape that is none of \\n \\t \\r \\\\ \\\" \\' \\uXXXX"
                                    .to_owned(),
                            ));
                        }
                    }
                }
                c => out.push(c),
            }
        }
        Err(self.wrong("this text has no closing quote".to_owned()))
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    paths: Vec<Path>,
    depth: u32,
}

impl Parser {
    fn of(text: &str, paths: Vec<Path>) -> Result<Self, Wrong> {
        if text.len() > BYTES_MAX {
            return Err(Wrong {
                offset: 0,
                message: format!("a condition has at most {BYTES_MAX} bytes"),
            });
        }
        let lexer = Lexer {
            rest: text,
            offset: 0,
        };
        Ok(Self {
            tokens: lexer.run()?,
            at: 0,
            paths,
            depth: 0,
        })
    }

    fn computed(&mut self) -> Result<Computed, Wrong> {
        self.deeper()?;
        let value = match self.any()? {
            condition if self.take_sign("?") => {
                let then = self.computed()?;
                self.expect(":")?;
                Computed::Choice(condition, Box::new(then), Box::new(self.computed()?))
            }
            Expr::Truth(operand) => Computed::Operand(operand),
            condition => Computed::Condition(condition),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn deeper(&mut self) -> Result<(), Wrong> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Wrong {
                offset: self.offset(),
                message: format!("nested deeper than {DEPTH_MAX}"),
            });
        }
        Ok(())
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(offset, _)| *offset)
    }

    fn take_sign(&mut self, sign: &'static str) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Wrong> {
        if self.take_sign(sign) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{sign}`")))
        }
    }

    fn unexpected(&self, expected: &str) -> Wrong {
        let found = match self.peek() {
            Token::Name(name) => format!("`{name}`"),
            Token::Text(text) => format!("the text {text:?}"),
            Token::Number(number) => format!("`{number}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        };
        Wrong {
            offset: self.offset(),
            message: format!("expected {expected}, found {found}; {SUPPORTED}"),
        }
    }

    fn any(&mut self) -> Result<Expr, Wrong> {
        let mut parts = vec![self.all()?];
        while self.take_sign("||") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, Wrong> {
        let mut parts = vec![self.one()?];
        while self.take_sign("&&") {
            parts.push(self.one()?);
        }
        Ok(one_or(parts, Expr::All))
    }

    fn one(&mut self) -> Result<Expr, Wrong> {
        self.deeper()?;
        let result = if self.take_sign("!") {
            self.one().map(|part| Expr::Not(Box::new(part)))
        } else if self.take_sign("(") {
            let part = self.any()?;
            self.expect(")").map(|()| part)
        } else {
            self.comparison()
        };
        self.depth -= 1;
        result
    }

    fn comparison(&mut self) -> Result<Expr, Wrong> {
        if *self.peek() == Token::Name("has".to_owned()) {
            self.at += 1;
            self.expect("(")?;
            let at = self.offset();
            let Operand::Field(place) = self.operand()? else {
                return Err(Wrong {
                    offset: at,
                    message: "has(..) asks for a field such as data.x".to_owned(),
                });
            };
            self.expect(")")?;
            return Ok(Expr::Has(place));
        }
        let left = self.operand()?;
        let how = match self.peek() {
            Token::Sign("==") => Comparison::Equal,
            Token::Sign("!=") => Comparison::NotEqual,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            Token::Name(name) if name == "in" => {
                self.at += 1;
                return Ok(Expr::In(left, self.list()?));
            }
            _ => return Ok(Expr::Truth(left)),
        };
        self.at += 1;
        let right = self.operand()?;
        Ok(Expr::Compare(how, left, right))
    }

    fn list(&mut self) -> Result<Vec<Literal>, Wrong> {
        self.expect("[")?;
        let mut list = Vec::new();
        if self.take_sign("]") {
            return Ok(list);
        }
        loop {
            let at = self.offset();
            match self.operand()? {
                Operand::Literal(literal) => list.push(literal),
                Operand::Field(_) => {
                    return Err(Wrong {
                        offset: at,
                        message: "a list holds texts, numbers, true, false and null only".to_owned(),
                    });
                }
            }
            if self.take_sign("]") {
                return Ok(list);
            }
            self.expect(",")?;
        }
    }

    fn operand(&mut self) -> Result<Operand, Wrong> {
        let operand = match self.peek().clone() {
            Token::Text(text) => Operand::Literal(Literal::Text(text)),
            Token::Number(text) => {
                let decimal = Decimal::parse(&text).ok();
                Operand::Literal(Literal::Number(text, decimal))
            }
            Token::Name(name) => match name.as_str() {
                "true" => Operand::Literal(Literal::Flag(true)),
                "false" => Operand::Literal(Literal::Flag(false)),
                "null" => Operand::Literal(Literal::Null),
                name => Operand::Field(self.field(name)?),
            },
            Token::Sign(_) | Token::End => return Err(self.unexpected("a field or a value")),
        };
        self.at += 1;
        Ok(operand)
    }

    fn field(&mut self, name: &str) -> Result<usize, Wrong> {
        let wrong = |message| Wrong {
            offset: self.offset(),
            message,
        };
        if self
            .tokens
            .get(self.at + 1)
            .is_some_and(|(_, token)| *token == Token::Sign("("))
        {
            return Err(wrong(format!(
                "the function `{name}` is not supported; {SUPPORTED}"
            )));
        }
        let Some(path) = Path::parse(name) else {
            let near = Attribute::ALL
                .into_iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            let hint = match near {
                _ if name.contains('.') || name == "data" => String::new(),
                Some((known, _)) => format!("; did you mean {known}?"),
                None => format!("; did you mean data.{name}?"),
            };
            return Err(wrong(format!("`{name}` is not a field{hint}; {SUPPORTED}")));
        };
        Ok(match self.paths.iter().position(|known| *known == path) {
            Some(place) => place,
            None => {
                self.paths.push(path);
                self.paths.len() - 1
            }
        })
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_with_its_place() {
        let rows = [
            ("", 0, "expected a field or a value, found the end"),
            ("data.x ==", 9, "expected a field or a value, found the end"),
            ("data.x = 1", 7, "`=` is not supported"),
            ("data.x == 1 + 2", 12, "`+` is not supported"),
            ("size(data.x) > 1", 0, "the function `size` is not supported"),
            ("amount > 1", 0, "did you mean data.amount?"),
            ("Type == 'x'", 0, "did you mean type?"),
            ("data.x ? 1 : 2", 7, "expected &&, || or the end, found `?`"),
            ("data.x in data.y", 10, "expected `[`"),
            ("data.x in [data.y]", 11, "a list holds"),
            ("data.x == 'abc", 10, "no closing quote"),
            ("data.x == '\\q'", 10, "escape"),
            ("data.x == 01", 10, "not a number"),
            ("data.x == 1 data.y", 12, "expected &&, || or the end"),
            ("(data.x == 1", 12, "expected `)`"),
            ("has(1)", 4, "has(..)"),
            ("data.x == 1 && é", 15, "`é` is not supported"),
            ("data[\"x\"] == 1", 0, "`data` is not a field"),
            ("data.x.startsWith('a')", 0, "the function `data.x.startsWith`"),
        ];
        for (text, offset, message) in rows {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            assert_eq!(wrong.offset, offset, "{text}");
        }
        assert!(parse(&"!".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ -~é]{0,60}") {
            let _ = parse(&text);
        }
    }
}
