//! What each thread of a machine may ask of the kernel: a list for each of its roles, and the end of
//! the whole process for everything else. A guest that takes a device over has little left to attack.
//!
//! All lists allow what the C library needs to allocate and to lock, none allows a new process, a
//! socket, or memory that can be executed. A thread confines itself first thing, and cannot undo it.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs a processor, and the devices' registers.
    Vcpu,
    /// Serves the queues of devices.
    Devices,
    /// Serves a shared directory.
    Files,
    /// Waits for the process that executes the machine, and hears what it says.
    Emulator,
    /// Speaks with the agent, the caller's streams, and the parent.
    Control,
}

/// For all roles: memory, locks, clocks, streams that are open, and the end.
const ALL: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// With [`ALL`]: what devices do when their driver starts or resets them, which a processor's thread does
/// by a write to their registers.
const VCPU: &[libc::c_long] =
    &[libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_shutdown, libc::SYS_timerfd_settime];

/// With all lists but [`FILES`]: refused, and not the end. The C library looks into /proc once, when it is
/// to give memory of a thread's own back, and does without what it does not find there.
const REFUSED: libc::c_long = libc::SYS_openat;

/// With [`ALL`]: queues, and the files behind devices.
const DEVICES: &[libc::c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
];

/// With [`DEVICES`]: names and what they name, below directories that are open.
const FILES: &[libc::c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// With [`ALL`]: sockets that are open, and the end of another process that is open too.
const EMULATOR: &[libc::c_long] = &[libc::SYS_recvfrom, libc::SYS_waitid];

/// With [`ALL`]: the agent's stream, the clock of the processor time, and the end of another process that
/// is open, if one executes the machine.
const CONTROL: &[libc::c_long] = &[
    libc::SYS_clock_nanosleep,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prlimit64,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setitimer,
    libc::SYS_shutdown,
    libc::SYS_timer_settime,
    libc::SYS_waitid,
];

/// The operations on files that are no plain reads and writes (ioctl(2)).
mod request {
    /// `KVM_RUN`.
    pub(super) const RUN: u64 = 0xae80;
    /// `KVM_GET_REGS`, to say where a guest failed.
    pub(super) const GET_REGS: u64 = 0x8090_ae81;
    /// `TUNSETOFFLOAD`, when a network driver has said what it can do.
    pub(super) const SET_OFFLOAD: u64 = 0x4004_54d0;
    /// `TIOCGWINSZ`, when a terminal has changed its size.
    pub(super) const WINDOW_SIZE: u64 = libc::TIOCGWINSZ;
}

impl Role {
    fn calls(self) -> Vec<libc::c_long> {
        let lists: &[&[libc::c_long]] = match self {
            Self::Vcpu => &[ALL, VCPU],
            Self::Devices => &[ALL, DEVICES],
            Self::Files => &[ALL, DEVICES, FILES],
            Self::Emulator => &[ALL, EMULATOR],
            Self::Control => &[ALL, CONTROL],
        };
        lists.concat()
    }

    fn requests(self) -> &'static [u64] {
        match self {
            Self::Vcpu => &[request::RUN, request::GET_REGS, request::SET_OFFLOAD],
            Self::Devices => &[request::SET_OFFLOAD],
            Self::Files | Self::Emulator => &[],
            Self::Control => &[request::WINDOW_SIZE],
        }
    }

    /// Confines the calling thread to what the role may do.
    ///
    /// # Errors
    /// When the kernel has no seccomp.
    pub fn confine(self) -> Result<(), seccompiler::Error> {
        let mut rules = BTreeMap::new();
        for call in self.calls() {
            // No conditions: any arguments will do.
            rules.insert(call, Vec::new());
        }
        if rules.insert(REFUSED, Vec::new()).is_none() {
            // Of two filters, the one that allows less counts.
            refuse()?;
        }
        let not_executable =
            condition(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC.unsigned_abs().into()), 0)?;
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![SeccompRule::new(vec![not_executable.clone()])?]);
        }
        let requests = self
            .requests()
            .iter()
            .map(|request| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, *request)?])?));
        let requests = requests.collect::<Result<Vec<_>, seccompiler::Error>>()?;
        if !requests.is_empty() {
            rules.insert(libc::SYS_ioctl, requests);
        }
        apply(rules, SeccompAction::KillProcess, SeccompAction::Allow)
    }
}

fn refuse() -> Result<(), seccompiler::Error> {
    let refused = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    apply(BTreeMap::from([(REFUSED, Vec::new())]), SeccompAction::Allow, refused)
}

/// What to do with calls that have no rule, and with those that meet theirs.
fn apply(
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    others: SeccompAction,
    those: SeccompAction,
) -> Result<(), seccompiler::Error> {
    let filter = SeccompFilter::new(rules, others, those, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}

fn condition(
    argument: u8,
    is: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Set in the copy of the test's process that confines itself.
    const ROLE: &str = "SBX_TEST_ROLE";
    const ROLES: [Role; 5] =
        [Role::Vcpu, Role::Devices, Role::Files, Role::Emulator, Role::Control];

    /// Runs this test alone in a process of its own, with `doing` in its environment.
    fn confined(test: &str, role: usize) -> std::process::ExitStatus {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let again = again.args(["--exact", test, "--test-threads=1"]).env(ROLE, role.to_string());
        again.stdout(std::process::Stdio::null()).status().unwrap()
    }

    fn role() -> Option<Role> {
        Some(ROLES[std::env::var(ROLE).ok()?.parse::<usize>().unwrap()])
    }

    #[test]
    fn a_denied_call_ends_the_process() {
        let Some(role) = role() else {
            for (i, role) in ROLES.into_iter().enumerate() {
                let status = confined("seccomp::tests::a_denied_call_ends_the_process", i);
                assert_eq!(status.signal(), Some(libc::SIGSYS), "{role:?}: {status:?}");
            }
            return;
        };
        // Another thread, since a denial is to end more than that.
        let thread = std::thread::spawn(move || {
            role.confine().unwrap();
            std::net::UdpSocket::bind("127.0.0.1:0").map(drop)
        });
        let _ = thread.join();
    }

    /// As sbx does for a defect of its own.
    #[test]
    fn a_panic_ends_the_process_with_a_status() {
        let Some(role) = role() else {
            for (i, role) in ROLES.into_iter().enumerate() {
                let status = confined("seccomp::tests::a_panic_ends_the_process_with_a_status", i);
                assert_eq!(status.code(), Some(125), "{role:?}: {status:?}");
            }
            return;
        };
        std::panic::set_hook(Box::new(|panic| {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{panic}\n"));
            sbx_host::process::exit_now(125);
        }));
        let thread = std::thread::spawn(move || {
            role.confine().unwrap();
            panic!("as is wanted");
        });
        let _ = thread.join();
    }

    /// A processor's thread starts and resets devices, whatever they are in the middle of.
    #[test]
    fn every_device_can_be_reset_by_a_processor() {
        const VCPU: usize = 0;
        if role().is_none() {
            let status = confined("seccomp::tests::every_device_can_be_reset_by_a_processor", VCPU);
            assert!(status.success(), "{status:?}");
            return;
        }
        let mut devices = crate::device::busy::all();
        let thread = std::thread::spawn(move || {
            Role::Vcpu.confine().unwrap();
            for (device, driver) in &mut devices {
                device.reset();
                driver.with_io(|io| device.activate(u64::MAX, io)).unwrap();
            }
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_a_role_needs_is_left_to_it() {
        let Some(role) = role() else {
            for (i, role) in ROLES.into_iter().enumerate() {
                let status = confined("seccomp::tests::what_a_role_needs_is_left_to_it", i);
                assert!(status.success(), "{role:?}: {status:?}");
            }
            return;
        };
        let (reader, writer) = std::io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            role.confine().unwrap();
            let large = vec![7u8; 64 << 20];
            // Freed together, which has the C library give their memory back.
            let many: Vec<_> = (0..64).map(|_| vec![7u8; 100 << 10]).collect();
            drop(many);
            let _ = std::collections::HashSet::<u8>::new();
            std::io::Write::write_all(&mut &writer, &large[..100]).unwrap();
            std::io::Read::read_exact(&mut &reader, &mut [0; 100]).unwrap();
        });
        thread.join().unwrap();
    }
}
