//! QEMU's arguments: made here, and nowhere else.
//!
//! No value of a user's is among them but numbers: files are passed open, by number, and names of a guest's
//! devices are sbx's own. A value that has a comma all the same cannot become another option ([`Options`]).
//! They go to QEMU as they are, never through a shell.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::device::net::mac_of;
use crate::plan::Plan;

/// Bytes of memory for translated code, of which a kernel's start fills about a third. QEMU's own choice
/// is an eighth of the host's memory.
const TRANSLATIONS_MIB: u32 = 128;
/// The most requests of a shared directory that are under way: as in `device/fs.rs`.
const FS_QUEUE: u32 = 1024;
/// The same of a disk: as in `device/block.rs`.
const BLOCK_QUEUE: u32 = 256;

/// The value of one argument: `HEAD,KEY=VALUE,KEY=VALUE`.
struct Options(String);

impl Options {
    fn new(head: &str) -> Self {
        Self(head.into())
    }

    /// A comma in a value is doubled, by which QEMU knows it from one between options.
    fn set(mut self, key: &str, value: impl ToString) -> Self {
        let value = value.to_string().replace(',', ",,");
        self.0.push_str(&format!(",{key}={value}"));
        self
    }
}

/// Arguments that are being put together, and the files that they speak of.
pub(super) struct Arguments {
    words: Vec<String>,
    files: Vec<OwnedFd>,
    /// How many devices are on virtio's bus.
    devices: usize,
}

impl Arguments {
    /// The machine itself, as large as the plan says: `memory` is the file of its memory.
    pub(super) fn new(plan: &Plan, memory: OwnedFd, firmware: File) -> Self {
        let mut new = Self { words: Vec::new(), files: Vec::new(), devices: 0 };
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            new.words.push(flag.into());
        }
        new.argument("-display", Options::new("none"));
        // Where the guest ends by a triple fault, which is a reset like another to QEMU, this tells.
        new.argument("-d", Options::new("cpu_reset"));
        let sandbox = ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"];
        let sandbox = sandbox.iter().fold(Options::new("on"), |all, what| all.set(what, "deny"));
        new.argument("-sandbox", sandbox);
        let tcg = Options::new("tcg").set("thread", "multi").set("tb-size", TRANSLATIONS_MIB);
        new.argument("-accel", tcg);
        new.argument("-machine", microvm());
        new.argument("-cpu", Options::new("max"));
        new.argument("-smp", Options::new(&plan.cpus.to_string()));
        new.argument("-m", Options::new(&format!("{}B", plan.memory)));
        let path = new.path(memory);
        let memory = Options::new("memory-backend-file").set("id", "ram").set("share", "on");
        let memory = memory.set("size", format!("{}B", plan.memory)).set("mem-path", path);
        new.argument("-object", memory);
        let firmware = new.path(firmware.into());
        new.argument("-bios", Options::new(&firmware));
        new.argument("-global", Options::new("virtio-mmio.force-legacy=off"));
        new
    }

    /// The words, and the files that have to be open as they are numbered here.
    pub(super) fn finish(self) -> (Vec<String>, Vec<OwnedFd>) {
        (self.words, self.files)
    }

    fn argument(&mut self, name: &str, value: Options) {
        self.words.extend([name.into(), value.0]);
    }

    fn keep(&mut self, file: OwnedFd) -> i32 {
        let number = file.as_raw_fd();
        self.files.push(file);
        number
    }

    /// A path for a file that is open.
    fn path(&mut self, file: OwnedFd) -> String {
        format!("/proc/self/fd/{}", self.keep(file))
    }

    /// A stream to QEMU under this name; returns our end.
    fn stream(&mut self, name: &str) -> io::Result<UnixStream> {
        let (theirs, ours) = UnixStream::pair()?;
        let number = self.keep(theirs.into());
        let stream = Options::new("socket").set("id", name).set("fd", number);
        self.argument("-chardev", stream);
        Ok(ours)
    }

    /// A device at the next place of virtio's bus, of which `boot/board.rs` leaves the first empty.
    fn virtio(&mut self, device: Options) {
        self.devices += 1;
        let device = device.set("bus", format!("virtio-mmio-bus.{}", self.devices));
        self.argument("-device", device);
    }

    /// A device that is served here; returns our end of its connection.
    fn served(&mut self, device: Options) -> io::Result<UnixStream> {
        let name = format!("device{}", self.devices);
        let connection = self.stream(&name)?;
        self.virtio(device.set("chardev", name));
        Ok(connection)
    }

    /// The serial port.
    pub(super) fn serial(&mut self) -> io::Result<UnixStream> {
        let stream = self.stream("serial")?;
        self.argument("-serial", Options::new("chardev:serial"));
        Ok(stream)
    }

    /// The port by which init tells that it runs.
    pub(super) fn boot_timer(&mut self) -> io::Result<UnixStream> {
        let stream = self.stream("timer")?;
        let port = Options::new("isa-debugcon").set("iobase", sbx_proto::BOOT_TIMER_PORT);
        self.argument("-device", port.set("chardev", "timer"));
        Ok(stream)
    }

    pub(super) fn rng(&mut self) {
        self.virtio(Options::new("virtio-rng-device"));
    }

    pub(super) fn balloon(&mut self) {
        let balloon = Options::new("virtio-balloon-device");
        self.virtio(balloon.set("free-page-reporting", "on").set("deflate-on-oom", "on"));
    }

    pub(super) fn net(&mut self, tap: OwnedFd, name: &str) {
        let number = self.keep(tap);
        self.argument("-netdev", Options::new("tap").set("id", "net").set("fd", number));
        let mac = mac_of(name).map(|byte| format!("{byte:02x}")).join(":");
        // A TAP interface has no cable: where the device has a link that could be lost, Linux calls it down
        // for the first second.
        let net = Options::new("virtio-net-device").set("netdev", "net").set("mac", mac);
        self.virtio(net.set("status", "off"));
    }

    pub(super) fn console(&mut self) -> io::Result<UnixStream> {
        let stream = self.stream("console")?;
        self.virtio(Options::new("virtio-serial-device"));
        self.argument("-device", Options::new("virtconsole").set("chardev", "console"));
        Ok(stream)
    }

    pub(super) fn vsock(&mut self) -> io::Result<UnixStream> {
        self.served(Options::new("vhost-user-vsock-device"))
    }

    pub(super) fn block(&mut self) -> io::Result<UnixStream> {
        let disk = Options::new("vhost-user-blk").set("num-queues", 1);
        self.served(disk.set("queue-size", BLOCK_QUEUE))
    }

    pub(super) fn fs(&mut self, tag: &str) -> io::Result<UnixStream> {
        let fs = Options::new("vhost-user-fs-device").set("tag", tag);
        self.served(fs.set("queue-size", FS_QUEUE))
    }
}

/// The machine type, with every part of it named that it would have or not by QEMU's own choice.
fn microvm() -> Options {
    let parts = [
        ("acpi", "on"),
        ("ioapic2", "on"),
        ("rtc", "on"),
        ("pit", "off"),
        ("pic", "off"),
        ("pcie", "off"),
        ("usb", "off"),
        ("graphics", "off"),
        ("isa-serial", "on"),
        ("x-option-roms", "off"),
        ("auto-kernel-cmdline", "off"),
        ("memory-backend", "ram"),
    ];
    parts.iter().fold(Options::new("microvm"), |all, (key, value)| all.set(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_no_other_option() {
        let options = Options::new("x").set("tag", "a,readonly=on");
        assert_eq!(options.0, "x,tag=a,,readonly=on");
    }
}
