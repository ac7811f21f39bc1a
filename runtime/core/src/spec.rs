//! What a sandbox is asked to be: workload, grants and limits. The same for every backend.
//!
//! Nothing is granted that a [`Spec`] does not name. Building one checks only its form; whether a
//! backend can hold it is that backend's answer to [`crate::Backend::create`].

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

use crate::Limits;
use crate::machine::Machine;
use crate::net::NetRule;
use crate::route::Kind;

/// A request for one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The file to run. What it is is decided from its bytes.
    #[serde(with = "crate::text::path")]
    pub workload: PathBuf,
    /// The kind of sandbox that was asked for; decided from the workload if none was.
    pub backend: Option<Kind>,
    /// The workload's arguments, without its name.
    #[serde(with = "crate::text::words")]
    pub args: Vec<OsString>,
    /// The exported function to call in place of the program's entry point (wasm reactors).
    pub invoke: Option<String>,
    /// Environment variables: the workload sees these and no others.
    #[serde(with = "crate::text::pairs")]
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, an absolute path inside the sandbox.
    pub workdir: Option<String>,
    /// Host directories the workload sees.
    pub volumes: Vec<Volume>,
    /// Hosts, networks and ports it may connect to or look up.
    #[serde(with = "crate::text::list")]
    pub allow_net: Vec<NetRule>,
    /// Addresses it may accept connections on.
    pub listen: Vec<std::net::SocketAddr>,
    /// Whether it reads the caller's standard input; otherwise it reads an empty one.
    pub stdin: bool,
    /// Whether its standard streams are a terminal where the caller's are.
    pub tty: bool,
    /// What it may use.
    pub limits: Limits,
    /// The machine around the workload, where it needs one.
    pub machine: Machine,
}

/// A host directory inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The directory on the host.
    #[serde(with = "crate::text::path")]
    pub host: PathBuf,
    /// Where the workload sees it, an absolute path.
    pub guest: String,
    /// Whether every change to it is refused.
    pub read_only: bool,
}

impl std::str::FromStr for Volume {
    type Err = String;

    /// Reads `HOST:GUEST[:ro|rw]`, docker's and podman's form.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw");
        let (rest, read_only) = match text.rsplit_once(':') {
            Some((rest, "ro")) => (rest, true),
            Some((rest, "rw")) => (rest, false),
            _ => (text, false),
        };
        let (host, guest) = rest.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || guest.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.into(), guest: guest_path(guest)?, read_only })
    }
}

/// Checks that `path` is absolute and has no `..` in it, and drops what means nothing.
pub fn guest_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("the path inside the sandbox, '{path}', must be absolute: /{path}"));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") || path.contains('\0') {
        return Err(format!("the path inside the sandbox, '{path}', must not hold '..' or NUL"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The position of the volume that holds the absolute guest path `path`, and the rest of the path
/// below it. The deepest volume wins.
pub fn volume_of<'a>(volumes: &[Volume], path: &'a str) -> Option<(usize, &'a str)> {
    volumes
        .iter()
        .enumerate()
        .filter_map(|(i, v)| {
            let below = path.strip_prefix(v.guest.trim_end_matches('/'))?;
            (below.is_empty() || below.starts_with('/'))
                .then(|| (v.guest.len(), i, below.trim_start_matches('/')))
        })
        .max_by_key(|(depth, ..)| *depth)
        .map(|(_, i, below)| (i, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let v: Volume = "./data:/srv//data/.:ro".parse().unwrap();
        assert_eq!(v, Volume { host: "./data".into(), guest: "/srv/data".into(), read_only: true });
        assert!(!"/a:/b:rw".parse::<Volume>().unwrap().read_only);
        assert_eq!("/a:b:/c".parse::<Volume>().unwrap().host, PathBuf::from("/a:b"));
        for text in ["", ":", "/a", "/a:", ":/b", "/a:b", "/a:/b/../c", "ro", "/a:ro"] {
            assert!(text.parse::<Volume>().is_err(), "{text}");
        }
    }

    /// A sandbox that is created is started from what was stored.
    #[test]
    fn a_spec_is_stored_whole() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        let spec = Spec {
            workload: odd.clone().into(),
            args: vec!["-x".into(), odd.clone()],
            env: vec![("A".into(), odd)],
            volumes: vec!["/a:/b:ro".parse().unwrap()],
            allow_net: vec!["example.com:80-90".parse().unwrap()],
            listen: vec!["127.0.0.1:80".parse().unwrap()],
            machine: Machine {
                disks: vec!["d:ro".parse().unwrap()],
                net: Some("tap=t0,ip=10.0.0.2/24,gateway=10.0.0.1".parse().unwrap()),
                ..Machine::default()
            },
            ..Spec::default()
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
        assert!(text.contains(r#""args":["-x","#), "{text}");
    }

    #[test]
    fn the_deepest_volume_holds_a_path() {
        let volumes: Vec<Volume> =
            ["/a:/", "/b:/data", "/c:/data/deep"].iter().map(|v| v.parse().unwrap()).collect();
        assert_eq!(volume_of(&volumes, "/data/deep/x"), Some((2, "x")));
        assert_eq!(volume_of(&volumes, "/database"), Some((0, "database")));
        assert_eq!(volume_of(&volumes, "/data"), Some((1, "")));
        assert_eq!(volume_of(&volumes[1..], "/etc"), None);
    }
}
