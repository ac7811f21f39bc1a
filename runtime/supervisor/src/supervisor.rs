//! The process that holds one sandbox: from its start to its last end.
//!
//! It starts the workload and waits for whatever comes first: its end, its output, a request, a signal, a
//! time that is up. Nothing that it does waits for anybody: what the workload writes goes to the log, whose
//! failures are counted and not waited for, and a client that does not read gets no answer. If it is killed,
//! the workload ends with it (the kernel sees to that), and the lock that it held is free, which tells
//! everybody.
//!
//! ```text
//!   created --> running <--> paused        and behind an end, by the restart policy:
//!                  |                         restarting --> running
//!                  v
//!               exited                     a user's `stop` or `kill` ends that too
//! ```
//!
//! Not here: further processes in the sandbox, and what it uses.

mod clients;
mod start;
mod streams;
mod told;

pub use start::{Make, start, start_attached};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sbx_core::{Command, Error, Exit, Lifecycle, Result, Signal};
use sbx_host::signals::{self, Signals};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::Time;
use crate::control::{self, Reply, Request};
use crate::events::What;
use crate::log::{self, Stream};
use crate::record::{Config, State, Status};
use crate::store::{Entry, Lock};
use clients::Clients;
use sbx_host::frame::{Connection, End, Frame};
use streams::Streams;

/// The time between an end and the next start: the first, and the longest. It doubles from start to start.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A workload that ran so long has worked, and the next delay is the first again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// How long what the workload wrote last may take to be read once it has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// What a wait is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    End,
    Signals,
    Requests,
    Output(Stream),
    Client(usize),
    Input,
}

struct Supervisor<'a> {
    entry: &'a Entry,
    config: &'a Config,
    lock: &'a Lock,
    make: Make<'a>,
    lifecycle: Lifecycle,
    status: Status,
    log: log::Writer,
    streams: Streams,
    /// Readable at the workload's end; nothing between two of its lives.
    ended: Option<OwnedFd>,
    signals: Signals,
    listener: UnixListener,
    clients: Clients,
    /// When a workload that was asked to end is killed.
    kill_at: Option<Instant>,
    /// A user has ended it: it is not started again.
    ended_by_user: bool,
    begun: Instant,
    delay: Duration,
    /// When it is started again.
    restart_at: Option<Instant>,
    /// What is told of an end once the record has it.
    untold: Vec<What>,
}

impl<'a> Supervisor<'a> {
    /// Prepares everything and begins the workload.
    fn begin(
        entry: &'a Entry,
        config: &'a Config,
        lock: &'a Lock,
        make: Make<'a>,
        report: &File,
        attached: Option<UnixStream>,
    ) -> Result<Self> {
        std::env::set_current_dir(&config.cwd)
            .map_err(|e| Error::host(format!("go to {}", config.cwd.display()), e))?;
        let mut lifecycle = make(config)?;
        entry.reserve()?;
        let log = log::Writer::open(entry.dir(), config.log_size)?;
        let listener = control::listen(entry)?;
        listener.set_nonblocking(true).map_err(|e| Error::host("listen for requests", e))?;
        let signals = Signals::of_callers()?;
        let mut streams = Streams::new(&config.spec)?;
        let mut clients = Clients::default();
        attached.into_iter().for_each(|stream| clients.add_attached(stream));
        let mut private = vec![lock.as_fd(), report.as_fd(), listener.as_fd(), signals.as_fd()];
        private.extend(log.files().chain(clients.files()));
        streams.start(&mut lifecycle, &private)?;
        // Everything that the caller has named is open.
        let _ = std::env::set_current_dir("/");
        let ended = Some(lifecycle.ended()?);
        let status = Status {
            supervisor: Some(std::process::id()),
            exit: None,
            notes: Vec::new(),
            restarts: 0,
            ..entry.status()?
        };
        let mut new = Self {
            entry,
            config,
            lock,
            make,
            lifecycle,
            status,
            log,
            streams,
            ended,
            signals,
            listener,
            clients,
            kill_at: None,
            ended_by_user: false,
            begun: Instant::now(),
            delay: FIRST_DELAY,
            restart_at: None,
            untold: Vec::new(),
        };
        new.running()?;
        Ok(new)
    }

    /// Holds the sandbox until its last end; false if that could not be told.
    fn run(mut self) -> bool {
        loop {
            for source in self.wait() {
                match source {
                    Source::Output(stream) => self.keep(stream),
                    Source::Requests => self.clients.accept(&self.listener),
                    Source::Client(index) => self.hear(index),
                    Source::Input => self.streams.write_input(),
                    Source::Signals => self.pass_on(),
                    Source::End => {}
                }
            }
            self.look_at_clock();
            let now = Instant::now();
            if self.restart_at.is_some_and(|at| at <= now) {
                self.start_again();
            }
            let ended = self.ended.as_ref().is_some_and(is_ready);
            let late = self.deadline().is_some_and(|deadline| deadline <= now);
            if (ended || late)
                && let Some(exit) = self.look()
            {
                self.take_down(exit);
            }
            if self.ended.is_none() && self.restart_at.is_none() {
                break;
            }
            self.clients.tidy();
            self.take_input();
        }
        self.status.supervisor = None;
        let written = self.entry.write_last(&self.status).is_ok();
        self.tell_end();
        self.say_goodbye();
        written
    }

    /// When the workload is to be asked about at the latest. One that has ended has no clock any more.
    fn deadline(&self) -> Option<Instant> {
        self.ended.as_ref().and_then(|_| self.lifecycle.deadline())
    }

    /// Whether the workload has ended; one that can no longer be asked about has.
    fn look(&mut self) -> Option<Exit> {
        match self.lifecycle.look() {
            Ok(exit) => exit,
            Err(e) => Some(Exit::Failed(e.to_string())),
        }
    }

    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Signals];
        let mut files = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if self.clients.have_room() {
            sources.push(Source::Requests);
            files.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        if let Some(ended) = &self.ended {
            sources.push(Source::End);
            files.push(PollFd::new(ended, PollFlags::IN));
        }
        let output = self.streams.open().filter(|_| !self.clients.hold_output());
        for (stream, file) in output {
            sources.push(Source::Output(stream));
            files.push(PollFd::from_borrowed_fd(file, PollFlags::IN));
        }
        if let Some(input) = self.streams.input_waits() {
            sources.push(Source::Input);
            files.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
        }
        for (index, client, read, write) in self.clients.interests() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, read);
            flags.set(PollFlags::OUT, write);
            sources.push(Source::Client(index));
            files.push(PollFd::from_borrowed_fd(client, flags));
        }
        let times = [self.deadline(), self.kill_at, self.restart_at];
        let left = times.into_iter().flatten().min().map(|at| {
            // Rounded up, lest the last fraction be spent turning in circles.
            at.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let _ = poll(&mut files, left.as_ref());
        let ready = sources.iter().zip(&files).filter(|(_, file)| !file.revents().is_empty());
        ready.map(|(source, _)| *source).collect()
    }

    fn keep(&mut self, stream: Stream) {
        let Self { streams, log, clients, .. } = self;
        streams.read(stream, |bytes| {
            log.write(stream, bytes);
            clients.show(stream, bytes);
        });
    }

    /// Takes what those who are attached have typed, as far as the workload has room.
    fn take_input(&mut self) {
        let attached: Vec<_> = self.clients.interests().map(|(index, ..)| index).collect();
        for index in attached {
            while let Some(frame) = self.clients.next_frame(index, self.streams.input_room()) {
                match frame {
                    Frame::Input(bytes) => self.streams.take_input(&bytes),
                    Frame::InputEnd => self.streams.end_input(),
                    Frame::Size(columns, lines) => {
                        self.streams.resize(columns, lines);
                        let _ = self.lifecycle.kill(Signal(signals::WINDOW));
                    }
                    Frame::Signal(number) => {
                        self.ended_by_user = true;
                        self.signal(number);
                    }
                    // These are not for us.
                    Frame::Output(_) | Frame::Error(_) | Frame::End(_) => {}
                }
            }
        }
    }

    /// A signal to the supervisor is one to the workload, and its sender's wish that it end.
    fn pass_on(&mut self) {
        while let Some(received) = self.signals.next() {
            self.ended_by_user = true;
            self.signal(received.signal);
        }
    }

    fn signal(&mut self, number: i32) -> Reply {
        if self.ended.is_none() {
            // Between two lives: there will be no other.
            self.restart_at = None;
            self.status.state = State::Exited;
            return Reply::Done;
        }
        let sent = self.lifecycle.kill(Signal(number));
        if sent.is_ok() {
            self.tell(What::Kill { signal: number });
        }
        done(sent)
    }

    fn hear(&mut self, index: usize) {
        let Some(request) = self.clients.hear(index) else { return };
        let reply = match request {
            Request::Wait => return self.clients.await_end(index),
            Request::Attach => return self.clients.attach(index),
            Request::Exec(command) => return self.exec(index, &command),
            Request::Stop { signal, grace } => {
                self.ended_by_user = true;
                self.signal(signal);
                // One that is held hears of nothing but the kill.
                let grace = Duration::from_millis(grace);
                let held = self.status.state == State::Paused;
                let at = Instant::now().checked_add(if held { Duration::ZERO } else { grace });
                // Whoever asked before has been promised no later end.
                self.kill_at = self.kill_at.into_iter().chain(at).min();
                return self.clients.await_end(index);
            }
            Request::Signal(number) => {
                // As in docker, a signal that ends it ends it for good.
                self.ended_by_user |= number == Signal::KILL.0 || number == 15;
                self.signal(number)
            }
            Request::Pause => self.hold(true),
            Request::Resume => self.hold(false),
        };
        self.clients.answer(index, &reply);
    }

    /// Runs a further process for one who asked: in a machine, whose agent then speaks with whoever asked.
    fn exec(&mut self, index: usize, command: &Command) {
        if self.ended.is_none() {
            let why = "the sandbox is not running just now; it is being restarted";
            return self.clients.answer(index, &Reply::Refused(why.into()));
        }
        let Some(stream) = self.clients.hand_over(index) else { return };
        let Ok(spare) = stream.try_clone() else { return };
        if let Err(e) = self.lifecycle.exec(command, stream) {
            let end = End { exit: Exit::Failed(e.to_string()), notes: Vec::new() };
            Connection::new(spare).send(&Frame::End(end));
        }
    }

    fn hold(&mut self, held: bool) -> Reply {
        if self.ended.is_none() {
            return Reply::Refused(
                "the sandbox is not running just now; it is being restarted".into(),
            );
        }
        let moved = if held { self.lifecycle.pause() } else { self.lifecycle.resume() };
        if moved.is_ok() {
            self.status.state = if held { State::Paused } else { State::Running };
            let written = self.entry.write(&self.status);
            self.tell(if held { What::Pause } else { What::Resume });
            return done(written);
        }
        done(moved)
    }

    fn look_at_clock(&mut self) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            self.signal(Signal::KILL.0);
        }
    }

    /// The workload has ended: keeps what it wrote last, and decides what follows.
    fn take_down(&mut self, exit: Exit) {
        self.ended = None;
        self.kill_at = None;
        let Self { streams, log, clients, .. } = self;
        streams.finish(LAST_OUTPUT, |stream, bytes| {
            log.write(stream, bytes);
            clients.show(stream, bytes);
        });
        self.status.process = None;
        self.status.finished = Some(Time::now());
        self.status.notes = self.lifecycle.notes().to_vec();
        self.status.notes.extend(exit.message());
        if self.log.lost() > 0 {
            self.status.notes.push(format!(
                "{} bytes of its output could not be kept, for want of room on the disk",
                self.log.lost()
            ));
        }
        let again = !self.ended_by_user && self.config.restart.wants(&exit, self.status.restarts);
        self.untold = What::of_end(&exit);
        self.status.exit = Some(exit);
        self.status.state = if again { State::Restarting } else { State::Exited };
        if again {
            if self.begun.elapsed() >= GOOD_RUN {
                self.delay = FIRST_DELAY;
            }
            self.restart_at = Instant::now().checked_add(self.delay);
            self.delay = (self.delay * 2).min(LONGEST_DELAY);
            let _ = self.entry.write(&self.status);
            self.tell_end();
        }
    }

    fn start_again(&mut self) {
        self.restart_at = None;
        self.status.restarts += 1;
        let begun = self.try_start_again().and_then(|()| self.running());
        if let Err(e) = begun {
            // It cannot be started any more, and trying again would not change that.
            let exit = Exit::Failed(e.to_string());
            self.untold = What::of_end(&exit);
            self.status.exit = Some(exit);
            self.status.notes = vec![e.to_string()];
            self.status.state = State::Exited;
            self.ended = None;
        }
    }

    fn try_start_again(&mut self) -> Result<()> {
        let _ = std::env::set_current_dir(&self.config.cwd);
        self.lifecycle = (self.make)(self.config)?;
        let own = [self.lock.as_fd(), self.listener.as_fd(), self.signals.as_fd()];
        let private: Vec<_> =
            own.into_iter().chain(self.log.files()).chain(self.clients.files()).collect();
        let mut streams = Streams::new(&self.config.spec)?;
        streams.start(&mut self.lifecycle, &private)?;
        self.streams = streams;
        let _ = std::env::set_current_dir("/");
        self.ended = Some(self.lifecycle.ended()?);
        Ok(())
    }
}

fn done(result: Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(e) => Reply::Refused(e.to_string()),
    }
}

fn is_ready(file: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&now)), Ok(1..))
}

/// Reads what is there, without waiting: nothing if there is nothing, an end as an end.
fn read_now(file: BorrowedFd<'_>, room: &mut [u8]) -> Option<usize> {
    match rustix::io::read(file, &mut *room) {
        Ok(count) => Some(count),
        Err(Errno::AGAIN | Errno::INTR) => None,
        Err(_) => Some(0),
    }
}
