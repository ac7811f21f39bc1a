//! What sbx asks of the caller's terminal.

use std::os::fd::BorrowedFd;

/// The columns and lines of the terminal behind a standard stream, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let streams: [BorrowedFd<'static>; 3] =
        [rustix::stdio::stdout(), rustix::stdio::stderr(), rustix::stdio::stdin()];
    let size = streams.into_iter().find_map(|s| rustix::termios::tcgetwinsize(s).ok())?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
