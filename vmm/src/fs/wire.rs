//! FUSE as bytes: what the kernel's `include/uapi/linux/fuse.h` lays out, version 7.31, read and written
//! field by field in little endian (the protocol is of the guest's byte order, and guests are x86-64).
//!
//! All that is read here was written by the guest: a field that is missing, a name that is none and a
//! string without its end are `EINVAL`, and nothing here allocates by a guest's number.

use rustix::io::Errno;
use std::ffi::CStr;
use std::io::Read;

/// The most bytes of a file in one request, both ways.
pub(super) const MAX_TRANSFER: u32 = 1 << 20;
/// [`MAX_TRANSFER`] in pages.
pub(super) const MAX_PAGES: u16 = 256;
/// The most bytes of a request, its header and a file's contents left out. Two names and a link's
/// target fit well.
pub(super) const MAX_ARGS: usize = 16 << 10;
/// The longest name in a directory.
pub(super) const MAX_NAME: usize = 255;
/// The node that is the shared directory itself.
pub(super) const ROOT: u64 = 1;
/// Bytes of `struct fuse_out_header`.
pub(super) const REPLY_HEADER: usize = 16;
/// Bytes of `struct fuse_write_in`.
pub(super) const WRITE_ARGS: usize = 40;
/// Bytes of `struct fuse_entry_out`.
pub(super) const ENTRY_LEN: usize = 128;

/// Declares the operations: their numbers, and which of them change the share by being asked for.
macro_rules! operations {
    () => { false };
    (modifies) => { true };
    ($($name:ident = $number:literal $(, $modifies:ident)?;)*) => {
        /// What a guest may ask for. Whatever else there is in FUSE is answered with `ENOSYS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Op { $($name = $number,)* }

        impl Op {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(super) fn new(opcode: u32) -> Option<Self> {
                match opcode { $($number => Some(Self::$name),)* _ => None }
            }

            /// Whether it always changes the share; [`Op::Open`] does so by its flags.
            pub(super) fn modifies(self) -> bool {
                match self { $(Self::$name => operations!($($modifies)?),)* }
            }
        }
    };
}

operations! {
    Lookup = 1;
    Forget = 2;
    GetAttr = 3;
    SetAttr = 4, modifies;
    ReadLink = 5;
    SymLink = 6, modifies;
    MkNod = 8, modifies;
    MkDir = 9, modifies;
    Unlink = 10, modifies;
    RmDir = 11, modifies;
    Rename = 12, modifies;
    Link = 13, modifies;
    Open = 14;
    Read = 15;
    Write = 16, modifies;
    StatFs = 17;
    Release = 18;
    FSync = 20;
    Init = 26;
    OpenDir = 27;
    ReadDir = 28;
    ReleaseDir = 29;
    FSyncDir = 30;
    Create = 35, modifies;
    Interrupt = 36;
    Destroy = 38;
    BatchForget = 42;
    FAllocate = 43, modifies;
    ReadDirPlus = 44;
    Rename2 = 45, modifies;
    LSeek = 46;
}

/// `struct fuse_in_header`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Header {
    pub(super) const LEN: usize = 40;

    /// Nothing if the request is shorter than a header.
    pub(super) fn read(request: &mut dyn Read) -> Option<Self> {
        let mut bytes = [0; Self::LEN];
        request.read_exact(&mut bytes).ok()?;
        let mut args = Args(&bytes);
        let mut read = || -> Result<Self, Errno> {
            Ok(Self {
                len: args.u32()?,
                opcode: args.u32()?,
                unique: args.u64()?,
                node: args.u64()?,
                uid: args.u32()?,
                gid: args.u32()?,
            })
        };
        read().ok()
    }

    /// Bytes of the request behind the header, by its own account.
    pub(super) fn args_len(&self) -> usize {
        (self.len as usize).saturating_sub(Self::LEN)
    }
}

/// What is left of a request's arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Args<'a>(pub(super) &'a [u8]);

impl<'a> Args<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// A place in a file, which the host counts with a sign.
    pub(super) fn offset(&mut self) -> Result<u64, Errno> {
        self.u64().and_then(|at| if i64::try_from(at).is_ok() { Ok(at) } else { Err(Errno::INVAL) })
    }

    /// A string up to its NUL.
    pub(super) fn string(&mut self) -> Result<&'a CStr, Errno> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = self.0.get(string.to_bytes_with_nul().len()..).unwrap_or_default();
        Ok(string)
    }

    /// A name in a directory: one step of a path, and one that does not lead up or stay.
    pub(super) fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.string()?;
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > MAX_NAME => Err(Errno::NAMETOOLONG),
            _ => Ok(name),
        }
    }
}

/// An answer in the making.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
