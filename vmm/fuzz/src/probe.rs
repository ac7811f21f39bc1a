//! A device that does with a queue all that any device does.

use sbx_vmm::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};
use std::io::{Read, Write};

/// The device.
pub struct Probe;

/// How much of a chain it looks at.
const SOME: u64 = 4096;

impl VirtioDevice for Probe {
    fn kind(&self) -> u32 {
        63
    }

    fn features(&self) -> u64 {
        0xf
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 1, 32768]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(b"configuration", offset, data);
    }

    fn reset(&mut self) {}

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        while let Some(chain) = io.queues[index].pop(io.mem)? {
            let _ = chain.descriptors().map(|descriptor| u64::from(descriptor.len())).sum::<u64>();
            let mut bytes = Vec::new();
            chain.reader()?.take(SOME).read_to_end(&mut bytes)?;
            if bytes.first() == Some(&b'u') {
                io.queues[index].unpop();
                return Ok(());
            }
            let mut writer = chain.writer()?;
            let len = bytes.len().min(writer.available_bytes());
            writer.write_all(&bytes[..len])?;
            io.queues[index].push(io.mem, chain.head(), u32::try_from(len).unwrap_or(0))?;
        }
        Ok(())
    }

    fn host_files(&self) -> Vec<HostFile> {
        vec![HostFile { fd: -1, token: 0, read: true, write: false }]
    }

    fn process_host(&mut self, _token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        io.config_changed = true;
        self.process_queue(1, io)
    }
}
