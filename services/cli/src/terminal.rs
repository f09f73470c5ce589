//! What a person or a program reads: lines on standard output and standard error, coloured only on a terminal.

use std::io::{IsTerminal, Write};
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

/// A line of the result, on standard output. `false` when nobody reads any more.
pub(crate) fn print(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

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
