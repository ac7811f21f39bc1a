//! The cache of compiled code: it makes the second run fast and never makes one wrong. Code that is
//! not exactly what sbx put there is not run, and sbx works as well without any cache.

use crate::bad_files::set_mode;
use crate::support::{Outcome, Sbx, component, guest, is_root, skipped, tempdir};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A workload and a cache of their own.
struct Own {
    _dir: tempfile::TempDir,
    cache: PathBuf,
    workload: PathBuf,
}

impl Own {
    fn new(name: &str) -> Self {
        let dir = tempdir();
        let (cache, workload) = (dir.path().join("cache"), dir.path().join("app.wasm"));
        fs::create_dir(&cache).unwrap();
        fs::copy(guest(name), &workload).unwrap();
        Self { _dir: dir, cache, workload }
    }

    fn run(&self, workload: &Path) -> Sbx {
        Sbx::run(workload).cache(&self.cache)
    }

    /// Whether a run finds its code in the cache.
    #[track_caller]
    fn hits(&self) -> bool {
        let end = self.run(&self.workload).flags("--explain").end().status(0).silent();
        end.out().contains("code        in the cache\n")
    }

    fn files(&self, part: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.cache.join("sbx").join(part)).unwrap();
        all.map(|e| e.unwrap().path()).collect()
    }

    fn code(&self) -> PathBuf {
        let code = self.files("code");
        assert_eq!(code.len(), 1, "{code:?}");
        code[0].clone()
    }

    /// Damages the code, and checks that it is not run but made anew.
    #[track_caller]
    fn survives(name: &str, damage: impl FnOnce(&Path)) {
        let own = Self::new(name);
        assert!(!own.hits());
        assert!(own.hits(), "the second run compiles again");
        damage(&own.code());
        own.run(&own.workload).args(["7"]).end().status(7).prints("").silent();
        assert!(own.hits(), "it was not made anew");
        own.run(&own.workload).args(["9"]).end().status(9).silent();
    }
}

#[test]
fn code_cut_short() {
    for length in [0, 10, 4096] {
        Own::survives("exit", |code| {
            fs::File::options().write(true).open(code).unwrap().set_len(length).unwrap();
        });
    }
}

#[test]
fn random_bytes() {
    Own::survives("exit", |code| fs::write(code, [0xa5; 50_000]).unwrap());
}

#[test]
fn one_bit_in_the_middle() {
    Own::survives("exit", |code| {
        let mut bytes = fs::read(code).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // In place: the inode and the size stay.
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(code).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    });
}

/// Code of another program, in the right place and with the right times.
#[test]
fn code_of_another_program() {
    let other = Own::new("args");
    assert!(!other.hits());
    let foreign = other.code();
    Own::survives("exit", |code| {
        let copied = Command::new("cp").args(["-p"]).args([&foreign, code]).status().unwrap();
        assert!(copied.success());
    });
    Own::survives("exit", |code| {
        fs::copy(&foreign, code.with_extension("new")).unwrap();
        fs::rename(code.with_extension("new"), code).unwrap();
    });
}

/// A copy of the right code: sbx cannot know that it is, and does not run it.
#[test]
fn a_copy_with_its_times() {
    Own::survives("exit", |code| {
        let (copy, before) = (code.with_extension("copy"), fs::metadata(code).unwrap());
        assert!(Command::new("cp").arg("-p").args([code, &copy]).status().unwrap().success());
        fs::rename(&copy, code).unwrap();
        assert_eq!(fs::metadata(code).unwrap().mtime_nsec(), before.mtime_nsec());
    });
}

#[test]
fn a_link_in_place_of_code() {
    Own::survives("exit", |code| {
        fs::rename(code, code.with_extension("moved")).unwrap();
        symlink(code.with_extension("moved"), code).unwrap();
    });
    Own::survives("exit", |code| {
        fs::remove_file(code).unwrap();
        symlink("/bin/true", code).unwrap();
    });
}

#[test]
fn code_that_others_may_read_or_write() {
    Own::survives("exit", |code| set_mode(code, 0o666));
    Own::survives("exit", |code| set_mode(code, 0o640));
}

#[test]
fn a_native_library_in_place_of_code() {
    Own::survives("exit", |code| fs::copy("/bin/true", code).map(drop).unwrap());
}

/// Records are text; whatever stands in one, it leads to no other file than sbx's own code.
#[test]
fn records_that_lie() {
    for change in ["../../evil", "/etc/passwd", "..", "nothing", ""] {
        let own = Own::new("exit");
        assert!(!own.hits());
        let code = own.code();
        fs::copy(&code, own.cache.join("evil")).unwrap();
        let object = code.file_name().unwrap().to_str().unwrap();
        for record in own.files("index") {
            let text = fs::read_to_string(&record).unwrap();
            assert!(text.contains(object), "{text}");
            fs::write(&record, text.replace(object, change)).unwrap();
        }
        own.run(&own.workload).args(["7"]).end().status(7).silent();
        assert!(own.hits(), "{change:?}");
    }
    for text in ["", "\0\0\0", "1 2 3", "\u{fe}".repeat(5000).as_str()] {
        let own = Own::new("exit");
        assert!(!own.hits());
        own.files("index").iter().for_each(|record| fs::write(record, text).unwrap());
        own.run(&own.workload).args(["7"]).end().status(7).silent();
    }
}

#[test]
fn a_module_is_no_component() {
    let own = Own::new("exit");
    assert!(!own.hits());
    for record in own.files("index") {
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace("module", "component")).unwrap();
    }
    own.run(&own.workload).args(["7"]).end().status(7).silent();
}

#[test]
fn many_at_once_on_a_cold_cache() {
    for workload in [guest("args"), component("args")] {
        let own = Own::new("exit");
        let runs: Vec<_> = (0..8).map(|_| own.run(&workload).args(["x"]).start()).collect();
        for run in runs {
            run.end().status(0).prints("args.wasm\nx\n").silent();
        }
        // One has compiled for all, and no draft is left.
        own.code();
        assert!(own.files("index").iter().all(|f| f.extension().is_none()));
    }
}

#[test]
fn a_cache_that_is_open_to_others_is_not_used() {
    for mode in [0o755, 0o777, 0o710] {
        let own = Own::new("exit");
        assert!(!own.hits());
        set_mode(&own.cache.join("sbx"), mode);
        assert!(!own.hits(), "mode {mode:o}");
        own.run(&own.workload).args(["7"]).end().status(7).silent();
        let end = Sbx::new("cache ls").cache(&own.cache).end().status(125).prints("");
        end.says_only(&["is open to other users", "chmod 700"]);
        set_mode(&own.cache.join("sbx"), 0o700);
        assert!(own.hits());
    }
}

#[test]
fn a_cache_of_another_user_is_not_used() {
    if !is_root() {
        return skipped("only root can give files away");
    }
    let own = Own::new("exit");
    assert!(!own.hits());
    std::os::unix::fs::chown(own.cache.join("sbx"), Some(65534), None).unwrap();
    assert!(!own.hits());
    std::os::unix::fs::chown(own.cache.join("sbx"), Some(0), None).unwrap();
    std::os::unix::fs::chown(own.code(), Some(65534), None).unwrap();
    assert!(!own.hits());
}

#[test]
fn a_linked_cache_is_not_used() {
    let (own, other) = (Own::new("exit"), tempdir());
    set_mode(other.path(), 0o700);
    symlink(other.path(), own.cache.join("sbx")).unwrap();
    assert!(!own.hits() && !own.hits());
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn no_place_for_a_cache() {
    let run = |change: fn(Sbx) -> Sbx| -> Outcome {
        change(Sbx::run(guest("exit")).args(["7"])).end().status(7)
    };
    run(|sbx| sbx.without_env("XDG_CACHE_HOME")).silent();
    run(|sbx| sbx.without_env("XDG_CACHE_HOME").env("HOME", "")).silent();
    run(|sbx| sbx.env("XDG_CACHE_HOME", "/proc")).silent();
    run(|sbx| sbx.env("XDG_CACHE_HOME", "/dev/null")).silent();
    run(|sbx| sbx.env("XDG_CACHE_HOME", "relative/path")).silent();
    let end = Sbx::new("cache ls").without_env("XDG_CACHE_HOME").end().status(125);
    end.says_only(&["HOME is not set"]);
    let end = Sbx::new("compile").flag("--", guest("exit")).without_env("XDG_CACHE_HOME").end();
    end.status(125).says_only(&["HOME is not set"]);
}

#[test]
fn a_cache_that_cannot_be_written_to() {
    if !is_root() {
        return skipped("only root can become another user");
    }
    let own = Own::new("exit");
    set_mode(own.workload.parent().unwrap(), 0o755);
    set_mode(&own.workload, 0o644);
    set_mode(&own.cache, 0o555);
    let run = || own.run(&own.workload).user(65534).args(["7"]).end().status(7).silent();
    run();
    // Its own, but full or read-only.
    fs::create_dir(own.cache.join("sbx")).unwrap();
    set_mode(&own.cache.join("sbx"), 0o500);
    std::os::unix::fs::chown(own.cache.join("sbx"), Some(65534), Some(65534)).unwrap();
    run();
}

/// However soon it is changed, what runs is what is in the file.
#[test]
fn a_workload_changed_right_after_a_run() {
    let own = Own::new("exit");
    let module = |code: u32| {
        format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                 (func (export "_start") (call $exit (i32.const {code}))))"#
        )
    };
    for code in 10..30 {
        fs::write(&own.workload, module(code)).unwrap();
        own.run(&own.workload).end().status(code as i32).silent();
    }
    // The same size, and times set back to what they were.
    let before = fs::metadata(&own.workload).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2200));
    own.run(&own.workload).end().status(29);
    fs::write(&own.workload, module(31)).unwrap();
    fs::File::options().write(true).open(&own.workload).unwrap().set_modified(before).unwrap();
    own.run(&own.workload).end().status(31).silent();
}

#[test]
fn ls_and_prune() {
    let own = Own::new("exit");
    let cache = |words: &str| Sbx::new("cache").flags(words).cache(&own.cache).end().status(0);
    assert_eq!(cache("ls").silent_out().lines().count(), 1, "a head and nothing else");
    for workload in [guest("exit"), component("exit")] {
        let end = Sbx::new("compile").flag("--", &workload).cache(&own.cache).end().status(0);
        assert_eq!(end.silent_out(), format!("{}: compiled just now\n", workload.display()));
        own.run(&workload).args(["0"]).end().status(0).silent();
    }
    assert_eq!(cache("ls").silent_out().lines().count(), 3);
    let list: serde_json::Value =
        serde_json::from_slice(&cache("ls --format json").stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(list[0]["size"].as_u64().unwrap() > 1000, "{list}");
    assert_eq!(cache("prune").silent_out(), "removed 0 files, 0 B\n");
    assert_eq!(own.files("code").len(), 2);
    assert!(cache("prune --older-than 0s").silent_out().starts_with("removed 2 files, "));
    assert_eq!((own.files("code").len(), own.files("index").len()), (0, 0));
    own.run(&guest("exit")).args(["3"]).end().status(3).silent();
}

#[test]
fn compile_makes_the_first_run_a_hit() {
    let own = Own::new("exit");
    let compile = |flags: &str| {
        let sbx = Sbx::new("compile").flags(flags).flag("--", &own.workload).cache(&own.cache);
        sbx.end().status(0).out()
    };
    assert!(compile("").ends_with("app.wasm: compiled just now\n"));
    assert!(own.hits());
    assert!(compile("").ends_with("app.wasm: in the cache\n"));
    // Code that counts its instructions is other code.
    let fuel = || own.run(&own.workload).flags("--explain --fuel 1000").end().status(0).out();
    assert!(compile("--fuel").ends_with("compiled just now\n"));
    assert!(fuel().contains("in the cache"));
    let end = Sbx::new("compile /nowhere").cache(&own.cache).end().status(127);
    end.says_only(&["there is no workload at /nowhere"]);
    let end = Sbx::new("compile /bin/true").cache(&own.cache).end().status(126);
    end.says_only(&["is a native program"]);
}

trait SilentOut {
    fn silent_out(self) -> String;
}

impl SilentOut for Outcome {
    #[track_caller]
    fn silent_out(self) -> String {
        let out = self.out();
        drop(self.silent());
        out
    }
}
