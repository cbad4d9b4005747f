//! Attention by tiles with a running softmax (Dao et al., FlashAttention, 2022): scores exist for a few queries and a
//! block of keys at a time, never as a matrix of all.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::Mask;
use super::packed::{self, AHEAD, Forms, Head, Heads, Pack, Packed, units_a_panel};
use crate::Precision;
use crate::math::{Exactness, exp2, exp2_vector};
use crate::memory::{Units, unwritten};
use crate::product::output::{Rectangle, rectangles};
use crate::product::pack;
use crate::product::tile::{DEEP, Dot, DotBf16, DotF32, LINE, tile, tile_int8_run};
use crate::product::{Kind, Sums, WIDE, for_height, heights};
use crate::simd::{Level, Simd, Work};
use crate::values::Values;

/// Keys of a block: scores and weights of a tile fit the first cache, the block's keys and values the second.
const KEYS: usize = 256;
/// Panels of a block.
const PANELS: usize = KEYS / WIDE;
/// Queries of a task: each block of keys is read from the second cache once for all of them.
const QUERIES: usize = 112;
/// Softmax with a base of 2 is one multiplication cheaper.
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// As [`super::attention`], with the instructions of `level`.
pub(super) fn attention(
    level: Level,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    mask: Mask,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, heads, queries, d) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    let forms = Forms::of(precision, level, d);
    let (q, k, v) = (rows_in_place(q)?, rows_in_place(k)?, rows_in_place(v)?);
    let (q, k, v) = (Values::of(&q), Values::of(&k), Values::of(&v));
    let (q, k, v) = (Heads::of(&q)?, Heads::of(&k)?, Heads::of(&v)?);
    if batch * queries * heads * d == 0 || keys == 0 {
        let none = Tensor::zeros((batch, queries, heads, d), DType::F32, &Device::Cpu)?;
        return none.transpose(1, 2);
    }
    let mut out = unwritten(batch * queries * heads * d);
    let size = Packed::size(forms, keys, d);
    let mut packed = Units::unwritten(kv_heads * (size[0] + size[1]));
    for (item, out) in out.chunks_mut(queries * heads * d).enumerate() {
        let (packed_keys, packed_values) = packed.split_at_mut(kv_heads * size[0]);
        let sides = packed_keys.par_chunks_mut(size[0]).zip(packed_values.par_chunks_mut(size[1]));
        sides.enumerate().for_each(|(head, to)| {
            level.run(Pack { forms, k: k.at(item, head), v: v.at(item, head), keys, d, to });
        });
        let (packed_keys, packed_values) = packed.split_at(kv_heads * size[0]);
        rectangles(out, heads * d, 0..queries, (QUERIES, d)).with_max_len(1).for_each_init(
            Scratch::default,
            |scratch, out| {
                let head = out.columns.start / d;
                let head_of_keys = head / (heads / kv_heads);
                let packed = Packed {
                    keys: &packed_keys[head_of_keys * size[0]..][..size[0]],
                    values: &packed_values[head_of_keys * size[1]..][..size[1]],
                };
                let last_key = (mask == Mask::Causal).then(|| keys - queries);
                let q = q.at(item, head);
                level.run(Block { forms, q, packed, keys, d, offset: last_key, scratch, out });
            },
        );
    }
    Tensor::from_vec(out, (batch, queries, heads, d), &Device::Cpu)?.transpose(1, 2)
}

/// The same tensor with its last dimension without gaps.
fn rows_in_place(x: &Tensor) -> Result<Tensor> {
    if x.stride().last() == Some(&1) || x.dim(3)? == 1 { Ok(x.clone()) } else { x.contiguous() }
}

/// What a task needs besides its inputs, kept by its thread.
#[derive(Default)]
struct Scratch {
    queries: Units,
    /// What scores of a query are multiplied by, log₂ e and 1 / √d included.
    scales: Vec<f32>,
    /// A tile's scores: for each panel of keys, its rows.
    scores: Vec<Sums>,
    weights: Units,
    /// For each row, those of its panels of values.
    sums: Vec<Sums>,
    running: Vec<Running>,
}

/// A row's softmax so far.
#[derive(Clone, Copy)]
struct Running {
    /// The largest score, times log₂ e.
    top: f32,
    /// Sum of weights relative to it.
    total: f32,
    /// What sums so far are multiplied by.
    correction: f32,
}

/// Some queries of one head against all keys.
struct Block<'a> {
    forms: Forms,
    q: Head<'a>,
    packed: Packed<'a>,
    keys: usize,
    d: usize,
    /// With a causal mask: query `i` sees the keys up to `offset + i`.
    offset: Option<usize>,
    scratch: &'a mut Scratch,
    out: Rectangle<'a>,
}

impl Work for Block<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let rows = self.out.rows.clone();
        self.begin(simd);
        let end = match self.offset {
            Some(offset) => self.keys.min(offset + rows.end),
            None => self.keys,
        };
        for start in (0..end).step_by(KEYS) {
            let keys = start..(start + KEYS).min(end);
            for (first, height) in heights(rows.len(), S::ROWS) {
                if keys.end == end {
                    self.fetch_out(simd, rows.start + first..rows.start + first + height);
                }
                macro_rules! go {
                    ($rows:literal) => {
                        match self.forms.values {
                            Kind::Bf16 if S::BF16 => {
                                self.tile::<_, DotBf16, $rows>(simd, first, keys.clone())
                            }
                            _ => self.tile::<_, DotF32, $rows>(simd, first, keys.clone()),
                        }
                    };
                }
                for_height!(height, S::ROWS, go);
            }
        }
        let panels = self.d.div_ceil(WIDE);
        for (i, row) in rows.enumerate() {
            let factor = 1.0 / self.scratch.running[i].total;
            let out = self.out.row(row, self.out.columns.clone());
            for (out, sums) in out.chunks_mut(WIDE).zip(&self.scratch.sums[i * panels..]) {
                out.iter_mut().zip(&sums.0).for_each(|(o, s)| *o = s * factor);
            }
        }
    }
}

impl Block<'_> {
    /// Brings some rows of the result near, which are written when their last keys were seen.
    #[inline(always)]
    fn fetch_out<S: Simd>(&mut self, simd: S, rows: Range<usize>) {
        for row in rows {
            let row = self.out.row(row, self.out.columns.clone());
            for line in (0..row.len()).step_by(LINE) {
                simd.prefetch(row[line..].as_ptr().cast());
            }
        }
    }

    /// Packs the queries in tiles and clears what runs.
    #[inline(always)]
    fn begin<S: Simd>(&mut self, simd: S) {
        let kind = self.forms.scores;
        let (rows, units) = (self.out.rows.clone(), kind.left_units(self.d));
        let scratch = &mut *self.scratch;
        scratch.scales.clear();
        scratch.scales.resize(rows.len(), LOG2_E / (self.d as f32).sqrt());
        scratch.queries.resize(QUERIES * units);
        for (first, height) in heights(rows.len(), S::ROWS) {
            let tile = &mut scratch.queries[first * units..][..height * units];
            for i in 0..height {
                let query = self.q.token(rows.start + first + i);
                self.q.fetch(simd, rows.start + first + i + AHEAD);
                let scale = pack::pack_row(simd, kind, query, (i, height), tile);
                // A query of zeros has a scale of 0, by which a hidden key's score of -∞ is not to be multiplied.
                scratch.scales[first + i] *= if scale == 0.0 { 1.0 } else { scale };
            }
        }
        scratch.scores.resize(PANELS * 14, Sums::ZERO);
        scratch.weights.resize(14 * KEYS);
        scratch.sums.clear();
        scratch.sums.resize(rows.len() * self.d.div_ceil(WIDE), Sums::ZERO);
        let fresh = Running { top: f32::NEG_INFINITY, total: 0.0, correction: 0.0 };
        scratch.running.clear();
        scratch.running.resize(rows.len(), fresh);
    }

    /// `M` queries from `first` on against `keys`.
    #[inline(always)]
    fn tile<S: Simd, D: Dot, const M: usize>(&mut self, simd: S, first: usize, keys: Range<usize>) {
        let Forms { scores: kind, values } = self.forms;
        let (units, size) = (kind.left_units(self.d), kind.right_units(self.d));
        let panels = keys.start / WIDE..keys.end.div_ceil(WIDE);
        let left = &self.scratch.queries[first * units..][..M * units];
        let scores = self.scratch.scores.as_chunks_mut::<M>().0;
        for (panel, scores) in panels.clone().zip(scores) {
            let right = &self.packed.keys[panel * size..][..size];
            match kind {
                Kind::Int8Runs => tile_int8_run::<_, M>(simd, left, right, scores, ()),
                _ => tile::<_, D, M>(simd, left, right, scores, ()),
            }
        }
        let Scratch { scores, scales, weights, running, .. } = &mut *self.scratch;
        simd.call(Softmax {
            kind: values,
            scales: &scales[first..first + M],
            scores: &mut scores[..panels.len() * M],
            weights,
            running: &mut running[first..first + M],
            keys,
            seen: self.offset.map(|offset| offset + self.out.rows.start + first + 1),
        });

        let depth = panels.len() * units_a_panel(values);
        let start = panels.start * units_a_panel(values) * WIDE;
        let weights = &self.scratch.weights[..M * depth];
        let values = self.packed.values.chunks_exact(packed::depth(values, self.keys) * WIDE);
        let (mut sums, panels) = ([Sums::ZERO; M], self.d.div_ceil(WIDE));
        for (i, panel) in values.enumerate() {
            let values = &panel[start..][..depth * WIDE];
            tile::<_, D, M>(simd, weights, values, &mut sums, ());
            for (row, sums) in sums.iter().enumerate() {
                let factor = simd.splat(self.scratch.running[first + row].correction);
                let so_far = &mut self.scratch.sums[(first + row) * panels + i].0;
                for at in (0..WIDE).step_by(S::LANES) {
                    let corrected =
                        simd.fma(simd.load(&so_far[at..]), factor, simd.load(&sums.0[at..]));
                    simd.store(corrected, &mut so_far[at..]);
                }
            }
        }
    }
}

/// A tile's scores to weights.
struct Softmax<'a> {
    kind: Kind,
    /// What makes a row's scores powers of two.
    scales: &'a [f32],
    /// For each panel of keys, the tile's rows.
    scores: &'a mut [Sums],
    weights: &'a mut [u32],
    running: &'a mut [Running],
    keys: Range<usize>,
    /// How many keys the first row sees; each row after it sees one more.
    seen: Option<usize>,
}

impl Work for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.running.len();
        let mut lanes = [[f32::NEG_INFINITY.to_bits(); DEEP]; DEEP];
        for (row, lanes) in lanes[..rows].iter_mut().enumerate() {
            let seen = self.seen.map_or(self.keys.end, |seen| self.keys.end.min(seen + row));
            let seen = seen.saturating_sub(self.keys.start);
            if seen < self.scores.len() / rows * WIDE {
                for (i, scores) in self.scores[row..].iter_mut().step_by(rows).enumerate() {
                    hide(scores, i * WIDE, seen);
                }
            }
            let mut top = [simd.splat(f32::NEG_INFINITY); 2];
            for scores in self.scores[row..].iter().step_by(rows) {
                for pair in scores.0.chunks_exact(2 * S::LANES) {
                    top[0] = simd.max(simd.load(pair), top[0]);
                    top[1] = simd.max(simd.load(&pair[S::LANES..]), top[1]);
                }
            }
            simd.store_units(simd.as_units(simd.max(top[0], top[1])), lanes);
        }
        let mut tops = across::<S, true>(simd, &lanes);
        lanes = [[0; DEEP]; DEEP];
        for (row, (running, scale)) in self.running.iter().zip(self.scales).enumerate() {
            tops[row] = running.top.max(tops[row] * scale);
            let weigh = Weigh { kind: self.kind, scale: *scale, top: tops[row], row, rows };
            let total = weigh.run(simd, &self.scores[row..], self.weights);
            simd.store_units(simd.as_units(total), &mut lanes[row]);
        }
        let totals = across::<S, false>(simd, &lanes);
        for (running, (top, total)) in self.running.iter_mut().zip(tops.into_iter().zip(totals)) {
            running.correction = exp2(running.top - top);
            running.total = running.total * running.correction + total;
            running.top = top;
        }
    }
}

/// A row's scores to weights.
struct Weigh {
    kind: Kind,
    scale: f32,
    top: f32,
    row: usize,
    rows: usize,
}

impl Weigh {
    /// The result has the sum of the weights in its lanes.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, scores: &[Sums], weights: &mut [u32]) -> S::F {
        let (scale, top) = (simd.splat(self.scale), simd.splat(-self.top));
        let bf16 = S::BF16 && self.kind == Kind::Bf16;
        let exactness = if bf16 { Exactness::Bf16 } else { Exactness::Full };
        let mut totals = [simd.splat(0.0); 2];
        let size = units_a_panel(self.kind) * self.rows;
        for (scores, block) in scores.iter().step_by(self.rows).zip(weights.chunks_exact_mut(size))
        {
            for first in (0..WIDE).step_by(2 * S::LANES) {
                let mut e = [simd.splat(0.0); 2];
                for (i, e) in e.iter_mut().enumerate() {
                    let score = simd.load(&scores.0[first + i * S::LANES..]);
                    *e = exp2_vector(simd, exactness, simd.fma(score, scale, top));
                    totals[i] = simd.add(totals[i], *e);
                }
                if bf16 {
                    let units = simd.bf16_units(e[0], e[1]);
                    simd.store_units(units, &mut block[self.row * DEEP + first / 2..]);
                    continue;
                }
                for (i, e) in e.into_iter().enumerate() {
                    let key = first + i * S::LANES;
                    let at = (key / DEEP * self.rows + self.row) * DEEP + key % DEEP;
                    simd.store_units(simd.as_units(e), &mut block[at..]);
                }
            }
        }
        simd.add(totals[0], totals[1])
    }
}

/// The largest lane of each row, or the sum of its lanes: turned, rows are lanes, and one vector operation serves all of them.
#[inline(always)]
fn across<S: Simd, const LARGEST: bool>(simd: S, rows: &[[u32; DEEP]; DEEP]) -> [f32; DEEP] {
    let mut turned = [0u32; DEEP * DEEP];
    simd.transpose(rows, &mut turned, DEEP);
    let mut out = [0f32; DEEP];
    for (i, out) in out.chunks_exact_mut(S::LANES).enumerate() {
        let mut all = simd.as_f32(simd.load_units(&turned[i * S::LANES..]));
        for lane in 1..S::LANES {
            let next = simd.as_f32(simd.load_units(&turned[lane * DEEP + i * S::LANES..]));
            all = if LARGEST { simd.max(next, all) } else { simd.add(next, all) };
        }
        simd.store(all, out);
    }
    out
}

/// Scores of keys from `seen` on are −∞; the first of these is key `first`.
#[inline(always)]
fn hide(scores: &mut Sums, first: usize, seen: usize) {
    if first + WIDE > seen {
        let visible = seen.saturating_sub(first);
        scores.0[visible..].fill(f32::NEG_INFINITY);
    }
}
