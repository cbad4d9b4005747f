//! Attention by tiles with a running softmax (Dao et al., FlashAttention, 2022): scores exist for a few queries and a
//! block of keys at a time, never as a matrix of all.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::Mask;
use crate::Precision;
use crate::math::{Exactness, exp2, exp2_vector};
use crate::memory::{Units, unwritten};
use crate::product::output::{Rectangle, rectangles};
use crate::product::pack::{self, bf16_pair};
use crate::product::tile::{DEEP, Dot, DotBf16, DotF32, tile, tile_int8_run};
use crate::product::{Kind, RUN, Sums, WIDE, for_height, heights};
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

/// What the two products of attention are computed in.
#[derive(Clone, Copy)]
struct Forms {
    /// Queries and keys.
    scores: Kind,
    /// Weights and values.
    values: Kind,
}

impl Forms {
    fn of(precision: Precision, level: Level, d: usize) -> Self {
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

/// The same tensor with its last dimension without gaps.
fn rows_in_place(x: &Tensor) -> Result<Tensor> {
    if x.stride().last() == Some(&1) || x.dim(3)? == 1 { Ok(x.clone()) } else { x.contiguous() }
}

/// Vectors of `d` values for every item, head and token.
struct Heads<'a> {
    values: &'a [f32],
    strides: [usize; 3],
    d: usize,
}

/// The vectors of one item and head.
#[derive(Clone, Copy)]
struct Head<'a> {
    values: &'a [f32],
    stride: usize,
    d: usize,
}

impl<'a> Heads<'a> {
    fn of(values: &'a Values) -> Result<Self> {
        let (all, layout) = values.f32_strided()?;
        let (stride, d) = (layout.stride(), layout.dims()[3]);
        Ok(Self {
            values: &all[layout.start_offset()..],
            strides: [stride[0], stride[1], stride[2]],
            d,
        })
    }

    fn at(&self, item: usize, head: usize) -> Head<'a> {
        let start = item * self.strides[0] + head * self.strides[1];
        Head { values: &self.values[start..], stride: self.strides[2], d: self.d }
    }
}

impl<'a> Head<'a> {
    #[inline(always)]
    fn token(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.d]
    }
}

/// Keys and values of one head as right sides of products.
#[derive(Clone, Copy)]
struct Packed<'a> {
    /// Panels of 32 keys, `d` deep.
    keys: &'a [u32],
    /// Panels of 32 of `d` columns, as deep as there are keys.
    values: &'a [u32],
}

impl Packed<'_> {
    /// Units of both.
    fn size(forms: Forms, keys: usize, d: usize) -> [usize; 2] {
        let panels = keys.div_ceil(WIDE);
        [panels * forms.scores.right_units(d), d.div_ceil(WIDE) * depth(forms.values, keys) * WIDE]
    }
}

/// How deep the panels of values are.
fn depth(kind: Kind, keys: usize) -> usize {
    keys.div_ceil(WIDE) * units_a_panel(kind)
}

struct Pack<'a> {
    forms: Forms,
    k: Head<'a>,
    v: Head<'a>,
    keys: usize,
    d: usize,
    /// What [`Packed`] has.
    to: (&'a mut [u32], &'a mut [u32]),
}

impl Work for Pack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Forms { scores, values: kind } = self.forms;
        let centre = scores.is_int8().then(|| self.centre());
        let mut centred = vec![0f32; if centre.is_some() { WIDE * self.d } else { 0 }];
        for (i, panel) in self.to.0.chunks_exact_mut(scores.right_units(self.d)).enumerate() {
            let tokens = i * WIDE..((i + 1) * WIDE).min(self.keys);
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
        let panels = self.to.1.chunks_exact_mut(depth(kind, self.keys) * WIDE);
        for (i, panel) in panels.enumerate() {
            let columns = i * WIDE..((i + 1) * WIDE).min(self.d);
            for (block, units) in panel.chunks_exact_mut(units_a_panel(kind) * WIDE).enumerate() {
                simd.call(PackValues {
                    kind,
                    v: self.v,
                    tokens: (block * WIDE).min(self.keys)..((block + 1) * WIDE).min(self.keys),
                    columns: columns.clone(),
                    units,
                });
            }
        }
    }
}

/// Units of depth that 32 keys take.
fn units_a_panel(kind: Kind) -> usize {
    if kind == Kind::Bf16 { WIDE / 2 } else { WIDE }
}

impl Pack<'_> {
    /// The mean of the keys. Taken from each of them it changes a query's scores by the same amount, so that its weights stay what they were, and
    /// what is left has a smaller range to be rounded in (Zhang et al., SageAttention, 2024).
    fn centre(&self) -> Vec<f32> {
        let mut sums = vec![0f64; self.d];
        for t in 0..self.keys {
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
        let values = self.packed.values.chunks_exact(self::depth(values, self.keys) * WIDE);
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
