use super::*;
use std::os::unix::fs::PermissionsExt;

const PLAIN: &str = "plain";
const KINDS: &[&str] = &["component", "module"];

struct Fixture {
    _dir: tempfile::TempDir,
    cache: Cache,
    key: Key,
}

impl Fixture {
    /// A cache in which `key` finds a piece of code.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("sbx")).unwrap();
        let key = Key::of_bytes(b"module", PLAIN);
        let fixture = Self { _dir: dir, cache, key };
        fixture.publish();
        fixture
    }

    fn publish(&self) {
        let draft = self.cache.draft(&self.key).unwrap();
        (&draft.file).write_all(b"machine code").unwrap();
        self.cache.publish(&self.key, "module", &draft).unwrap();
    }

    fn code(&self) -> PathBuf {
        self.cache.dir.join("code").join(self.key.name())
    }

    fn found(&self) -> bool {
        self.cache.find(&self.key, KINDS).is_some()
    }
}

#[test]
fn what_was_published_is_found() {
    let f = Fixture::new();
    let (kind, mut file) = f.cache.find(&f.key, KINDS).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!((kind, text.as_str()), ("module", "machine code"));
}

#[test]
fn an_alias_finds_the_same() {
    let f = Fixture::new();
    let alias = Key::of_bytes(b"another name", PLAIN);
    f.cache.alias(&alias, &f.key).unwrap();
    assert!(f.cache.find(&alias, KINDS).is_some());
}

#[test]
fn variants_do_not_share_code() {
    let f = Fixture::new();
    assert!(f.cache.find(&Key::of_bytes(b"module", "fuel"), KINDS).is_none());
}

/// Whatever is done to the file of code, it is no longer found; publishing anew mends it.
#[test]
fn code_that_was_touched_is_not_found() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("cut short", |p| File::options().write(true).open(p).unwrap().set_len(3).unwrap()),
        ("same length", |p| fs::write(p, b"MACHINE CODE").unwrap()),
        ("gone", |p| fs::remove_file(p).unwrap()),
        ("a directory", |p| {
            fs::remove_file(p).unwrap();
            fs::create_dir(p).unwrap();
        }),
        ("a link", |p| {
            fs::rename(p, p.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(p.with_extension("moved"), p).unwrap();
        }),
        ("open to others", |p| fs::set_permissions(p, PermissionsExt::from_mode(0o620)).unwrap()),
        ("copied, times kept", |p| {
            let times = fs::metadata(p).unwrap();
            let copy = p.with_extension("copy");
            fs::copy(p, &copy).unwrap();
            File::options()
                .write(true)
                .open(&copy)
                .unwrap()
                .set_times(fs::FileTimes::new().set_modified(times.modified().unwrap()))
                .unwrap();
            fs::rename(copy, p).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let f = Fixture::new();
        harm(&f.code());
        assert!(!f.found(), "{name}");
        if f.code().is_dir() {
            fs::remove_dir(f.code()).unwrap();
        }
        f.publish();
        assert!(f.found(), "{name}, published anew");
    }
}

#[test]
fn a_record_names_only_what_is_in_the_cache() {
    let f = Fixture::new();
    let record = f.cache.dir.join("index").join(f.key.name());
    let good = fs::read_to_string(&record).unwrap();
    let outside = f.cache.dir.join("outside");
    fs::write(&outside, b"machine code").unwrap();
    fs::set_permissions(&outside, PermissionsExt::from_mode(0o600)).unwrap();
    let identity = Identity::of(&fs::metadata(&outside).unwrap());
    for bad in [
        String::new(),
        "garbage".into(),
        good.replace(FORMAT, "0"),
        good.replace("module", "program"),
        format!("{FORMAT} module ../outside {identity}"),
        format!("{FORMAT} module {} {identity}", outside.display()),
        good.trim_end().rsplit_once(' ').unwrap().0.to_owned(),
    ] {
        fs::write(&record, &bad).unwrap();
        assert!(!f.found(), "{bad:?}");
    }
    fs::write(&record, &good).unwrap();
    assert!(f.found());
}

#[test]
fn a_cache_that_others_can_enter_is_not_used() {
    let f = Fixture::new();
    fs::set_permissions(&f.cache.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let error = Cache::at(f.cache.dir.clone()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn a_cache_of_which_part_is_gone_is_mended() {
    for part in ["index", "code", "lock"] {
        let f = Fixture::new();
        fs::remove_dir_all(f.cache.dir.join(part)).unwrap();
        drop(f.cache.lock(&f.key).unwrap());
        f.publish();
        assert!(f.found(), "without {part}");
    }
}

#[test]
fn a_file_that_has_just_changed_has_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("module");
    fs::write(&path, b"module").unwrap();
    assert_eq!(Key::of_file(&fs::metadata(&path).unwrap(), PLAIN), None);
}

#[test]
fn prune_removes_code_and_what_named_it() {
    let f = Fixture::new();
    assert_eq!(f.cache.prune(Duration::from_secs(3600)).unwrap(), (0, 0));
    assert!(f.found());
    assert_eq!(f.cache.prune(Duration::ZERO).unwrap(), (1, 12));
    assert_eq!(f.cache.entries().unwrap().len(), 0);
    assert_eq!(fs::read_dir(f.cache.dir.join("index")).unwrap().count(), 0);
}
