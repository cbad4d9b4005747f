//! Memory for results and for the operands of products.
//!
//! `unsafe` stands here for advice to the system about memory that is ours, and for reading whole lines as units.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// Bytes from which on it is worth asking for large pages: a few of them.
const LARGE: usize = 4 << 20;

/// Memory for `count` values of a result, each of which is written before it is read: what they are until then is nobody's
/// business, and clearing them would take as long as many operations do. Builds that check themselves find NaN there. Where
/// they are many the system is asked for large pages: a fault for every 4 KiB costs more still.
pub(crate) fn unwritten(count: usize) -> Vec<f32> {
    if cfg!(debug_assertions) {
        return vec![f32::NAN; count];
    }
    let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(count);
    advise(values.spare_capacity_mut());
    let (start, capacity) = (values.as_mut_ptr().cast(), values.capacity());
    std::mem::forget(values);
    // SAFETY: the memory is of a vector of the same layout, with room for `count` values, and whoever asks writes each
    // before anything reads it.
    unsafe { Vec::from_raw_parts(start, count, capacity) }
}

/// A line of the caches, or a vector of AVX-512.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; UNITS]);

/// Units of a line.
const UNITS: usize = 16;

/// Units from the start of a line on: a vector that lies across two lines takes twice as long to load.
#[derive(Default)]
pub(crate) struct Units {
    lines: Vec<Line>,
    len: usize,
}

impl Units {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut units = Self::default();
        units.resize(len);
        units
    }

    /// `len` units that are written before they are read, as [`unwritten`].
    pub(crate) fn unwritten(len: usize) -> Self {
        let count = len.div_ceil(UNITS);
        if cfg!(debug_assertions) {
            return Self { lines: vec![Line([u32::MAX; UNITS]); count], len };
        }
        let mut lines: Vec<Line> = Vec::with_capacity(count);
        advise(lines.spare_capacity_mut());
        let (start, capacity) = (lines.as_mut_ptr(), lines.capacity());
        std::mem::forget(lines);
        // SAFETY: as in `unwritten`.
        Self { lines: unsafe { Vec::from_raw_parts(start, count, capacity) }, len }
    }

    /// Makes them `len`: those that are there stay, new ones are zero.
    pub(crate) fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(UNITS);
        if lines > self.lines.capacity() {
            self.lines.reserve_exact(lines - self.lines.len());
            advise(self.lines.spare_capacity_mut());
        }
        self.lines.resize(lines, Line::default());
        if let Some(last) = self.lines.last_mut() {
            last.0[len - UNITS * (lines - 1)..].fill(0);
        }
        self.len = len;
    }
}

impl Deref for Units {
    type Target = [u32];

    #[inline(always)]
    fn deref(&self) -> &[u32] {
        // SAFETY: a line is 16 units and nothing else, and there are enough of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Units {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Asks for large pages, before `values` are first written.
#[cfg(target_os = "linux")]
fn advise<T>(values: &[T]) {
    const PAGE: usize = 4096;
    let bytes = size_of_val(values);
    if bytes < LARGE {
        return;
    }
    let start = values.as_ptr() as usize;
    let (first, end) = (start.next_multiple_of(PAGE), (start + bytes) / PAGE * PAGE);
    // SAFETY: the pages lie inside `values`, and the advice changes no value. A system that refuses it loses nothing.
    unsafe {
        libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &[T]) {
    let _ = LARGE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_begin_at_a_line_and_new_ones_are_zero() {
        let mut units = Units::zeros(5);
        for (len, kept) in [(5, 5), (3, 3), (40, 3), (17, 17), (0, 0), (LARGE / 4 + 1, 0)] {
            units.resize(len);
            assert_eq!(units.as_ptr() as usize % 64, 0);
            assert!(units.len() == len && units[kept.min(len)..].iter().all(|u| *u == 0));
            units.fill(1);
        }
    }

    #[test]
    fn unwritten_values_are_as_many_as_wanted() {
        for count in [0, 1, LARGE] {
            let mut values = unwritten(count);
            values.fill(1.0);
            assert!(values.len() == count && values.iter().all(|v| *v == 1.0));
        }
    }
}
