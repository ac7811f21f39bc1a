use super::*;

/// An entry as a kernel sees it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::boot) struct Unpacked {
    pub(in crate::boot) name: String,
    pub(in crate::boot) mode: u32,
    pub(in crate::boot) device: (u32, u32),
    pub(in crate::boot) content: Vec<u8>,
}

fn entry(name: &str, mode: u32, content: &[u8]) -> Unpacked {
    Unpacked { name: name.to_owned(), mode, device: (0, 0), content: content.to_owned() }
}

/// Reads archives that follow one another, with zeros between them, as the kernel does, and panics where
/// it would give up.
pub(in crate::boot) fn unpack(bytes: &[u8]) -> Vec<Unpacked> {
    let mut entries = Vec::new();
    let mut at = 0;
    let mut inside = false;
    while at < bytes.len() {
        if !inside && bytes[at] == 0 {
            at += 1;
            continue;
        }
        assert_eq!(at % 4, 0, "a header at an odd place");
        assert_eq!(&bytes[at..at + 6], b"070701");
        let field = |n: usize| {
            let digits = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
            u32::from_str_radix(digits, 16).unwrap()
        };
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        let name = &bytes[at + 110..at + 110 + name_size];
        let (nul, name) = name.split_last().unwrap();
        assert_eq!(*nul, 0);
        let start = (at + 110 + name_size).next_multiple_of(4);
        let content = bytes[start..start + size].to_owned();
        let entry = Unpacked {
            name: String::from_utf8(name.to_owned()).unwrap(),
            mode: field(1),
            device: (field(9), field(10)),
            content,
        };
        assert_eq!((field(2), field(3), field(4)), (0, 0, 1), "root's, and no hard link");
        at = (start + size).next_multiple_of(4);
        inside = entry.name != "TRAILER!!!";
        if inside {
            entries.push(entry);
        }
    }
    assert!(!inside, "no trailer at the end");
    entries
}

#[test]
fn every_kind_comes_out_as_it_went_in() {
    let mut archive = Archive::new();
    archive.directory("/proc", 0o555).unwrap();
    archive.file("init", 0o755, b"#!").unwrap();
    archive.symlink("/bin", "usr/bin").unwrap();
    archive.device("/console", 0o600, 5, 1).unwrap();
    let console = Unpacked { device: (5, 1), ..entry("console", 0o020_600, b"") };
    assert_eq!(
        unpack(&archive.finish()),
        [
            entry("proc", 0o040_555, b""),
            entry("init", 0o100_755, b"#!"),
            entry("bin", 0o120_777, b"usr/bin"),
            console,
        ]
    );
}

#[test]
fn contents_and_names_of_every_length_keep_the_next_header_aligned() {
    let mut archive = Archive::new();
    let mut expected = Vec::new();
    for length in 0..9 {
        let name = "n".repeat(length + 1);
        let content = vec![b'0'; length];
        archive.file(&name, 0o644, &content).unwrap();
        expected.push(entry(&name, 0o100_644, &content));
    }
    let bytes = archive.finish();
    assert_eq!(bytes.len() % ALIGNMENT, 0);
    assert_eq!(unpack(&bytes), expected);
}

#[test]
fn parents_are_added_once_and_before_what_is_in_them() {
    let mut archive = Archive::new();
    archive.directory("a", 0o700).unwrap();
    archive.file("a/b/c/one", 0o644, b"").unwrap();
    archive.file("/a//b/./c/two", 0o644, b"").unwrap();
    archive.directory("a/b", 0o711).unwrap();
    assert_eq!(
        unpack(&archive.finish()),
        [
            entry("a", 0o040_700, b""),
            entry("a/b", 0o040_755, b""),
            entry("a/b/c", 0o040_755, b""),
            entry("a/b/c/one", 0o100_644, b""),
            entry("a/b/c/two", 0o100_644, b""),
            entry("a/b", 0o040_711, b""),
        ]
    );
}

#[test]
fn archives_that_follow_one_another_are_all_seen() {
    let mut first = Archive::new();
    first.file("one", 0o600, b"1").unwrap();
    let mut second = Archive::new();
    second.file("two", 0o600, b"22").unwrap();
    let bytes = [first.finish(), Archive::new().finish(), second.finish()].concat();
    assert_eq!(unpack(&bytes), [entry("one", 0o100_600, b"1"), entry("two", 0o100_600, b"22")]);
}

#[test]
fn a_mode_cannot_make_another_kind_of_file() {
    let mut archive = Archive::new();
    archive.file("f", 0o120_777 | 0o4000, b"x").unwrap();
    assert_eq!(unpack(&archive.finish()), [entry("f", 0o104_777, b"x")]);
}

#[test]
fn a_path_that_leads_elsewhere_or_ends_the_archive_is_refused() {
    for path in ["", "/", ".", "..", "../x", "a/../b", "a/..", "a\0b", "TRAILER!!!", "/TRAILER!!!"]
    {
        let mut archive = Archive::new();
        let refused = Err(Error::Path { path: path.to_owned() });
        assert_eq!(archive.file(path, 0o644, b""), refused);
        assert_eq!(archive.directory(path, 0o755), refused);
        assert_eq!(archive.symlink(path, "x"), refused);
        assert_eq!(archive.device(path, 0o600, 1, 3), refused);
        assert_eq!(unpack(&archive.finish()), []);
    }
    let mut archive = Archive::new();
    for path in ["...", "..a", "dir/TRAILER!!!", "ä b"] {
        archive.file(path, 0o644, b"").unwrap();
    }
    assert_eq!(unpack(&archive.finish()).len(), 5);
}

#[test]
fn what_a_kernel_would_skip_is_refused() {
    let mut archive = Archive::new();
    let long = "x".repeat(4096);
    assert_eq!(archive.file(&long, 0o644, b""), Err(Error::PathLength { length: 4096 }));
    assert_eq!(archive.symlink("l", &long), Err(Error::PathLength { length: 4096 }));
    assert!(archive.symlink("l", "").is_err());
    assert!(archive.symlink("l", "a\0b").is_err());
    archive.symlink(&long[1..], &long[1..]).unwrap();
    assert_eq!(unpack(&archive.finish()), [entry(&long[1..], 0o120_777, &long.as_bytes()[1..])]);
}

#[test]
fn a_file_has_less_than_four_gigabytes() {
    assert_eq!(file_size("f", u32::MAX as usize), Ok(u32::MAX));
    let size = u32::MAX as usize + 1;
    assert_eq!(file_size("f", size), Err(Error::FileSize { path: "f".to_owned(), size }));
}
