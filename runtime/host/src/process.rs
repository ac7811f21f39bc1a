//! A sandbox's process: forked, limited, awaited.
//!
//! The child runs a closure and ends without unwinding into its caller. What it has to say beyond an
//! exit status goes through a pipe as one JSON document. The parent holds back the signals that are
//! meant for the workload, so that [`Process::wait`] can hand them on, and never polls.
//!
//! Forking needs no `exec`: sbx has one thread when it forks, and the child finds the prepared
//! workload in its memory, which is what makes the start cheap.
//!
//! Not here: landlock, which has a file of its own, and namespaces and seccomp, which are the jail's.
#![allow(unsafe_code, reason = "fork, signal masks and interval timers have no safe interface")]

use sbx_core::{Ending, Error, Exit, Result, Signal, Waited};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{self, Pid, Resource, Rlimit, WaitOptions, WaitStatus};

use crate::Cgroup;

/// A report is a few sentences; what is longer is a child that went wrong.
const REPORT_MAX: u64 = 32 * 1024;

/// The signals that a caller of sbx means for the workload.
pub(crate) const FORWARDED: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Those of them that a terminal or a service manager sends to a whole group of processes.
pub(crate) const OF_GROUPS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// What the kernel holds a sandbox's process to.
#[derive(Clone, Debug, Default)]
pub struct ProcessLimits {
    /// Processor time from the child's first instruction; the kernel kills it at the limit.
    pub cpu_time: Option<Duration>,
    /// Bytes of writable private memory, address space that is only reserved not counted.
    pub data: Option<u64>,
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    report: File,
    cpu_time: Option<Duration>,
    ended: bool,
    killed: Option<i32>,
    /// Removed when the process has been reaped: the next one of this caller gets a group of the same name.
    cgroup: Option<Cgroup>,
}

#[derive(Serialize, Deserialize)]
struct Report {
    exit: Exit,
    notes: Vec<String>,
}

impl Process {
    /// Runs `body` in a child process held to `limits` and put into `cgroup`, in which the files in
    /// `private` are closed.
    ///
    /// # Errors
    /// When the kernel refuses a process or a pipe.
    pub fn spawn(
        limits: &ProcessLimits,
        cgroup: Option<Cgroup>,
        private: &[BorrowedFd<'_>],
        body: impl FnOnce() -> Ending,
    ) -> Result<Self> {
        let failed = |e| Error::host("start the sandbox's process", e);
        let (report, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        mask(libc::SIG_BLOCK);
        // A caller that ignores this signal has passed that on, and children would end unseen.
        // SAFETY: SIG_DFL is a valid disposition, and nothing of sbx's handles the signal.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let parent = process::getpid();
        // SAFETY: sbx forks only where it has a single thread, so that the child's copy of every
        // lock and of the allocator is in a usable state.
        match unsafe { libc::fork() } {
            -1 => Err(failed(std::io::Error::last_os_error())),
            0 => {
                drop(report);
                for file in private {
                    // SAFETY: whoever borrowed them to this process is in the parent; nothing here uses
                    // them or closes them again.
                    unsafe { libc::close(file.as_raw_fd()) };
                }
                let ending = prepare(limits, cgroup.as_ref(), parent)
                    .map_or_else(|e| Exit::Failed(e.to_string()).into(), |()| body());
                finish(writer, ending)
            }
            pid => Ok(Self {
                pid: Pid::from_raw(pid)
                    .ok_or_else(|| Error::Refused("the kernel named no process".into()))?,
                report: report.into(),
                cpu_time: limits.cpu_time,
                ended: false,
                killed: None,
                cgroup,
            }),
        }
    }

    /// Sends the process a signal. One that has ended already is left alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // SAFETY: the number came from the kernel or is SIGKILL; rustix only stores it.
        let named = unsafe { process::Signal::from_raw_unchecked(signal.0) };
        match process::kill_process(self.pid, named) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(Error::host("signal the sandbox's process", e)),
        }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// A file that is readable once the process has ended.
    pub fn ended(&self) -> Result<OwnedFd> {
        process::pidfd_open(self.pid, process::PidfdFlags::empty())
            .map_err(|e| Error::host("watch the sandbox's process", e))
    }

    /// Waits for the process to end by itself, for `patience` at most. [`Self::wait`] tells how it did.
    pub fn settle(&self, patience: Duration) -> Result<()> {
        let failed = |e: rustix::io::Errno| Error::host("wait for the sandbox's process", e);
        let process = self.ended()?;
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut ended, Timespec::try_from(patience).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }

    /// Waits for the end, a signal to pass on, or `until`.
    pub fn wait(&mut self, until: Option<Instant>) -> Result<Waited> {
        loop {
            if let Some((_, status)) = process::waitpid(Some(self.pid), WaitOptions::NOHANG)
                .map_err(|e| Error::host("wait for the sandbox's process", e))?
            {
                self.ended = true;
                self.cgroup = None;
                return Ok(Waited::Ended(self.ending(status)));
            }
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            match next_signal(left) {
                Some(libc::SIGCHLD) => {}
                Some(signal) => return Ok(Waited::Interrupted(Signal(signal))),
                None if left.is_some_and(|l| l.is_zero()) => return Ok(Waited::TimedOut),
                None => {}
            }
        }
    }

    /// The signal that ended the process before it could say how its workload did, if one has.
    pub fn killed_by(&self) -> Option<i32> {
        self.killed
    }

    fn ending(&mut self, status: WaitStatus) -> Ending {
        let mut text = Vec::new();
        // The child is the only writer and is gone: this ends.
        let _ = (&self.report).take(REPORT_MAX).read_to_end(&mut text);
        if let Ok(Report { exit, notes }) = serde_json::from_slice(&text) {
            return Ending { exit, notes };
        }
        self.killed = status.terminating_signal();
        match (status.exit_status(), status.terminating_signal(), self.cpu_time) {
            (Some(code), ..) => Exit::Code(code as u8),
            (_, Some(libc::SIGPROF | libc::SIGXCPU), Some(limit)) => Exit::CpuTime(limit),
            (_, Some(signal), _) => Exit::Signal(signal),
            _ => Exit::Failed("its process ended in a way the kernel did not name".into()),
        }
        .into()
    }
}

impl Drop for Process {
    /// No sandbox outlives the sbx that holds it.
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.signal(Signal::KILL);
            let _ = process::waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

/// Runs `body` in a process of its own that nobody waits for: in a new session, without the caller's
/// terminal. What it writes to the file that it is given can be read from the one that is returned, until
/// it closes that.
///
/// To be called while this process has one thread.
///
/// # Errors
/// When the kernel refuses a process or a pipe.
pub fn background(body: impl FnOnce(OwnedFd)) -> Result<File> {
    let failed = |e| Error::host("start a process in the background", e);
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    // SAFETY: the process has a single thread, so that the child's copy of every lock and of the allocator
    // is in a usable state.
    match unsafe { libc::fork() } {
        -1 => Err(failed(std::io::Error::last_os_error())),
        0 => {
            drop(reader);
            // A process that was just forked leads no group, so that this cannot fail.
            let _ = process::setsid();
            body(writer);
            exit_now(0)
        }
        _ => Ok(reader.into()),
    }
}

/// Makes sure of the files that sbx starts with: the standard streams are open, if only to nothing,
/// so that no other file can come to stand in for one; whatever else was inherited is closed, for
/// nobody told sbx what it is and no sandbox may find it.
pub fn own_files() {
    // SAFETY: called first thing, when sbx owns no descriptor above 2 itself.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    let stream = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut streams = [stream(0), stream(1), stream(2)];
    // SAFETY: the array outlives the call, which is told its length.
    unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for _ in streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0) {
        // SAFETY: the path is a C string; the descriptor is the lowest free one, and stays open.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}

/// Ends this process at once with `status`, running no destructor and no handler.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// One more than the highest descriptor that this process has open.
pub fn files_end() -> Result<u32> {
    let open = std::fs::read_dir("/proc/self/fd")
        .map_err(|e| Error::host("count the open files", e))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max();
    // The listing itself had the highest descriptor, and has given it back.
    Ok(open.unwrap_or(3))
}

/// Lets this process open no descriptor from `end` on.
pub fn limit_files(end: u32) -> Result<()> {
    let maximum = Some(u64::from(end));
    process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|e| Error::host("limit the open files to --fds", e))
}

/// What the child does before the workload's turn.
fn prepare(limits: &ProcessLimits, cgroup: Option<&Cgroup>, parent: Pid) -> Result<()> {
    let ProcessLimits { cpu_time, data } = limits;
    process::set_parent_process_death_signal(Some(process::Signal::KILL))
        .map_err(|e| Error::host("tie the sandbox to its supervisor", e))?;
    if process::getppid() != Some(parent) {
        // The parent was gone before the line above: nobody will ask for the result.
        exit_now(125);
    }
    if let Some(cgroup) = cgroup {
        cgroup.enter()?;
    }
    // A core file would hold the workload's memory, and is a file nobody granted.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    process::setrlimit(Resource::Core, none).map_err(|e| Error::host("turn core files off", e))?;
    if let Some(bytes) = *data {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        process::setrlimit(Resource::Data, limit)
            .map_err(|e| Error::host("limit the memory of a process", e))?;
    }
    if let Some(limit) = *cpu_time {
        limit_cpu_time(limit)?;
    }
    // Not the mask that sbx was started with: what is passed on must arrive, and sbx may have blocked
    // these already, for an earlier child.
    mask(libc::SIG_UNBLOCK);
    // SAFETY: SIG_DFL is a valid disposition, and no other thread of the child exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    Ok(())
}

/// Has the kernel kill this process when it has used `limit` of processor time: `ITIMER_PROF` to
/// the tick, its signal being deadly by default; `RLIMIT_CPU`, in whole seconds, as the second lock.
///
/// What the process has used already is not counted. A process that takes over [`CPU_TIME`] hears of
/// the end, and has two seconds to end itself.
///
/// [`CPU_TIME`]: crate::signals::CPU_TIME
///
/// # Errors
/// When the kernel refuses.
pub fn limit_cpu_time(limit: Duration) -> Result<()> {
    let failed = |e| Error::host("limit the processor time", e);
    let mut value = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(limit.subsec_micros()),
    };
    if value.tv_sec == 0 && value.tv_usec == 0 {
        value.tv_usec = 1;
    }
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: never, it_value: value };
    // SAFETY: both pointers are valid for the call, null asks for no old value.
    if unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    // Not rustix's, which has to ask the kernel about itself first, and a confined process may not.
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    let used = u64::try_from(used.tv_sec).unwrap_or_default();
    let seconds = |more| Some(limit.as_secs().saturating_add(used).saturating_add(more));
    // SIGXCPU names the reason; SIGKILL comes behind it.
    process::setrlimit(Resource::Cpu, Rlimit { current: seconds(2), maximum: seconds(3) })
        .map_err(|e| failed(e.into()))
}

/// The processor time of another process, to be limited.
#[derive(Debug)]
pub struct CpuTime {
    /// A timer of the kernel's, which exists as long as this process.
    timer: libc::timer_t,
}

impl CpuTime {
    /// That of a process that is alive.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(process: Pid) -> Result<Self> {
        let failed = || Error::host("watch the processor time", std::io::Error::last_os_error());
        let mut clock = 0;
        // SAFETY: the pointer is valid for the call.
        if unsafe { libc::clock_getcpuclockid(process.as_raw_pid(), &mut clock) } != 0 {
            return Err(failed());
        }
        // SAFETY: a signal event of zeros is a valid one.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = crate::signals::CPU_TIME;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::timer_create(clock, &mut event, &mut timer) } != 0 {
            return Err(failed());
        }
        Ok(Self { timer })
    }

    /// Has [`CPU_TIME`] sent to this process once `limit` more of the time is used.
    ///
    /// [`CPU_TIME`]: crate::signals::CPU_TIME
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&self, limit: Duration) -> Result<()> {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(limit.subsec_nanos()).max(1),
        };
        let value = libc::itimerspec { it_interval: never, it_value: value };
        // SAFETY: the timer exists, the pointer is valid for the call, null asks for no old value.
        if unsafe { libc::timer_settime(self.timer, 0, &value, std::ptr::null_mut()) } != 0 {
            let e = std::io::Error::last_os_error();
            return Err(Error::host("limit the processor time", e));
        }
        Ok(())
    }
}

/// Tells the parent, and ends. A plain exit status needs no report.
fn finish(pipe: OwnedFd, Ending { exit, notes }: Ending) -> ! {
    let status = exit.status();
    if !matches!(exit, Exit::Code(_)) || !notes.is_empty() {
        let report = written(Report { exit, notes });
        let _ = File::from(pipe).write_all(&report);
    }
    exit_now(status)
}

/// A report as the parent reads it, without its first notes if there are too many: a workload may have
/// a say in what they are, and must not be able to hide how it ended.
fn written(mut report: Report) -> Vec<u8> {
    loop {
        let text = serde_json::to_vec(&report).unwrap_or_default();
        if text.len() as u64 <= REPORT_MAX || report.notes.is_empty() {
            return text;
        }
        report.notes.remove(0);
    }
}

fn watched() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writing a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initialized the whole set.
    let mut set = unsafe { set.assume_init() };
    for signal in FORWARDED.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: the set is initialized and the signal has a valid number.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}

/// Blocks or unblocks the watched signals.
fn mask(how: libc::c_int) {
    let set = watched();
    // SAFETY: the set is initialized, `how` is one of the two, null asks for no old mask.
    unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
}

/// Takes the next watched signal, waiting at most `left` for it.
fn next_signal(left: Option<Duration>) -> Option<i32> {
    let set = watched();
    let timeout = left.map(|l| libc::timespec {
        tv_sec: libc::time_t::try_from(l.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(l.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set is initialized, the timeout is null or outlives the call, null asks for no
    // details.
    let signal = unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), timeout) };
    (signal > 0).then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_always_says_how_it_ended() {
        let notes: Vec<_> = (0..50).map(|n| format!("{n} {}", "\u{fffd}".repeat(1000))).collect();
        let text = written(Report { exit: Exit::Failed("why".into()), notes: notes.clone() });
        assert!(text.len() as u64 <= REPORT_MAX);
        let read: Report = serde_json::from_slice(&text).unwrap();
        assert_eq!(read.exit, Exit::Failed("why".into()));
        assert!(!read.notes.is_empty() && notes.ends_with(&read.notes), "the last ones are kept");
        let few = written(Report { exit: Exit::Failed("why".into()), notes: vec!["a".into()] });
        assert_eq!(serde_json::from_slice::<Report>(&few).unwrap().notes, ["a"]);
    }
}
