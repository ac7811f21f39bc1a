//! `--memory`: one budget for all memories and tables of a store.
//!
//! wasmtime's own `StoreLimits` compares each memory by itself with the limit, so that a module with
//! ten memories has ten times as much. This one adds up.

use wasmtime::ResourceLimiter;

/// What the host keeps for one table element.
const ELEMENT: usize = size_of::<usize>();

/// A running sum of what a store's memories and tables hold.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: Option<u64>,
    used: u64,
    /// What the growth under way adds, to take it back should the host then fail it.
    pending: u64,
    refused: bool,
}

impl MemoryBudget {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, used: 0, pending: 0, refused: false }
    }

    /// The limit, if growth was ever refused because of it.
    pub(crate) fn refused(&self) -> Option<u64> {
        self.limit.filter(|_| self.refused)
    }

    fn grow(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
        unit: usize,
    ) -> bool {
        // wasmtime asks before it looks at the memory's or table's own maximum: growth past that one
        // is not ours to count, or to blame.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let more = (desired.saturating_sub(current) as u64).saturating_mul(unit as u64);
        let total = self.used.saturating_add(more);
        if self.limit.is_some_and(|limit| total > limit) {
            self.refused = true;
            return false;
        }
        self.used = total;
        self.pending = more;
        true
    }

    fn failed(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.pending));
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, ELEMENT))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_and_tables_share_one_budget() {
        let mut budget = MemoryBudget::new(Some(100));
        assert!(budget.memory_growing(0, 60, None).unwrap());
        assert!(!budget.memory_growing(0, 60, None).unwrap(), "a second memory");
        assert!(budget.table_growing(0, 5, None).unwrap());
        assert!(!budget.table_growing(5, 6, None).unwrap(), "40 bytes of table are in use");
        assert_eq!(budget.refused(), Some(100));
    }

    #[test]
    fn a_growth_that_fails_is_given_back() {
        let mut budget = MemoryBudget::new(Some(100));
        assert!(budget.memory_growing(0, 100, None).unwrap());
        budget.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert!(budget.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn a_memorys_own_maximum_is_not_the_limit() {
        let mut budget = MemoryBudget::new(Some(100));
        assert!(!budget.memory_growing(0, 60, Some(50)).unwrap());
        assert_eq!(budget.refused(), None);
        assert!(budget.memory_growing(0, 100, None).unwrap(), "nothing was counted");
    }
}
