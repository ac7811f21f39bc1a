//! Which network addresses and names a workload may use: `--allow-net HOST:PORT`.
//!
//! A rule names hosts (a name, an address, a CIDR network, or `*`) and ports (one, a range, or
//! `*`). Rules only ever allow. Name lookup is outside this crate: a backend resolves the names that
//! [`NetRule::allows_name`] permits and checks what it gets with [`NetRule::allows_resolved`].

use ipnet::IpNet;
use std::net::IpAddr;

/// One thing that `--allow-net` allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetRule {
    host: Host,
    /// The first and last port, both included.
    ports: (u16, u16),
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Net(IpNet),
    /// In lower case, without the final dot.
    Name(String),
}

impl NetRule {
    /// Whether a connection to this address is allowed by the address alone.
    pub fn allows(&self, ip: IpAddr, port: u16) -> bool {
        self.allows_port(port)
            && match &self.host {
                Host::Any => true,
                // An IPv4 address in IPv6 clothes is the same host.
                Host::Net(net) => net.contains(&ip) || net.contains(&ip.to_canonical()),
                Host::Name(_) => false,
            }
    }

    /// Whether this rule allows `port` on the addresses that `name` was resolved to.
    pub fn allows_resolved(&self, name: &str, port: u16) -> bool {
        self.allows_port(port) && matches!(&self.host, Host::Name(n) if *n == normal(name))
    }

    /// Whether `name` may be looked up.
    pub fn allows_name(&self, name: &str) -> bool {
        match &self.host {
            Host::Any => true,
            Host::Name(n) => *n == normal(name),
            Host::Net(_) => false,
        }
    }

    fn allows_port(&self, port: u16) -> bool {
        (self.ports.0..=self.ports.1).contains(&port)
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl std::fmt::Display for NetRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for NetRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "'{text}' is not HOST:PORT ({why}); HOST is a name, an address, a network such as \
                 10.0.0.0/8, [an IPv6 address] or *, PORT is a number, a range such as 8000-8999, \
                 or *"
            )
        };
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
        let ports = parse_ports(ports).ok_or_else(|| wrong("the port is wrong"))?;
        let host = parse_host(host).ok_or_else(|| wrong("the host is wrong"))?;
        Ok(Self { host, ports, text: text.to_owned() })
    }
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    if text == "*" {
        return Some((1, u16::MAX));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports: (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (ports.0 > 0 && ports.0 <= ports.1).then_some(ports)
}

fn parse_host(text: &str) -> Option<Host> {
    if text == "*" {
        return Some(Host::Any);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (address, prefix) = inner.split_once(']')?;
        return format!("{address}{prefix}")
            .parse()
            .ok()
            .or_else(|| {
                address.parse::<IpAddr>().ok().filter(|_| prefix.is_empty()).map(IpNet::from)
            })
            .map(Host::Net);
    }
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return Some(Host::Net(IpAddr::V4(ip).into()));
    }
    if let Ok(net) = text.parse::<ipnet::Ipv4Net>() {
        return Some(Host::Net(net.into()));
    }
    let name = normal(text);
    // RFC 1123, section 2.1: letters, digits and hyphens; a name whose last label is a number is an
    // IPv4 address that was mistyped.
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    (name.len() <= 253 && !numeric && name.split('.').all(label)).then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> NetRule {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_networks_and_ports() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(rule("127.0.0.1:80").allows(ip("127.0.0.1"), 80));
        assert!(!rule("127.0.0.1:80").allows(ip("127.0.0.1"), 81));
        assert!(!rule("127.0.0.1:80").allows(ip("127.0.0.2"), 80));
        assert!(rule("127.0.0.1:80").allows(ip("::ffff:127.0.0.1"), 80));
        assert!(rule("10.0.0.0/8:8000-8999").allows(ip("10.9.9.9"), 8999));
        assert!(!rule("10.0.0.0/8:8000-8999").allows(ip("11.0.0.1"), 8000));
        assert!(rule("[::1]:*").allows(ip("::1"), 1));
        assert!(rule("[fe80::]/10:53").allows(ip("fe80::1"), 53));
        assert!(rule("*:443").allows(ip("1.2.3.4"), 443));
    }

    #[test]
    fn names() {
        let r = rule("Example.com.:443");
        assert!(r.allows_name("example.COM"));
        assert!(!r.allows_name("www.example.com"));
        assert!(r.allows_resolved("example.com", 443));
        assert!(!r.allows_resolved("example.com", 80));
        assert!(!r.allows("1.2.3.4".parse().unwrap(), 443));
        assert!(rule("*:53").allows_name("anything"));
        assert!(!rule("10.0.0.0/8:53").allows_name("anything"));
    }

    #[test]
    fn what_is_not_a_rule() {
        for text in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:9-8",
            "host:70000",
            "300.1.1.1:80",
            "10.0.0.0/33:80",
            "::1:80",
            "[::1:80",
            "a b:80",
            "-a:80",
            "a..b:80",
            "[::1]/129:1",
        ] {
            assert!(text.parse::<NetRule>().is_err(), "{text}");
        }
    }
}
