use super::*;
use std::fs;
use std::os::unix::fs::symlink;

/// The start of a bzImage whose header points at a text.
fn bzimage(text: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x3200];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x3000_u16.to_le_bytes());
    image.extend_from_slice(text);
    image
}

fn of(image: &[u8], path: &str) -> Option<String> {
    Version::of_kernel(image, Path::new(path)).map(|version| version.to_string())
}

#[test]
fn a_bzimage_says_its_version_whatever_it_is_called() {
    let image = bzimage(b"6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
    assert_eq!(of(&image, "/boot/vmlinuz-5.10.0").as_deref(), Some("6.1.0-56-cloud-amd64"));
}

#[test]
fn a_decompressed_kernel_says_its_version_in_its_banner() {
    let image = b"\x7fELF..Linux version %s..Linux version 6.6.30+ (gcc)...Linux version 9.9 x";
    assert_eq!(of(image, "kernel").as_deref(), Some("6.6.30+"));
}

#[test]
fn the_name_counts_only_where_the_content_is_silent() {
    assert_eq!(of(b"", "/boot/vmlinuz-6.1.0-9-amd64").as_deref(), Some("6.1.0-9-amd64"));
    assert_eq!(of(b"", "/boot/vmlinuz"), None);
    assert_eq!(of(b"", "/boot/vmlinuz-linux"), None);
    assert_eq!(of(b"", "/"), None);
}

#[test]
fn a_header_that_points_nowhere_is_no_version() {
    let whole = bzimage(b"6.1.0 (x)\0");
    for length in [0, 0x201, 0x203, 0x206, 0x20f, 0x210, 0x3200, 0x3203] {
        assert_eq!(of(&whole[..length], "k"), None, "{length}");
    }
    let mut silent = whole.clone();
    silent[0x20e..0x210].fill(0);
    assert_eq!(of(&silent, "k"), None);
    let mut far = whole;
    far[0x20e..0x210].fill(0xff);
    assert_eq!(of(&far, "k"), None);
}

#[test]
fn what_would_leave_the_directory_of_modules_is_no_version() {
    for text in ["", "..", "../6.1", "6.1/../..", "6.1 0", "6.1\0", "6.1\u{e9}", "-6", ".6", "v6.1"]
    {
        assert_eq!(Version::parse(text), None, "{text:?}");
    }
    assert_eq!(of(&bzimage(b"../../etc (x)\0"), "k"), None);
    assert_eq!(Version::parse(&"6".repeat(65)), None);
    assert_eq!(of(&bzimage("6".repeat(70).as_bytes()), "k"), None);
    let longest = "6".repeat(64);
    assert_eq!(of(&bzimage(format!("{longest} x").as_bytes()), "k"), Some(longest));
}

#[test]
fn modules_are_looked_for_around_the_kernel_first() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let version = Version::parse("0.0.1-test").unwrap();
    let kernel = root.join("boot/vmlinuz");
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::write(&kernel, "").unwrap();
    symlink("boot/vmlinuz", root.join("vmlinuz")).unwrap();
    let places = ["lib/modules", "usr/lib/modules", "boot/modules"];
    let places = places.map(|place| root.join(place).join("0.0.1-test"));

    let Err(none) = modules_directory(&kernel, &version) else { panic!("found some") };
    assert_eq!(none.looked[..3], places);
    assert_eq!(none.looked[3..], [PathBuf::from("/lib/modules/0.0.1-test")]);
    assert!(none.to_string().contains("0.0.1-test has its drivers as modules"), "{none}");

    for place in places.iter().rev() {
        fs::create_dir_all(place).unwrap();
        assert_ne!(modules_directory(&kernel, &version).as_ref(), Ok(place), "an empty one counts");
        fs::create_dir(place.join("kernel")).unwrap();
        assert_eq!(modules_directory(&kernel, &version).as_ref(), Ok(place));
        assert_eq!(modules_directory(&root.join("vmlinuz"), &version).as_ref(), Ok(place));
    }
}

#[test]
fn a_kernel_elsewhere_has_its_modules_beside_it_or_on_the_host() {
    let version = Version::parse("1.2").unwrap();
    let looked = candidates(Path::new("/nowhere/at/all/vmlinuz"), &version);
    assert_eq!(looked, ["/nowhere/at/all/modules/1.2", "/lib/modules/1.2"].map(PathBuf::from));
}
