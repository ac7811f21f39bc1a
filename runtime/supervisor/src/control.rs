//! How a command speaks with the supervisor of a sandbox: over a socket in the sandbox's directory, one
//! request and one answer a connection, each a line of JSON.
//!
//! Who may write to the directory may speak; the directory is its user's alone.

use rustix::fs::{Mode, OFlags};
use sbx_core::{Command, Error, Exit, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::store::{Entry, short};

/// A request or an answer is a few hundred bytes.
pub(crate) const LINE_MAX: usize = 64 << 10;

/// What a supervisor is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// To send the workload a signal, by Linux' number.
    Signal(i32),
    /// To end the workload: by this signal, and by SIGKILL after so many milliseconds. Answered at the end.
    Stop {
        /// The signal.
        signal: i32,
        /// The time it leaves.
        grace: u64,
    },
    /// To hold the workload.
    Pause,
    /// To let it go on.
    Resume,
    /// To tell when it has ended. Answered then.
    Wait,
    /// To show what the workload writes from here on, and take its input: behind the answer, both sides
    /// speak in [`sbx_host::frame::Frame`]s.
    Attach,
    /// To run a further process in the sandbox. Behind the answer its streams and its end follow, as for
    /// [`Self::Attach`].
    Exec(Command),
}

/// What a supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The workload has ended so.
    Ended(Exit),
    /// It cannot be done: why, as a sentence.
    Refused(String),
}

/// A path to the socket that is short enough for its address, whatever the directory is called.
struct Place {
    _dir: OwnedFd,
    path: PathBuf,
}

impl Place {
    fn of(entry: &Entry) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(entry.dir(), flags, Mode::empty());
        let dir = dir.map_err(|_| gone(entry))?;
        let path = format!("/proc/self/fd/{}/control", dir.as_raw_fd()).into();
        Ok(Self { _dir: dir, path })
    }
}

/// Listens for requests about a sandbox.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(entry: &Entry) -> Result<UnixListener> {
    let place = Place::of(entry)?;
    // That of a supervisor that was killed; whoever calls this has the lock.
    let _ = std::fs::remove_file(&place.path);
    UnixListener::bind(&place.path).map_err(|e| Error::host("listen for requests", e))
}

/// Asks the supervisor of a sandbox, and waits for the answer; `None` if there is no supervisor, or none
/// any more.
///
/// # Errors
/// When it refuses, or cannot be spoken with.
pub fn ask(entry: &Entry, request: &Request) -> Result<Option<Reply>> {
    Ok(converse(entry, request)?.map(|(reply, _)| reply))
}

/// The same, and the connection behind the answer.
pub(crate) fn converse(entry: &Entry, request: &Request) -> Result<Option<(Reply, UnixStream)>> {
    let failed = |e: serde_json::Error| {
        Error::host(format!("speak with the supervisor of sandbox {}", short(entry.id())), e)
    };
    let mut text = serde_json::to_vec(request).map_err(failed)?;
    text.push(b'\n');
    if text.len() > LINE_MAX {
        return Err(Error::Refused(format!(
            "the command and its variables are longer than the {} KiB that can be asked for",
            LINE_MAX >> 10
        )));
    }
    let Ok(mut stream) = UnixStream::connect(&Place::of(entry)?.path) else { return Ok(None) };
    if stream.write_all(&text).is_err() {
        return Ok(None);
    }
    // A byte at a time: what is behind the line is not the answer's.
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LINE_MAX && !line.ends_with(b"\n") {
        match stream.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // A supervisor that ends without an answer was killed.
            _ => return Ok(None),
        }
    }
    match serde_json::from_slice(&line).map_err(failed)? {
        Reply::Refused(why) => Err(Error::Refused(why)),
        reply => Ok(Some((reply, stream))),
    }
}

/// A connection that becomes readable at the end of the sandbox's workload, or of its supervisor; `None` if
/// there is none.
///
/// # Errors
/// When the supervisor cannot be spoken with.
pub fn await_end(entry: &Entry) -> Result<Option<UnixStream>> {
    let failed = |e: serde_json::Error| Error::host("speak with the supervisor", e);
    let Ok(mut stream) = UnixStream::connect(&Place::of(entry)?.path) else { return Ok(None) };
    let mut text = serde_json::to_vec(&Request::Wait).map_err(failed)?;
    text.push(b'\n');
    Ok(stream.write_all(&text).is_ok().then_some(stream))
}

fn gone(entry: &Entry) -> Error {
    Error::Refused(format!("sandbox {} has been removed", short(entry.id())))
}
