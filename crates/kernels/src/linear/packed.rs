//! Weights in panels: packed once at load, or slice by slice as they are used.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{CpuStorage, DType, Device, Result, Tensor};
use half::f16;
use rayon::prelude::*;

use super::{FP8_E4M3FN, Matrix, Region, blocks};
use crate::memory::Units;
use crate::product::blocks::{Blocks, unpack, values as block_values};
use crate::product::multiply::Right;
use crate::product::tile::RIGHT_GROUP;
use crate::product::{GROUP, Kind, RUN, WIDE, pack};
use crate::simd::{Level, Simd, Work};
use crate::values::Values;

/// Bytes of a Q8_0 block: a float16 scale and 32 values (ggml, `block_q8_0`).
const Q8_0_BLOCK: usize = 2 + GROUP;

/// A weight in the order in which kernels read it: panels of 32 rows of `[out, in]`.
pub struct Packed {
    kind: Kind,
    out: usize,
    width: usize,
    units: Place,
}

/// Where a weight's units are.
pub(super) enum Place {
    /// In memory of their own.
    Own(Units),
    /// In a region that begins at a whole unit and has as many as are needed.
    There(Arc<dyn Region>),
}

impl Packed {
    /// float32 or bfloat16 values, `[out, in]`.
    pub(super) fn dense(values: &Tensor) -> Result<Self> {
        let (out, width) = values.dims2()?;
        let values = values.contiguous()?;
        let values = Values::of(&values);
        let (storage, range) = values.cpu()?;
        match storage {
            CpuStorage::F32(all) => {
                let rows = &all[range];
                Ok(Self::by_panels(Kind::F32, (out, width), |row, panel, column| {
                    let row = &rows[row * width..][..width];
                    for (value, unit) in row.iter().zip(panel[column..].iter_mut().step_by(WIDE)) {
                        *unit = value.to_bits();
                    }
                }))
            }
            CpuStorage::BF16(all) => {
                let rows = &all[range];
                Ok(Self::by_panels(Kind::Bf16, (out, width), |row, panel, column| {
                    let row = &rows[row * width..][..width];
                    let units = panel[column..].iter_mut().step_by(WIDE);
                    for (pair, unit) in row.chunks(2).zip(units) {
                        let high = pair.get(1).map_or(0, |v| v.to_bits());
                        *unit = u32::from(pair[0].to_bits()) | u32::from(high) << 16;
                    }
                }))
            }
            _ => candle_core::bail!("only float32 and bfloat16 values are packed"),
        }
    }

    /// Blocks of Q8_0, as they are.
    pub(super) fn q8_0(blocks: &QTensor) -> Result<Self> {
        let (out, width) = blocks.shape().dims2()?;
        let data = blocks.data()?;
        let row_bytes = width / GROUP * Q8_0_BLOCK;
        Ok(Self::by_panels(Kind::Int8, (out, width), |row, panel, column| {
            let blocks = data[row * row_bytes..][..row_bytes].chunks_exact(Q8_0_BLOCK);
            for (block, group) in blocks.zip(panel.chunks_exact_mut(RIGHT_GROUP)) {
                let scale = f16::from_le_bytes([block[0], block[1]]);
                let values: [i8; GROUP] = std::array::from_fn(|i| block[2 + i] as i8);
                pack::set_group(scale, &values, column, group);
            }
        }))
    }

    /// Blocks of a format that has panels, as they are.
    pub(super) fn blocks(format: Blocks, blocks: &QTensor) -> Result<Self> {
        let (out, width) = blocks.shape().dims2()?;
        let data = blocks.data()?;
        let layout = format.layout();
        let row_bytes = width / layout.values * layout.bytes;
        Ok(Self::by_panels(Kind::Blocks(format), (out, width), |row, panel, column| {
            blocks::pack_row(format, &data[row * row_bytes..][..row_bytes], column, panel);
        }))
    }

    /// Lets `put` write each row of the weight into its column of its panel.
    fn by_panels(
        kind: Kind,
        (out, width): (usize, usize),
        put: impl Fn(usize, &mut [u32], usize) + Sync,
    ) -> Self {
        let size = kind.right_units(width);
        let mut units = Units::zeros(out.div_ceil(WIDE) * size);
        units.par_chunks_mut(size.max(1)).enumerate().for_each(|(i, panel)| {
            for row in i * WIDE..((i + 1) * WIDE).min(out) {
                put(row, panel, row % WIDE);
            }
        });
        Self::new(kind, (out, width), Place::Own(units))
    }

    pub(super) fn new(kind: Kind, (out, width): (usize, usize), units: Place) -> Self {
        Self { kind, out, width, units }
    }

    /// Units of a weight of this shape, `(out, in)`.
    pub(super) fn units_of(kind: Kind, (out, width): (usize, usize)) -> usize {
        out.div_ceil(WIDE) * kind.right_units(width)
    }

    /// All units.
    pub(super) fn units(&self) -> &[u32] {
        match &self.units {
            Place::Own(units) => units,
            Place::There(region) => bytemuck::cast_slice(region.bytes()),
        }
    }

    /// What the units are.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// `weight`, which is not packed yet, as int8 in runs.
    pub(super) fn int8(weight: &Matrix) -> Result<Self> {
        let (out, width) = weight.shape()?;
        let (kind, scale) = (Kind::Int8Runs, weight.scale());
        let size = kind.right_units(width);
        let mut units = Units::zeros(Self::units_of(kind, (out, width)));
        units.par_chunks_mut(size.max(1)).enumerate().try_for_each(|(i, to)| {
            let rows = i * WIDE..((i + 1) * WIDE).min(out);
            let mut values = stored_rows(weight, rows.start * width, rows.len() * width)?;
            values.iter_mut().for_each(|v| *v *= scale);
            Level::best().run(PackPanels { kind, width, values: &values, to });
            Ok::<_, candle_core::Error>(())
        })?;
        Ok(Self::new(kind, (out, width), Place::Own(units)))
    }

    /// Whether the values are int8 in runs.
    pub(super) fn is_int8_runs(&self) -> bool {
        self.kind == Kind::Int8Runs
    }

    /// `[out, in]`.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.out, self.width)
    }

    /// Bytes that the weight occupies.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.units())
    }

    /// Whether the values are float32.
    pub(super) fn is_f32(&self) -> bool {
        self.kind == Kind::F32
    }

    /// The values, `[out, in]`.
    pub(super) fn to_f32(&self) -> Result<Tensor> {
        let (width, size) = (self.width.max(1), self.kind.right_units(self.width));
        let mut values = vec![0f32; self.out * self.width];
        values.par_chunks_mut(WIDE * width).enumerate().for_each(|(i, rows)| {
            let panel = &self.units()[i * size..][..size];
            let rows = rows.chunks_exact_mut(width).enumerate();
            if let Kind::Blocks(format) = self.kind {
                let mut unpacked = Units::zeros(format.layout().unpacked_units(self.width));
                Level::best().run(Unpack { format, panel, to: &mut unpacked });
                return rows.for_each(|(row, to)| block_values(format, row, &unpacked, to));
            }
            let value = |row, k| self.value(panel, row, k);
            rows.for_each(|(row, to)| {
                to.iter_mut().enumerate().for_each(|(k, v)| *v = value(row, k));
            });
        });
        Tensor::from_vec(values, (self.out, self.width), &Device::Cpu)
    }

    /// Whether the values are blocks of GGML's, of which [`Packed::part_of_row`] reads none.
    pub(super) fn is_blocks(&self) -> bool {
        matches!(self.kind, Kind::Blocks(_))
    }

    /// The values of `row` at the inputs of `columns`.
    pub(super) fn part_of_row(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let panel = &self.units()[row / WIDE * self.kind.right_units(self.width)..];
        let column = row % WIDE;
        match self.kind {
            Kind::F32 => {
                let units = panel[columns.start * WIDE + column..].iter().step_by(WIDE);
                to.iter_mut().zip(units).for_each(|(v, unit)| *v = f32::from_bits(*unit));
            }
            // A group has one scale, and panels begin at whole groups.
            Kind::Int8 => {
                let group = &panel[columns.start / GROUP * RIGHT_GROUP..][..RIGHT_GROUP];
                let scale = f16::from_bits((group[column / 2] >> (16 * (column % 2))) as u16);
                let scale = scale.to_f32();
                for (k, v) in to.iter_mut().enumerate() {
                    let unit = group[WIDE / 2 + k / 4 * WIDE + column];
                    *v = f32::from((unit.to_le_bytes()[k % 4] ^ 0x80) as i8) * scale;
                }
            }
            _ => to.iter_mut().zip(columns).for_each(|(v, k)| *v = self.value(panel, column, k)),
        }
    }

    fn value(&self, panel: &[u32], column: usize, k: usize) -> f32 {
        match self.kind {
            Kind::F32 => f32::from_bits(panel[k * WIDE + column]),
            Kind::Bf16 => {
                let unit = panel[k / 2 * WIDE + column];
                f32::from_bits(if k % 2 == 0 { unit << 16 } else { unit & 0xffff_0000 })
            }
            Kind::Int8 => {
                let group = &panel[k / GROUP * RIGHT_GROUP..][..RIGHT_GROUP];
                let scale = f16::from_bits((group[column / 2] >> (16 * (column % 2))) as u16);
                let unit = group[WIDE / 2 + k % GROUP / 4 * WIDE + column];
                f32::from((unit.to_le_bytes()[k % 4] ^ 0x80) as i8) * scale.to_f32()
            }
            Kind::Blocks(_) => unreachable!("blocks are unpacked a panel at a time"),
            Kind::Rounded => unreachable!("no weight is kept rounded"),
            Kind::Int8Runs => {
                let run = &panel[k / (4 * RUN) * (RUN + 1) * WIDE..];
                let unit = run[WIDE + k % (4 * RUN) / 4 * WIDE + column];
                let value = (unit.to_le_bytes()[k % 4] ^ 0x80) as i8;
                f32::from(value) * f32::from_bits(run[column])
            }
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Packed({:?}, [{}, {}])", self.kind, self.out, self.width)
    }
}

/// A weight as a product's right side.
pub(super) struct Weight<'a>(pub(super) &'a Matrix);

impl Right for Weight<'_> {
    fn kind(&self, level: Level) -> Kind {
        let narrow = if level.has_bf16() { Kind::Bf16 } else { Kind::F32 };
        match self.0 {
            Matrix::Packed(packed) if packed.kind == Kind::Bf16 => narrow,
            Matrix::Packed(packed) => packed.kind,
            Matrix::Dense(values) if values.dtype() == DType::BF16 => narrow,
            Matrix::Dense(_) => Kind::F32,
            Matrix::Fp8 { .. } => narrow,
            #[cfg(feature = "cuda")]
            Matrix::Fp8Rows { .. } => narrow,
            Matrix::Quantized(blocks) => match blocks.dtype() {
                GgmlDType::F32 | GgmlDType::F16 => Kind::F32,
                GgmlDType::BF16 => narrow,
                kind => blocks::known(kind).map_or(Kind::Int8, Kind::Blocks),
            },
        }
    }

    fn panels<'a>(
        &'a self,
        level: Level,
        range: Range<usize>,
        scratch: &'a mut Units,
    ) -> Result<&'a [u32]> {
        let kind = self.kind(level);
        if let Matrix::Packed(packed) = self.0 {
            let size = packed.kind.right_units(packed.width);
            let units = &packed.units()[range.start * size..range.end * size];
            if packed.kind == kind {
                return Ok(units);
            }
            level.run(Widen { units, width: packed.width, to: scratch });
            return Ok(scratch);
        }
        let (out, width) = self.0.shape()?;
        if let Matrix::Quantized(blocks) = self.0
            && let Some(format) = blocks::known(blocks.dtype())
        {
            let data = blocks.data()?;
            let layout = format.layout();
            let row_bytes = width / layout.values * layout.bytes;
            let size = kind.right_units(width);
            scratch.resize(0);
            scratch.resize(range.len() * size);
            for row in range.start * WIDE..(range.end * WIDE).min(out) {
                let panel = &mut scratch[(row / WIDE - range.start) * size..][..size];
                blocks::pack_row(format, &data[row * row_bytes..][..row_bytes], row % WIDE, panel);
            }
            return Ok(scratch);
        }
        let rows = range.start * WIDE..(range.end * WIDE).min(out);
        let values = stored_rows(self.0, rows.start * width, rows.len() * width)?;
        scratch.resize(0);
        scratch.resize(range.len() * kind.right_units(width));
        level.run(PackPanels { kind, width, values: &values, to: scratch });
        Ok(scratch)
    }
}

/// Groups from blocks of a panel.
struct Unpack<'a> {
    format: Blocks,
    panel: &'a [u32],
    to: &'a mut [u32],
}

impl Work for Unpack<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        unpack(simd, self.format, self.panel, self.to);
    }
}

/// `count` values of a weight from `start` on as float32, without the scale of the whole matrix.
fn stored_rows(weight: &Matrix, start: usize, count: usize) -> Result<Vec<f32>> {
    if let Matrix::Quantized(blocks) = weight {
        let (kind, data) = (blocks.dtype(), blocks.data()?);
        let bytes = |values: usize| values / kind.block_size() * kind.type_size();
        let bytes = &data[bytes(start)..bytes(start + count)];
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, kind)?;
        return QTensor::new(storage, count)?.dequantize(&Device::Cpu)?.to_vec1();
    }
    let (Matrix::Dense(tensor) | Matrix::Fp8 { values: tensor, .. }) = weight else {
        candle_core::bail!("a packed weight has no rows")
    };
    let values = Values::of(tensor);
    let (storage, range) = values.cpu()?;
    let range = range.start + start..range.start + start + count;
    Ok(match storage {
        CpuStorage::F32(all) => all[range].to_vec(),
        CpuStorage::BF16(all) => all[range].iter().map(|v| v.to_f32()).collect(),
        CpuStorage::F16(all) => all[range].iter().map(|v| v.to_f32()).collect(),
        CpuStorage::U8(all) => all[range].iter().map(|v| FP8_E4M3FN[*v as usize]).collect(),
        _ => candle_core::bail!("no linear layer keeps its weight as {:?}", tensor.dtype()),
    })
}

/// Panels from rows of float32.
struct PackPanels<'a> {
    kind: Kind,
    width: usize,
    values: &'a [f32],
    to: &'a mut [u32],
}

impl Work for PackPanels<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let panels = self.to.chunks_mut(self.kind.right_units(self.width).max(1));
        for (rows, panel) in self.values.chunks((WIDE * self.width).max(1)).zip(panels) {
            pack::panel(simd, self.kind, rows.chunks(self.width.max(1)), panel);
        }
    }
}

/// Panels of bfloat16 to panels of float32.
struct Widen<'a> {
    units: &'a [u32],
    width: usize,
    to: &'a mut Units,
}

impl Work for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let size = Kind::F32.right_units(self.width);
        let panels = self.units.chunks_exact(Kind::Bf16.right_units(self.width).max(1));
        self.to.resize(panels.len() * size);
        for (from, to) in panels.zip(self.to.chunks_mut(size.max(1))) {
            // An odd width leaves the last unit's upper half without a place.
            for (units, to) in from.chunks_exact(WIDE).zip(to.chunks_mut(2 * WIDE)) {
                let (low, high) = to.split_at_mut(WIDE);
                low.iter_mut().zip(units).for_each(|(l, u)| *l = u << 16);
                high.iter_mut().zip(units).for_each(|(h, u)| *h = u & 0xffff_0000);
            }
        }
    }
}
