//! What a person or a program reads: lines on standard output and standard error, coloured only on a terminal.

use std::io::{Error, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

/// A colour of the terminal's own palette, by its number in the escape sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
}

impl Colour {
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Blue => 34,
            Self::Magenta => 35,
            Self::Cyan => 36,
        }
    }
}

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

impl Stream {
    /// Whether it takes colour: a terminal that is not dumb, and `NO_COLOR` is not set (<https://no-color.org>).
    pub(crate) fn coloured(self) -> bool {
        static ANSWERS: OnceLock<[bool; 2]> = OnceLock::new();
        let answers = ANSWERS.get_or_init(|| {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            [std::io::stdout().is_terminal(), std::io::stderr().is_terminal()]
                .map(|terminal| terminal && !refused)
        });
        answers[usize::from(self == Self::Error)]
    }

    /// `text` in a colour, or as it is where there is none.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        paint(self.coloured(), colour, text)
    }
}

/// `text` in a colour, where there is some.
pub(crate) fn paint(coloured: bool, colour: Colour, text: &str) -> String {
    if coloured {
        format!("\x1b[{}m{text}\x1b[0m", colour.code())
    } else {
        text.to_owned()
    }
}

/// A line for a person, on standard error.
pub(crate) fn say(line: &str) {
    // A reader that closed the pipe has read enough.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Why a line of the result was the first that could not be written.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// A line of the result, on standard output. `false` when nobody reads any more, or it cannot be written: then [`unwritten`] says why.
pub(crate) fn print(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    written(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// What became of something for standard output; keeps the reason where that is no reader who has read enough.
pub(crate) fn written(result: Result<(), Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                // The first reason counts.
                let _ = UNWRITTEN.set(error.to_string());
            }
            false
        }
    }
}

/// Why a part of the result is missing; `None`: all was written, or nobody wanted more.
pub(crate) fn unwritten() -> Option<&'static str> {
    UNWRITTEN.get().map(String::as_str)
}

/// What went wrong, on standard error.
pub(crate) fn complain(message: &str) {
    say(&format!(
        "{} {message}",
        Stream::Error.paint(Colour::Red, "error:")
    ));
}

/// Text from elsewhere with its control characters shown, so that an event cannot steer a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect()
}

/// JSON as one line, else as it is: line breaks stand between its tokens only, where a blank means the same.
pub(crate) fn one_line(json: &[u8]) -> Vec<u8> {
    let blank = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    };
    json.iter().map(blank).collect()
}

/// JSON, or what was meant to be some, that cannot steer a terminal and still means the same: but for white space, control characters
/// stand in its strings only, where they may be escaped.
pub(crate) fn escaped(json: &str) -> String {
    json.chars().fold(String::new(), |mut text, c| {
        match c {
            '\r' => text.push(' '),
            '\n' | '\t' => text.push(c),
            c if c.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_on_a_line_or_without_control_characters_means_the_same() {
        let check = |given: &str, line: &str, shown: &str| {
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(String::from_utf8(one_line(given.as_bytes())).unwrap(), line);
            assert_eq!(escaped(given), shown);
            assert_eq!((read(line), read(shown)), (read(given), read(given)));
        };
        check(
            "{\r\n\t\"a\": \"ü\\n\"\n}",
            "{  \t\"a\": \"ü\\n\" }",
            "{ \n\t\"a\": \"ü\\n\"\n}",
        );
        check(
            "{\"\u{7f}\":\r\"\u{80}\u{9b}2J\u{9f}\u{a0}\"}",
            "{\"\u{7f}\": \"\u{80}\u{9b}2J\u{9f}\u{a0}\"}",
            "{\"\\u007f\": \"\\u0080\\u009b2J\\u009f\u{a0}\"}",
        );
        // What is none is shown all the same.
        assert_eq!(escaped("\u{1b}[2J"), "\\u001b[2J");
    }

    #[test]
    fn colour_is_added_only_where_it_is_taken() {
        assert_eq!(paint(false, Colour::Red, "x"), "x");
        assert_eq!(paint(true, Colour::Red, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(harmless("a\x1b[2Jb\nc ü"), "a·[2Jb·c ü");
    }
}
