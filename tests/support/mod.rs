//! The harness of sbx's tests: it runs the real binary as a user would, and checks after every run
//! what holds for every run: that it ended, that what sbx says is sentences, and that nothing is left
//! behind.
//!
//! A run gets an empty environment but for what a test sets, and the tests' own cache of compiled
//! code in `target/test-cache`.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of the harness")]

mod kept;
mod running;

pub(crate) use kept::{Kept, eventually, is_alive, used, working};
pub(crate) use running::{Outcome, Running, processes_in};

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A run that takes longer hangs.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if is_emulated() { 240 } else { 60 })
}

/// Whether this is the test bed's nested machine, whose processors are emulated and so many times slower.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("SBX_TESTBED").is_some_and(|bed| bed == "nested")
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A guest as a core module.
pub(crate) fn guest(name: &str) -> PathBuf {
    built(root().join("target/guests").join(format!("{name}.wasm")))
}

/// A guest as a component.
pub(crate) fn component(name: &str) -> PathBuf {
    built(root().join("target/guests/component").join(format!("{name}.wasm")))
}

/// A guest as a static Linux program.
pub(crate) fn native(name: &str) -> PathBuf {
    built(root().join("target/guests/native").join(name))
}

/// The kernel that was built for microVMs.
pub(crate) fn kernel() -> PathBuf {
    root().join("target/kernel/vmlinux")
}

fn built(path: PathBuf) -> PathBuf {
    assert!(
        path.is_file(),
        "{} is missing; build it with: bash tests/guests/build",
        path.display()
    );
    path
}

/// A new directory, removed with the value.
pub(crate) fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sbx-test-").tempdir().unwrap()
}

/// Writes a WebAssembly text file into `dir`.
pub(crate) fn wat(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("guest.wat");
    std::fs::write(&path, text).unwrap();
    path
}

/// Tells loudly that a test does not test: on its own standard error, and in a file that `tests/run`
/// counts behind the runner's summary, since the runner takes such a test for one that passed.
pub(crate) fn skipped(reason: &str) {
    use std::io::Write as _;
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED: {reason}");
    let list = root().join("target/test-skipped");
    let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
    writeln!(list, "{name}: {reason}").unwrap();
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[derive(Default)]
enum Input {
    #[default]
    Null,
    Bytes(Vec<u8>),
    Open,
}

/// One run of sbx, to be described and then done.
pub(crate) struct Sbx {
    program: PathBuf,
    words: Vec<OsString>,
    workload: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Input,
    cwd: Option<PathBuf>,
    user: Option<u32>,
    patience: Duration,
}

impl Sbx {
    /// `sbx` with these words, which are split at spaces.
    pub(crate) fn new(words: &str) -> Self {
        let env = |name: &str, value: PathBuf| (name.into(), value.into_os_string());
        Self {
            program: env!("CARGO_BIN_EXE_sbx").into(),
            words: words.split_whitespace().map(Into::into).collect(),
            workload: Vec::new(),
            env: vec![
                env("XDG_CACHE_HOME", root().join("target/test-cache")),
                env("COLUMNS", "100".into()),
                env("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
            ],
            stdin: Input::Null,
            cwd: None,
            user: None,
            patience: patience(),
        }
    }

    /// `sbx run` of a workload.
    pub(crate) fn run(workload: impl AsRef<OsStr>) -> Self {
        let mut sbx = Self::new("run");
        sbx.workload.push(workload.as_ref().to_owned());
        sbx
    }

    /// The same with another verb that takes what `run` takes.
    pub(crate) fn instead_of_run(mut self, verb: &str) -> Self {
        assert_eq!(self.words[0], "run");
        self.words[0] = verb.into();
        self
    }

    /// A shell command line in which `"$@"` is this run.
    pub(crate) fn through_shell(mut self, line: &str) -> Self {
        let sbx = std::mem::replace(&mut self.program, "/bin/sh".into());
        let words = ["-c".into(), line.into(), "sh".into(), sbx.into_os_string()];
        self.words.splice(0..0, words);
        self
    }

    /// Options of sbx, split at spaces.
    pub(crate) fn flags(mut self, flags: &str) -> Self {
        self.words.extend(flags.split_whitespace().map(Into::into));
        self
    }

    /// One option and its value, which may hold spaces or no text at all.
    pub(crate) fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.words.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    /// Shares a directory, `at` being `GUEST[:ro]`.
    pub(crate) fn volume(self, host: &Path, at: &str) -> Self {
        self.flag("-v", format!("{}:{at}", host.display()))
    }

    /// Arguments of the workload.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.workload.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self
    }

    /// A cache of this run's own.
    pub(crate) fn cache(self, dir: &Path) -> Self {
        self.env("XDG_CACHE_HOME", dir)
    }

    /// What standard input holds.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// A standard input in which nothing ever comes.
    pub(crate) fn stdin_open(mut self) -> Self {
        self.stdin = Input::Open;
        self
    }

    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// How long it may take before it counts as hanging.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs as this user, which only root can ask for.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Starts it, in a process group of its own.
    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let temporary = tempdir();
        let within_reach = self.user.map(|_| self.move_within_reach());
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(&self.workload).env_clear().envs(self.env);
        command.env("TMPDIR", temporary.path()).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(match self.stdin {
            Input::Null => Stdio::null(),
            Input::Bytes(_) | Input::Open => Stdio::piped(),
        });
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().unwrap();
        if let Input::Bytes(bytes) = self.stdin {
            let mut stdin = child.stdin.take().unwrap();
            // A workload need not read all of it.
            std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &bytes)));
        }
        Running::new(child, self.patience, temporary, within_reach)
    }

    /// Copies sbx and what it is given of the checkout (a guest, a kernel) to where another user gets; the
    /// checkout may be in a directory that only its owner may enter.
    fn move_within_reach(&mut self) -> tempfile::TempDir {
        let dir = tempdir();
        let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755));
        open(dir.path()).unwrap();
        let copy = |path: &Path| {
            let new = dir.path().join(path.file_name().unwrap());
            std::fs::copy(path, &new).unwrap();
            open(&new).unwrap();
            new
        };
        self.program = copy(&self.program);
        for word in self.words.iter_mut().chain(&mut self.workload) {
            if Path::new(word).starts_with(root()) {
                *word = copy(Path::new(word)).into();
            }
        }
        dir
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn end(self) -> Outcome {
        self.start().end()
    }
}
