//! `--disk`: how many bytes a workload may add to its volumes.
//!
//! What is counted is bytes written, whether or not they replace others, and [`ENTRY`] for each file,
//! directory or link that is created, so that a swarm of empty ones ends too. A file that is merely
//! made longer holds no blocks and costs nothing until it is written to. Past the limit the workload
//! is answered as by a full disk.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

/// What an entry in a directory is counted as, in bytes: a block of most file systems.
pub const ENTRY: u64 = 4096;

/// What is left of the limit; clones share it.
#[derive(Clone, Debug)]
pub struct Quota(Option<Arc<AtomicU64>>);

/// The workload asked for more than is left.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Quota {
    /// A quota of `limit` bytes, or none.
    pub fn new(limit: Option<u64>) -> Self {
        Self(limit.map(|bytes| Arc::new(AtomicU64::new(bytes))))
    }

    /// Whether nothing is counted.
    pub fn is_unlimited(&self) -> bool {
        self.0.is_none()
    }

    /// Takes `bytes` from what is left, or nothing.
    ///
    /// # Errors
    /// When less is left.
    pub fn take(&self, bytes: u64) -> Result<(), Full> {
        let Some(left) = &self.0 else { return Ok(()) };
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .map(|_| ())
            .map_err(|_| Full)
    }

    /// Gives back what was taken and then not written.
    pub fn give_back(&self, bytes: u64) {
        if let Some(left) = &self.0 {
            left.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_used_up_and_never_overdrawn() {
        let quota = Quota::new(Some(10));
        assert_eq!(quota.clone().take(6), Ok(()));
        assert_eq!(quota.take(5), Err(Full));
        quota.give_back(1);
        assert_eq!(quota.take(5), Ok(()));
        assert_eq!(quota.take(1), Err(Full));
        assert_eq!(Quota::new(None).take(u64::MAX), Ok(()));
    }
}
