//! The terminal: taken, drawn on, and given back as it was, whatever happens.

use std::io::{Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::view::Line;
use crate::terminal::Stream;

/// Another page, no cursor, no wrapping: a line that is too long ends at the edge.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const GIVE_BACK: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The key that comes as this byte.
const CTRL_C: u8 = 0x03;
/// Columns and lines of a terminal that does not say.
const SIZE: (usize, usize) = (80, 24);

/// The terminal while it is ours; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Screen {
    before: Termios,
    ended: mpsc::Receiver<()>,
}

impl Screen {
    /// Takes the terminal: keys come one by one and are not shown.
    ///
    /// # Errors
    /// When standard input is none.
    pub(super) fn take() -> rustix::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut ours = before.clone();
        // Ctrl-C, Ctrl-Z and Ctrl-\ are keys as well: who is stopped or killed by one of them does not give the terminal back.
        let line_by_line = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        ours.local_modes.remove(line_by_line);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &ours)?;
        let (end, ended) = mpsc::channel(1);
        // A read of a terminal cannot be given up, so it has a thread that ends with the process.
        std::thread::spawn(move || {
            let mut keys = [0; 16];
            while let Ok(read) = std::io::stdin().lock().read(&mut keys) {
                if read == 0 || ends(keys.get(..read).unwrap_or_default()) {
                    break;
                }
            }
            let _ = end.try_send(());
        });
        write(TAKE);
        Ok(Self { before, ended })
    }

    /// Waits for a key that ends it.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn told_to_end(&mut self) {
        let _ = self.ended.recv().await;
    }

    /// Draws lines over what was there.
    pub(super) fn draw(&self, lines: &[Line]) {
        write(&drawn(lines, size(), Stream::Out.coloured()));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(GIVE_BACK);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether keys that came together are for the end: `q`, Ctrl-C, or Escape alone, with which the arrows begin.
fn ends(keys: &[u8]) -> bool {
    keys == [0x1b] || keys.iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C))
}

fn size() -> (usize, usize) {
    let said = tcgetwinsize(std::io::stdout()).ok();
    let said = said.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    said.filter(|(columns, lines)| *columns > 0 && *lines > 0)
        .unwrap_or(SIZE)
}

/// In one write, each line over the old one, so that nothing flickers.
fn drawn(lines: &[Line], (columns, rows): (usize, usize), coloured: bool) -> String {
    let mut out = String::from("\x1b[H");
    for (number, line) in lines.iter().take(rows).enumerate() {
        if number > 0 {
            out.push_str("\r\n");
        }
        out.push_str(&line.painted(columns, coloured));
        out.push_str("\x1b[K");
    }
    out.push_str("\x1b[J");
    out
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone ends us by a signal.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_keys_end_it() {
        for (keys, expected) in [
            (&b"q"[..], true),
            (b"Q", true),
            (b"\x1b", true),
            (b"\x1b[A", false),
            (b"x", false),
            (b"xq", true),
            (b"\x03", true),
            (b"\x1a\x1c", false),
            (b"", false),
        ] {
            assert_eq!(ends(keys), expected, "{keys:?}");
        }
    }

    #[test]
    fn what_is_drawn_fits() {
        let lines: Vec<Line> = ["one", "two and more", "three"]
            .into_iter()
            .map(Line::plain)
            .collect();
        assert_eq!(
            drawn(&lines, (5, 2), false),
            "\x1b[Hone\x1b[K\r\ntwo …\x1b[K\x1b[J"
        );
    }
}
