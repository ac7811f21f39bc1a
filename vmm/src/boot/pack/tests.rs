use super::super::initramfs::tests::unpack;
use super::*;

fn module(name: &str) -> Module {
    Module { name: name.to_owned(), content: name.as_bytes().to_owned() }
}

#[test]
fn names_sort_in_the_order_of_loading_however_many_there_are() {
    for (count, first) in
        [(1, "modules/00-m.ko"), (100, "modules/00-m.ko"), (101, "modules/000-m.ko")]
    {
        let names: Vec<String> = unpack(&segment(&vec![module("m"); count]).unwrap())
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names[0], "modules");
        assert_eq!(names[1], first);
        assert_eq!(names.len(), count + 1);
        assert!(names.is_sorted());
    }
}

#[test]
fn a_segment_and_the_rest_are_one_initramfs_in_either_order() {
    let segment = segment(&[module("virtio_ring"), module("virtio")]).unwrap();
    let mut rest = Archive::new();
    rest.file("init", 0o755, b"x").unwrap();
    let rest = rest.finish();
    for whole in [[&segment[..], &rest].concat(), [&rest[..], &segment].concat()] {
        let mut entries = unpack(&whole);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let got: Vec<(&str, &[u8])> =
            entries.iter().map(|entry| (entry.name.as_str(), &entry.content[..])).collect();
        let expected: [(&str, &[u8]); 4] = [
            ("init", b"x"),
            ("modules", b""),
            ("modules/00-virtio_ring.ko", b"virtio_ring"),
            ("modules/01-virtio.ko", b"virtio"),
        ];
        assert_eq!(got, expected);
    }
}

#[test]
fn a_module_cannot_be_named_out_of_its_directory() {
    assert!(segment(&[module("x/../../init")]).is_err());
}
