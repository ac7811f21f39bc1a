//! What sandboxes are called: identifications, which are random, and names for those that were given none,
//! which are two words, easy to say and to tell apart.

use sbx_core::{Error, Result};

const FIRST: [&str; 32] = [
    "amber", "brave", "calm", "clever", "cosy", "crisp", "eager", "early", "fair", "fond",
    "gentle", "glad", "golden", "happy", "honest", "jolly", "keen", "kind", "lively", "lucky",
    "merry", "mild", "neat", "noble", "patient", "proud", "quick", "quiet", "silver", "steady",
    "warm", "wise",
];
const SECOND: [&str; 32] = [
    "acorn", "badger", "beetle", "birch", "brook", "cedar", "comet", "cove", "crane", "dune",
    "falcon", "fern", "finch", "harbor", "heron", "island", "lantern", "lark", "maple", "meadow",
    "otter", "pebble", "pine", "plover", "reef", "river", "robin", "sparrow", "summit", "tern",
    "willow", "wren",
];

/// The name that these random bytes stand for.
pub(crate) fn name(random: [u8; 2]) -> String {
    let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte % 32)];
    format!("{}_{}", word(&FIRST, random[0]), word(&SECOND, random[1]))
}

/// Whether a user may call a sandbox so: as in docker, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, and no longer than a
/// file's name may be.
pub(crate) fn is_valid(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

/// Whether this is an identification.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A new identification.
pub(crate) fn random_id() -> Result<String> {
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::host("get random numbers", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid() {
        for first in 0..=255 {
            assert!(is_valid(&name([first, 255 - first])));
        }
        for wrong in ["", "-a", ".a", "_a", "a/b", "a b", "ä", &"a".repeat(129)] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }
}
