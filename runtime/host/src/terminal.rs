//! What sbx asks of the caller's terminal.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::os::fd::BorrowedFd;

/// The columns and lines of the terminal behind a standard stream, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let streams: [BorrowedFd<'static>; 3] =
        [rustix::stdio::stdout(), rustix::stdio::stderr(), rustix::stdio::stdin()];
    let size = streams.into_iter().find_map(|s| rustix::termios::tcgetwinsize(s).ok())?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A terminal that passes every key on as it is, which one does whose keys are another terminal's:
/// that of a guest. Put back on drop.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Has the terminal behind standard input, if there is one, pass every key on.
    pub fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}
