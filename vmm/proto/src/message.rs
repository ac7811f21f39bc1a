//! The messages.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::TO_HOST_MAX;
use crate::frame::{Message, byte_strings, bytes};

/// What the host tells the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// How the system is to look. The first message, sent once.
    Boot(Boot),
    /// Start a process. An `id` is never used twice.
    Exec {
        /// What the process is called from now on.
        id: u32,
        /// The process.
        process: Process,
    },
    /// Bytes for standard input, or what was typed at the terminal.
    Stdin {
        /// The process.
        id: u32,
        /// From 1 to [`DATA_MAX`](crate::DATA_MAX) bytes, within the window.
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// Standard input ends here.
    StdinEnd {
        /// The process.
        id: u32,
    },
    /// The terminal's window has a new size.
    Resize {
        /// The process.
        id: u32,
        /// The new size.
        terminal: Terminal,
    },
    /// A signal for the process itself, not for its children.
    Signal {
        /// The process.
        id: u32,
        /// The number, as Linux counts on x86-64.
        number: u8,
    },
    /// The host has taken output: so much more may come.
    Credit {
        /// The process.
        id: u32,
        /// Which of its outputs.
        output: Output,
        /// Bytes.
        bytes: u32,
    },
    /// End every process, write all disks, and reset the machine.
    Shutdown {
        /// Milliseconds between SIGTERM and SIGKILL; with 0 there is no SIGTERM.
        grace: u32,
    },
}

/// What the guest tells the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The system is as `Boot` asked.
    Ready,
    /// The system could not be made so: why, as a sentence of at most
    /// [`SENTENCE_MAX`](crate::SENTENCE_MAX) bytes. No process can be started.
    Failed {
        /// The sentence.
        what: String,
    },
    /// The program was found and runs.
    Started {
        /// The process.
        id: u32,
    },
    /// The program could not be started; nothing more comes of this process.
    NotStarted {
        /// The process.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// What the process wrote.
    Output {
        /// The process.
        id: u32,
        /// Where to. All that a terminal shows is standard output.
        output: Output,
        /// From 1 to [`DATA_MAX`](crate::DATA_MAX) bytes, within the window.
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// The process has taken input, or will never: so much more may come.
    Credit {
        /// The process.
        id: u32,
        /// Bytes.
        bytes: u32,
    },
    /// The process ended. All that it wrote was sent before; what a child of it that lives on writes
    /// later is lost.
    Exited {
        /// The process.
        id: u32,
        /// How.
        status: Status,
        /// Whether the guest's memory was too small for it.
        oom: bool,
    },
}

/// How the guest's system is to look. Its kernel modules are already in the initramfs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The machine's name.
    pub hostname: String,
    /// What `/` is.
    pub root: Root,
    /// What of the host is seen in it.
    pub volumes: Vec<Volume>,
    /// The network device `eth0`, if there is to be one besides `lo`.
    pub network: Option<Network>,
    /// The most processes and threads of all that runs besides init. Fails if the kernel cannot hold to it.
    pub pids: Option<u32>,
    /// The most bytes that can be written to a root that is in the guest's memory (all but a writable
    /// disk); without it, half of the memory. Fails if the kernel cannot hold to it.
    pub disk: Option<u64>,
}

/// What the guest's `/` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The initramfs itself, with init's own few commands.
    #[default]
    Initramfs,
    /// A directory of the host over virtio-fs, with all changes kept in the guest's memory.
    Fs {
        /// The virtio-fs tag.
        tag: String,
    },
    /// A disk with ext4, erofs or squashfs and no partitions.
    Disk {
        /// Which disk in the order the kernel names them: 0 is `/dev/vda`.
        index: u8,
        /// Keep all changes in the guest's memory.
        read_only: bool,
    },
}

/// A directory of the host, over virtio-fs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The virtio-fs tag.
    pub tag: String,
    /// Where it is seen: an absolute path, made if it is not there.
    pub path: String,
    /// Whether the guest's kernel refuses to change it. The host's device must refuse too.
    pub read_only: bool,
}

/// The address of `eth0` and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The guest's own address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix in bits, at most 32.
    pub prefix: u8,
    /// Where everything else goes.
    pub gateway: Option<Ipv4Addr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
}

/// A process to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of `env`, or
    /// in the usual places if there is none.
    #[serde(with = "byte_strings")]
    pub argv: Vec<Vec<u8>>,
    /// The environment, exactly, as `NAME=VALUE`.
    #[serde(with = "byte_strings")]
    pub env: Vec<Vec<u8>>,
    /// The working directory, which must be there.
    pub cwd: String,
    /// `USER[:GROUP]`, each a name of the guest's or a number; root if absent.
    pub user: Option<String>,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<Terminal>,
    /// Whether there is a standard input; `/dev/null` if not. A terminal has one anyway.
    pub stdin: bool,
    /// The most descriptors (`RLIMIT_NOFILE`), with the three standard streams.
    pub fds: Option<u64>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// One of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Output {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// Why a process could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// There is no such program.
    NotFound,
    /// The file is there, and must not be executed.
    NotExecutable,
    /// The file is no program for this processor.
    WrongFormat,
    /// The program is there, but not the interpreter or dynamic linker that it names.
    NoInterpreter,
    /// There is no such user or group.
    NoSuchUser,
    /// There is no such working directory.
    NoSuchDirectory,
    /// The limit of processes is reached.
    TooManyProcesses,
    /// Anything else: an error number of Linux.
    Other(i32),
}

impl Message for ToGuest {
    const MAX: usize = crate::TO_GUEST_MAX;
}

impl Message for ToHost {
    const MAX: usize = TO_HOST_MAX;
}
