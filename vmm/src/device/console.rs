//! A console (virtio 1.2, 5.3): one port, a stream of bytes each way, and the terminal's size.
//!
//! What the guest writes is handed to a function in pieces of bounded size, in order. What the host has
//! for the guest is read from a file only when the guest has room for it, so that nothing piles up here.
//!
//! It does NOT know several ports, nor that the host's input has ended: a console has no end, and the
//! device only stops listening.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::virtio::{DeviceError, HostFile, Io, VirtioDevice, read_config_space};

/// Bytes moved at once.
const PIECE: usize = 4096;

const RX: usize = 0;
const TX: usize = 1;
const QUEUE_SIZES: [u16; 2] = [64, 64];

const F_SIZE: u64 = 1 << 0;

const INPUT: u32 = 0;
const RESIZED: u32 = 1;

/// Where the guest's output goes; called with at most 4096 bytes. While it does not return, the console
/// stands still.
pub type Output = Box<dyn FnMut(&[u8]) + Send>;

/// What the host holds of a console.
#[derive(Clone, Debug)]
pub struct ConsoleHandle(Arc<Size>);

#[derive(Debug)]
struct Size {
    /// Rows above 16 bits of columns.
    rows_cols: AtomicU32,
    changed: EventFd,
}

impl ConsoleHandle {
    /// Tells the guest of a terminal of this size.
    pub fn resize(&self, cols: u16, rows: u16) {
        self.0.rows_cols.store(u32::from(rows) << 16 | u32::from(cols), Ordering::Release);
        // A full counter is readable too.
        let _ = self.0.changed.write(1);
    }
}

/// The console.
pub struct Console {
    output: Output,
    /// Until it has ended.
    input: Option<OwnedFd>,
    size: Arc<Size>,
    /// The guest may have room for input.
    listening: bool,
}

impl Console {
    /// A console with a terminal of 0 by 0, which is one of unknown size. The input, if there is one, is
    /// set to be non-blocking.
    ///
    /// # Errors
    /// When the host has no more descriptors, or the input is not to be set so.
    pub fn new(output: Output, input: Option<OwnedFd>) -> io::Result<(Self, ConsoleHandle)> {
        if let Some(input) = &input {
            rustix::io::ioctl_fionbio(input, true)?;
        }
        let changed = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        let size = Arc::new(Size { rows_cols: AtomicU32::new(0), changed });
        let handle = ConsoleHandle(Arc::clone(&size));
        Ok((Self { output, input, size, listening: false }, handle))
    }

    /// Brings input to the guest until either side has no more.
    fn receive(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(RX) else { return Ok(()) };
        let mut piece = [0; PIECE];
        self.listening = true;
        while let Some(input) = &self.input {
            let Some(chain) = queue.pop(io.mem)? else {
                self.listening = false;
                break;
            };
            let mut writer = chain.writer()?;
            let room = writer.available_bytes().min(PIECE);
            let got = match room {
                0 => 0,
                room => match rustix::io::read(input, &mut piece[..room]) {
                    Ok(len @ 1..) => len,
                    ended => {
                        queue.unpop();
                        match ended {
                            Err(Errno::AGAIN) => return Ok(()),
                            Err(Errno::INTR) => continue,
                            // A terminal that was hung up has ended, too.
                            Ok(_) | Err(_) => self.input = None,
                        }
                        break;
                    }
                },
            };
            writer.write_all(&piece[..got])?;
            queue.push(io.mem, chain.head(), u32::try_from(got).unwrap_or(0))?;
        }
        Ok(())
    }

    /// Takes the guest's output.
    fn send(&mut self, io: &mut Io<'_>) -> Result<(), DeviceError> {
        let Some(queue) = io.queues.get_mut(TX) else { return Ok(()) };
        let mut piece = [0; PIECE];
        while let Some(chain) = queue.pop(io.mem)? {
            let mut reader = chain.reader()?;
            loop {
                let len = reader.read(&mut piece)?;
                if len == 0 {
                    break;
                }
                (self.output)(&piece[..len]);
            }
            queue.push(io.mem, chain.head(), 0)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output: _, input, size, listening } = self;
        f.debug_struct("Console")
            .field("input", input)
            .field("size", size)
            .field("listening", listening)
            .finish_non_exhaustive()
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        F_SIZE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns and rows, in this order; one port.
        let mut space = [0; 12];
        space[..4].copy_from_slice(&self.size.rows_cols.load(Ordering::Acquire).to_le_bytes());
        space[4..8].copy_from_slice(&1_u32.to_le_bytes());
        read_config_space(&space, offset, data);
    }

    fn reset(&mut self) {
        self.listening = false;
    }

    fn process_queue(&mut self, index: usize, io: &mut Io<'_>) -> Result<(), DeviceError> {
        match index {
            RX => self.receive(io),
            _ => self.send(io),
        }
    }

    fn host_files(&self) -> Vec<HostFile> {
        let file = |fd, token| HostFile { fd, token, read: true, write: false };
        let input = self.input.as_ref().filter(|_| self.listening);
        let input = input.map(|input| file(input.as_raw_fd(), INPUT));
        let resized = file(self.size.changed.as_raw_fd(), RESIZED);
        input.into_iter().chain([resized]).collect()
    }

    fn process_host(&mut self, token: u32, io: &mut Io<'_>) -> Result<(), DeviceError> {
        if token == RESIZED {
            io.config_changed |= self.size.changed.read().is_ok();
            return Ok(());
        }
        self.receive(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::hostile;
    use crate::virtio::testing::Driver;
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    type Written = Arc<Mutex<Vec<Vec<u8>>>>;

    fn console() -> (Console, ConsoleHandle, UnixStream, Written) {
        let (near, far) = UnixStream::pair().unwrap();
        let written = Written::default();
        let into = Arc::clone(&written);
        let output = Box::new(move |piece: &[u8]| into.lock().unwrap().push(piece.to_vec()));
        let (console, handle) = Console::new(output, Some(near.into())).unwrap();
        (console, handle, far, written)
    }

    fn listens(console: &Console) -> bool {
        console.host_files().iter().any(|file| file.token == INPUT)
    }

    #[test]
    fn output_comes_in_order_and_in_pieces() {
        let (mut console, _, _far, written) = console();
        let mut driver = Driver::new(&mut console);
        let long: Vec<u8> = (0..10_000_u32).map(|at| at as u8).collect();
        driver.offer(TX, &[b"hel", b"lo"], &[]);
        driver.offer(TX, &[&long], &[]);
        driver.offer(TX, &[], &[5]);
        driver.with_io(|io| console.process_queue(TX, io)).unwrap();
        assert_eq!([(); 3].map(|()| driver.used(TX)), [Some(0); 3]);
        let written = written.lock().unwrap();
        assert!(written.iter().all(|piece| (1..=PIECE).contains(&piece.len())));
        assert_eq!(written.concat(), [&b"hello"[..], &long].concat());
    }

    #[test]
    fn input_is_read_only_when_there_is_room() {
        let (mut console, _, mut far, _) = console();
        let mut driver = Driver::new(&mut console);
        far.write_all(b"hello").unwrap();
        assert!(!listens(&console));
        let room = driver.offer(RX, &[], &[3])[0];
        driver.with_io(|io| console.process_queue(RX, io)).unwrap();
        assert_eq!(driver.used(RX), Some(3));
        assert_eq!(driver.bytes(room, 3), b"hel");
        assert!(!listens(&console));
        let room = driver.offer(RX, &[], &[100])[0];
        driver.offer(RX, &[], &[100]);
        driver.with_io(|io| console.process_queue(RX, io)).unwrap();
        assert_eq!([driver.used(RX), driver.used(RX)], [Some(2), None]);
        assert_eq!(driver.bytes(room, 2), b"lo");
        far.write_all(b"!").unwrap();
        hostile::serve_host(&mut console, &mut driver);
        assert_eq!(driver.used(RX), Some(1));
    }

    #[test]
    fn after_the_end_of_input_nothing_is_listened_to() {
        let (mut console, _, far, _) = console();
        let mut driver = Driver::new(&mut console);
        driver.offer(RX, &[], &[100]);
        driver.with_io(|io| console.process_queue(RX, io)).unwrap();
        assert!(listens(&console));
        drop(far);
        hostile::serve_host(&mut console, &mut driver);
        driver.with_io(|io| console.process_queue(RX, io)).unwrap();
        assert!(!listens(&console));
        assert_eq!(driver.used(RX), None);
    }

    #[test]
    fn a_new_size_is_announced_once() {
        let (mut console, handle, _far, _) = console();
        let mut driver = Driver::new(&mut console);
        handle.resize(80, 24);
        handle.resize(132, 43);
        hostile::serve_host(&mut console, &mut driver);
        assert!(std::mem::take(&mut driver.config_changed));
        let mut config = [0xff; 8];
        console.read_config(0, &mut config);
        assert_eq!(config, [132, 0, 43, 0, 1, 0, 0, 0]);
        driver.with_io(|io| console.process_host(RESIZED, io)).unwrap();
        assert!(!driver.config_changed);
    }

    #[test]
    fn nonsense_is_survived() {
        hostile::torture(|| {
            let (console, handle, mut far, _) = console();
            far.write_all(&[7; 10_000]).unwrap();
            handle.resize(u16::MAX, u16::MAX);
            console
        });
    }
}
