//! What the process of a WebAssembly guest may ask of the kernel: what WASI comes down to, and nothing else.
//! A guest that takes the engine over finds no way to another process, another program, another user, or
//! memory that it could execute.
//!
//! What is not on the list is refused with `EPERM`, and not the end of the process: libraries try calls out,
//! and do without. Threads and sockets are only a component's, and only where the network is granted can a
//! socket reach anything.

use libc::c_long;
use sbx_core::{Error, Result};
use seccompiler::sock_filter;

/// Memory, locks, clocks, signals, and the end.
const ALWAYS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pause,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
];

/// Files below directories that are open, streams, and waiting for them. Which directories, landlock says.
/// Some are here that nothing calls, older forms of others: each gap in their numbers would cost a start two
/// instructions of a filter, a microsecond each.
const FILES: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_signalfd4,
    libc::SYS_stat,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What the asynchronous half of WASI 0.2 needs: threads of this process, in which files are waited for, and
/// sockets that reach nothing yet, for it to be refused, and told, what they may reach.
const COMPONENT: &[c_long] = &[
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
];

/// What a network that is granted is reached by.
const NETWORK: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_socketpair,
    libc::SYS_uname,
];

/// What a guest is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// A component, which WASI 0.2 is for; else a core module.
    pub(crate) component: bool,
    /// One that is granted some of the network.
    pub(crate) network: bool,
}

/// The questions about files that are no plain reads and writes, by `ioctl`: whether one does not block, how
/// much there is to read, and what a terminal is like.
const QUESTIONS: [u32; 4] =
    [libc::FIONBIO as u32, libc::FIONREAD as u32, libc::TCGETS as u32, libc::TIOCGWINSZ as u32];

/// Offsets in what a filter looks at (seccomp(2), `struct seccomp_data`): the call, the processor's kind,
/// and the lower halves of arguments.
const NUMBER: u32 = 0;
const PROCESSOR: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Confines the calling thread, and those that it starts. A kernel that has no seccomp confines nothing: the
/// engine's checks stand by themselves, and `sbx doctor` tells.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn confine(guest: Guest) -> Result<()> {
    let absent = |e: &std::io::Error| matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL));
    match seccompiler::apply_filter(&program(guest)) {
        Err(seccompiler::Error::Seccomp(e)) if absent(&e) => Ok(()),
        applied => applied
            .map_err(|e| Error::Refused(format!("cannot confine the sandbox with seccomp: {e}"))),
    }
}

/// The filter: written out, since composing it by a library would take longer than all else that a start
/// does in the kernel. Calls are found by halving: the kernel itself runs a new filter once for every call
/// that there is, to know the answers that are always the same.
fn program(guest: Guest) -> Vec<sock_filter> {
    let lists: &[&[c_long]] = match guest {
        Guest { component: true, network: true } => &[ALWAYS, FILES, COMPONENT, NETWORK],
        Guest { component: true, network: false } => &[ALWAYS, FILES, COMPONENT],
        Guest { component: false, .. } => &[ALWAYS, FILES],
    };
    let allowed = lists.iter().copied().flatten().map(|call| (*call, vec![answer(ALLOW)]));
    let mut calls: Vec<_> = allowed.collect();
    // Memory, but none that can be executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        calls.push((call, with(2, when(libc::BPF_JSET, libc::PROT_EXEC as u32, REFUSE), ALLOW)));
    }
    let questions = QUESTIONS.iter().flat_map(|question| when(libc::BPF_JEQ, *question, ALLOW));
    calls.push((libc::SYS_ioctl, with(1, questions, REFUSE)));
    if guest.component {
        // A thread of this process, and not another process. What the newer call asks for is out of a
        // filter's sight: libraries that are told that it does not exist take the older.
        calls.push((libc::SYS_clone3, vec![answer(UNKNOWN)]));
        let thread = when(libc::BPF_JSET, libc::CLONE_THREAD as u32, ALLOW);
        calls.push((libc::SYS_clone, with(0, thread, REFUSE)));
    }
    calls.sort_by_key(|(call, _)| *call);
    let mut filter = vec![load(PROCESSOR)];
    filter.extend(unless(libc::BPF_JEQ, X86_64, libc::SECCOMP_RET_KILL_PROCESS));
    filter.push(load(NUMBER));
    filter.extend(find(&stretches(calls)));
    filter
}

/// A stretch of calls, from its first on, and what follows for them.
type Stretch = (u32, Vec<sock_filter>);

/// Fills the gaps between calls, and joins neighbours of the same answer.
fn stretches(calls: Vec<(c_long, Vec<sock_filter>)>) -> Vec<Stretch> {
    let refused = vec![answer(REFUSE)];
    let mut all: Vec<Stretch> = vec![(0, refused.clone())];
    for (call, then) in calls {
        let call = call as u32;
        if all.last().is_some_and(|(first, _)| *first == call) {
            all.pop();
        }
        if all.last().is_none_or(|(_, before)| *before != then) {
            all.push((call, then));
        }
        all.push((call + 1, refused.clone()));
    }
    all.dedup_by(|later, earlier| later.1 == earlier.1);
    all
}

/// Goes to the stretch that a call is in, by a comparison for each border between two. What follows for
/// stretches is behind all comparisons, once for all that have the same.
fn find(stretches: &[Stretch]) -> Vec<sock_filter> {
    let mut ends: Vec<&Vec<sock_filter>> = Vec::new();
    for (_, then) in stretches {
        if !ends.contains(&then) {
            ends.push(then);
        }
    }
    let place = |then: &Vec<sock_filter>| {
        let before = ends.iter().take_while(|end| **end != then);
        stretches.len() - 1 + before.map(|end| end.len()).sum::<usize>()
    };
    let mut all = Vec::with_capacity(128);
    compare(stretches, &place, &mut all);
    all.extend(ends.iter().flat_map(|end| end.iter().cloned()));
    all
}

/// Adds the comparisons that find a stretch among these; `place` says where in the whole it goes on then.
/// Calls of x32 are in the last stretch, being larger than any of ours.
fn compare(
    stretches: &[Stretch],
    place: &dyn Fn(&Vec<sock_filter>) -> usize,
    all: &mut Vec<sock_filter>,
) {
    if stretches.len() < 2 {
        return;
    }
    let (lower, upper) = stretches.split_at(stretches.len() / 2);
    let here = all.len();
    all.push(jump(libc::BPF_JGE, upper[0].0, 0, 0));
    let mut go_on = |half: &[Stretch]| {
        let to = match half {
            [(_, then)] => place(then),
            _ => all.len(),
        };
        compare(half, place, all);
        // A filter has fewer instructions than a jump goes over; the tests run them all.
        u8::try_from(to - here - 1).unwrap_or(u8::MAX)
    };
    let (no, yes) = (go_on(lower), go_on(upper));
    (all[here].jt, all[here].jf) = (yes, no);
}

/// Looks at an argument, does `then`, and answers what that leaves.
fn with(index: u32, then: impl IntoIterator<Item = sock_filter>, rest: u32) -> Vec<sock_filter> {
    let mut all = vec![load(argument(index))];
    all.extend(then);
    all.push(answer(rest));
    all
}

/// Answers if the comparison holds.
fn when(compare: u32, value: u32, with: u32) -> [sock_filter; 2] {
    [jump(compare, value, 0, 1), answer(with)]
}

/// Answers if it does not.
fn unless(compare: u32, value: u32, with: u32) -> [sock_filter; 2] {
    [jump(compare, value, 1, 0), answer(with)]
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(compare: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | compare | libc::BPF_K, yes, no, value)
}

fn answer(with: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, with)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of the filter (its classic interpreter, as far as it is used here).
    fn run(filter: &[sock_filter], call: u32, arguments: [u32; 3]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = &filter[at];
            at += 1;
            let (class, compare) = (u32::from(*code) & 7, u32::from(*code) & 0xf0);
            if class == libc::BPF_LD {
                loaded = match *k {
                    NUMBER => call,
                    PROCESSOR => X86_64,
                    offset => arguments[(offset as usize - 16) / 8],
                };
            } else if class == libc::BPF_RET {
                return *k;
            } else {
                let holds = match compare {
                    libc::BPF_JEQ => loaded == *k,
                    libc::BPF_JGE => loaded >= *k,
                    _ => loaded & k != 0,
                };
                at += usize::from(if holds { *jt } else { *jf });
            }
        }
    }

    #[test]
    fn every_call_is_answered_as_listed() {
        for (component, network) in [(false, false), (true, false), (true, true)] {
            let filter = program(Guest { component, network });
            let listed = |call: u32| {
                let call = c_long::from(call);
                [ALWAYS, FILES].concat().contains(&call)
                    || component && COMPONENT.contains(&call)
                    || network && NETWORK.contains(&call)
            };
            let special = [
                libc::SYS_mmap,
                libc::SYS_mprotect,
                libc::SYS_ioctl,
                libc::SYS_clone,
                libc::SYS_clone3,
            ];
            for call in (0..1000).chain([u32::MAX, 0x4000_0000]) {
                if !special.contains(&c_long::from(call)) {
                    let wanted = if listed(call) { ALLOW } else { REFUSE };
                    assert_eq!(run(&filter, call, [0; 3]), wanted, "{call}");
                }
            }
            let mmap = libc::SYS_mmap as u32;
            assert_eq!(run(&filter, mmap, [0, 0, libc::PROT_READ as u32]), ALLOW);
            assert_eq!(run(&filter, mmap, [0, 0, 1 | libc::PROT_EXEC as u32]), REFUSE);
            let ioctl = libc::SYS_ioctl as u32;
            assert_eq!(run(&filter, ioctl, [0, libc::FIONREAD as u32, 0]), ALLOW);
            assert_eq!(run(&filter, ioctl, [0, libc::TIOCSTI as u32, 0]), REFUSE);
            let clone = |flags: i32| run(&filter, libc::SYS_clone as u32, [flags as u32, 0, 0]);
            assert_eq!(clone(libc::CLONE_THREAD), if component { ALLOW } else { REFUSE });
            assert_eq!(clone(libc::CLONE_NEWUSER), REFUSE);
        }
    }
}
