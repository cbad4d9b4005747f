//! An allocator that keeps large blocks for the next result of about the same size.
//!
//! Every layer makes results of the same few sizes. The system's allocator gives each back to the system, which clears
//! its pages before it hands them out again: at 1024 x 1024 a tenth of a step.
//!
//! `unsafe` stands here for what an allocator is.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, PoisonError};

/// Bytes from which on blocks are kept: a large page.
const LARGE: usize = 2 << 20;
/// A multiple of the small pages of every system.
const PAGE: usize = 64 << 10;
/// Blocks that are kept at once.
const BLOCKS: usize = 64;

/// Bytes of blocks that [`Recycling`] keeps at most: all results of a layer at 1024 x 1024.
pub const RECYCLED_BYTES_MAX: usize = 1 << 30;

static RECYCLER: Recycler = Recycler::new(RECYCLED_BYTES_MAX);

/// The system's allocator, which keeps blocks of 2 MiB and more that were freed last, up to 1 GiB, for a program's
/// `#[global_allocator]`.
///
/// What is kept counts as the program's memory until [`give_back_memory`].
pub struct Recycling;

/// Gives the system what [`Recycling`] keeps; for when a model was closed, or before it is asked how much memory is free.
pub fn give_back_memory() {
    RECYCLER.give_back();
}

// SAFETY: `RECYCLER` does all of it.
unsafe impl GlobalAlloc for Recycling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { RECYCLER.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { RECYCLER.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { RECYCLER.dealloc(block, layout) }
    }
}

/// What [`Recycling`] does, with a bound of its own.
struct Recycler {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// Blocks that nobody uses, those that have been kept for longest first.
struct Kept {
    /// Addresses and sizes.
    blocks: [(usize, usize); BLOCKS],
    count: usize,
    bytes: usize,
    /// The same of blocks in use that are larger than their users asked for; size 0 where there is none.
    lent: [(usize, usize); BLOCKS],
}

impl Recycler {
    /// Keeps at most `bytes_max` bytes.
    const fn new(bytes_max: usize) -> Self {
        let (blocks, lent) = ([(0, 0); BLOCKS], [(0, 0); BLOCKS]);
        Self { bytes_max, kept: Mutex::new(Kept { blocks, count: 0, bytes: 0, lent }) }
    }

    /// Gives what is kept back to the system.
    fn give_back(&self) {
        while let Some((address, size)) = self.with(|kept| kept.oldest(0)) {
            // SAFETY: nobody uses blocks that were kept, and this one is no longer among them.
            unsafe { free(address as *mut u8, size) };
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Kept) -> R) -> R {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    /// Takes the last block of `size` bytes, or the smallest of those that are larger by a sixteenth at most: layers before the others have
    /// a few tokens less, and what the others' results left would lie beside them for nothing.
    fn take(&mut self, size: usize) -> Option<usize> {
        let fits = |block: &(usize, usize)| (size..=size + size / 16).contains(&block.1);
        let all = self.blocks[..self.count].iter().enumerate().rev();
        let (at, real) = all
            .filter(|(_, block)| fits(block))
            .map(|(at, block)| (at, block.1))
            .min_by_key(|(_, real)| *real)?;
        if real > size {
            let free = self.lent.iter_mut().find(|lent| lent.1 == 0)?;
            *free = (self.blocks[at].0, real);
        }
        Some(self.remove(at).0)
    }

    /// How large a block is that was taken or made for `size` bytes, and is no longer used.
    fn returned(&mut self, address: usize, size: usize) -> usize {
        match self.lent.iter_mut().find(|lent| lent.0 == address && lent.1 > 0) {
            Some(lent) => std::mem::take(lent).1,
            None => size,
        }
    }

    /// Takes the oldest block, if more than `bytes` are kept.
    fn oldest(&mut self, bytes: usize) -> Option<(usize, usize)> {
        (self.count > 0 && self.bytes > bytes).then(|| self.remove(0))
    }

    fn remove(&mut self, at: usize) -> (usize, usize) {
        let block = self.blocks[at];
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.bytes -= block.1;
        block
    }

    /// Keeps a block, for which there is a place.
    fn put(&mut self, address: usize, size: usize) {
        self.blocks[self.count] = (address, size);
        self.count += 1;
        self.bytes += size;
    }
}

/// The size of a block of `layout`, if it is one of those that are kept.
fn large(layout: Layout) -> Option<usize> {
    (layout.size() >= LARGE && layout.align() <= PAGE).then_some(layout.size())
}

/// A block of its own from the system, from the start of a large page on; null if there is none.
///
/// Not from the allocator's heap: blocks that begin at multiples of so much leave holes there that nothing fits into.
#[cfg(target_os = "linux")]
fn fresh(size: usize) -> *mut u8 {
    let Some(mapped) = size.checked_next_multiple_of(PAGE).and_then(|s| s.checked_add(LARGE))
    else {
        return std::ptr::null_mut();
    };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new pages somewhere touch nothing that is there.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return std::ptr::null_mut();
    }
    let start: *mut u8 = start.cast();
    let before = start.align_offset(LARGE);
    // SAFETY: all of it lies in what was mapped, in whole pages; what is before and behind the block goes back, and the
    // advice changes no value. A system that refuses it loses nothing.
    unsafe {
        let block = start.add(before);
        if before > 0 {
            libc::munmap(start.cast(), before);
        }
        libc::munmap(block.add(mapped - LARGE).cast(), LARGE - before);
        // Small pages for the rest: of a large one, all would be taken for it.
        libc::madvise(block.cast(), size / LARGE * LARGE, libc::MADV_HUGEPAGE);
        block
    }
}

/// # Safety
///
/// `block` is of [`fresh`], of `size`, and nobody uses it.
#[cfg(target_os = "linux")]
unsafe fn free(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(block.cast(), size.next_multiple_of(PAGE)) };
}

/// A block of its own from the system's allocator; null if there is none.
#[cfg(not(target_os = "linux"))]
fn fresh(size: usize) -> *mut u8 {
    // SAFETY: `size` is not 0.
    Layout::from_size_align(size, PAGE)
        .map_or(std::ptr::null_mut(), |layout| unsafe { System.alloc(layout) })
}

/// # Safety
///
/// As above.
#[cfg(not(target_os = "linux"))]
unsafe fn free(block: *mut u8, size: usize) {
    // SAFETY: this is the layout that `fresh` asked with.
    unsafe { System.dealloc(block, Layout::from_size_align_unchecked(size, PAGE)) }
}

// SAFETY: a block is the system's or one that was freed, at least of the size and with as large an alignment; kept ones have one owner,
// who took them out under the lock. Nothing here allocates or panics.
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = large(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        self.with(|kept| kept.take(size)).map_or_else(|| fresh(size), |block| block as *mut u8)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if large(layout).is_none() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is ours and has so many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(size) = large(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(block, layout) };
        };
        let size = self.with(|kept| kept.returned(block as usize, size));
        if size > self.bytes_max {
            // SAFETY: the caller's promise; blocks of this size are of `fresh`.
            return unsafe { free(block, size) };
        }
        loop {
            let most = self.bytes_max - size;
            let old = self.with(|kept| {
                let most = if kept.count == BLOCKS { kept.bytes - 1 } else { most };
                let old = kept.oldest(most);
                if old.is_none() {
                    kept.put(block as usize, size);
                }
                old
            });
            match old {
                // SAFETY: nobody uses blocks that were kept, and this one is no longer among them.
                Some((address, size)) => unsafe { free(address as *mut u8, size) },
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 64).unwrap()
    }

    /// A block whose first and last bytes are `mark`.
    fn block(recycler: &Recycler, size: usize, mark: u8) -> *mut u8 {
        // SAFETY: the size is not 0 and the bytes are the block's.
        unsafe {
            let block = recycler.alloc(layout(size));
            assert!(!block.is_null());
            block.write(mark);
            block.add(size - 1).write(mark);
            block
        }
    }

    #[test]
    fn a_freed_block_is_the_next_of_its_size_and_is_given_back_on_demand() {
        let recycler = Recycler::new(8 * LARGE);
        let first = block(&recycler, 3 * LARGE - 5, 1);
        // SAFETY: each block is freed once, with its own layout.
        unsafe {
            recycler.dealloc(first, layout(3 * LARGE - 5));
            assert_eq!(recycler.with(|kept| kept.bytes), 3 * LARGE - 5);
            let other = recycler.alloc(layout(3 * LARGE));
            assert_ne!(other, first);
            recycler.dealloc(other, layout(3 * LARGE));
            let again = recycler.alloc_zeroed(layout(3 * LARGE - 5));
            assert_eq!((again, recycler.with(|kept| kept.bytes)), (first, 3 * LARGE));
            // With none of its size left, the one that is a little larger, which comes back as what it is.
            let lent = recycler.alloc(layout(3 * LARGE - 9));
            assert_eq!((lent, recycler.with(|kept| kept.bytes)), (other, 0));
            recycler.dealloc(lent, layout(3 * LARGE - 9));
            assert_eq!(recycler.with(|kept| kept.bytes), 3 * LARGE);
            let much_less = recycler.alloc(layout(2 * LARGE));
            assert_ne!(much_less, other);
            recycler.dealloc(much_less, layout(2 * LARGE));
            assert_eq!((again.read(), again.add(3 * LARGE - 6).read()), (0, 0));
            recycler.dealloc(again, layout(3 * LARGE - 5));
        }
        recycler.give_back();
        assert_eq!(recycler.with(|kept| kept.bytes), 0);
    }

    #[test]
    fn small_blocks_and_those_beyond_the_bound_are_not_kept() {
        let recycler = Recycler::new(2 * LARGE);
        for size in [1, LARGE - 1, 2 * LARGE + 1] {
            let block = block(&recycler, size, 1);
            // SAFETY: as above.
            unsafe { recycler.dealloc(block, layout(size)) };
            assert_eq!(recycler.with(|kept| kept.bytes), 0, "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

        #[test]
        fn blocks_in_use_are_apart_and_what_is_kept_is_bounded(
            steps in proptest::collection::vec((any::<bool>(), 1usize..5 * LARGE), 1..150),
        ) {
            let recycler = Recycler::new(6 * LARGE);
            let mut used: Vec<(*mut u8, usize, u8)> = Vec::new();
            for (i, (frees, size)) in steps.into_iter().enumerate() {
                if frees && !used.is_empty() {
                    let (block, size, mark) = used.swap_remove(size % used.len());
                    // SAFETY: the block is in use, so its bytes are there, and it is freed once.
                    unsafe {
                        prop_assert_eq!((block.read(), block.add(size - 1).read()), (mark, mark));
                        recycler.dealloc(block, layout(size));
                    }
                } else {
                    used.push((block(&recycler, size, i as u8), size, i as u8));
                }
                prop_assert!(recycler.with(|kept| kept.bytes) <= 6 * LARGE);
            }
            for (block, size, mark) in used {
                // SAFETY: as above.
                unsafe {
                    prop_assert_eq!((block.read(), block.add(size - 1).read()), (mark, mark));
                    recycler.dealloc(block, layout(size));
                }
            }
            recycler.give_back();
        }
    }
}
