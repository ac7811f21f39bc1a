//! A disk (virtio 1.2, 5.2): a raw image of the host's.
//!
//! Data goes between file and guest memory without a copy of its own. A request is taken apart once,
//! into a bounded list of pieces; what the guest changes afterwards in its descriptors is not seen.
//! A rate limit holds requests back in the queue until a timer has them taken up again.
//!
//! It does NOT know other formats than raw, caches nothing, and has one queue, served in order.

mod request;

use std::io::{self, Seek, SeekFrom};

use rustix::fs::{FallocateFlags, fallocate};
use sbx_core::quota::Quota;
use vm_memory::{Bytes, ReadVolatile, WriteVolatile};

use super::image::{Image, SECTOR};
use super::rate::{Rate, Throttle};
use super::segments::{Outside, Segments};
use crate::memory::GuestMemory;
use crate::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};
use request::{HEADER, Request, SEG_MAX};

const QUEUE_SIZES: [u16; 1] = [256];
/// Ranges of one discard or write-zeroes request.
const MOST_RANGES: u32 = 64;
/// Sectors of such a range: 2 GiB.
const RANGE_SECTORS: u32 = 1 << 22;

// Features, configuration and requests: 5.2.3 to 5.2.6.
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const IN: u64 = 0;
const OUT: u64 = 1;
const FLUSH: u64 = 4;
const GET_ID: u64 = 8;
const DISCARD: u64 = 11;
const WRITE_ZEROES: u64 = 13;
const UNMAP: u64 = 1;
const RANGE: u64 = 16;
const ID: usize = 20;

/// What a disk is beside its image.
#[derive(Debug)]
pub struct BlockOptions {
    /// What the guest finds as the disk's serial number; 20 bytes of it.
    pub serial: String,
    /// How fast it may be used.
    pub rate: Option<Rate>,
    /// What every byte written is taken from.
    pub quota: Quota,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupported = 2,
}

impl From<Outside> for Status {
    fn from(_: Outside) -> Self {
        Self::IoErr
    }
}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::IoErr,
        }
    }
}

/// The disk.
#[derive(Debug)]
pub struct Block {
    image: Image,
    serial: [u8; ID],
    throttle: Option<Throttle>,
    quota: Quota,
    /// The driver did not say that it will flush: every write is made durable at once.
    write_through: bool,
}

impl Block {
    /// A disk of this image.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new(image: Image, options: BlockOptions) -> io::Result<Self> {
        let BlockOptions { serial: text, rate, quota } = options;
        let mut serial = [0; ID];
        let len = text.len().min(ID);
        serial[..len].copy_from_slice(&text.as_bytes()[..len]);
        let throttle = rate.map(Throttle::new).transpose()?;
        Ok(Self { image, serial, throttle, quota, write_through: false })
    }

    /// Serves what is in the queue, as far as the rate allows.
    fn serve(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.first_mut() else { return Ok(()) };
        while let Some(chain) = queue.pop(io.mem)? {
            let request = Request::new(&chain)?;
            if let Some(throttle) = &mut self.throttle
                && !throttle.admits(request.data.len().max(request.room.len()))?
            {
                queue.unpop();
                return Ok(());
            }
            let mut written = 0;
            let status = match self.execute(io.mem, &request, &mut written) {
                Ok(()) => Status::Ok,
                Err(status) => status,
            };
            if io.mem.write_obj(status as u8, request.status).is_err() {
                return Err(DeviceError::Protocol("a disk request's status is not in memory"));
            }
            // What is told as written begins with the first byte, so the status counts only behind data.
            let whole = u64::from(written) == request.room.len();
            queue.push(io.mem, chain.head(), written.saturating_add(u32::from(whole)))?;
        }
        Ok(())
    }

    /// Does what the request asks for; `written` is how much of its room was filled.
    fn execute(
        &mut self,
        mem: &GuestMemory,
        request: &Request,
        written: &mut u32,
    ) -> Result<(), Status> {
        let mut header = [0; HEADER as usize];
        request.header.copy_to(mem, &mut header)?;
        let kind = number(&header[..4]);
        let sector = number(&header[8..]);
        match kind {
            IN => {
                self.seek(sector, request.room.len())?;
                request.room.each(mem, |slice| self.image.file.read_exact_volatile(slice))?;
                *written = u32::try_from(request.room.len()).unwrap_or(u32::MAX);
                Ok(())
            }
            OUT => self.write(mem, sector, &request.data),
            FLUSH => Ok(self.image.file.sync_data()?),
            GET_ID => {
                let mut rest = &self.serial[..];
                let room = request.room.first(ID as u64);
                room.each(mem, |slice| rest.read_exact_volatile(slice))?;
                *written = u32::try_from(room.len()).unwrap_or(0);
                Ok(())
            }
            DISCARD | WRITE_ZEROES if self.image.holes || self.image.read_only => {
                self.ranges(mem, kind, &request.data)
            }
            _ => Err(Status::Unsupported),
        }
    }

    fn write(&mut self, mem: &GuestMemory, sector: u64, data: &Segments) -> Result<(), Status> {
        if self.image.read_only {
            return Err(Status::IoErr);
        }
        self.seek(sector, data.len())?;
        // Not given back if the write fails: how much of it was done is not known.
        self.quota.take(data.len()).map_err(|_| Status::IoErr)?;
        data.each(mem, |slice| self.image.file.write_all_volatile(slice))?;
        if self.write_through {
            self.image.file.sync_data()?;
        }
        Ok(())
    }

    /// Discards or zeroes ranges; a mistake in one of them leaves the later ones as they are.
    fn ranges(&mut self, mem: &GuestMemory, kind: u64, data: &Segments) -> Result<(), Status> {
        let len = data.len();
        if self.image.read_only || len == 0 || !len.is_multiple_of(RANGE) {
            return Err(Status::IoErr);
        }
        if len > u64::from(MOST_RANGES) * RANGE {
            return Err(Status::IoErr);
        }
        let mut bytes = [0; MOST_RANGES as usize * RANGE as usize];
        let bytes = &mut bytes[..usize::try_from(len).map_err(|_| Status::IoErr)?];
        data.copy_to(mem, bytes)?;
        for range in bytes.chunks_exact(RANGE as usize) {
            let (sector, sectors) = (number(&range[..8]), number(&range[8..12]));
            let unmap = match (kind, number(&range[12..])) {
                (DISCARD, 0) | (WRITE_ZEROES, UNMAP) => true,
                (WRITE_ZEROES, 0) => false,
                _ => return Err(Status::Unsupported),
            };
            if sectors > u64::from(RANGE_SECTORS) {
                return Err(Status::IoErr);
            }
            let offset = self.offset(sector, sectors * SECTOR)?;
            self.clear(offset, sectors * SECTOR, unmap)?;
        }
        if self.write_through {
            self.image.file.sync_data()?;
        }
        Ok(())
    }

    /// Has a range read as zeros; if not to `unmap`, it keeps its place in the file system where that can
    /// do so, and is counted as written.
    fn clear(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), Status> {
        if len == 0 {
            return Ok(());
        }
        let file = &self.image.file;
        if !unmap {
            self.quota.take(len).map_err(|_| Status::IoErr)?;
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            match fallocate(file, flags, offset, len) {
                Err(rustix::io::Errno::OPNOTSUPP) => {}
                result => return result.map_err(|error| io::Error::from(error).into()),
            }
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(file, flags, offset, len).map_err(|error| io::Error::from(error).into())
    }

    /// Where `len` bytes from `sector` on are in the image.
    fn offset(&self, sector: u64, len: u64) -> Result<u64, Status> {
        let offset = sector.checked_mul(SECTOR).ok_or(Status::IoErr)?;
        let end = offset.checked_add(len).ok_or(Status::IoErr)?;
        if !len.is_multiple_of(SECTOR) || end > self.image.size() {
            return Err(Status::IoErr);
        }
        Ok(offset)
    }

    fn seek(&mut self, sector: u64, len: u64) -> Result<(), Status> {
        let offset = self.offset(sector, len)?;
        self.image.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl VirtioDevice for Block {
    fn kind(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let changes = match (self.image.read_only, self.image.holes) {
            (true, _) => F_RO,
            (false, true) => F_DISCARD | F_WRITE_ZEROES,
            (false, false) => 0,
        };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | changes
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.image.sectors.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        if self.image.holes {
            // Discard: the most sectors, the most ranges, their alignment. Zeroes: the same two, and
            // that they may be given back.
            for (at, value) in [
                (36, RANGE_SECTORS),
                (40, MOST_RANGES),
                (44, 1),
                (48, RANGE_SECTORS),
                (52, MOST_RANGES),
            ] {
                put(at, &value.to_le_bytes());
            }
            put(56, &[1]);
        }
        read_config_space(&space, offset, data);
    }

    fn activate(&mut self, features: u64, _io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.write_through = features & F_FLUSH == 0;
        Ok(())
    }

    fn reset(&mut self) {
        self.write_through = false;
        if let Some(throttle) = &mut self.throttle {
            throttle.forget();
        }
    }

    fn process_queue(&mut self, _index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        self.serve(io)
    }

    fn host_files(&self) -> Vec<HostFile> {
        let timer = self.throttle.as_ref().and_then(Throttle::waits_for);
        timer.map(|fd| HostFile { fd, token: 0, read: true, write: false }).into_iter().collect()
    }

    fn process_host(&mut self, _token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        if let Some(throttle) = &mut self.throttle {
            throttle.forget();
        }
        self.serve(io)
    }
}

#[cfg(test)]
mod tests;
