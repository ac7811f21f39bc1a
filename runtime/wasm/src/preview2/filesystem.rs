//! `wasi:filesystem/types` for a sandbox: wasmtime-wasi's own, with `--disk` counted and the lack of
//! a grant noted.
//!
//! Every method is handed on; the ones that add to a volume take from the quota first, and the
//! streams that write to files are wrapped. What is read-only wasmtime-wasi refuses by itself.

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, FsResult, OutputStream, Pollable, StreamError,
    StreamResult,
};

use super::State;
use crate::notes::Notes;
use sbx_core::quota::{ENTRY, Full, Quota};

/// Defines the interface.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, HasGuarded>(linker, |state| {
        let (quota, notes) = (state.quota.clone(), state.notes.clone());
        Guarded { quota, notes, inner: state.filesystem() }
    })
}

struct HasGuarded;

impl HasData for HasGuarded {
    type Data<'a> = Guarded<'a>;
}

struct Guarded<'a> {
    inner: WasiFilesystemCtxView<'a>,
    quota: Quota,
    notes: Notes,
}

impl Guarded<'_> {
    /// Takes what an operation adds to the volume, runs it, and gives back what a failed one took.
    fn settle<T>(&self, bytes: u64, result: FsResult<T>) -> FsResult<T> {
        if let Err(error) = &result {
            self.quota.give_back(bytes);
            if matches!(error.downcast_ref(), Some(ErrorCode::NotPermitted)) {
                self.notes.add(
                    "the workload was refused a change of a read-only volume, or a path that leaves \
                     its volume; leave :ro out of its --volume to allow changes"
                        .into(),
                );
            }
        }
        result
    }

    fn take(&self, bytes: u64) -> FsResult<()> {
        self.quota.take(bytes).map_err(|Full| ErrorCode::InsufficientSpace.into())
    }

    fn metered(
        &mut self,
        stream: Resource<DynOutputStream>,
    ) -> FsResult<Resource<DynOutputStream>> {
        if self.quota.is_unlimited() {
            return Ok(stream);
        }
        let inner = self.inner.table.delete(stream)?;
        let metered: DynOutputStream = Box::new(Metered { inner, quota: self.quota.clone() });
        Ok(self.inner.table.push(metered)?)
    }
}

/// A stream into a file whose bytes are taken from the quota.
struct Metered {
    inner: DynOutputStream,
    quota: Quota,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Metered {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Metered {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.quota.take(bytes.len() as u64).map_err(|Full| {
            let full = std::io::Error::from(rustix::io::Errno::NOSPC);
            StreamError::LastOperationFailed(full.into())
        })?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

impl types::Host for Guarded<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.filesystem_error_code(error)
    }
}

type Fd = Resource<Descriptor>;

/// Methods that only hand on.
macro_rules! hand_on {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        $(async fn $name(&mut self, fd: Fd, $($arg: $ty),*) -> $out {
            self.inner.$name(fd, $($arg),*).await
        })*
    };
}

/// Methods that change a volume, and what each adds to it.
macro_rules! change {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty, adds $bytes:expr;)*) => {
        $(async fn $name(&mut self, fd: Fd, $($arg: $ty),*) -> FsResult<$out> {
            let bytes: u64 = $bytes;
            self.take(bytes)?;
            let result = self.inner.$name(fd, $($arg),*).await;
            self.settle(bytes, result)
        })*
    };
}

impl HostDescriptor for Guarded<'_> {
    hand_on! {
        advise(offset: Filesize, len: Filesize, advice: Advice) -> FsResult<()>;
        sync_data() -> FsResult<()>;
        get_flags() -> FsResult<DescriptorFlags>;
        get_type() -> FsResult<DescriptorType>;
        read(len: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)>;
        read_directory() -> FsResult<Resource<DirectoryEntryStream>>;
        sync() -> FsResult<()>;
        stat() -> FsResult<DescriptorStat>;
        stat_at(flags: PathFlags, path: String) -> FsResult<DescriptorStat>;
        readlink_at(path: String) -> FsResult<String>;
        is_same_object(other: Fd) -> wasmtime::Result<bool>;
        metadata_hash() -> FsResult<MetadataHashValue>;
        metadata_hash_at(flags: PathFlags, path: String) -> FsResult<MetadataHashValue>;
    }

    change! {
        set_size(size: Filesize) -> (), adds 0;
        set_times(access: NewTimestamp, modification: NewTimestamp) -> (), adds 0;
        write(bytes: Vec<u8>, offset: Filesize) -> Filesize, adds bytes.len() as u64;
        create_directory_at(path: String) -> (), adds ENTRY;
        set_times_at(flags: PathFlags, path: String, access: NewTimestamp, modification: NewTimestamp)
            -> (), adds 0;
        link_at(flags: PathFlags, old: String, dir: Fd, new: String) -> (), adds ENTRY;
        open_at(path_flags: PathFlags, path: String, open_flags: OpenFlags, flags: DescriptorFlags)
            -> Fd, adds if open_flags.contains(OpenFlags::CREATE) { ENTRY } else { 0 };
        remove_directory_at(path: String) -> (), adds 0;
        rename_at(old: String, dir: Fd, new: String) -> (), adds 0;
        symlink_at(old: String, new: String) -> (), adds ENTRY;
        unlink_file_at(path: String) -> (), adds 0;
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        HostDescriptor::drop(&mut self.inner, fd)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        self.inner.read_via_stream(fd, offset)
    }

    fn write_via_stream(
        &mut self,
        fd: Fd,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        let result = self.inner.write_via_stream(fd, offset);
        let stream = self.settle(0, result)?;
        self.metered(stream)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let result = self.inner.append_via_stream(fd);
        let stream = self.settle(0, result)?;
        self.metered(stream)
    }
}

impl HostDirectoryEntryStream for Guarded<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}
