//! What sbx asks of the caller's terminal.

use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use std::os::fd::BorrowedFd;

/// The columns and lines of the terminal behind a standard stream, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let streams: [BorrowedFd<'static>; 3] =
        [rustix::stdio::stdout(), rustix::stdio::stderr(), rustix::stdio::stdin()];
    let size = streams.into_iter().find_map(|s| rustix::termios::tcgetwinsize(s).ok())?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// A terminal that shows what another terminal, a guest's, has made ready to be shown, and may pass every
/// key on to that. Put back on drop.
pub struct Raw {
    terminal: BorrowedFd<'static>,
    before: Termios,
}

impl Raw {
    /// Has the terminal behind standard input, if there is one, pass every key on.
    pub fn keys() -> Option<Self> {
        Self::enter(rustix::stdio::stdin(), Termios::make_raw)
    }

    /// Has the terminal behind standard output, if there is one, show what comes as it is. Its keys are
    /// still its own: Ctrl-C interrupts.
    pub fn screen() -> Option<Self> {
        let as_it_is = |raw: &mut Termios| raw.output_modes.remove(OutputModes::OPOST);
        Self::enter(rustix::stdio::stdout(), as_it_is)
    }

    fn enter(terminal: BorrowedFd<'static>, change: fn(&mut Termios)) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        change(&mut raw);
        tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}
