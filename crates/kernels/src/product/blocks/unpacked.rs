//! Blocks to bytes and float32, once for all tiles that are multiplied with them.

use std::marker::PhantomData;

use super::formats::{Q4_0, Q4K, Q5K, Q6K};
use super::{Blocks, Groups, for_format};
use crate::product::WIDE;
use crate::simd::{Simd, Work};

/// Groups whose slopes and offsets are float32 and whose values are bytes, of what were groups of `G`.
pub(super) struct Unpacked<G, const N: usize>(PhantomData<G>);

impl<G: Groups<N>, const N: usize> Unpacked<G, N> {
    const HEAD: usize = if G::OFFSETS { 2 * WIDE } else { WIDE };
}

impl<G: Groups<N>, const N: usize> Groups<N> for Unpacked<G, N> {
    const COUNT: usize = 1;
    const UNITS: usize = Self::HEAD + N * WIDE;
    const OFFSETS: bool = G::OFFSETS;
    const MOST: u8 = G::MOST;
    const ZERO: u8 = G::ZERO;

    #[inline(always)]
    fn slopes<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        simd.as_f32(simd.load_units(&block[first..]))
    }

    #[inline(always)]
    fn offsets<S: Simd>(simd: S, block: &[u32], _: usize, first: usize) -> S::F {
        simd.as_f32(simd.load_units(&block[WIDE + first..]))
    }

    #[inline(always)]
    fn quants<S: Simd>(simd: S, block: &[u32], _: usize, k: usize, first: usize) -> S::U {
        simd.load_units(&block[Self::HEAD + k * WIDE + first..])
    }
}

/// Unpacks blocks of a panel, all or some of them, into as many groups as they have.
#[inline(always)]
pub(crate) fn unpack<S: Simd>(simd: S, format: Blocks, panel: &[u32], to: &mut [u32]) {
    macro_rules! run {
        ($groups:ty, $steps:literal) => {
            simd.call(Unpack::<$groups, $steps> { panel, to, groups: PhantomData })
        };
    }
    for_format!(format, run)
}

struct Unpack<'a, G, const N: usize> {
    panel: &'a [u32],
    to: &'a mut [u32],
    groups: PhantomData<G>,
}

impl<G: Groups<N>, const N: usize> Work for Unpack<'_, G, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = Unpacked::<G, N>::UNITS;
        let blocks = self.panel.chunks_exact(G::UNITS);
        for (block, to) in blocks.zip(self.to.chunks_exact_mut(size * G::COUNT)) {
            for (g, to) in to.chunks_exact_mut(size).enumerate() {
                let (head, steps) = to.split_at_mut(Unpacked::<G, N>::HEAD);
                for first in (0..WIDE).step_by(S::LANES) {
                    let slopes = G::slopes(simd, block, g, first);
                    simd.store_units(simd.as_units(slopes), &mut head[first..]);
                    if G::OFFSETS {
                        let offsets = G::offsets(simd, block, g, first);
                        simd.store_units(simd.as_units(offsets), &mut head[WIDE + first..]);
                    }
                    for (k, step) in steps.chunks_exact_mut(WIDE).enumerate() {
                        let quants = G::quants(simd, block, g, k, first);
                        simd.store_units(quants, &mut step[first..]);
                    }
                }
            }
        }
    }
}

/// The values of `column` in unpacked groups of `format`, one after another.
pub(crate) fn values(format: Blocks, column: usize, unpacked: &[u32], to: &mut [f32]) {
    let layout = format.layout();
    let groups = unpacked.chunks_exact(layout.unpacked);
    for (group, to) in groups.zip(to.chunks_exact_mut(layout.group)) {
        let head = layout.unpacked - layout.group / 4 * WIDE;
        let slope = f32::from_bits(group[column]);
        let offset = match layout.zero {
            Some(zero) => slope * zero as f32,
            None => f32::from_bits(group[WIDE + column]),
        };
        let words = group[head + column..].iter().step_by(WIDE);
        for (to, word) in to.chunks_exact_mut(4).zip(words) {
            let quants = word.to_le_bytes();
            to.iter_mut().zip(quants).for_each(|(v, q)| *v = slope * f32::from(q) - offset);
        }
    }
}
