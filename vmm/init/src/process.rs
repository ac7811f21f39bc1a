//! Starting a process: as its user, in its directory, with exactly its environment.

use alloc::ffi::CString;
use alloc::vec;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fchown, fcntl_setfl, open};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Uid, chdir, getpid, ioctl_tiocsctty, setrlimit, setsid,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use sbx_proto::{Process, Reason, Terminal};

use crate::cgroup::{self, Workload};
use crate::sys;
use crate::system::{read_file, write_file};
use crate::users::{self, Identity};

/// Where programs are looked for when the environment does not say.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that was started, and init's ends of its streams, which do not block.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    /// None for a terminal.
    pub(crate) stderr: Option<OwnedFd>,
}

/// The process's ends.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    /// None for a terminal, which then is all three.
    stderr: Option<OwnedFd>,
}

/// All that is found out before there is a process.
struct Plan<'a> {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    identity: Identity,
    process: &'a Process,
    /// Whether the process has yet to enter the workload's cgroup.
    moves: bool,
}

/// What the new process could not do, as it tells it in one byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Prepare = 0,
    Directory = 1,
    Execute = 2,
}

/// Starts a process.
pub(crate) fn start(process: &Process, workload: &Workload) -> Result<Running, Reason> {
    let mut plan = plan(process)?;
    let (mut running, ends) = streams(process, plan.identity.uid).map_err(other)?;
    let (report, reporter) = pipe_with(PipeFlags::CLOEXEC).map_err(other)?;
    let forked = match sys::fork(workload.directory()) {
        // A kernel without the one call that does both.
        Err(Errno::TOOBIG | Errno::INVAL) => {
            plan.moves = workload.directory().is_some();
            sys::fork(None)
        }
        forked => forked,
    };
    match forked {
        Ok(Some(pid)) => {
            drop((ends, reporter));
            running.pid = pid;
            outcome(&report, &plan)?;
            Ok(running)
        }
        Ok(None) => {
            let (step, error) = become_program(&plan, &ends);
            let errno = error.raw_os_error().to_ne_bytes();
            let _ = write(&reporter, &[step as u8, errno[0], errno[1], errno[2], errno[3]]);
            sys::exit(127)
        }
        Err(Errno::AGAIN) => Err(Reason::TooManyProcesses),
        Err(error) => Err(other(error)),
    }
}

fn plan(process: &Process) -> Result<Plan<'_>, Reason> {
    let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, Reason> {
        list.iter()
            .map(|item| CString::new(item.as_slice()).map_err(|_| other(Errno::INVAL)))
            .collect()
    };
    let identity = match &process.user {
        None => Identity::default(),
        Some(user) => {
            let file = |path| read_file(path).unwrap_or_default();
            users::find(user, &file("/etc/passwd"), &file("/etc/group"))
                .ok_or(Reason::NoSuchUser)?
        }
    };
    let program = process.argv.first().ok_or(Reason::NotFound)?;
    Ok(Plan {
        candidates: strings(&candidates(program, &process.env))?,
        argv: strings(&process.argv)?,
        env: strings(&process.env)?,
        identity,
        process,
        moves: false,
    })
}

/// The paths that may be meant by a program's name.
fn candidates(program: &[u8], env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    if program.is_empty() {
        return Vec::new();
    }
    let path = env.iter().find_map(|line| line.strip_prefix(b"PATH=")).unwrap_or(PATH);
    path.split(|&byte| byte == b':')
        .map(|directory| {
            // An empty one is the working directory.
            let directory: &[u8] = if directory.is_empty() { b"." } else { directory };
            [directory, program].join(&b'/')
        })
        .collect()
}

/// Makes the streams. The process's number is not known yet and stands as init's own.
fn streams(process: &Process, uid: u32) -> Result<(Running, Ends), Errno> {
    if let Some(terminal) = process.terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        resize(&master, terminal)?;
        // So that the user can open it by its name.
        fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let input = rustix::io::fcntl_dupfd_cloexec(&master, 0)?;
        let ends = Ends {
            stdin: rustix::io::fcntl_dupfd_cloexec(&slave, 0)?,
            stdout: slave,
            stderr: None,
        };
        let running = Running { pid: getpid(), stdin: Some(input), stdout: master, stderr: None };
        return Ok((running, ends));
    }
    let (stdin, their_stdin) = if process.stdin {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&write_end, OFlags::WRONLY | OFlags::NONBLOCK)?;
        (Some(write_end), read_end)
    } else {
        (None, open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let output = || -> Result<(OwnedFd, OwnedFd), Errno> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&read_end, OFlags::NONBLOCK)?;
        Ok((read_end, write_end))
    };
    let (stdout, their_stdout) = output()?;
    let (stderr, their_stderr) = output()?;
    let ends = Ends { stdin: their_stdin, stdout: their_stdout, stderr: Some(their_stderr) };
    Ok((Running { pid: getpid(), stdin, stdout, stderr: Some(stderr) }, ends))
}

/// Gives a terminal, by its master, another size.
pub(crate) fn resize(master: &OwnedFd, size: Terminal) -> Result<(), Errno> {
    let Terminal { rows, cols } = size;
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })
}

/// What became of the new process: it closes its end by becoming the program, or says why not.
fn outcome(report: &OwnedFd, plan: &Plan<'_>) -> Result<(), Reason> {
    let mut bytes = [0; 5];
    let count = loop {
        match read(report, &mut bytes) {
            Err(Errno::INTR) => {}
            result => break result.map_err(other)?,
        }
    };
    if count == 0 {
        return Ok(());
    }
    let [step, errno @ ..] = bytes;
    let error = Errno::from_raw_os_error(i32::from_ne_bytes(errno));
    let in_directory = step == Step::Directory as u8;
    if in_directory && matches!(error, Errno::NOENT | Errno::NOTDIR) {
        return Err(Reason::NoSuchDirectory);
    }
    if step != Step::Execute as u8 {
        return Err(other(error));
    }
    Err(match error {
        Errno::NOENT | Errno::NOTDIR => {
            let there = |path: &CString| rustix::fs::stat(path.as_c_str()).is_ok();
            if plan.candidates.iter().any(there) { Reason::NoInterpreter } else { Reason::NotFound }
        }
        Errno::ACCESS | Errno::PERM => Reason::NotExecutable,
        Errno::NOEXEC => Reason::WrongFormat,
        error => other(error),
    })
}

/// In the new process: all that makes it the program. Returns only with what went wrong.
fn become_program(plan: &Plan<'_>, ends: &Ends) -> (Step, Errno) {
    if let Err(error) = prepare(plan, ends) {
        return (Step::Prepare, error);
    }
    // As the user, who may not be allowed to be there.
    if let Err(error) = chdir(plan.process.cwd.as_str()) {
        return (Step::Directory, error);
    }
    let mut result = Errno::NOENT;
    for path in &plan.candidates {
        match sys::execve(path, &plan.argv, &plan.env) {
            Errno::NOENT | Errno::NOTDIR => {}
            // There may be another one further on.
            Errno::ACCESS => result = Errno::ACCESS,
            error => return (Step::Execute, error),
        }
    }
    (Step::Execute, result)
}

fn prepare(plan: &Plan<'_>, ends: &Ends) -> Result<(), Errno> {
    if plan.moves {
        // 0 is whoever writes it.
        write_file(&alloc::format!("{}/workload/cgroup.procs", cgroup::ROOT), b"0")?;
    }
    setsid()?;
    if ends.stderr.is_none() {
        ioctl_tiocsctty(&ends.stdout)?;
    }
    let stderr: BorrowedFd<'_> = ends.stderr.as_ref().unwrap_or(&ends.stdout).as_fd();
    dup2_stdin(&ends.stdin)?;
    dup2_stdout(&ends.stdout)?;
    dup2_stderr(stderr)?;
    if let Some(fds) = plan.process.fds {
        setrlimit(Resource::Nofile, Rlimit { current: Some(fds), maximum: Some(fds) })?;
    }
    let Identity { uid, gid, groups } = &plan.identity;
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    // Nothing to change is no reason to need the right to.
    if plan.process.user.is_some() {
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(*gid))?;
        set_thread_uid(Uid::from_raw(*uid))?;
    }
    sys::unblock_signals();
    Ok(())
}

fn other(error: Errno) -> Reason {
    Reason::Other(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: Option<&str>) -> Vec<String> {
        let env: Vec<Vec<u8>> =
            path.map(|path| format!("PATH={path}").into_bytes()).into_iter().collect();
        candidates(program.as_bytes(), &env)
            .into_iter()
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn a_program_is_looked_for_only_by_name() {
        assert_eq!(found("/bin/x", Some("/a")), ["/bin/x"]);
        assert_eq!(found("./x", Some("/a")), ["./x"]);
        assert_eq!(found("x", Some("/a::/b")), ["/a/x", "./x", "/b/x"]);
        assert_eq!(found("x", None).len(), 6);
        assert!(found("", None).is_empty());
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        let argv = vec![b"/bin/x".to_vec(), b"a\0b".to_vec()];
        let process = Process { argv, ..Process::default() };
        assert!(matches!(plan(&process), Err(Reason::Other(_))));
        assert!(matches!(plan(&Process::default()), Err(Reason::NotFound)));
    }
}
