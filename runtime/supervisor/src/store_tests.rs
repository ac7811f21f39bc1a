//! Tests of the store: that a sandbox is there whole or not at all, and is found by what it is called.

use super::*;
use crate::record::Restart;
use sbx_core::Spec;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path().join("state")).unwrap();
    (dir, store)
}

fn config(name: &str) -> Config {
    Config {
        version: VERSION,
        id: String::new(),
        name: name.into(),
        labels: BTreeMap::new(),
        created: crate::Time::now(),
        kind: sbx_core::route::Kind::Wasm,
        accelerator: None,
        spec: Spec::default(),
        cwd: "/".into(),
        restart: Restart::No,
        remove: false,
        log_size: 1,
        compile_memory: 1,
        compile_time: Duration::ZERO,
    }
}

fn create(store: &Store, name: &str) -> Entry {
    store.create(&mut config(name)).unwrap().0
}

/// What is in a directory, in order.
fn names_in(dir: PathBuf) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[test]
fn what_is_made_is_found() {
    let (_dir, store) = store();
    let mut asked = config("one");
    let (entry, lock) = store.create(&mut asked).unwrap();
    assert_eq!((entry.id().len(), asked.id.as_str()), (64, entry.id()));
    assert_eq!(entry.config().unwrap(), asked);
    assert_eq!(entry.status().unwrap(), Status::created());
    for text in ["one", entry.id(), &entry.id()[..5]] {
        assert_eq!(store.find(text).unwrap().id(), entry.id());
    }
    for text in ["", "two", "on", ".", "../names", "ffffffffffffffff0"] {
        assert!(store.find(text).is_err(), "{text}");
    }
    assert!(entry.try_lock().unwrap().is_none(), "its maker holds it");
    drop(lock);
    assert!(entry.try_lock().unwrap().is_some());
    // A name is made up where none is given.
    let mut nameless = config("");
    store.create(&mut nameless).unwrap();
    assert!(names::is_valid(&nameless.name));
    assert_eq!(store.find(&nameless.name).unwrap().id(), nameless.id);
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn a_beginning_that_is_two_sandboxs_finds_none() {
    let (_dir, store) = store();
    // There are sixteen first digits.
    let ids: Vec<_> = (0..17).map(|_| create(&store, "").id().to_owned()).collect();
    let common = |digit: &char| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1;
    let digit = "0123456789abcdef".chars().find(common).unwrap();
    let error = store.find(&digit.to_string()).unwrap_err().to_string();
    assert!(error.contains("more than one sandbox"), "{error}");
    // A name comes before a beginning.
    let named = create(&store, &digit.to_string());
    assert_eq!(store.find(&digit.to_string()).unwrap().id(), named.id());
}

#[test]
fn a_name_is_given_once() {
    let (_dir, store) = store();
    let entry = create(&store, "one");
    let before = names_in(store.root.clone());
    assert!(store.create(&mut config("one")).is_err());
    assert!(store.create(&mut config("no/name")).is_err());
    assert_eq!(names_in(store.root.clone()), before);

    let other = create(&store, "two");
    assert!(store.rename(&entry, "two").is_err() && store.rename(&entry, "-").is_err());
    store.rename(&entry, "three").unwrap();
    assert!(store.find("one").is_err());
    assert_eq!(store.find("three").unwrap().config().unwrap().name, "three");
    store.rename(&other, "one").unwrap();
    assert_eq!(names_in(store.root.join("names")), ["one", "three"]);
}

/// A name whose new record could not be written is not taken.
#[test]
fn a_rename_that_fails_changes_nothing() {
    let (_dir, store) = store();
    let entry = create(&store, "one");
    // Where the draft is to be is a directory.
    fs::create_dir(entry.dir().join(".config.json")).unwrap();
    assert!(store.rename(&entry, "two").is_err());
    assert_eq!(names_in(store.root.join("names")), ["one"]);
    assert_eq!(store.find("one").unwrap().config().unwrap().name, "one");
}

#[test]
fn what_is_removed_is_gone() {
    let (_dir, store) = store();
    let (entry, lock) = store.create(&mut config("one")).unwrap();
    fs::create_dir(entry.dir().join("more")).unwrap();
    // A name that a rename has left when it was killed.
    symlink(entry.id(), store.root.join("names/old")).unwrap();
    let late = entry.open_lock().unwrap();
    store.remove(&entry, lock).unwrap();
    assert_eq!(names_in(store.root.clone()), ["events", "lock", "names"]);
    assert_eq!(names_in(store.root.join("names")), [""; 0]);
    // Who found it before finds out, even who had its lock open already.
    let gone = |error: Error| assert!(error.to_string().contains("has been removed"), "{error}");
    gone(entry.status().unwrap_err());
    gone(entry.config().unwrap_err());
    gone(entry.try_lock().unwrap_err());
    gone(entry.lock().unwrap_err());
    gone(store.rename(&entry, "two").unwrap_err());
    drop(late);
    assert!(store.find("one").is_err());
    create(&store, "one");
}

/// Links to what is not there are no names, and what makers and removers have left is swept up.
#[test]
fn leftovers_are_nothing() {
    let (_dir, store) = store();
    let root = store.root.clone();
    let ghost = "0".repeat(64);
    symlink(&ghost, root.join("names/stale")).unwrap();
    symlink("../../elsewhere", root.join("names/strange")).unwrap();
    for name in [".new-1", ".old-2"] {
        fs::create_dir_all(root.join(name).join("deep")).unwrap();
        fs::write(root.join(name).join("deep/file"), "").unwrap();
    }
    fs::create_dir(root.join("stranger")).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert!(store.find("stale").is_err() && store.find("strange").is_err());
    let entry = create(&store, "stale");
    assert_eq!(store.find("stale").unwrap().id(), entry.id());
    create(&store, "strange");
    let left = names_in(root).into_iter().filter(|name| name.len() != 64).collect::<Vec<_>>();
    assert_eq!(left, ["events", "lock", "names", "stranger"]);
}

/// A state that needs a supervisor is one only as long as somebody holds the lock.
#[test]
fn without_its_supervisor_it_is_dead() {
    let (_dir, store) = store();
    let (entry, lock) = store.create(&mut config("one")).unwrap();
    for state in [State::Running, State::Paused, State::Restarting] {
        let status = Status { state, supervisor: Some(1), process: Some(2), ..Status::created() };
        entry.write(&status).unwrap();
        assert_eq!(entry.status().unwrap(), status);
        assert!(entry.lock().unwrap().is_none(), "it is not waited for");
    }
    drop(lock);
    let status = entry.status().unwrap();
    let known = (status.state, status.supervisor, status.process);
    assert_eq!(known, (State::Dead, None, None));
    assert!(entry.lock().unwrap().is_some());
    entry.write(&Status { state: State::Exited, ..Status::created() }).unwrap();
    assert_eq!(entry.status().unwrap().state, State::Exited);
}

/// Who only begins or ends it is waited for.
#[test]
fn a_lock_that_is_let_go() {
    let (_dir, store) = store();
    let (entry, lock) = store.create(&mut config("one")).unwrap();
    let waits = std::thread::spawn({
        let entry = entry.clone();
        move || entry.lock().unwrap().is_some()
    });
    std::thread::sleep(Duration::from_millis(50));
    drop(lock);
    assert!(waits.join().unwrap());
}

#[test]
fn a_record_is_whole_and_known_or_told() {
    let (_dir, store) = store();
    let entry = create(&store, "one");
    let told = |text: &str| {
        fs::write(entry.dir().join("status.json"), text).unwrap();
        entry.status().unwrap_err().to_string()
    };
    for text in ["", "{", "7", "{}", r#"{"version":1}"#, r#"{"version":"1"}"#] {
        assert!(told(text).contains("is damaged"), "{text}");
    }
    assert!(told(r#"{"version":2,"state":"dreaming"}"#).contains("another version of sbx"));
    let good = serde_json::to_string(&Status::created()).unwrap();
    assert!(told(&good.replace('{', r#"{"more":1,"#)).contains("is damaged"));
    fs::write(entry.dir().join("status.json"), good).unwrap();
    assert_eq!(entry.status().unwrap(), Status::created());
    // One without end is not read to it.
    let endless = File::create(entry.dir().join("config.json")).unwrap();
    endless.set_len(1 << 40).unwrap();
    assert!(entry.config().unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn a_place_is_its_users_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("deep/state");
    let store = Store::at(place.clone()).unwrap();
    assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
    let entry = create(&store, "one");
    for path in [entry.dir().join("config.json"), entry.dir().join("lock")] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
    fs::set_permissions(&place, PermissionsExt::from_mode(0o750)).unwrap();
    let error = Store::at(place).unwrap_err().to_string();
    assert!(error.contains("not a directory of this user's alone"), "{error}");
}
