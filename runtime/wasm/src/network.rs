//! `--allow-net` and `--listen` for components: every socket address and every name is checked.
//!
//! wasmtime-wasi asks about addresses only; whether names may be looked up is yes or no for all of
//! them. So `wasi:sockets/ip-name-lookup` is defined here: a name is looked up only if a rule names
//! it, and the addresses it gave may then be connected to, on that rule's ports.

use sbx_core::{Spec, net::NetRule};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::{LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use crate::notes::Notes;

/// How many names a workload's lookups are remembered for, each with its addresses.
const REMEMBERED: usize = 1024;

/// The rules, and what lookups have added to them.
#[derive(Debug)]
pub(crate) struct NetworkRules {
    rules: Vec<NetRule>,
    listen: Vec<SocketAddr>,
    resolved: Mutex<HashMap<String, Vec<IpAddr>>>,
    notes: Notes,
}

impl NetworkRules {
    pub(crate) fn new(spec: &Spec, notes: Notes) -> Arc<Self> {
        Arc::new(Self {
            rules: spec.allow_net.clone(),
            listen: spec.listen.clone(),
            resolved: Mutex::default(),
            notes,
        })
    }

    /// Has wasmtime-wasi ask these rules.
    pub(crate) fn install(self: &Arc<Self>, wasi: &mut WasiCtxBuilder) {
        let rules = Arc::clone(self);
        wasi.socket_addr_check(move |address, reason| {
            let allowed = rules.allows(address, reason);
            Box::pin(async move { allowed })
        });
        wasi.allow_tcp(true).allow_udp(true);
    }

    fn allows(&self, address: SocketAddr, reason: SocketAddrUse) -> bool {
        use SocketAddrUse::*;
        let outgoing = || self.may_reach(address);
        let (allowed, grant) = match reason {
            TcpConnect | UdpSend => (outgoing(), "--allow-net"),
            // A reply; what it replies to was checked.
            TcpAccept => return true,
            UdpReceive => return !self.listen.is_empty() || outgoing(),
            TcpListen => (self.may_listen(address), "--listen"),
            // A client binds to any port before it connects; that reaches nobody.
            TcpBind | UdpBind if address.port() == 0 && !self.rules.is_empty() => return true,
            TcpBind | UdpBind => (self.may_listen(address), "--listen"),
        };
        if !allowed {
            self.notes.add(match grant {
                // The first thing a client does; it has not said yet whom it wants to reach.
                "--listen" if address.port() == 0 => "the workload was refused the network; grant it \
                     with --allow-net HOST:PORT, or --listen ADDRESS:PORT for a server"
                    .into(),
                "--listen" => format!(
                    "the workload was refused listening on {address}; grant it with --listen {address}"
                ),
                _ => format!(
                    "the workload was refused a connection to {address}; grant it with --allow-net \
                     {address}"
                ),
            });
        }
        allowed
    }

    fn may_reach(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip(), address.port());
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        self.rules.iter().any(|rule| {
            rule.allows(ip, port)
                || resolved
                    .iter()
                    .any(|(name, ips)| ips.contains(&ip) && rule.allows_resolved(name, port))
        })
    }

    fn may_listen(&self, address: SocketAddr) -> bool {
        self.listen.iter().any(|granted| {
            granted.ip() == address.ip()
                && (granted.port() == 0 || granted.port() == address.port())
        })
    }

    /// Looks `name` up if a rule allows it.
    fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ErrorCode> {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse() {
            return Ok(vec![ip]);
        }
        if !self.rules.iter().any(|rule| rule.allows_name(name)) {
            let name = name.escape_debug();
            self.notes.add(format!(
                "the workload was refused the lookup of {name}; grant it with --allow-net {name}:PORT"
            ));
            return Err(ErrorCode::AccessDenied);
        }
        // Blocks: the sandbox has one thread, and the outer timer watches it.
        let found = (name, 0).to_socket_addrs().map_err(|_| ErrorCode::NameUnresolvable)?;
        let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        ips.dedup();
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if resolved.len() < REMEMBERED {
            resolved.insert(name.to_owned(), ips.clone());
        }
        Ok(ips)
    }
}

/// The state of a `resolve-address-stream`: what is left to hand out.
struct Addresses(std::vec::IntoIter<IpAddr>);

#[wasmtime_wasi::async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {}
}

/// What a store's state must give for names to be looked up.
pub(crate) trait NetworkView: WasiView {
    /// The rules.
    fn network(&self) -> &Arc<NetworkRules>;
}

/// Defines `wasi:sockets/ip-name-lookup`.
pub(crate) fn add_name_lookup<T: NetworkView + 'static>(
    mut interface: LinkerInstance<'_, T>,
) -> wasmtime::Result<()> {
    interface.resource(
        "resolve-address-stream",
        ResourceType::host::<Addresses>(),
        |mut store, rep| {
            let table = store.data_mut().ctx().table;
            table.delete(Resource::<Addresses>::new_own(rep))?;
            Ok(())
        },
    )?;
    interface.func_wrap(
        "resolve-addresses",
        |mut store, (network, name): (Resource<Network>, String)| {
            store.data_mut().ctx().table.get(&network)?;
            let found = store.data().network().resolve(&name);
            Ok((match found {
                Ok(ips) => Ok(store.data_mut().ctx().table.push(Addresses(ips.into_iter()))?),
                Err(code) => Err(code),
            },))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store, (stream,): (Resource<Addresses>,)| {
            let next = store.data_mut().ctx().table.get_mut(&stream)?.0.next();
            Ok((Ok::<Option<IpAddress>, ErrorCode>(next.map(IpAddress::from)),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store, (stream,): (Resource<Addresses>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().ctx().table, stream)?;
            Ok((pollable,))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(allow: &[&str], listen: &[&str]) -> Arc<NetworkRules> {
        let spec = Spec {
            allow_net: allow.iter().map(|r| r.parse().unwrap()).collect(),
            listen: listen.iter().map(|a| a.parse().unwrap()).collect(),
            ..Spec::default()
        };
        NetworkRules::new(&spec, Notes::default())
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let n = network(&[], &[]);
        for reason in [SocketAddrUse::TcpConnect, SocketAddrUse::UdpSend, SocketAddrUse::TcpListen]
        {
            assert!(!n.allows(address("127.0.0.1:80"), reason));
        }
        assert!(!n.allows(address("0.0.0.0:0"), SocketAddrUse::UdpBind));
        assert!(n.notes.take()[0].ends_with("--allow-net 127.0.0.1:80"));
    }

    #[test]
    fn a_client_may_bind_but_not_listen() {
        let n = network(&["127.0.0.1:80"], &[]);
        assert!(n.allows(address("0.0.0.0:0"), SocketAddrUse::TcpBind));
        assert!(!n.allows(address("0.0.0.0:9000"), SocketAddrUse::TcpBind));
        assert!(!n.allows(address("0.0.0.0:40000"), SocketAddrUse::TcpListen));
    }

    #[test]
    fn listening_is_its_own_grant() {
        let n = network(&[], &["127.0.0.1:8080"]);
        assert!(n.allows(address("127.0.0.1:8080"), SocketAddrUse::TcpListen));
        assert!(!n.allows(address("0.0.0.0:8080"), SocketAddrUse::TcpListen));
        assert!(!n.allows(address("127.0.0.1:8080"), SocketAddrUse::TcpConnect));
    }

    #[test]
    fn a_name_opens_its_addresses_on_its_ports_once_looked_up() {
        let n = network(&["localhost:80"], &[]);
        let local = address("127.0.0.1:80");
        assert!(!n.allows(local, SocketAddrUse::TcpConnect), "not looked up yet");
        assert!(n.resolve("localhost").unwrap().contains(&local.ip()));
        assert!(n.allows(local, SocketAddrUse::TcpConnect));
        assert!(!n.allows(address("127.0.0.1:81"), SocketAddrUse::TcpConnect));
        assert!(matches!(n.resolve("example.com"), Err(ErrorCode::AccessDenied)));
    }
}
