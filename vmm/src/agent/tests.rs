use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// An agent, and the guest's end of its connection.
fn pair() -> (Agent, UnixStream) {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    (Agent::new(host).unwrap(), guest)
}

fn say(guest: &mut UnixStream, message: &ToHost) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    guest.set_nonblocking(false).unwrap();
    guest.write_all(&bytes).unwrap();
}

/// All that the agent makes of what was said so far.
fn events(agent: &mut Agent) -> Result<Vec<Event>, Error> {
    let mut all = Vec::new();
    let now = Timespec::default();
    while poll(&mut [PollFd::new(agent, PollFlags::IN)], Some(&now)).unwrap() > 0 {
        agent.receive()?;
        while let Some(event) = agent.next_event()? {
            all.push(event);
        }
    }
    Ok(all)
}

/// All that was said to the guest so far.
fn heard(guest: &mut UnixStream) -> Vec<ToGuest> {
    guest.set_nonblocking(true).unwrap();
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    loop {
        match guest.read(decoder.room()) {
            Ok(count) if count > 0 => decoder.filled(count),
            _ => return all,
        }
        while let Some(message) = decoder.next().unwrap() {
            all.push(message);
        }
    }
}

fn started() -> (Agent, UnixStream, u32) {
    let (mut agent, mut guest) = pair();
    let id = agent.exec(Process::default()).unwrap();
    say(&mut guest, &ToHost::Started { id });
    assert_eq!(events(&mut agent).unwrap(), [Event::Started { id }]);
    heard(&mut guest);
    (agent, guest, id)
}

fn output(id: u32, length: usize) -> ToHost {
    ToHost::Output { id, output: Output::Stdout, data: vec![b'x'; length] }
}

#[test]
fn a_run_from_boot_to_exit() {
    let (mut agent, mut guest) = pair();
    agent.boot(Boot::default()).unwrap();
    let id = agent.exec(Process::default()).unwrap();
    let process = Process::default();
    assert_eq!(heard(&mut guest), [ToGuest::Boot(Boot::default()), ToGuest::Exec { id, process }]);
    for message in [
        ToHost::Ready,
        ToHost::Started { id },
        ToHost::Output { id, output: Output::Stderr, data: b"hi".to_vec() },
        ToHost::Exited { id, status: Status::Code(3), oom: false },
    ] {
        say(&mut guest, &message);
    }
    drop(guest);
    let expected = [
        Event::Ready,
        Event::Started { id },
        Event::Output { id, output: Output::Stderr, data: b"hi".to_vec() },
        Event::Exited { id, status: Status::Code(3), oom: false },
    ];
    for event in expected {
        agent.receive().unwrap();
        assert_eq!(agent.next_event().unwrap(), Some(event));
    }
    agent.receive().unwrap();
    assert!(matches!(agent.next_event(), Err(Error::Closed)));
}

#[test]
fn output_beyond_the_window_is_refused_until_some_is_consumed() {
    let (mut agent, mut guest, id) = started();
    let window = usize::try_from(WINDOW).unwrap();
    for _ in 0..window / DATA_MAX {
        say(&mut guest, &output(id, DATA_MAX));
        assert_eq!(events(&mut agent).unwrap().len(), 1);
    }
    // More than came is never given back.
    agent.consumed(id, Output::Stdout, usize::MAX).unwrap();
    let credit = ToGuest::Credit { id, output: Output::Stdout, bytes: WINDOW };
    assert_eq!(heard(&mut guest), [credit]);
    for _ in 0..window / DATA_MAX {
        say(&mut guest, &output(id, DATA_MAX));
        assert_eq!(events(&mut agent).unwrap().len(), 1);
    }
    say(&mut guest, &output(id, 1));
    assert!(matches!(events(&mut agent), Err(Error::Protocol(_))));
}

#[test]
fn small_outputs_are_credited_before_the_guest_runs_dry() {
    let (mut agent, mut guest, id) = started();
    let mut allowed = WINDOW;
    for _ in 0..2000 {
        let length = allowed.min(997);
        assert!(length > 0, "everything is consumed, and still nothing may be sent");
        allowed -= length;
        say(&mut guest, &output(id, usize::try_from(length).unwrap()));
        for event in events(&mut agent).unwrap() {
            let Event::Output { output, data, .. } = event else { panic!("{event:?}") };
            agent.consumed(id, output, data.len()).unwrap();
        }
        for message in heard(&mut guest) {
            let ToGuest::Credit { bytes, .. } = message else { panic!("{message:?}") };
            allowed += bytes;
        }
    }
}

#[test]
fn input_stops_at_the_window_and_goes_on_with_credit() {
    let (mut agent, mut guest, id) = started();
    let data = vec![1; 1 << 20];
    let window = usize::try_from(WINDOW).unwrap();
    let mut taken = 0;
    for _ in 0..100 {
        taken += agent.stdin(id, &data).unwrap();
        agent.flush().unwrap();
    }
    assert_eq!(taken, window);
    assert_eq!(agent.stdin_room(id), 0);
    let received: usize = heard(&mut guest)
        .iter()
        .map(|message| match message {
            ToGuest::Stdin { data, .. } => data.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(received, window);
    say(&mut guest, &ToHost::Credit { id, bytes: 5 });
    assert_eq!(events(&mut agent).unwrap(), [Event::StdinRoom { id }]);
    assert_eq!(agent.stdin(id, &data).unwrap(), 5);
}

#[test]
fn what_is_for_a_process_that_is_gone_is_dropped() {
    let (mut agent, mut guest, id) = started();
    say(&mut guest, &ToHost::Exited { id, status: Status::Code(0), oom: false });
    events(&mut agent).unwrap();
    assert_eq!(agent.stdin(id, b"late").unwrap(), 4);
    agent.stdin_end(id).unwrap();
    agent.signal(id, 15).unwrap();
    agent.resize(id, Terminal::default()).unwrap();
    agent.consumed(id, Output::Stdout, 7).unwrap();
    assert_eq!(heard(&mut guest), []);
}

#[test]
fn messages_that_must_not_come_are_refused() {
    let exited = |id| ToHost::Exited { id, status: Status::Code(0), oom: false };
    let bad = [
        ToHost::Ready,
        ToHost::Failed { what: String::new() },
        ToHost::Started { id: 1 },
        ToHost::Started { id: 2 },
        ToHost::NotStarted { id: 1, reason: Reason::NotFound },
        output(1, 0),
        output(2, 1),
        ToHost::Credit { id: 1, bytes: 1 },
        ToHost::Credit { id: 1, bytes: u32::MAX },
        exited(2),
    ];
    for message in bad {
        let (mut agent, mut guest, id) = started();
        assert_eq!(id, 1);
        say(&mut guest, &message);
        assert!(matches!(events(&mut agent), Err(Error::Protocol(_))), "{message:?}");
    }
    // Nothing comes of a process before it is started, nor after it has ended.
    let (mut agent, mut guest) = pair();
    let id = agent.exec(Process::default()).unwrap();
    say(&mut guest, &output(id, 1));
    assert!(matches!(events(&mut agent), Err(Error::Protocol(_))));
    let (mut agent, mut guest, id) = started();
    say(&mut guest, &exited(id));
    say(&mut guest, &exited(id));
    assert!(matches!(events(&mut agent), Err(Error::Protocol(_))));
}

#[test]
fn a_sentence_has_neither_control_characters_nor_endless_length() {
    let (mut agent, mut guest) = pair();
    agent.boot(Boot::default()).unwrap();
    let what = format!("\x1b[2J{}", "x".repeat(DATA_MAX));
    say(&mut guest, &ToHost::Failed { what });
    let event = events(&mut agent).unwrap().remove(0);
    let Event::Failed(what) = event else { panic!("{event:?}") };
    assert!(what.starts_with("?[2J"));
    assert_eq!(what.len(), SENTENCE_MAX);
}

#[test]
fn a_guest_that_takes_nothing_cannot_grow_the_queue() {
    let (mut agent, mut guest, id) = started();
    let mut stalled = false;
    for _ in 0..1_000_000 {
        match agent.signal(id, 1) {
            Ok(()) => assert!(agent.queue.len() <= QUEUE_MAX + TO_GUEST_MAX),
            Err(Error::Stalled) => {
                stalled = true;
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(stalled);
    assert_eq!(agent.stdin_room(id), 0);
    // Nor by credits: without them, its output ends at the window.
    let queued = agent.queue.len();
    for _ in 0..WINDOW / u32::try_from(DATA_MAX).unwrap() {
        say(&mut guest, &output(id, DATA_MAX));
        events(&mut agent).unwrap();
        agent.consumed(id, Output::Stdout, DATA_MAX).unwrap();
    }
    assert_eq!(agent.queue.len(), queued);
    say(&mut guest, &output(id, 1));
    assert!(matches!(events(&mut agent), Err(Error::Protocol(_))));
}

#[test]
fn a_guest_that_never_takes_all_cannot_grow_the_queue() {
    let (mut agent, mut guest, id) = started();
    let mut taken = vec![0; DATA_MAX];
    for _ in 0..16 * QUEUE_MAX / DATA_MAX {
        while agent.queued() < DATA_MAX {
            agent.signal(id, 1).unwrap();
        }
        assert_eq!(agent.stdin(id, &vec![1; DATA_MAX]).unwrap(), DATA_MAX);
        let mut left = taken.len();
        while left > 0 {
            left -= guest.read(&mut taken[..left]).unwrap();
            agent.flush().unwrap();
        }
        say(&mut guest, &ToHost::Credit { id, bytes: u32::try_from(DATA_MAX).unwrap() });
        events(&mut agent).unwrap();
        assert!(agent.queue.len() <= 4 * QUEUE_MAX, "{}", agent.queue.len());
    }
}

#[test]
fn too_many_processes_and_too_long_arguments_are_refused_and_harm_nothing() {
    let (mut agent, mut guest) = pair();
    let long = Process { argv: vec![vec![b'x'; TO_GUEST_MAX]], ..Process::default() };
    assert!(matches!(agent.exec(long), Err(Error::TooLong(_))));
    assert_eq!(heard(&mut guest), []);
    for _ in 0..PROCESSES_MAX {
        agent.exec(Process::default()).unwrap();
    }
    assert!(matches!(agent.exec(Process::default()), Err(Error::TooManyProcesses)));
    say(&mut guest, &ToHost::NotStarted { id: 1, reason: Reason::NotFound });
    events(&mut agent).unwrap();
    agent.exec(Process::default()).unwrap();
}

#[test]
fn random_messages_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..500 {
        let (mut agent, mut guest, id) = started();
        for _ in 0..20 {
            let length = random() % 9;
            let mut bytes = u32::try_from(length).unwrap().to_le_bytes().to_vec();
            // Known kinds of messages and known processes more often than not.
            bytes.extend_from_slice(&[u8::try_from(random() % 8).unwrap(), id.to_le_bytes()[0]]);
            bytes.extend_from_slice(&random().to_le_bytes()[..7]);
            bytes.truncate(4 + usize::try_from(length).unwrap());
            guest.write_all(&bytes).unwrap();
        }
        drop(guest);
        for _ in 0..100 {
            if agent.receive().is_err() || agent.next_event().is_err() {
                break;
            }
        }
    }
}
