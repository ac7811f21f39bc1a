//! What a supervisor tells: its sandbox's record, the events, and those who wait for the end.
//!
//! The record comes first, so that whoever hears of something finds it done.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sbx_core::{Exit, Result};
use sbx_host::frame::{End, Frame};
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::Time;
use crate::control::Reply;
use crate::events::{self, What};
use crate::record::State;

/// How long those who wait may take to read what is theirs, once all is over.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Supervisor<'_> {
    /// Says that the workload runs, for the first time or anew.
    pub(super) fn running(&mut self) -> Result<()> {
        self.status.state = State::Running;
        self.status.process = self.lifecycle.process();
        self.status.started = Some(Time::now());
        self.status.finished = None;
        self.begun = Instant::now();
        self.entry.write(&self.status)?;
        let restarts = self.status.restarts;
        self.tell(match &self.status.exit {
            Some(exit) => What::Restart { exit_status: exit.status(), restarts },
            None => What::Start,
        });
        Ok(())
    }

    /// Keeps the events of the last end, once.
    pub(super) fn tell_end(&mut self) {
        std::mem::take(&mut self.untold).into_iter().for_each(|what| self.tell(what));
    }

    /// Keeps an event.
    pub(super) fn tell(&self, what: What) {
        // It may have another name by now.
        let config = self.entry.config();
        events::tell(self.entry, Some(config.as_ref().unwrap_or(self.config)), what);
    }

    /// Tells all who wait of the end, and waits a while for them to read what is theirs. One for whom the
    /// workload waited loses nothing at its end either, however long it takes to read.
    pub(super) fn say_goodbye(&mut self) {
        let exit = self.status.exit.clone().unwrap_or(Exit::Code(0));
        let end = End { exit: exit.clone(), notes: self.lifecycle.notes().to_vec() };
        self.clients.tell_end(&Reply::Ended(exit), &Frame::End(end));
        let deadline = Instant::now() + LAST_WORDS;
        while self.clients.are_owed(true)
            || self.clients.are_owed(false) && Instant::now() < deadline
        {
            let interests = self.clients.interests().filter(|(.., write)| *write);
            let (indices, mut files): (Vec<_>, Vec<_>) = interests
                .map(|(index, file, ..)| (index, PollFd::from_borrowed_fd(file, PollFlags::OUT)))
                .unzip();
            let left = deadline.saturating_duration_since(Instant::now());
            // Past that moment there is only one to wait for.
            let left = (!left.is_zero()).then(|| Timespec::try_from(left).ok()).flatten();
            let _ = poll(&mut files, left.as_ref());
            for index in indices {
                let _ = self.clients.hear(index);
            }
        }
    }
}
