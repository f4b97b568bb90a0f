//! The row table in shared memory, and who owns which part of it.
//!
//! Like a car park with four million places in one row: each file gets neighbouring places, and when a file leaves its places
//! become free again, joined with free neighbours. Filling is a copy into memory that the kernel's program reads; no call, no
//! capability. First fit is enough: files come and go rarely. The weakness: after much coming and going the free places may
//! lie scattered; then files nobody uses any more are let go until there is a hole that is large enough.
//!
//! Why unsafe: the table is a BPF map, mapped with `mmap`; no crate offers it as a slice, and a slice would be wrong, because the
//! kernel reads it at the same time. Writes go through one function that checks its bounds against the mapped length.

#![allow(unsafe_code)]

use ebpf_abi::Row;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// A part of the table: first row, number of rows.
pub(super) type Range = (u32, u32);

/// The mapped table.
#[derive(Debug)]
pub(super) struct Table {
    memory: NonNull<c_void>,
    rows: u32,
    free: Free,
}

// SAFETY: the mapping belongs to this value alone, is valid in every thread, and is written through `&mut self` only.
unsafe impl Send for Table {}

impl Table {
    /// Maps a BPF array of `rows` rows.
    pub(super) fn map(map: impl AsFd, rows: u32) -> io::Result<Table> {
        let bytes = NonZeroUsize::new(rows as usize * Row::BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no memory of ours.
        let memory =
            unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Table { memory, rows, free: Free::new(rows) })
    }

    /// Places for `rows`, filled; `None` when there is no hole of that size.
    pub(super) fn fill(&mut self, rows: &[Row]) -> Option<Range> {
        let count = u32::try_from(rows.len()).ok()?;
        let first = self.free.take(count)?;
        assert!(
            u64::from(first) + u64::from(count) <= u64::from(self.rows),
            "the free list gave rows that do not exist"
        );
        let to = self.memory.cast::<Row>();
        // SAFETY: `first + count` rows lie within the mapping (asserted), `Row` is eight plain bytes aligned to four, and the
        // mapping cannot overlap a slice of ours. The kernel may read these rows only once a process entry points at them.
        unsafe { to.add(first as usize).copy_from_nonoverlapping(NonNull::from(rows).cast(), rows.len()) };
        Some((first, count))
    }

    /// Gives places back. No process entry may point at them any more.
    pub(super) fn release(&mut self, range: Range) {
        self.free.give(range);
    }

    /// Rows in use.
    pub(super) fn used(&self) -> u32 {
        self.rows - self.free.total()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody holds a pointer into it.
        let _ = unsafe { munmap(self.memory, self.rows as usize * Row::BYTES) };
    }
}

/// Free places: first row to number of rows; neighbours are always joined.
#[derive(Debug)]
struct Free(BTreeMap<u32, u32>);

impl Free {
    fn new(rows: u32) -> Free {
        Free(BTreeMap::from([(0, rows)]))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let (&first, &size) = self.0.iter().find(|(_, size)| **size >= count)?;
        self.0.remove(&first);
        if size > count {
            self.0.insert(first + count, size - count);
        }
        Some(first)
    }

    fn give(&mut self, (mut first, mut count): Range) {
        if count == 0 {
            return;
        }
        if let Some((&before, &size)) = self.0.range(..first).next_back()
            && before + size == first
        {
            self.0.remove(&before);
            (first, count) = (before, size + count);
        }
        if let Some(size) = self.0.remove(&(first + count)) {
            count += size;
        }
        self.0.insert(first, count);
    }

    fn total(&self) -> u32 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_that_leaves_makes_room_for_a_larger_one_beside_it() {
        let mut free = Free::new(10);
        assert_eq!(free.take(4), Some(0));
        assert_eq!(free.take(4), Some(4));
        assert_eq!(free.take(4), None);
        free.give((4, 4));
        assert_eq!(free.take(6), Some(4));
        free.give((0, 4));
        free.give((4, 6));
        assert_eq!(free.0, BTreeMap::from([(0, 10)]));
    }

    proptest! {
        #[test]
        fn no_row_is_given_twice_and_none_is_lost(steps in proptest::collection::vec((any::<bool>(), 1u32..40), 1..200)) {
            let mut free = Free::new(200);
            let mut held: Vec<Range> = Vec::new();
            for (take, n) in steps {
                if take {
                    if let Some(first) = free.take(n) {
                        prop_assert!(first + n <= 200);
                        prop_assert!(held.iter().all(|(f, c)| first + n <= *f || *f + c <= first));
                        held.push((first, n));
                    }
                } else if !held.is_empty() {
                    free.give(held.remove(n as usize % held.len()));
                }
                prop_assert_eq!(free.total() + held.iter().map(|h| h.1).sum::<u32>(), 200);
            }
        }
    }
}
