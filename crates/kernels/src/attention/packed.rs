//! Queries, keys and values where they lie, and keys and values packed as right sides of attention's products.

use std::ops::Range;

use candle_core::Result;

use crate::Precision;
use crate::product::pack::{self, bf16_pair};
use crate::product::tile::LINE;
use crate::product::{Kind, RUN, WIDE};
use crate::simd::{Level, Simd, Work};
use crate::values::Values;

/// What the two products of attention are computed in.
#[derive(Clone, Copy)]
pub(super) struct Forms {
    /// Queries and keys.
    pub(super) scores: Kind,
    /// Weights and values.
    pub(super) values: Kind,
}

impl Forms {
    pub(super) fn of(precision: Precision, level: Level, d: usize) -> Self {
        let values = match precision {
            Precision::Bf16 | Precision::Int8 if level.has_bf16() => Kind::Bf16,
            _ => Kind::F32,
        };
        // A head has one scale, as a run has.
        let scores = match precision {
            Precision::Int8 if d <= 4 * RUN => Kind::Int8Runs,
            _ => values,
        };
        Self { scores, values }
    }
}

/// Vectors of `d` values for every item, head and token.
pub(super) struct Heads<'a> {
    values: &'a [f32],
    strides: [usize; 3],
    d: usize,
}

/// The vectors of one item and head.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    values: &'a [f32],
    stride: usize,
    d: usize,
}

impl<'a> Heads<'a> {
    pub(super) fn of(values: &'a Values) -> Result<Self> {
        let (all, layout) = values.f32_strided()?;
        let (stride, d) = (layout.stride(), layout.dims()[3]);
        Ok(Self {
            values: &all[layout.start_offset()..],
            strides: [stride[0], stride[1], stride[2]],
            d,
        })
    }

    pub(super) fn at(&self, item: usize, head: usize) -> Head<'a> {
        let start = item * self.strides[0] + head * self.strides[1];
        Head { values: &self.values[start..], stride: self.strides[2], d: self.d }
    }
}

impl<'a> Head<'a> {
    #[inline(always)]
    pub(super) fn token(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.d]
    }

    /// Brings a token near, if there is one: those of a head lie far apart, where processors do not look ahead.
    #[inline(always)]
    pub(super) fn fetch<S: Simd>(&self, simd: S, index: usize) {
        let start = self.values.as_ptr().wrapping_add(index * self.stride);
        for line in (0..self.d).step_by(LINE) {
            simd.prefetch(start.wrapping_add(line).cast());
        }
    }
}

/// Keys and values of one head as right sides of products.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    /// Panels of 32 keys, `d` deep.
    pub(super) keys: &'a [u32],
    /// Panels of 32 of `d` columns, as deep as there are keys.
    pub(super) values: &'a [u32],
}

impl Packed<'_> {
    /// Units of both.
    pub(super) fn size(forms: Forms, keys: usize, d: usize) -> [usize; 2] {
        let panels = keys.div_ceil(WIDE);
        [panels * forms.scores.right_units(d), d.div_ceil(WIDE) * depth(forms.values, keys) * WIDE]
    }
}

/// How deep the panels of values are.
pub(super) fn depth(kind: Kind, keys: usize) -> usize {
    keys.div_ceil(WIDE) * units_a_panel(kind)
}

/// Tokens that are fetched ahead of their use.
pub(super) const AHEAD: usize = 8;

/// Fills what [`Packed`] has.
pub(super) struct Pack<'a> {
    pub(super) forms: Forms,
    pub(super) k: Head<'a>,
    pub(super) v: Head<'a>,
    pub(super) keys: usize,
    pub(super) d: usize,
    /// Keys, values.
    pub(super) to: (&'a mut [u32], &'a mut [u32]),
}

impl Work for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Forms { scores, values: kind } = self.forms;
        let centre = scores.is_int8().then(|| self.centre(simd));
        let mut centred = vec![0f32; if centre.is_some() { WIDE * self.d } else { 0 }];
        for (i, panel) in self.to.0.chunks_exact_mut(scores.right_units(self.d)).enumerate() {
            let tokens = i * WIDE..((i + 1) * WIDE).min(self.keys);
            if centre.is_none() {
                tokens.clone().for_each(|t| self.k.fetch(simd, t + WIDE));
            }
            let Some(centre) = &centre else {
                pack::panel(simd, scores, tokens.map(|t| self.k.token(t)), panel);
                continue;
            };
            for (to, t) in centred.chunks_exact_mut(self.d).zip(tokens.clone()) {
                let differences = self.k.token(t).iter().zip(centre).map(|(k, c)| k - c);
                to.iter_mut().zip(differences).for_each(|(to, k)| *to = k);
            }
            let columns = centred.chunks_exact(self.d).take(tokens.len());
            pack::panel(simd, scores, columns, panel);
        }
        let (panel, part) = (depth(kind, self.keys) * WIDE, units_a_panel(kind) * WIDE);
        for (block, first) in (0..self.keys).step_by(WIDE).enumerate() {
            let tokens = first..(first + WIDE).min(self.keys);
            tokens.clone().for_each(|t| self.v.fetch(simd, t + WIDE));
            for (i, column) in (0..self.d).step_by(WIDE).enumerate() {
                simd.call(PackValues {
                    kind,
                    v: self.v,
                    tokens: tokens.clone(),
                    columns: column..(column + WIDE).min(self.d),
                    units: &mut self.to.1[i * panel + block * part..][..part],
                });
            }
        }
    }
}

/// Units of depth that 32 keys take.
pub(super) fn units_a_panel(kind: Kind) -> usize {
    if kind == Kind::Bf16 { WIDE / 2 } else { WIDE }
}

impl Pack<'_> {
    /// The mean of the keys. Taken from each of them it changes a query's scores by the same amount, so that its weights stay what they were, and
    /// what is left has a smaller range to be rounded in (Zhang et al., SageAttention, 2024).
    #[inline(always)]
    fn centre<S: Simd>(&self, simd: S) -> Vec<f32> {
        let mut sums = vec![0f64; self.d];
        for t in 0..self.keys {
            self.k.fetch(simd, t + AHEAD);
            sums.iter_mut().zip(self.k.token(t)).for_each(|(sum, k)| *sum += f64::from(*k));
        }
        sums.into_iter().map(|sum| (sum / self.keys as f64) as f32).collect()
    }
}

/// Some columns of up to 32 tokens as a part of a panel of values; those that are missing are 0.
struct PackValues<'a> {
    kind: Kind,
    v: Head<'a>,
    tokens: Range<usize>,
    columns: Range<usize>,
    units: &'a mut [u32],
}

impl Work for PackValues<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let absent = [0f32; WIDE];
        if self.columns.len() < WIDE {
            self.units.fill(0);
        }
        let token = |i: usize| match self.tokens.start + i {
            t if t < self.tokens.end => &self.v.token(t)[self.columns.clone()],
            _ => &absent[..self.columns.len()],
        };
        for (i, units) in self.units.chunks_exact_mut(WIDE).enumerate() {
            if self.kind == Kind::Bf16 {
                let (low, high) = (token(2 * i), token(2 * i + 1));
                // Of a length that is known, so that the loop becomes vectors.
                match (<&[f32; WIDE]>::try_from(low), <&[f32; WIDE]>::try_from(high)) {
                    (Ok(low), Ok(high)) => pairs(low, high, units),
                    _ => pairs(low, high, units),
                }
            } else {
                units.iter_mut().zip(token(i)).for_each(|(u, v)| *u = v.to_bits());
            }
        }
    }
}

/// Neighbours in depth, as one unit each.
#[inline(always)]
fn pairs(low: &[f32], high: &[f32], units: &mut [u32]) {
    for (unit, (low, high)) in units.iter_mut().zip(low.iter().zip(high)) {
        *unit = bf16_pair(*low, *high);
    }
}
