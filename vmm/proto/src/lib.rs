//! What the host and the guest's init say to each other.
//!
//! Once the guest's kernel runs, its init connects to the host on vsock port [`PORT`]. The host then
//! sends [`Boot`](ToGuest::Boot) and one [`Exec`](ToGuest::Exec) for each process it wants; the guest
//! tells what came of them. Both directions are a sequence of frames ([`frame`]): a length and one
//! message in postcard's encoding.
//!
//! Each of a process's streams has a window of [`WINDOW`] bytes: its sender stops when that many bytes
//! are on their way, until the receiver has taken some and says so with a credit. So a reader that is
//! slow with one stream holds up neither another stream nor a signal, and neither side has to keep more
//! than a window for a stream.
//!
//! Both ends come from one build of sbx, so there is no version to agree on. The guest is not trusted:
//! [`frame::Decoder`] refuses what is too long or malformed before it keeps it. It does *not* check that
//! messages come in a sensible order or that credits are kept; the receiver of the messages does.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
mod message;

pub use message::{
    Boot, Network, Output, Process, Reason, Root, Status, Terminal, ToGuest, ToHost, Volume,
};

/// The vsock port on the host (context 2) that the guest's init connects to.
pub const PORT: u32 = 1024;

/// The I/O port to which init writes [`BOOT_TIMER_VALUE`] as the very first thing it does, so that the
/// host can time the start of user space.
pub const BOOT_TIMER_PORT: u16 = 0x3f0;

/// The byte that init writes to [`BOOT_TIMER_PORT`].
pub const BOOT_TIMER_VALUE: u8 = 123;

/// The most data, in bytes, that one message carries of a stream.
pub const DATA_MAX: usize = 64 << 10;

/// The window of one stream in bytes: what may be on its way before a credit.
pub const WINDOW: u32 = 128 << 10;

/// The longest encoded message from the guest to the host, in bytes: a full piece of output and its
/// fields.
pub const TO_HOST_MAX: usize = DATA_MAX + 64;

/// The longest encoded message from the host to the guest, in bytes. Arguments and environment of a
/// process go in one.
pub const TO_GUEST_MAX: usize = 1 << 20;

/// The longest sentence, in bytes, with which the guest can tell a failure.
pub const SENTENCE_MAX: usize = 1024;
