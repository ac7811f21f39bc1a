//! What stands behind a virtio-fs device: a FUSE server that shares one directory of the host's.
//!
//! The guest is hostile and speaks FUSE itself, past its own kernel. So:
//! - **It stays inside.** Every path is walked by single names, each relative to a descriptor of its
//!   directory and each without following links; `.`, `..` and `/` are no names. What was looked up is a
//!   descriptor and no path, so that renames on the host, in the middle of whatever, lead nowhere. A
//!   directory that the host moves out of the share stays usable to a guest that has it, and nothing
//!   above it. File systems that the host has mounted inside the share belong to it.
//! - **Read-only is read-only.** One check in front of all operations, and files are then opened for
//!   reading only.
//! - **It opens regular files and directories**, never devices, pipes or sockets, and never waits for a
//!   file to open. Devices cannot be made.
//! - **It gains no rights.** No set-user-id, set-group-id or capabilities on a file come from a guest,
//!   and a program that has some loses them when a guest opens it to write.
//! - **It is bounded**: descriptors by [`Options::descriptors`], memory by [`Options::nodes`] and by
//!   constants. A guest that knows or opens more is answered `ENFILE`.
//! - **`--disk` is counted** as for every volume, see [`sbx_core::quota`]; past it there is `ENOSPC`.
//!
//! Owners are the host's if the server is root, as docker has it: what the guest's user 1000 makes belongs
//! to 1000. Otherwise all belongs to the user who runs it, whom the guest sees as root, and whatever is
//! another's belongs to nobody (65534), as podman has it.
//!
//! The guest's kernel checks permissions (`default_permissions`, as virtio-fs always mounts), and the
//! host's checks those of the server's user.
//!
//! What it does not do: extended attributes and ACLs, locks between guest and host (those among guest
//! processes work, in the guest's kernel), DAX, notifications. What the host changes is seen when the
//! guest's cache runs out: a second later ([`Access::Root`]: an hour), and for data when a file that
//! changed is opened or its attributes are read again.
//!
//! It needs `/proc` and Linux 5.8.

mod attributes;
mod directories;
mod entries;
mod files;
mod inodes;
mod owners;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use sbx_core::quota::Quota;

pub use server::Server;

/// What a guest may do with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A volume that it may change.
    ReadWrite,
    /// A volume that it may only read, while the host may change it.
    ReadOnly,
    /// A root file system: read-only, and nobody changes it while the guest runs, so that the guest may
    /// keep all it has seen for an hour.
    Root,
}

/// How a directory is shared.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the guest may do.
    pub access: Access,
    /// What it may add.
    pub quota: Quota,
    /// The most files that the guest may know at once, of which each costs the server 400 bytes with its
    /// name. The guest's own kernel needs over 1 KiB for each, so that a guest has no use for more than
    /// its memory divided by that.
    pub nodes: usize,
    /// The most descriptors the server may hold for the guest: two for each file that is open, and as many
    /// as are left for those that it merely knows. The process's own limit, less what all else in it needs.
    pub descriptors: usize,
}

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error("only a directory can be shared with a virtual machine; share the directory it is in")]
    NotADirectory,
    /// The directory cannot be looked at.
    #[error("cannot read the attributes of the directory to share")]
    Root(#[source] std::io::Error),
    /// The server opens files through its own descriptors.
    #[error("sharing directories with a virtual machine needs /proc; mount it and try again")]
    NoProc(#[source] std::io::Error),
}
