//! The guest's network: the loopback device, one address, the way out and the name servers.
//!
//! IPv4 only, and no DHCP: the host knows what it gives.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use sbx_proto::Network;

use crate::sys::{Interface, add_default_route, set_interface};
use crate::system::replace_file;

/// Brings up the loopback device, where the kernel has a network at all.
pub(crate) fn loopback() {
    if let Ok(socket) = socket() {
        let _ = set_interface(&socket, "lo", Interface::Up);
    }
}

/// Brings up `eth0` as the host says. `files` tells whether the root is init's to write name servers into.
pub(crate) fn set_up(network: &Network, files: bool) -> Result<(), String> {
    device(network).map_err(|error| match error {
        Errno::AFNOSUPPORT => String::from("the guest's kernel has no IPv4"),
        Errno::NODEV => String::from("the guest's kernel found no network device eth0"),
        error => format!("the guest's network device cannot be set up: {error}"),
    })?;
    if files {
        replace_file("/etc/resolv.conf", resolv_conf(network).as_bytes())
            .map_err(|error| format!("the guest's /etc/resolv.conf cannot be written: {error}"))?;
    }
    Ok(())
}

fn device(network: &Network) -> Result<(), Errno> {
    let socket = socket()?;
    set_interface(&socket, "eth0", Interface::Address(network.address.octets()))?;
    set_interface(&socket, "eth0", Interface::Mask(mask(network.prefix)))?;
    set_interface(&socket, "eth0", Interface::Up)?;
    if let Some(gateway) = network.gateway {
        add_default_route(&socket, gateway.octets())?;
    }
    Ok(())
}

fn socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

fn mask(prefix: u8) -> [u8; 4] {
    let host_bits = 32_u32.saturating_sub(prefix.into());
    u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
}

fn resolv_conf(network: &Network) -> String {
    let mut file = String::new();
    for server in &network.dns {
        // Writing to memory does not fail.
        let _ = writeln!(file, "nameserver {server}");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        let cases = [(0, [0; 4]), (8, [255, 0, 0, 0]), (30, [255, 255, 255, 252]), (32, [255; 4])];
        for (prefix, expected) in cases {
            assert_eq!(mask(prefix), expected, "/{prefix}");
        }
        assert_eq!(mask(200), [255; 4], "a prefix that cannot be is a host's own");
    }

    #[test]
    fn one_line_for_each_name_server() {
        let network = Network {
            address: [10, 0, 0, 2].into(),
            prefix: 24,
            gateway: None,
            dns: vec![[10, 0, 0, 1].into(), "::1".parse().unwrap()],
        };
        assert_eq!(resolv_conf(&network), "nameserver 10.0.0.1\nnameserver ::1\n");
    }
}
