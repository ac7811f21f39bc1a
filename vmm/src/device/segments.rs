//! Pieces of guest memory that a chain names, to move data from and to without a copy of its own, or later.
//!
//! They are read from the ring once, and only as many as the device allows. Whether they lie in guest
//! memory is found when they are used.

use vm_memory::{
    GuestAddress, GuestMemory as _, Permissions, VolatileMemoryError, VolatileSlice, WriteVolatile,
};

use crate::memory::GuestMemory;

/// A piece is not in guest memory, or its data could not be moved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outside;

/// Pieces of guest memory, not yet known to exist.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments(pub(super) Vec<(GuestAddress, u64)>);

impl Segments {
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// The first bytes, or all if there are fewer.
    pub(super) fn first(&self, mut bytes: u64) -> Self {
        let mut first = Self::default();
        for &(address, len) in &self.0 {
            let len = len.min(bytes);
            bytes -= len;
            if len > 0 {
                first.0.push((address, len));
            }
        }
        first
    }

    /// Cuts off the first bytes; returns them.
    pub(super) fn split(&mut self, mut bytes: u64) -> Self {
        let head = self.first(bytes);
        self.0.retain_mut(|(address, len)| {
            let cut = bytes.min(*len);
            bytes -= cut;
            *len -= cut;
            // Addresses may be anything, and must not overflow here; behind the end there is nothing.
            address.0 = address.0.saturating_add(cut);
            *len > 0
        });
        head
    }

    /// Calls for every piece, in order; a piece that is not in memory is an error.
    pub(super) fn each<T>(
        &self,
        mem: &GuestMemory,
        mut call: impl FnMut(&mut VolatileSlice<'_, ()>) -> Result<T, VolatileMemoryError>,
    ) -> Result<(), Outside> {
        for &(address, len) in &self.0 {
            let len = usize::try_from(len).map_err(|_| Outside)?;
            let slices = mem.get_slices(address, len, Permissions::ReadWrite);
            for slice in slices.map_err(|_| Outside)? {
                let mut slice = slice.map_err(|_| Outside)?;
                call(&mut slice).map_err(|_| Outside)?;
            }
        }
        Ok(())
    }

    /// Fills `bytes` from the pieces, which must have as many.
    pub(super) fn copy_to(&self, mem: &GuestMemory, bytes: &mut [u8]) -> Result<(), Outside> {
        if self.len() != bytes.len() as u64 {
            return Err(Outside);
        }
        let mut rest = bytes;
        self.each(mem, |slice| rest.write_all_volatile(slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(list: &[(u64, u64)]) -> Segments {
        Segments(list.iter().map(|&(address, len)| (GuestAddress(address), len)).collect())
    }

    #[test]
    fn splitting_keeps_every_byte_once() {
        let whole = segments(&[(100, 10), (500, 1), (7, 20)]);
        for at in 0..=31 {
            let mut tail = whole.clone();
            let head = tail.split(at);
            let bytes = |part: &Segments| -> Vec<u64> {
                part.0.iter().flat_map(|(address, len)| address.0..address.0 + len).collect()
            };
            assert_eq!(head.len(), at);
            assert_eq!([bytes(&head), bytes(&tail)].concat(), bytes(&whole));
        }
        assert_eq!(whole.first(99).len(), 31);
    }

    #[test]
    fn what_is_outside_is_not_reached() {
        let mem = crate::memory::allocate(&[(0, 1 << 20)]).unwrap();
        for list in [[(0, 8), (1 << 20, 8)], [(0, 8), ((1 << 20) - 4, 8)], [(0, 8), (u64::MAX, 8)]]
        {
            let mut bytes = [0; 16];
            assert_eq!(segments(&list).copy_to(&mem, &mut bytes), Err(Outside));
            let mut cut = segments(&list);
            assert_eq!(cut.split(12).len(), 12);
        }
        assert_eq!(segments(&[(0, 8)]).copy_to(&mem, &mut [0; 7]), Err(Outside));
        assert_eq!(segments(&[(0, 8)]).copy_to(&mem, &mut [0; 8]), Ok(()));
    }
}
