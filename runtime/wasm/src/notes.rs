//! What sbx noticed while a workload ran and tells the user when it has ended: mostly, which grant
//! it lacked.
//!
//! A workload can provoke as many refusals as it likes, so the notes are few and each stands once.

use std::sync::{Arc, Mutex, PoisonError};

/// How many notes are kept; the rest are only counted.
const KEPT: usize = 3;

/// The longest note, in characters: names in it are the workload's choice.
const LONGEST: usize = 300;

/// A shared, bounded list of sentences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kept: Vec<String>,
    more: usize,
}

impl Notes {
    /// Keeps `note` unless it is there already or there are too many.
    pub(crate) fn add(&self, mut note: String) {
        if let Some((end, _)) = note.char_indices().nth(LONGEST) {
            note.truncate(end);
            note.push('…');
        }
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.kept.contains(&note) {
        } else if inner.kept.len() < KEPT {
            inner.kept.push(note);
        } else {
            inner.more = inner.more.saturating_add(1);
        }
    }

    /// The sentences to tell.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notes = std::mem::take(&mut inner.kept);
        if let (Some(last), more @ 1..) = (notes.last_mut(), inner.more) {
            last.push_str(&format!(" (and {more} more refusals)"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_long() {
        let notes = Notes::default();
        notes.add("ü".repeat(1 << 20));
        assert_eq!(notes.take()[0].chars().count(), LONGEST + 1);
    }

    #[test]
    fn few_and_each_once() {
        let notes = Notes::default();
        for i in [0, 0, 1, 2, 3, 4] {
            notes.add(format!("n{i}"));
        }
        assert_eq!(notes.take(), ["n0", "n1", "n2 (and 2 more refusals)"]);
    }
}
