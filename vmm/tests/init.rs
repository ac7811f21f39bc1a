//! The guest's init and the host's agent, talking to each other over a socket, without a machine.
//!
//! This program is both: started by itself with `guest`, it serves the host on its standard input as init
//! does once the system is set up. What init does before that needs a machine of its own and is tested
//! with one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sbx_init::cgroup::Workload;
use sbx_proto::{Boot, Output, Process, Reason, Status, Terminal};
use sbx_vmm::agent::{Agent, Event};

/// Long enough for any of these on a busy machine; whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "outputs_are_kept_apart_and_the_status_is_told",
        outputs_are_kept_apart_and_the_status_is_told,
    ),
    ("input_of_any_length_comes_back", input_of_any_length_comes_back),
    ("nothing_that_was_written_is_lost", nothing_that_was_written_is_lost),
    (
        "output_that_nobody_takes_holds_up_nothing_else",
        output_that_nobody_takes_holds_up_nothing_else,
    ),
    ("a_child_that_lives_on_does_not_hold_the_end", a_child_that_lives_on_does_not_hold_the_end),
    (
        "a_child_that_goes_on_writing_does_not_hold_the_end",
        a_child_that_goes_on_writing_does_not_hold_the_end,
    ),
    ("input_that_nobody_wants_is_dropped", input_that_nobody_wants_is_dropped),
    ("signals_reach_the_process", signals_reach_the_process),
    ("a_terminal_has_its_size_and_ends_its_input", a_terminal_has_its_size_and_ends_its_input),
    (
        "environment_directory_and_descriptors_are_as_given",
        environment_directory_and_descriptors_are_as_given,
    ),
    ("a_process_runs_as_its_user", a_process_runs_as_its_user),
    ("why_a_program_did_not_start", why_a_program_did_not_start),
    ("a_boot_that_fails_is_told_and_nothing_starts", a_boot_that_fails_is_told_and_nothing_starts),
    ("the_guest_ends_with_the_connection", the_guest_ends_with_the_connection),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let filter = arguments.find(|argument| !argument.starts_with('-'));
    if filter.as_deref() == Some("guest") {
        return guest();
    }
    let listed = std::env::args().any(|argument| argument == "--list");
    for (name, test) in
        TESTS.iter().filter(|(name, _)| filter.as_ref().is_none_or(|f| name.contains(f)))
    {
        if listed {
            println!("{name}: test");
        } else {
            test();
            println!("test {name} ... ok");
        }
    }
}

/// What init is once it is connected.
fn guest() {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    stream.set_nonblocking(true).unwrap();
    let signals = sbx_init::sys::child_signals().unwrap();
    let mut agent = sbx_init::agent::Agent::new(OwnedFd::from(stream), signals, Workload::none());
    agent.run(|boot| match boot.hostname.as_str() {
        "bad" => Err(format!("no {}", "x".repeat(1 << 20))),
        _ => Ok(Workload::none()),
    });
}

/// A guest, and the host's agent for it.
struct Guest {
    agent: Agent,
    process: Child,
}

impl Guest {
    fn new() -> Self {
        let mut guest = Self::booting("good");
        assert_eq!(guest.next(), Event::Ready);
        guest
    }

    fn booting(hostname: &str) -> Self {
        let (host, guest) = UnixStream::pair().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .arg("guest")
            .stdin(OwnedFd::from(guest))
            .spawn()
            .unwrap();
        let mut agent = Agent::new(host).unwrap();
        agent.boot(Boot { hostname: hostname.to_string(), ..Boot::default() }).unwrap();
        Self { agent, process }
    }

    /// The next event, which must come.
    fn next(&mut self) -> Event {
        let start = Instant::now();
        loop {
            if let Some(event) = self.agent.next_event().unwrap() {
                return event;
            }
            assert!(start.elapsed() < PATIENCE, "nothing comes");
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, self.agent.wants_write());
            let mut fds = [PollFd::new(&self.agent, flags)];
            poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
            self.agent.flush().unwrap();
            self.agent.receive().unwrap();
        }
    }

    /// Starts a process, which must succeed.
    fn start(&mut self, process: Process) -> u32 {
        let id = self.agent.exec(process).unwrap();
        assert_eq!(self.next(), Event::Started { id });
        id
    }

    /// All that comes of a process that gets `input`.
    fn finish(&mut self, id: u32, mut input: &[u8]) -> Ending {
        let mut ending = Ending::default();
        loop {
            if !input.is_empty() {
                let taken = self.agent.stdin(id, input).unwrap();
                input = &input[taken..];
                if input.is_empty() {
                    self.agent.stdin_end(id).unwrap();
                }
            }
            match self.next() {
                Event::Output { id, output, data } => {
                    let to = match output {
                        Output::Stdout => &mut ending.stdout,
                        Output::Stderr => &mut ending.stderr,
                    };
                    to.extend_from_slice(&data);
                    self.agent.consumed(id, output, data.len()).unwrap();
                }
                Event::StdinRoom { .. } => {}
                Event::Exited { id: which, status, oom } if which == id => {
                    assert!(!oom);
                    ending.status = Some(status);
                    return ending;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn run(&mut self, process: Process) -> Ending {
        let id = self.start(process);
        self.finish(id, b"")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Ending {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<Status>,
}

impl Ending {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

fn program(argv: &[&str]) -> Process {
    let argv = argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    Process { argv, cwd: "/".to_string(), ..Process::default() }
}

fn shell(script: &str) -> Process {
    program(&["sh", "-c", script])
}

const SUCCESS: Option<Status> = Some(Status::Code(0));

fn outputs_are_kept_apart_and_the_status_is_told() {
    let ending = Guest::new().run(shell("echo out; echo err >&2; exit 3"));
    let expected = Ending {
        stdout: b"out\n".to_vec(),
        stderr: b"err\n".to_vec(),
        status: Some(Status::Code(3)),
    };
    assert_eq!(ending, expected);
}

fn input_of_any_length_comes_back() {
    let mut guest = Guest::new();
    let input: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let id = guest.start(Process { stdin: true, ..program(&["cat"]) });
    let ending = guest.finish(id, &input);
    assert!(ending.stdout == input, "{} bytes came back", ending.stdout.len());
    assert_eq!(ending.status, SUCCESS);
    // And without any, it ends at once.
    assert_eq!(guest.run(program(&["cat"])).status, SUCCESS);
}

fn nothing_that_was_written_is_lost() {
    let mut guest = Guest::new();
    for length in [1, 4095, 65536, 65537, 1_000_000] {
        let script = format!("head -c {length} /dev/zero; head -c {length} /dev/zero >&2");
        let ending = guest.run(shell(&script));
        assert_eq!((ending.stdout.len(), ending.stderr.len()), (length, length));
    }
}

fn output_that_nobody_takes_holds_up_nothing_else() {
    let mut guest = Guest::new();
    let full = guest.start(program(&["yes"]));
    // Until the window is full.
    let mut came = 0;
    while came < usize::try_from(sbx_proto::WINDOW).unwrap() {
        match guest.next() {
            Event::Output { data, .. } => came += data.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(guest.run(shell("echo hi")).text(), "hi\n");
    guest.agent.signal(full, 15).unwrap();
    // What is in the pipe has to be taken before the end is told.
    guest.agent.consumed(full, Output::Stdout, came).unwrap();
    assert_eq!(guest.finish(full, b"").status, Some(Status::Signal(15)));
}

fn a_child_that_lives_on_does_not_hold_the_end() {
    let ending = Guest::new().run(shell("sleep 1000 & echo $!"));
    assert_eq!(ending.status, SUCCESS);
    let pid = ending.text().trim();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
}

fn a_child_that_goes_on_writing_does_not_hold_the_end() {
    // It ends by SIGPIPE when its parent's end is told, since then nobody reads it.
    let ending = Guest::new().run(shell("yes & sleep 0.2; exit 5"));
    assert_eq!(ending.status, Some(Status::Code(5)));
    assert!(!ending.stdout.is_empty());
}

fn input_that_nobody_wants_is_dropped() {
    let mut guest = Guest::new();
    let process = shell("exec <&-; read line <&1 2>&-; sleep 0.5; echo end");
    let id = guest.start(Process { stdin: true, ..process });
    let ending = guest.finish(id, &vec![b'x'; 3_000_000]);
    assert_eq!((ending.text(), ending.status), ("end\n", SUCCESS));
}

fn signals_reach_the_process() {
    let mut guest = Guest::new();
    let id = guest.start(program(&["sleep", "1000"]));
    guest.agent.signal(id, 9).unwrap();
    assert_eq!(guest.finish(id, b"").status, Some(Status::Signal(9)));
    let id =
        guest.start(shell("trap 'echo got; exit 7' TERM; echo on; while :; do sleep 0.05; done"));
    assert!(matches!(guest.next(), Event::Output { .. }), "the trap is set");
    guest.agent.signal(id, 15).unwrap();
    let ending = guest.finish(id, b"");
    assert_eq!((ending.text(), ending.status), ("got\n", Some(Status::Code(7))));
}

fn a_terminal_has_its_size_and_ends_its_input() {
    let mut guest = Guest::new();
    let terminal = Some(Terminal { rows: 33, cols: 77 });
    let id = guest
        .start(Process { terminal, ..shell("stty size; test -t 0 -a -t 2 && cat; stty size") });
    let Event::Output { data, .. } = guest.next() else { panic!("no size") };
    assert_eq!(data, b"33 77\r\n");
    guest.agent.resize(id, Terminal { rows: 5, cols: 6 }).unwrap();
    let ending = guest.finish(id, b"typed\n");
    // The terminal shows what is typed, and `cat` repeats it.
    assert_eq!(ending.text(), "typed\r\ntyped\r\n5 6\r\n");
    assert_eq!(ending.status, SUCCESS);
    // Nothing of the end is lost.
    for _ in 0..20 {
        let process = Process { terminal, ..shell("head -c 3000 /dev/zero; echo end") };
        let ending = guest.run(process);
        assert!(ending.text().ends_with("end\r\n"), "{} bytes", ending.stdout.len());
    }
}

fn environment_directory_and_descriptors_are_as_given() {
    let mut guest = Guest::new();
    let env = vec![b"B=2".to_vec(), b"A=\xff".to_vec()];
    assert_eq!(guest.run(Process { env, ..program(&["env"]) }).stdout, b"B=2\nA=\xff\n");
    assert_eq!(guest.run(program(&["env"])).stdout, b"");
    let script = "pwd; ulimit -n; ls /proc/self/fd | wc -l";
    let process = Process { cwd: "/usr/bin".to_string(), fds: Some(20), ..shell(script) };
    // None of init's own: as many as a shell of this program's has.
    let limited = format!("ulimit -n 20; {script}");
    let mut other = Command::new("sh");
    let expected = other.args(["-c", &limited]).current_dir("/usr/bin").output().unwrap();
    assert_eq!(guest.run(process).stdout, expected.stdout);
}

fn a_process_runs_as_its_user() {
    let mut guest = Guest::new();
    let user = Some("12:34".to_string());
    let id = guest.agent.exec(Process { user, ..shell("id -u; id -G") }).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(guest.next(), Event::Started { id });
        assert_eq!(guest.finish(id, b"").text(), "12\n34\n");
    } else {
        let reason = Reason::Other(rustix::io::Errno::PERM.raw_os_error());
        assert_eq!(guest.next(), Event::NotStarted { id, reason });
    }
}

fn why_a_program_did_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_string()
    };
    let garbage = file("garbage", "neither one nor the other");
    let script = file("script", "#!/no/such/interpreter\n");
    let at = |cwd: &str| Process { cwd: cwd.to_string(), ..shell("true") };
    let user = |name: &str| Process { user: Some(name.to_string()), ..shell("true") };
    let cases = [
        (program(&["/no/such/program"]), Reason::NotFound),
        (program(&["no-such-program"]), Reason::NotFound),
        (program(&[]), Reason::NotFound),
        (program(&["/etc/passwd/x"]), Reason::NotFound),
        (program(&["/etc/passwd"]), Reason::NotExecutable),
        (program(&["/etc"]), Reason::NotExecutable),
        (program(&[&garbage]), Reason::WrongFormat),
        (program(&[&script]), Reason::NoInterpreter),
        (at("/no/such/directory"), Reason::NoSuchDirectory),
        (at("/etc/passwd"), Reason::NoSuchDirectory),
        (user("no-such-user"), Reason::NoSuchUser),
        (user("root:no-such-group"), Reason::NoSuchUser),
    ];
    let mut guest = Guest::new();
    for (process, reason) in cases {
        let id = guest.agent.exec(process).unwrap();
        assert_eq!(guest.next(), Event::NotStarted { id, reason });
    }
    // And the next one does.
    assert_eq!(guest.run(shell("echo hi")).text(), "hi\n");
}

fn a_boot_that_fails_is_told_and_nothing_starts() {
    let mut guest = Guest::booting("bad");
    guest.agent.exec(shell("echo hi")).unwrap();
    let Event::Failed(what) = guest.next() else { panic!("it did not fail") };
    assert!(what.starts_with("no x") && what.len() == sbx_proto::SENTENCE_MAX);
    guest.agent.shutdown(0).unwrap();
    assert!(guest.process.wait().unwrap().success(), "nothing else was told before the end");
}

fn the_guest_ends_with_the_connection() {
    let mut guest = Guest::new();
    let (other, _) = UnixStream::pair().unwrap();
    guest.agent = Agent::new(other).unwrap();
    assert!(guest.process.wait().unwrap().success());
}
