use super::*;
use crate::fake::{Call, FakeBackend, Step};
use crate::{Limits, Signal};

fn spec(timeout: Option<Duration>) -> Spec {
    Spec { limits: Limits { timeout, ..Limits::default() }, ..Spec::default() }
}

fn created(steps: impl IntoIterator<Item = Step>) -> (Lifecycle, FakeBackend) {
    let backend = FakeBackend::new(steps);
    let sandbox = Lifecycle::create(&backend, &spec(Some(Duration::from_secs(5)))).unwrap();
    (sandbox, backend)
}

#[test]
fn a_workload_that_ends_by_itself() {
    let (mut sandbox, backend) = created([Step::End(Exit::Code(3))]);
    sandbox.start().unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(3));
    assert_eq!(sandbox.state(), &State::Stopped(Exit::Code(3)));
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(3), "waiting again answers the same");
    assert_eq!(backend.calls(), [Call::Start, Call::Wait]);
}

#[test]
fn the_wall_clock_kills_and_says_so() {
    let (mut sandbox, backend) = created([Step::TimeOut, Step::End(Exit::Signal(9))]);
    sandbox.start().unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Timeout(Duration::from_secs(5)));
    assert_eq!(backend.calls(), [Call::Start, Call::Wait, Call::Signal(Signal::KILL), Call::Wait]);
}

/// The same for who does not wait.
#[test]
fn one_who_only_looks_finds_the_end_and_keeps_the_clock() {
    let backend = FakeBackend::new([
        Step::TimeOut,
        Step::Interrupt(Signal(15)),
        Step::TimeOut,
        Step::End(Exit::Signal(9)),
    ]);
    let mut sandbox = Lifecycle::create(&backend, &spec(Some(Duration::ZERO))).unwrap();
    sandbox.start().unwrap();
    assert_eq!(sandbox.look().unwrap(), None);
    assert_eq!(sandbox.deadline(), None, "it is up, and the kill was sent");
    assert_eq!(sandbox.look().unwrap(), None);
    assert_eq!(sandbox.look().unwrap(), Some(Exit::Timeout(Duration::ZERO)));
    assert_eq!(sandbox.look().unwrap(), Some(Exit::Timeout(Duration::ZERO)));
    assert!(backend.calls().contains(&Call::Signal(Signal::KILL)));
    assert!(backend.calls().contains(&Call::Signal(Signal(15))));
}

#[test]
fn an_end_that_beats_the_kill_is_kept() {
    let (mut sandbox, _) = created([Step::TimeOut, Step::End(Exit::Code(0))]);
    sandbox.start().unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Code(0));
}

#[test]
fn a_kill_without_a_timeout_stays_a_kill() {
    let (mut sandbox, _) = created([Step::End(Exit::Signal(9))]);
    sandbox.start().unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Signal(9));
}

#[test]
fn signals_are_passed_on() {
    let (mut sandbox, backend) =
        created([Step::Interrupt(Signal(15)), Step::End(Exit::Signal(15))]);
    sandbox.start().unwrap();
    assert_eq!(sandbox.wait().unwrap(), Exit::Signal(15));
    assert!(backend.calls().contains(&Call::Signal(Signal(15))));
}

#[test]
fn pause_and_resume() {
    let (mut sandbox, backend) = created([]);
    sandbox.start().unwrap();
    sandbox.pause().unwrap();
    assert_eq!(sandbox.state(), &State::Paused);
    sandbox.resume().unwrap();
    assert_eq!(sandbox.state(), &State::Running);
    assert_eq!(backend.calls(), [Call::Start, Call::Pause, Call::Resume]);
}

#[test]
fn a_kill_before_the_start_stops_for_good() {
    let (mut sandbox, backend) = created([]);
    sandbox.kill(Signal(15)).unwrap();
    assert_eq!(sandbox.state(), &State::Stopped(Exit::Signal(15)));
    assert!(sandbox.start().is_err());
    assert!(backend.calls().is_empty(), "the backend was not bothered");
}

/// Every verb in every state: what the drawing does not show is refused and changes nothing.
#[test]
fn moves_that_are_not_drawn_are_refused() {
    type Verb = fn(&mut Lifecycle) -> Result<()>;
    let verbs: [(&str, Verb); 5] = [
        ("start", Lifecycle::start),
        ("pause", Lifecycle::pause),
        ("resume", Lifecycle::resume),
        ("kill", |s| s.kill(Signal(15))),
        ("wait", |s| s.wait().map(|_| ())),
    ];
    let reach: [(State, &[Verb], &[&str]); 4] = [
        (State::Created, &[], &["start", "kill"]),
        (State::Running, &[Lifecycle::start], &["pause", "kill", "wait"]),
        (State::Paused, &[Lifecycle::start, Lifecycle::pause], &["resume", "kill", "wait"]),
        (State::Stopped(Exit::Code(0)), &[Lifecycle::start, |s| s.wait().map(|_| ())], &["wait"]),
    ];
    for (state, path, allowed) in reach {
        for (name, verb) in verbs {
            let (mut sandbox, _) = created([Step::End(Exit::Code(0))]);
            path.iter().for_each(|step| step(&mut sandbox).unwrap());
            assert_eq!(sandbox.state(), &state);
            let answer = verb(&mut sandbox);
            assert_eq!(answer.is_ok(), allowed.contains(&name), "{name} when {state}");
            if let Err(error) = answer {
                assert!(matches!(error, Error::State { .. }), "{error}");
                assert_eq!(sandbox.state(), &state, "a refused move changes nothing");
            }
        }
    }
}

#[test]
fn a_start_that_fails_leaves_it_created() {
    let backend = FakeBackend::new([]).failing_to_start();
    let mut sandbox = Lifecycle::create(&backend, &spec(None)).unwrap();
    assert!(sandbox.start().is_err());
    assert_eq!(sandbox.state(), &State::Created);
}
