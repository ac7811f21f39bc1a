use super::*;
use crate::boot::image::{self, Image};
use crate::boot::sample;

/// Content that packs well and badly in turn, like a kernel.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    (0..300_000u32)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i / 4096 % 2 == 0 { (state >> 24) as u8 } else { 0xe8 }
        })
        .collect()
}

fn with_size(mut packed: Vec<u8>, content: &[u8]) -> Vec<u8> {
    packed.extend((content.len() as u32).to_le_bytes());
    packed
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
    options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(content).unwrap();
    with_size(encoder.finish().unwrap(), content)
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    with_size(ruzstd::encoding::compress_to_vec(content, level), content)
}

/// Each format's payload of `content`.
fn payloads(content: &[u8]) -> [Vec<u8>; 4] {
    [gzip(content), xz(content), zstd(content), sample::lz4(content, 100_000)]
}

fn unpack(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let file = sample::file(image);
    let Image::BzImage(payload) = image::open(&file)? else { panic!("not seen to be a bzImage") };
    let mut out = Vec::new();
    let size = extract(&file, &payload, &mut out)?;
    assert_eq!(size, out.len() as u64);
    assert_eq!(size, payload.unpacked_size());
    Ok(out)
}

#[test]
fn every_format_is_unpacked() {
    let content = content();
    for payload in payloads(&content) {
        let mut image = sample::bzimage(&payload);
        image.extend([0x55; 300]);
        assert!(unpack(&image).unwrap() == content, "{:x?}", &payload[..4]);
    }
}

#[test]
fn joined_lz4_files_are_one() {
    let content = content();
    let (first, second) = content.split_at(123_456);
    let mut payload = sample::lz4(first, 1 << 20);
    payload.truncate(payload.len() - 4);
    payload.extend(sample::lz4(second, 1 << 20));
    let end = payload.len() - 4;
    let payload = with_size(payload[..end].to_vec(), &content);
    assert!(unpack(&sample::bzimage(&payload)).unwrap() == content);
}

/// Whatever is cut or changed, it is noticed or makes no difference, and never more than announced
/// comes out.
#[test]
fn damage_is_an_error() {
    let content = &content()[..20_000];
    for payload in payloads(content) {
        let image = sample::bzimage(&payload);
        for end in (0..image.len()).step_by(97) {
            let error = unpack(&image[..end]).unwrap_err();
            let early = end < 0x206;
            assert!(early || matches!(error, ImageError::Truncated), "{end} {error}");
        }
        for at in (0x1f1..image.len()).step_by(53) {
            let mut image = image.clone();
            image[at] ^= 0x41;
            if let Ok(out) = unpack(&image) {
                assert_eq!(out.len(), content.len());
            }
        }
    }
}

#[test]
fn a_checksum_is_checked() {
    let content = &content()[..20_000];
    for payload in &payloads(content)[..2] {
        let mut image = sample::bzimage(payload);
        let middle = image.len() - payload.len() / 2;
        image[middle] ^= 1;
        assert!(matches!(unpack(&image), Err(ImageError::Corrupt(_))));
    }
}

#[test]
fn a_size_that_lies_is_an_error() {
    let content = content();
    for size in [0, 1, content.len() - 1, content.len() + 1] {
        for payload in payloads(&content) {
            let end = payload.len() - 4;
            let payload = [&payload[..end], &(size as u32).to_le_bytes()].concat();
            let result = unpack(&sample::bzimage(&payload));
            assert!(matches!(result, Err(ImageError::Corrupt(_))), "{result:?}");
        }
    }
    let huge = [&sample::lz4(&content, 99_999)[..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(unpack(&sample::bzimage(&huge)), Err(ImageError::TooLarge)));
}

#[test]
fn a_bomb_ends_at_its_announced_size() {
    let mut payload = gzip(&vec![0; 32 << 20]);
    let end = payload.len();
    payload[end - 4..].copy_from_slice(&4096u32.to_le_bytes());
    let file = sample::file(&sample::bzimage(&payload));
    let Image::BzImage(payload) = image::open(&file).unwrap() else { panic!() };
    let mut out = Vec::new();
    assert!(extract(&file, &payload, &mut out).is_err());
    assert!(out.len() <= 4096);
}

#[test]
fn what_cannot_be_run_is_named() {
    let kernel = sample::bzimage(&sample::lz4(&[1; 5000], 5000));
    let with = |at: usize, bytes: &[u8]| {
        let mut image = kernel.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        unpack(&image).unwrap_err()
    };
    let start = 3 * 512 + 100;
    assert!(matches!(with(0x206, &[7, 2]), ImageError::TooOld(0x207)));
    assert!(matches!(with(0x236, &[0, 0]), ImageError::Only32Bit));
    assert!(matches!(with(0x248, &[0xff; 8]), ImageError::Truncated));
    assert!(matches!(with(0x24c, &[9, 0, 0, 0]), ImageError::Format(_)));
    assert!(matches!(with(start, b"BZh9"), ImageError::Format("bzip2")));
    assert!(matches!(with(start, &[0x5d, 0, 0, 0]), ImageError::Format("LZMA")));
    assert!(matches!(with(start, b"what"), ImageError::Format(_)));
    let error = with(0x206, &[2, 2]).to_string();
    assert!(error.contains("2.02") && error.contains("2.6.26"), "{error}");
}

#[test]
fn a_full_disk_is_not_taken_for_damage() {
    let file = sample::file(&sample::bzimage(&sample::lz4(&[1; 5000], 5000)));
    let Image::BzImage(payload) = image::open(&file).unwrap() else { panic!() };
    let mut full = [0; 100];
    let result = extract(&file, &payload, &mut &mut full[..]);
    assert!(matches!(result, Err(ImageError::Write(_))));
}
