//! A packed kernel. The first bytes of the input change the header of a sound image; the others are the
//! payload, packed in whatever way they begin with.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use sbx_fuzz::file;
use sbx_vmm::boot::bzimage;
use sbx_vmm::boot::image::{self, Image};
use std::io::{self, Write};

/// Bytes before the payload: the boot sector and one of the setup's.
const SETUP: usize = 1024;

/// Takes what is unpacked, and keeps nothing.
struct Sink {
    written: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A change of the header: where, and to what.
#[derive(Arbitrary)]
struct Change(u16, u8);

fn bz_image(input: &[u8]) -> Vec<u8> {
    let (count, rest) = input.split_first().unwrap_or((&0, &[]));
    let changes = usize::from(count % 4);
    let (changes, payload) = rest.split_at(rest.len().min(changes * 3));
    let mut image = vec![0; SETUP];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x236] = 1;
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    image[0x24c..0x250].copy_from_slice(&len.to_le_bytes());
    let mut changes = Unstructured::new(changes);
    while let Ok(Change(at, value)) = changes.arbitrary()
        && !changes.is_empty()
    {
        image[usize::from(at) % SETUP] = value;
    }
    image.extend(payload);
    image
}

fuzz_target!(|input: &[u8]| {
    let file = file::of(&bz_image(input));
    let Ok(Image::BzImage(payload)) = image::open(&file) else { return };
    assert!(payload.unpacked_size() <= image::KERNEL_MAX);
    let mut sink = Sink { written: 0 };
    let result = bzimage::extract(&file, &payload, &mut sink);
    assert!(sink.written <= payload.unpacked_size());
    if let Ok(len) = result {
        assert_eq!(len, sink.written);
    }
});
