use super::*;
use std::fs;
use std::io::Write;
use tempfile::TempDir;

/// A module that is nothing but its description.
fn object(info: &[&str]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.modinfo\0.shstrtab\0";
    let info = info.iter().flat_map(|entry| [entry.as_bytes(), b"\0"].concat()).collect::<Vec<_>>();
    let names_at = 64 + info.len();
    let sections_at = names_at + NAMES.len();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]); // relocatable, x86-64, version 1
    for offset in [0, 0, sections_at as u64] {
        elf.extend(offset.to_le_bytes()); // entry, segments, sections
    }
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    elf.extend(&info);
    elf.extend(NAMES);
    for (name, kind, at, size) in
        [(0_u32, 0_u32, 0, 0), (1, 1, 64, info.len()), (10, 3, names_at, NAMES.len())]
    {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        for number in [0, 0, at as u64, size as u64, 0, 1, 0] {
            elf.extend(number.to_le_bytes()); // flags, address, place, links, alignment, entries
        }
    }
    elf
}

/// A directory of modules, each with what its description says.
fn tree(modules: &[(&str, &[&str])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, info) in modules {
        put(&dir, path, &object(info));
    }
    dir
}

fn put(dir: &TempDir, path: &str, content: &[u8]) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn names(needed: &Needed) -> Vec<&str> {
    needed.modules.iter().map(|module| module.name.as_str()).collect()
}

/// The names of what a directory that must do gives, and what is missing.
fn gathered(dir: &TempDir, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
    let needed = gather(dir.path(), wanted).unwrap();
    (names(&needed).into_iter().map(str::to_owned).collect(), needed.missing)
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const VIRTIO: &[(&str, &[&str])] = &[
    ("kernel/drivers/virtio/virtio.ko", &["license=GPL", "depends=virtio_ring"]),
    ("kernel/drivers/virtio/virtio_ring.ko", &["depends="]),
    ("kernel/drivers/block/virtio_blk.ko", &["depends=virtio,virtio_ring"]),
    ("kernel/drivers/char/hw_random/virtio-rng.ko", &["depends=virtio,virtio-ring"]),
];

#[test]
fn each_module_comes_once_and_after_what_it_depends_on() {
    let dir = tree(VIRTIO);
    let needed = gather(dir.path(), &["virtio_blk", "virtio-rng", "virtio_rng", "virtio"]).unwrap();
    assert_eq!(names(&needed), ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]);
    assert_eq!(needed.modules[1].content, object(VIRTIO[0].1));
    assert_eq!(needed.missing, [""; 0]);
}

#[test]
fn what_is_built_in_is_skipped_and_what_is_nowhere_is_told() {
    let dir = tree(&[("kernel/a.ko", &["depends=crc16"])]);
    put(&dir, "modules.builtin", b"kernel/lib/crc16.ko\nkernel/fs/ext4/ext4.ko\n");
    put(&dir, "modules.builtin.modinfo", b"ext4.license=GPL\0ext4.alias=fs-ext3\0");
    let (modules, missing) = gathered(&dir, &["ext4", "fs-ext3", "fs-xfs", "a", "virtio_blk"]);
    assert_eq!(modules, ["a"]);
    assert_eq!(missing, ["fs-xfs", "virtio_blk"]);
}

#[test]
fn files_are_those_that_depmod_listed_where_it_has_run() {
    let dir = tree(&[
        ("kernel/a.ko", &["version=old"]),
        ("updates/a.ko", &["version=new"]),
        ("kernel/unlisted.ko", &[]),
    ]);
    put(&dir, "modules.dep", b"updates/a.ko: kernel/b.ko\n../out.ko:\n/abs.ko:\nno colon\n");
    let needed = gather(dir.path(), &["a", "unlisted", "out", "abs"]).unwrap();
    assert_eq!(needed.modules[0].content, object(&["version=new"]));
    assert_eq!(needed.missing, ["unlisted", "out", "abs"]);
}

#[test]
fn what_should_come_before_comes_before_if_there_is_any() {
    let dir = tree(&[
        ("kernel/ext4.ko", &["softdep=pre: crc32c nothing post: late", "depends=mbcache"]),
        ("kernel/mbcache.ko", &[]),
        ("kernel/late.ko", &[]),
        ("kernel/crc32c_generic.ko", &[]),
        ("kernel/crc32c-intel.ko", &[]),
        ("kernel/libcrc32c.ko", &["softdep=pre: crypto-crc32c"]),
    ]);
    let expected = list(&["crc32c_generic", "mbcache", "ext4", "libcrc32c"]);
    assert_eq!(gathered(&dir, &["ext4", "libcrc32c"]).0, expected);

    // An alias that depmod listed: what runs on every processor is preferred.
    let aliases = b"alias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias fs-ext4 ext4\n";
    put(&dir, "modules.alias", aliases);
    assert_eq!(gathered(&dir, &["fs-ext4"]).0, expected[..3]);
    put(&dir, "modules.alias", b"alias crc32c gone\nalias crc32c crc32c_intel\n");
    fs::remove_file(dir.path().join("kernel/crc32c_generic.ko")).unwrap();
    assert_eq!(gathered(&dir, &["ext4"]).0, ["crc32c_intel", "mbcache", "ext4"]);

    // Built in under another name: nothing to load.
    put(&dir, "modules.builtin.modinfo", b"crc32c_generic.alias=crc32c\0");
    assert_eq!(gathered(&dir, &["ext4"]).0, ["mbcache", "ext4"]);
}

#[test]
fn modules_in_every_compression_come_out_alike() {
    let plain = object(&["depends="]);
    let dir = tempfile::tempdir().unwrap();
    put(&dir, "kernel/plain.ko", &plain);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    put(&dir, "kernel/by_gz.ko.gz", &gz.finish().unwrap());
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    xz.write_all(&plain).unwrap();
    put(&dir, "kernel/by_xz.ko.xz", &xz.finish().unwrap());
    let fastest = ruzstd::encoding::CompressionLevel::Fastest;
    put(&dir, "kernel/by_zst.ko.zst", &ruzstd::encoding::compress_to_vec(&plain[..], fastest));
    let needed = gather(dir.path(), &["plain", "by_gz", "by_xz", "by_zst"]).unwrap();
    assert_eq!(names(&needed), ["plain", "by_gz", "by_xz", "by_zst"]);
    assert!(needed.modules.iter().all(|module| module.content == plain));
}

#[test]
fn a_circle_is_named() {
    let dir = tree(&[
        ("kernel/start.ko", &["depends=a"]),
        ("kernel/a.ko", &["depends=b"]),
        ("kernel/b.ko", &["depends=a"]),
        ("kernel/self.ko", &["depends=self"]),
    ]);
    let circle = |wanted| match gather(dir.path(), &[wanted]) {
        Err(Error::Circular { names }) => names,
        other => panic!("{other:?}"),
    };
    assert_eq!(circle("start"), ["a", "b", "a"]);
    assert_eq!(circle("self"), ["self", "self"]);
}

#[test]
fn a_circle_of_wishes_is_none() {
    let dir = tree(&[("kernel/a.ko", &["softdep=pre: b"]), ("kernel/b.ko", &["softdep=pre: a b"])]);
    assert_eq!(gathered(&dir, &["a"]).0, ["b", "a"]);
}

#[test]
fn a_dependency_that_is_nowhere_is_an_error() {
    let dir = tree(&[("kernel/a.ko", &["depends=b"])]);
    let error = gather(dir.path(), &["a"]).unwrap_err();
    assert!(
        matches!(&error, Error::Incomplete { module, needs, .. } if module == "a" && needs == "b")
    );
    assert!(
        error.to_string().starts_with("the kernel module a needs b, which is not in /"),
        "{error}"
    );
}

#[test]
fn a_long_chain_ends_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..MODULES_MAX {
        let needs = format!("depends=m{}", number + 1);
        put(&dir, &format!("kernel/m{number}.ko"), &object(&[&needs]));
    }
    put(&dir, &format!("kernel/m{MODULES_MAX}.ko"), &object(&[]));
    assert!(matches!(gather(dir.path(), &["m0"]), Err(Error::TooLarge { .. })));
    assert_eq!(gather(dir.path(), &["m1"]).unwrap().modules.len(), MODULES_MAX);
}

#[test]
fn no_file_unpacks_to_more_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.ko.gz");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&[0; 1000]).unwrap();
    fs::write(&path, gz.finish().unwrap()).unwrap();
    assert_eq!(object::read(&path, 999).unwrap(), None);
    assert_eq!(object::read(&path, 1000).unwrap(), Some(vec![0; 1000]));
}

#[test]
fn what_is_no_module_is_called_broken() {
    let whole = object(&["depends=x"]);
    let mut arm = whole.clone();
    arm[18] = 183;
    let mut program = whole.clone();
    program[16] = 2;
    let undescribed = String::from_utf8_lossy(&whole).replace(".modinfo", ".other__").into_bytes();
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("kernel/m.ko", b"not an object".to_vec()),
        ("kernel/m.ko", undescribed),
        ("kernel/m.ko", arm),
        ("kernel/m.ko", program),
        ("kernel/m.ko.xz", whole.clone()),
        ("kernel/m.ko.zst", whole.clone()),
        ("kernel/m.ko.gz", whole.clone()),
    ];
    cases.extend((0..whole.len()).map(|length| ("kernel/m.ko", whole[..length].to_vec())));
    for (path, content) in cases {
        let dir = tempfile::tempdir().unwrap();
        put(&dir, path, &content);
        let result = gather(dir.path(), &["m"]);
        assert!(
            matches!(result, Err(Error::Broken { .. })),
            "{path} {}: {result:?}",
            content.len()
        );
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("kernel")).unwrap();
    put(&dir, "modules.dep", b"kernel:\nkernel/dir.ko:\nkernel/gone.ko:\n");
    fs::create_dir(dir.path().join("kernel/dir.ko")).unwrap();
    assert!(matches!(gather(dir.path(), &["dir"]), Err(Error::Broken { .. })));
    assert!(matches!(gather(dir.path(), &["gone"]), Err(Error::Read { .. })));
}

#[test]
fn damaged_descriptions_never_panic() {
    let whole = object(&["depends=a,b", "softdep=pre: c"]);
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let _ = object::needs(&damaged);
        }
    }
    let needs = object::needs(&whole).unwrap();
    assert_eq!((needs.depends, needs.before), (list(&["a", "b"]), list(&["c"])));
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(gather(&dir.path().join("6.1"), &["a"]), Err(Error::Read { .. })));
}
