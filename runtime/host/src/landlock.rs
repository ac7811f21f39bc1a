//! The kernel's own word on files and TCP, below whatever an engine enforces: landlock.
//!
//! A process that [`confine`]s itself can open nothing outside the directories it names, change
//! nothing in the read-only ones, and, unless the network is granted, neither connect nor listen over
//! TCP; for good, and whatever code it runs. Files that are open already are not affected.
//!
//! A kernel without landlock (before 5.13, or with it turned off) confines nothing, one with an older
//! version confines less; the engine's checks stand by themselves. Which addresses may be reached is
//! not for landlock to tell apart.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use sbx_core::{Error, Result};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// The newest version of landlock that is asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V5;

/// What the C library reads to look names up.
const RESOLVER: [&str; 5] =
    ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/// A directory that stays reachable.
#[derive(Clone, Copy, Debug)]
pub struct Reachable<'a> {
    /// The directory, open.
    pub dir: BorrowedFd<'a>,
    /// Whether changes below it are refused.
    pub read_only: bool,
}

/// Takes from this process every file but those below `dirs`, and TCP unless `network`.
pub fn confine<'a>(dirs: impl Iterator<Item = Reachable<'a>>, network: bool) -> Result<()> {
    restrict(dirs, network)
        .map_err(|e| Error::Refused(format!("cannot confine the sandbox with landlock: {e}")))
}

/// Takes from this process every file but those that running a program needs: what lies below `places` may
/// be read and executed, and the two devices that any program may open are left to it. And TCP.
pub fn confine_program(places: &[PathBuf]) -> Result<()> {
    let restrict = || -> std::result::Result<(), RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .create()?;
        let run = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
        let null = AccessFs::ReadFile | AccessFs::WriteFile;
        let places = places.iter().map(|place| (place.as_path(), run));
        let devices = [(Path::new("/dev/null"), null), (Path::new("/dev/urandom"), null)];
        for (place, access) in places.chain(devices) {
            // What is not there cannot be needed.
            if let Ok(file) = PathFd::new(place) {
                let access = if place.is_dir() { access } else { access & !AccessFs::ReadDir };
                rules = rules.add_rule(PathBeneath::new(file, access))?;
            }
        }
        rules.restrict_self().map(drop)
    };
    restrict().map_err(|e| Error::Refused(format!("cannot confine a program with landlock: {e}")))
}

/// The version of landlock that this kernel has, as far as it is known here; 0 is none.
pub fn version() -> u8 {
    let known =
        [(ABI::V6, 6), (ABI::V5, 5), (ABI::V4, 4), (ABI::V3, 3), (ABI::V2, 2), (ABI::V1, 1)];
    let has = |abi: ABI| {
        let hard = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let rules = hard.handle_access(AccessFs::from_all(abi))?;
        let net = AccessNet::from_all(abi);
        let rules = if net.is_empty() { rules } else { rules.handle_access(net)? };
        let scope = Scope::from_all(abi);
        let rules = if scope.is_empty() { rules } else { rules.scope(scope)? };
        rules.create().map(drop)
    };
    known.into_iter().find(|(abi, _)| has(*abi).is_ok()).map_or(0, |(_, version)| version)
}

fn restrict<'a>(
    dirs: impl Iterator<Item = Reachable<'a>>,
    network: bool,
) -> std::result::Result<(), RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?;
    let rules = if network { rules } else { rules.handle_access(AccessNet::from_all(NEWEST))? };
    let mut rules: RulesetCreated = rules.create()?;
    // A program may be read, never executed: the sandbox runs no other one.
    let all = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for Reachable { dir, read_only } in dirs {
        rules = rules.add_rule(PathBeneath::new(dir, if read_only { read } else { all }))?;
    }
    if network {
        for file in RESOLVER {
            if let Ok(file) = PathFd::new(file) {
                rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
            }
        }
    }
    rules.restrict_self().map(|_| ())
}
