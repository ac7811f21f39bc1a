//! What the guest's init says: any bytes and any messages, while the host starts processes and gives
//! them input.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sbx_proto::frame::encode;
use sbx_proto::{Boot, Output, Process, Reason, Status, Terminal, ToHost, WINDOW};
use sbx_vmm::agent::{Agent, Error, Event};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

#[derive(Arbitrary, Debug)]
enum Action {
    /// The guest sends bytes.
    Bytes(Vec<u8>),
    Ready,
    Failed(String),
    Started(u8),
    NotStarted(u8, i32),
    Output(u8, bool, u16),
    Credit(u8, u32),
    Exited(u8, u8, bool),
    /// The guest takes this much of what was sent to it.
    Take(u16),
    /// The host starts a process, gives it input, and so on.
    Exec,
    Stdin(u8, u16),
    StdinEnd(u8),
    Resize(u8),
    Signal(u8, u8),
    Consumed(u8, bool, u32),
}

fn output(second: bool) -> Output {
    if second { Output::Stderr } else { Output::Stdout }
}

fn message(action: &Action) -> Option<ToHost> {
    let id = |id: &u8| u32::from(*id);
    Some(match action {
        Action::Ready => ToHost::Ready,
        Action::Failed(what) => ToHost::Failed { what: what.clone() },
        Action::Started(n) => ToHost::Started { id: id(n) },
        Action::NotStarted(n, e) => ToHost::NotStarted { id: id(n), reason: Reason::Other(*e) },
        Action::Output(n, second, len) => {
            ToHost::Output { id: id(n), output: output(*second), data: vec![7; (*len).into()] }
        }
        Action::Credit(n, bytes) => ToHost::Credit { id: id(n), bytes: *bytes },
        Action::Exited(n, code, oom) => {
            ToHost::Exited { id: id(n), status: Status::Code(*code), oom: *oom }
        }
        _ => return None,
    })
}

/// Does it; false once the guest can say no more.
fn act(agent: &mut Agent, guest: &mut UnixStream, action: &Action) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    match action {
        Action::Bytes(raw) => bytes.clone_from(raw),
        Action::Take(len) => drop(guest.read(&mut vec![0; (*len).into()])),
        Action::Exec => drop(agent.exec(Process { stdin: true, ..Process::default() })),
        Action::Stdin(id, len) => {
            let room = agent.stdin_room((*id).into());
            let taken = agent.stdin((*id).into(), &vec![1; (*len).into()])?;
            assert_eq!(taken, room.min((*len).into()));
        }
        Action::StdinEnd(id) => agent.stdin_end((*id).into())?,
        Action::Resize(id) => agent.resize((*id).into(), Terminal::default())?,
        Action::Signal(id, number) => agent.signal((*id).into(), *number)?,
        Action::Consumed(id, second, bytes) => {
            agent.consumed((*id).into(), output(*second), *bytes as usize)?;
        }
        guests => {
            let Some(message) = message(guests) else { return Ok(true) };
            let _ = encode(&message, &mut bytes);
        }
    }
    // What does not fit is lost, and what follows makes no sense: that is a guest's right, too.
    Ok(bytes.is_empty() || guest.write(&bytes).is_ok())
}

fn talk(agent: &mut Agent, guest: &mut UnixStream, actions: &[Action]) -> Result<(), Error> {
    agent.boot(Boot::default())?;
    agent.exec(Process::default())?;
    for action in actions {
        if !act(agent, guest, action)? {
            return Ok(());
        }
        agent.flush()?;
        agent.receive()?;
        while let Some(event) = agent.next_event()? {
            match event {
                Event::Output { data, .. } => {
                    assert!(!data.is_empty() && data.len() <= WINDOW as usize);
                }
                Event::Failed(what) => assert!(!what.contains(char::is_control)),
                _ => {}
            }
        }
    }
    Ok(())
}

fuzz_target!(|actions: Vec<Action>| {
    let (near, mut guest) = UnixStream::pair().expect("a pair");
    guest.set_nonblocking(true).expect("the guest's end");
    let mut agent = Agent::new(near).expect("an agent");
    let _ = talk(&mut agent, &mut guest, &actions);
});
