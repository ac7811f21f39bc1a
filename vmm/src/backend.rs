//! [`sbx_core::Backend`] for microVMs: plans in sbx's process, builds and runs in a child, which is the
//! machine.
//!
//! The parent opens all that the user named and tells all that the user did wrong; KVM's objects belong to
//! the address space that makes them, so that the child makes them. The child never returns, and nothing
//! of the machine outlives it.

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg,
};
use sbx_core::{
    Backend, Command, Ending, Error, Exit, Limits, Result, Sandbox, Signal, Spec, Waited,
};
use sbx_host::landlock::{self, Reachable};
use sbx_host::signals::{self, LAST_WORDS, Signals};
use sbx_host::terminal::Raw;
use sbx_host::{Cgroup, Process, ProcessLimits};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::accel::Accelerator;
use crate::agent::Agent;
use crate::boot::board;
use crate::control::Log;
use crate::control::console::{self, Console, Keys};
use crate::control::session::Session;
use crate::end::End;
use crate::fs::Access;
use crate::machine::{Executor, Machine, Outside, Screen};
use crate::plan::{self, Device, Plan};
use crate::seccomp::Role;
use crate::times::{self, Times};

/// How long a machine that is to be killed may take to say what it knows.
const LAST: Duration = Duration::from_millis(200);

/// Runs guests with an operating system of their own.
#[derive(Debug, Default)]
pub struct VmBackend {
    /// Whether the times of a start are told at its end.
    pub times: bool,
    /// Told, as a sentence, what the caller has to know before a guest runs.
    pub notice: Option<fn(&str)>,
}

impl Backend for VmBackend {
    fn create(&self, spec: &Spec) -> Result<Box<dyn Sandbox>> {
        enforceable(&spec.limits)?;
        let accelerator = Accelerator::find(spec.machine.accel);
        // A mistake of the user's is told before what the host lacks.
        let board = accelerator.as_ref().map_or(&board::KVM, Accelerator::board);
        let plan = plan::plan(spec, board)?;
        // Whole processors are the guest's own; only a part of one has to be measured out.
        let cpus = spec.limits.cpus.filter(|cpus| !cpus.is_multiple_of(1000));
        let cgroup = cpus.map(Cgroup::with_cpus).transpose()?;
        let accelerator = accelerator?;
        if let (Some(tell), Some(notice)) = (self.notice, accelerator.notice(spec.machine.accel)) {
            tell(&notice);
        }
        // A guest with an init of its own has a terminal in any case; --tty gives it the caller's.
        let screen = plan.task.as_ref().map_or(spec.tty, |task| task.process.terminal.is_some());
        let raw = screen.then_some(if plan.stdin { Raw::keys } else { Raw::screen } as _);
        let emulated = matches!(accelerator, Accelerator::Tcg(_));
        let agent = plan.task.is_some();
        let (orders, taken) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| Error::host("make a way to the machine", e))?;
        let orders = agent.then_some(orders);
        let executor = accelerator.executor();
        let prepared = Prepared { plan, executor, orders: taken, times: None };
        let (prepared, times) = (Some(prepared), self.times);
        let (process, terminal) = (None, None);
        Ok(Box::new(VmSandbox {
            times,
            emulated,
            prepared,
            orders,
            cgroup,
            raw,
            process,
            terminal,
        }))
    }
}

/// Refuses the limits that a machine cannot hold its guest to.
fn enforceable(limits: &Limits) -> Result<()> {
    let Limits {
        memory: _,   // the guest's memory
        timeout: _,  // the core's clock
        cpu_time: _, // the kernel's, on the child
        cpus: _,     // processors, and the control group
        pids,
        fds: _,    // the guest's kernel
        output: _, // counted by the host
        disk: _,   // counted by the shared directories
        fuel,
    } = limits;
    if *pids == Some(0) {
        return Err(Error::Refused("--pids 0 leaves no process to run the workload in".into()));
    }
    if fuel.is_some() {
        return Err(Error::Refused(
            "--fuel counts WebAssembly instructions, and a microVM runs none; use --cpu-time"
                .into(),
        ));
    }
    Ok(())
}

/// All that the child needs.
struct Prepared {
    plan: Plan,
    executor: Box<dyn Executor>,
    /// Where further processes are asked for.
    orders: OwnedFd,
    /// Processor time of sbx until it forked, if times are told.
    times: Option<Duration>,
}

struct VmSandbox {
    times: bool,
    /// Whether the processors are those of another process.
    emulated: bool,
    prepared: Option<Prepared>,
    /// Where further processes are asked for, of a guest that has an agent.
    orders: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// How the caller's terminal becomes the guest's, if it does.
    raw: Option<fn() -> Option<Raw>>,
    process: Option<Process>,
    terminal: Option<Raw>,
}

impl VmSandbox {
    fn running(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(none)
    }

    fn running_mut(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(none)
    }
}

fn none() -> Error {
    Error::Refused("the sandbox has no process".into())
}

impl Sandbox for VmSandbox {
    fn start(&mut self, private: &[BorrowedFd<'_>]) -> Result<()> {
        let prepared = self
            .prepared
            .take()
            .ok_or_else(|| Error::Refused("the sandbox has been started already".into()))?;
        // The clock of the processor time starts with the workload, which is the child's to know.
        let limits = ProcessLimits::default();
        let mut prepared = prepared;
        prepared.times = self.times.then(times::cpu_time);
        let run = || prepared.run();
        // Our end of what the machine has the other of.
        let private: Vec<_> =
            private.iter().copied().chain(self.orders.iter().map(AsFd::as_fd)).collect();
        self.process = Some(Process::spawn(&limits, self.cgroup.take(), &private, run)?);
        self.terminal = self.raw.and_then(|enter| enter());
        Ok(())
    }

    fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn ended(&self) -> Result<OwnedFd> {
        self.running()?.ended()
    }

    fn exec(&mut self, command: &Command, connection: UnixStream) -> Result<()> {
        let orders = self.orders.as_ref().ok_or_else(|| {
            Error::Refused(
                "with --initrd there is no init of sbx's in the guest that could run it".into(),
            )
        })?;
        let failed = |e: std::io::Error| Error::host("ask the machine for a process", e);
        let text = serde_json::to_vec(command).map_err(|e| failed(e.into()))?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut files = SendAncillaryBuffer::new(&mut space);
        let file = [connection.as_fd()];
        files.push(SendAncillaryMessage::ScmRights(&file));
        let sent = sendmsg(orders, &[IoSlice::new(&text)], &mut files, SendFlags::DONTWAIT);
        sent.map(drop).map_err(|e| failed(e.into()))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        let process = self.running()?;
        if signal == Signal::KILL {
            // What a guest that hangs wrote on its console is worth waiting for, a moment.
            process.signal(Signal(LAST_WORDS))?;
            process.settle(LAST)?;
        }
        process.signal(signal)
    }

    fn pause(&mut self) -> Result<()> {
        // Where another process has the processors, that is the one to stop.
        self.signal(if self.emulated { Signal(signals::PAUSE) } else { Signal::STOP })
    }

    fn resume(&mut self) -> Result<()> {
        self.signal(if self.emulated { Signal(signals::RESUME) } else { Signal::CONT })
    }

    fn wait(&mut self, until: Option<Instant>) -> Result<Waited> {
        let process = self.running_mut()?;
        let waited = process.wait(until)?;
        let Waited::Ended(ending) = waited else { return Ok(waited) };
        let ending = process.killed_by().and_then(lost).unwrap_or(ending);
        self.terminal = None;
        Ok(Waited::Ended(ending))
    }
}

/// What it means that the machine's process was ended by this signal, if that is a fault of its own. A
/// fault of the workload's is none, for of that the process tells.
fn lost(signal: i32) -> Option<Ending> {
    let how = match signal {
        libc::SIGSYS => {
            "its process asked the host for what a machine may not, and was stopped; the guest may \
             have tried to break out"
                .into()
        }
        libc::SIGABRT | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGSEGV => {
            format!("its process failed with signal {signal}; please report this")
        }
        // Sent by sbx, or by whoever may.
        _ => return None,
    };
    Some(Exit::Failed(format!("the virtual machine is lost: {how}")).into())
}

impl Prepared {
    /// Builds and runs the machine to its end; the child's whole work.
    fn run(self) -> Ending {
        let begun = Instant::now();
        self.try_run(begun).unwrap_or_else(|e| Exit::Failed(e).into())
    }

    fn try_run(mut self, begun: Instant) -> std::result::Result<Ending, String> {
        let text = |e: Error| e.to_string();
        let signals = Signals::take_over().map_err(text)?;
        let end = Arc::new(End::new().map_err(|e| e.to_string())?);
        let log = Log::default();
        let dirs = self.directories().map_err(|e| e.to_string())?;
        let screen = self.screen(&end, &log);
        let outside = Outside { end: end.clone(), screen, begun };
        let mut machine =
            self.executor.build(&mut self.plan, &outside).map_err(|e| e.to_string())?;
        let reachable = dirs
            .iter()
            .map(|(dir, read_only)| Reachable { dir: dir.as_fd(), read_only: *read_only });
        landlock::confine(reachable, false).map_err(text)?;
        // Nothing is to be made of these any more, by whoever takes the process over.
        drop((dirs, outside));
        let times = self.times.map(|parent| Times { parent, begun, timer: machine.timer.clone() });
        let (plan, orders) = (self.plan, self.orders);
        let control = control(plan, &mut machine, signals, end.clone(), log, orders)?;
        let times = times.map(Times::entering);
        machine.start(&end).map_err(|e| e.to_string())?;
        Role::Control.confine().map_err(|e| format!("a thread cannot be confined: {e}"))?;
        let mut ending = control();
        ending.notes.extend(times.and_then(|entered| entered.note()));
        Ok(ending)
    }

    /// The shared directories, and which of them are only to be read.
    fn directories(&self) -> std::io::Result<Vec<(OwnedFd, bool)>> {
        let dirs = self.plan.devices.iter().filter_map(|device| match device {
            Device::Fs { dir, access, .. } => Some((dir, *access != Access::ReadWrite)),
            _ => None,
        });
        dirs.map(|(dir, read_only)| Ok((dir.try_clone()?, read_only))).collect()
    }

    /// Where the console goes: to the caller if it is all that the guest has, else only to the log.
    fn screen(&self, end: &Arc<End>, log: &Log) -> Screen {
        let log = log.clone();
        if self.plan.task.is_none() {
            let mut screen = console::Screen::new(end.clone(), self.plan.limits.output, log);
            return Arc::new(Mutex::new(move |bytes: &[u8]| screen.show(bytes)));
        }
        Arc::new(Mutex::new(move |bytes: &[u8]| {
            log.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
        }))
    }
}

/// What the first thread does while the machine runs.
fn control(
    plan: Plan,
    machine: &mut Machine,
    signals: Signals,
    end: Arc<End>,
    log: Log,
    orders: OwnedFd,
) -> std::result::Result<Box<dyn FnOnce() -> Ending>, String> {
    let stream = machine.stream.take();
    let processors = machine.processors.take().unwrap_or_default();
    let Some(task) = plan.task else {
        let (stdin, cpu_time) = (plan.stdin, plan.limits.cpu_time);
        let terminal = machine.terminal.take();
        let keys = match (stream, machine.serial.take()) {
            (Some(stream), _) if plan.virtio_console => Keys::Stream(stream),
            (_, Some(serial)) => serial,
            _ => return Err("the guest has no console".into()),
        };
        let parent = std::os::unix::process::parent_id();
        let console =
            Console { end, signals, parent, log, keys, terminal, stdin, cpu_time, processors };
        return Ok(Box::new(|| console.run()));
    };
    let stream = stream.ok_or("the guest has no way to speak to sbx")?;
    let session = Agent::new(stream)
        .and_then(|agent| Session::new(task, agent, end, signals, log, processors, orders))
        .map_err(|e| e.to_string())?;
    Ok(Box::new(|| session.run()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_lost_is_no_workload_that_was_killed() {
        for signal in [libc::SIGSYS, libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS] {
            assert!(matches!(lost(signal).unwrap().exit, Exit::Failed(_)), "{signal}");
        }
        assert!(lost(libc::SIGKILL).is_none() && lost(libc::SIGTERM).is_none());
    }
}
