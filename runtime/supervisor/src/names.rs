//! Names for sandboxes that were given none: two words, easy to say and to tell apart.

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
