//! The named operations on a GPU. Each answers `None` where it has no kernel for what it is asked, and then the plain twin runs: older GPUs,
//! gradients, number types that nobody keeps activations in.
//!
//! The stream between layers is float32, as everywhere. What layers of bfloat16 and narrower weights hand to each other through kernels alone
//! is bfloat16: results of several layers of one input, turned heads, what attention makes.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};

use super::call::{self, Attention, Call, Convolution, Kind, Rows, Strides, Then, Turn};
use super::gpu::{self, Gpu, Room};
use super::product::{Product, Values};
use crate::group_norm::{Affine, GroupNorm};
use crate::linear::{Input, Layer};
use crate::norm::rows_of_a_scale;
use crate::{Before, Mask, Matrix, Pairs, Precision, RmsNorm, Wrap};

/// The GPU that all of `inputs` are on, without a graph of gradients.
fn gpu_of(inputs: &[Option<&Tensor>]) -> Result<Option<Arc<Gpu>>> {
    let mut inputs = inputs.iter().flatten();
    let narrow = |x: &Tensor| matches!(x.dtype(), DType::F32 | DType::BF16);
    match inputs.clone().next() {
        Some(first) if inputs.all(|x| !x.track_op() && narrow(x)) => gpu::of(first.device()),
        _ => Ok(None),
    }
}

/// Rows that a kernel reads, with the tensors that they are in.
struct Held {
    source: Rows<u64>,
    /// Rows and width.
    dims: [usize; 2],
    _tensors: Vec<Tensor>,
}

impl Held {
    fn normed(gpu: &Gpu, x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<Self> {
        let width = x.dim(D::Minus1)?;
        let rows = x.elem_count() / width.max(1);
        let shared = rows_of_a_scale(x, norm, scale)?;
        let (x, weight) = (x.contiguous()?, norm.weight.contiguous()?);
        let scale = scale.map(|scale| scale.to_dtype(DType::F32)?.contiguous()).transpose()?;
        let source = Rows::Normed {
            x: gpu.address(&x)?,
            weight: gpu.address_f32(&weight)?,
            scale: scale.as_ref().map(|scale| gpu.address_f32(scale)).transpose()?,
            shared,
            eps: norm.eps,
        };
        let tensors = [Some(x), Some(weight), scale].into_iter().flatten().collect();
        Ok(Self { source, dims: [rows, width], _tensors: tensors })
    }

    fn gated(gpu: &Gpu, gate: &Tensor, up: &Tensor) -> Result<Self> {
        let width = gate.dim(D::Minus1)?;
        let (gate, up) = (gate.contiguous()?, up.to_dtype(gate.dtype())?.contiguous()?);
        let (place, kind) = gpu.address(&gate)?;
        let source = Rows::Gated { gate: place, up: gpu.address(&up)?.0, kind };
        let dims = [gate.elem_count() / width.max(1), width];
        Ok(Self { source, dims, _tensors: vec![gate, up] })
    }

    fn kept(gpu: &Gpu, x: &Tensor) -> Result<Self> {
        let width = x.dim(D::Minus1)?;
        let x = x.contiguous()?;
        let source = Rows::Kept { x: gpu.address(&x)? };
        let dims = [x.elem_count() / width.max(1), width];
        Ok(Self { source, dims, _tensors: vec![x] })
    }

    fn of(gpu: &Gpu, input: Input) -> Result<Self> {
        match input {
            Input::Plain(x) => Self::kept(gpu, x),
            Input::Normed { x, norm, scale } => Self::normed(gpu, x, norm, scale),
            Input::Gated { gate, up } => Self::gated(gpu, gate, up),
        }
    }

    fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    fn write(&self, gpu: &Gpu, out: (u64, Kind), added: Option<u64>) -> Result<()> {
        gpu.launch(&call::write_rows(out, self.source, added, self.dims)?)
    }
}

pub(crate) fn rms_norm(
    x: &Tensor,
    norm: &RmsNorm,
    scale: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(x), scale])? else { return Ok(None) };
    let held = Held::normed(&gpu, x, norm, scale)?;
    if held.is_empty() {
        return Ok(None);
    }
    let room = gpu.room::<f32>(x.shape())?;
    held.write(&gpu, (room.address(), Kind::F32), None)?;
    Ok(Some(room.tensor()))
}

pub(crate) fn add_gated(
    x: &Tensor,
    y: &Tensor,
    norm: &RmsNorm,
    gate: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(x), Some(y), gate])? else { return Ok(None) };
    let held = Held::normed(&gpu, y, norm, gate)?;
    if held.is_empty() || x.dtype() != DType::F32 {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let room = gpu.room::<f32>(x.shape())?;
    held.write(&gpu, (room.address(), Kind::F32), Some(gpu.address_f32(&x)?))?;
    Ok(Some(room.tensor()))
}

pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(gate), Some(up)])? else { return Ok(None) };
    let held = Held::gated(&gpu, gate, up)?;
    if held.is_empty() {
        return Ok(None);
    }
    Ok(Some(match gate.dtype() {
        DType::F32 => {
            let room = gpu.room::<f32>(gate.shape())?;
            held.write(&gpu, (room.address(), Kind::F32), None)?;
            room.tensor()
        }
        _ => narrow_rows(&gpu, &held)?.tensor().reshape(gate.shape())?,
    }))
}

pub(crate) fn norm_and_rotate(
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): (&Tensor, &Tensor),
    pairs: Pairs,
) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(x), Some(cos), Some(sin)])? else { return Ok(None) };
    let (batch, tokens, heads, d) = x.dims4()?;
    if d > call::TURN_WIDTH_MOST || x.elem_count() == 0 {
        return Ok(None);
    }
    let (x, weight) = (x.contiguous()?, norm.weight.contiguous()?);
    let (cos, sin) = (cos.contiguous()?, sin.contiguous()?);
    let (place, kind) = gpu.address(&x)?;
    let turn = |out| -> Result<Call<u64>> {
        call::turn(Turn {
            out,
            x: place,
            kind,
            weight: gpu.address_f32(&weight)?,
            cos: gpu.address_f32(&cos)?,
            sin: gpu.address_f32(&sin)?,
            dims: [batch, tokens, heads, d],
            halves: pairs == Pairs::Halves,
            eps: norm.eps,
        })
    };
    let y = match kind {
        Kind::F32 => {
            let room = gpu.room::<f32>(x.shape())?;
            gpu.launch(&turn(room.address())?)?;
            room.tensor()
        }
        Kind::Bf16 => {
            let room = gpu.room::<half::bf16>(x.shape())?;
            gpu.launch(&turn(room.address())?)?;
            room.tensor()
        }
    };
    Ok(Some(y.transpose(1, 2)?))
}

/// Where the heads of a view `[batch, heads, tokens, d]` lie; nothing where a head's values have gaps, or are not whole 16 bytes apart.
fn strides(x: &Tensor) -> Option<Strides> {
    let [batch, head, token, value] = *x.stride() else { return None };
    let even = [batch, head, token, x.layout().start_offset()].iter().all(|n| n % 8 == 0);
    (value == 1 && even).then_some(Strides { batch, token, head })
}

pub(crate) fn attention(
    [q, k, v]: [&Tensor; 3],
    mask: Mask,
    precision: Precision,
) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(q), Some(k), Some(v)])? else { return Ok(None) };
    let (batch, heads, queries, d) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    if precision == Precision::F32 || q.elem_count() == 0 || keys == 0 {
        return Ok(None);
    }
    if !call::attends(d) {
        let one = batch == 1 && heads == 1 && mask == Mask::None;
        return if one { attention_by_products(&gpu, [q, k, v]).map(Some) } else { Ok(None) };
    }
    let narrow = |x: &Tensor| -> Result<(Tensor, Strides)> {
        let x = x.to_dtype(DType::BF16)?;
        if let Some(strides) = strides(&x) {
            return Ok((x, strides));
        }
        let x = x.contiguous()?;
        let (heads, tokens) = (x.dim(1)?, x.dim(2)?);
        Ok((x, Strides { batch: heads * tokens * d, token: d, head: tokens * d }))
    };
    let ((q, of_q), (k, of_k), (v, of_v)) = (narrow(q)?, narrow(k)?, narrow(v)?);
    let room = gpu.room::<half::bf16>((batch, queries, heads, d))?;
    let of_out = Strides { batch: queries * heads * d, token: heads * d, head: d };
    let place = |x: &Tensor| gpu.address_of::<half::bf16>(x);
    gpu.launch(&call::attend(Attention {
        out: (room.address(), of_out),
        q: (place(&q)?, of_q),
        k: (place(&k)?, of_k),
        v: (place(&v)?, of_v),
        dims: [batch, heads, kv_heads, queries, keys, d],
        causal: mask == Mask::Causal,
    })?)?;
    Ok(Some(room.tensor().transpose(1, 2)?))
}

/// Attention of one wide head, `[1, 1, tokens, d]`, as that of the autoencoder: two products of bfloat16 around a softmax in float32, some queries
/// after others.
fn attention_by_products(gpu: &Gpu, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
    /// 0.25 GB.
    const SCORES_AT_ONCE: usize = 64 << 20;
    let flat = |x: &Tensor| x.squeeze(0)?.squeeze(0)?.to_dtype(DType::BF16)?.contiguous();
    let (q, k) = (flat(q)?, Matrix::Dense(flat(k)?)); // [queries, d], [keys, d]
    let v = Matrix::Dense(flat(v)?.t()?.contiguous()?); // [d, keys]
    let ((queries, d), (keys, _)) = (q.dims2()?, k.shape()?);
    let product = |x: &Tensor, w: &Matrix| {
        let held = Held::kept(gpu, x)?;
        let input = Input::Plain(x);
        Prepared { gpu, held: &held, input, eight: None, narrow: None }.multiply(w, Kind::F32)
    };
    let at_once = (SCORES_AT_ONCE / keys).max(1);
    let part = |start: usize| {
        let q = q.narrow(0, start, at_once.min(queries - start))?;
        let scores = (product(&q, &k)? / (d as f64).sqrt())?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(1)?)?.exp()?;
        let total = weights.sum_keepdim(1)?;
        product(&weights, &v)?.broadcast_div(&total)
    };
    let parts = (0..queries).step_by(at_once).map(part).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)?.reshape((1, 1, queries, d))
}

/// Rows in 8 bits.
struct Eight {
    values: Room<u8>,
    scales: Room<f32>,
}

fn eight(gpu: &Gpu, held: &Held) -> Result<Eight> {
    let [rows, width] = held.dims;
    let (values, scales) = (gpu.room::<u8>((rows, width))?, gpu.room::<f32>(rows)?);
    gpu.launch(&call::write_fp8((values.address(), scales.address()), held.source, held.dims)?)?;
    Ok(Eight { values, scales })
}

/// Rows in bfloat16.
fn narrow_rows(gpu: &Gpu, held: &Held) -> Result<Room<half::bf16>> {
    let room = gpu.room::<half::bf16>((held.dims[0], held.dims[1]))?;
    match held.source {
        Rows::Kept { x: (x, Kind::F32) } => {
            let values = held.dims[0] * held.dims[1];
            gpu.launch(&call::narrow(room.address(), x, values))?;
        }
        _ => held.write(gpu, (room.address(), Kind::Bf16), None)?,
    }
    Ok(room)
}

/// Products of one input with weights of bfloat16 and less. Results of several layers are bfloat16, that of one is float32.
pub(crate) fn linears(input: Input, layers: &[Layer]) -> Result<Option<Vec<Tensor>>> {
    let inputs = match input {
        Input::Plain(x) => [Some(x), None, None],
        Input::Normed { x, scale, .. } => [Some(x), scale, None],
        Input::Gated { gate, up } => [Some(gate), Some(up), None],
    };
    let Some(gpu) = gpu_of(&inputs)? else { return Ok(None) };
    let narrow = |weight: &Matrix| match weight {
        Matrix::Dense(values) => values.dtype() == DType::BF16,
        Matrix::Fp8Rows { .. } | Matrix::Fp8 { .. } | Matrix::Quantized(_) => true,
        Matrix::Packed(_) => false,
    };
    let held = Held::of(&gpu, input)?;
    if held.is_empty() || !layers.iter().all(|(weight, _)| narrow(weight)) {
        return Ok(None);
    }
    let kind = if layers.len() > 1 { Kind::Bf16 } else { Kind::F32 };
    let mut rows = Prepared { gpu: &gpu, held: &held, input, eight: None, narrow: None };
    let mut shape = inputs[0].map_or(&[][..], Tensor::dims).to_vec();
    let mut results = Vec::with_capacity(layers.len());
    for (weight, bias) in layers {
        let (outputs, _) = weight.shape()?;
        shape.pop();
        shape.push(outputs);
        let y = rows.multiply(weight, kind)?.reshape(shape.as_slice())?;
        results.push(match bias {
            Some(bias) => y.broadcast_add(&bias.to_dtype(y.dtype())?)?,
            None => y,
        });
    }
    Ok(Some(results))
}

/// An input in the forms that its weights want, each made once.
struct Prepared<'a> {
    gpu: &'a Gpu,
    held: &'a Held,
    input: Input<'a>,
    eight: Option<Eight>,
    narrow: Option<Tensor>,
}

impl Prepared<'_> {
    /// `[rows, outputs]`
    fn multiply(&mut self, weight: &Matrix, kind: Kind) -> Result<Tensor> {
        let [rows, _] = self.held.dims;
        let (outputs, _) = weight.shape()?;
        if let Matrix::Fp8Rows { values, scales } = weight
            && self.gpu.multiplies_fp8()
            && let Some(y) = self.multiply_eight(values, scales, kind)?
        {
            return Ok(y);
        }
        let w = narrow_weight(self.gpu, weight)?;
        let x = self.narrow()?;
        let (x, w) =
            (self.gpu.address_of::<half::bf16>(&x)?, self.gpu.address_of::<half::bf16>(&w)?);
        match self.ask([rows, outputs], Values::Bf16, (x, w), None, kind)? {
            Some(y) => Ok(y),
            None => candle_core::bail!(
                "cuBLASLt has no product of bfloat16 for {rows} rows and {outputs} outputs"
            ),
        }
    }

    fn multiply_eight(
        &mut self,
        w: &Tensor,
        scales: &Tensor,
        kind: Kind,
    ) -> Result<Option<Tensor>> {
        if self.eight.is_none() {
            self.eight = Some(eight(self.gpu, self.held)?);
        }
        let Some(eight) = &self.eight else { return Ok(None) };
        let dims = [self.held.dims[0], w.dim(0)?];
        let places = (eight.values.address(), self.gpu.address_of::<u8>(w)?);
        let factors = (eight.scales.address(), self.gpu.address_f32(scales)?);
        if let Some(y) = self.ask(dims, Values::Scaled, places, Some(factors), kind)? {
            return Ok(Some(y));
        }
        // Only Hopper's library multiplies by the scales itself.
        let Some(y) = self.ask(dims, Values::Unscaled, places, None, Kind::F32)? else {
            return Ok(None);
        };
        let place = self.gpu.address(&y)?;
        self.gpu.launch(&call::scale(place, factors.0, factors.1, dims)?)?;
        Ok(Some(if kind == Kind::Bf16 { y.to_dtype(DType::BF16)? } else { y }))
    }

    fn narrow(&mut self) -> Result<Tensor> {
        if self.narrow.is_none() {
            self.narrow = Some(match self.input {
                Input::Plain(x) if x.dtype() == DType::BF16 => x.contiguous()?,
                _ => narrow_rows(self.gpu, self.held)?.tensor(),
            });
        }
        self.narrow.clone().ok_or_else(|| candle_core::Error::Msg("an input without rows".into()))
    }

    fn ask(
        &self,
        [rows, outputs]: [usize; 2],
        values: Values,
        (x, w): (u64, u64),
        scales: Option<(u64, u64)>,
        kind: Kind,
    ) -> Result<Option<Tensor>> {
        let depth = self.held.dims[1];
        let product = |y| Product { rows, outputs, depth, values, x, w, scales, y: (y, kind) };
        Ok(match kind {
            Kind::F32 => {
                let room = self.gpu.room::<f32>((rows, outputs))?;
                let done = self.gpu.library.multiply(&product(room.address()))?;
                done.then(|| room.tensor())
            }
            Kind::Bf16 => {
                let room = self.gpu.room::<half::bf16>((rows, outputs))?;
                let done = self.gpu.library.multiply(&product(room.address()))?;
                done.then(|| room.tensor())
            }
        })
    }
}

/// A weight in bfloat16: as it is, or made for this product alone.
fn narrow_weight(gpu: &Gpu, weight: &Matrix) -> Result<Tensor> {
    match weight {
        Matrix::Dense(values) => values.to_dtype(DType::BF16)?.contiguous(),
        Matrix::Fp8Rows { values, scales } => widened(gpu, values, scales),
        Matrix::Fp8 { values, scale } => {
            let scales = Tensor::full(*scale, values.dim(0)?, values.device())?;
            widened(gpu, &values.contiguous()?, &scales)
        }
        _ => weight.to_f32()?.to_dtype(DType::BF16),
    }
}

/// e4m3 `values`, `[out, in]`, with a scale for each output, as bfloat16.
fn widened(gpu: &Gpu, values: &Tensor, scales: &Tensor) -> Result<Tensor> {
    let (outputs, width) = values.dims2()?;
    let room = gpu.room::<half::bf16>((outputs, width))?;
    let (x, of_rows) = (gpu.address_of::<u8>(values)?, gpu.address_f32(scales)?);
    gpu.launch(&call::widen_fp8(room.address(), x, of_rows, [outputs, width])?)?;
    Ok(room.tensor())
}

/// `weight`, `[out, in]` float32 or bfloat16 on a GPU, as e4m3 values, `[out, in]`, and a scale for each output.
pub(crate) fn to_fp8_rows(weight: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
    let Some(gpu) = gpu_of(&[Some(weight)])? else { return Ok(None) };
    let Eight { values, scales } = eight(&gpu, &Held::kept(&gpu, weight)?)?;
    Ok(Some((values.tensor(), scales.tensor())))
}

/// An image as kernels read it, `[batch, height, width, channels]` float32: a view where it lies so already.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?.contiguous()
}

/// Sums and sums of squares, `[batch, chunks, 2, channels]` float32, of an image with channels last.
fn sums_of(gpu: &Gpu, image: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = image.dims4()?;
    let room = gpu.room::<f32>((batch, call::chunks(height * width), 2, channels))?;
    let dims = [batch, height * width, channels];
    gpu.launch(&call::channel_sums(room.address(), gpu.address_f32(image)?, dims)?)?;
    Ok(room.tensor())
}

/// The sum and the sum of squares of every channel of `x`, `[1, channels, height, width]`.
pub(crate) fn channel_sums(x: &Tensor) -> Result<Option<Vec<[f64; 2]>>> {
    let Some(gpu) = gpu_of(&[Some(x)])? else { return Ok(None) };
    let sums = sums_of(&gpu, &channels_last(x)?)?.get(0)?; // [chunks, 2, channels]
    let chunks: Vec<Vec<Vec<f32>>> = sums.to_vec3()?;
    let mut total = vec![[0f64; 2]; x.dim(1)?];
    for chunk in &chunks {
        for (total, (sum, squares)) in total.iter_mut().zip(chunk[0].iter().zip(&chunk[1])) {
            *total = [total[0] + f64::from(*sum), total[1] + f64::from(*squares)];
        }
    }
    Ok(Some(total))
}

/// The factors and offsets of `norm` on an image with channels last, `[batch, 2, channels]`.
fn factors(gpu: &Gpu, image: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let (batch, height, width, channels) = image.dims4()?;
    let sums = sums_of(gpu, image)?;
    let (weight, bias) = (norm.weight.contiguous()?, norm.bias.contiguous()?);
    let room = gpu.room::<f32>((batch, 2, channels))?;
    let from = [gpu.address_f32(&sums)?, gpu.address_f32(&weight)?, gpu.address_f32(&bias)?];
    let dims = [batch, height * width, channels];
    gpu.launch(&call::group_factors(room.address(), from, dims, norm.groups, norm.eps)?)?;
    Ok(room.tensor())
}

/// An image normed by `factors`, to `out`.
fn apply(gpu: &Gpu, out: (u64, Kind), image: &Tensor, factors: &Tensor, then: Then) -> Result<()> {
    let (batch, height, width, channels) = image.dims4()?;
    let (x, factors) = (gpu.address_f32(image)?, gpu.address_f32(factors)?);
    gpu.launch(&call::apply(out, x, factors, [batch, height * width, channels], then)?)
}

pub(crate) fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(x)])? else { return Ok(None) };
    if x.elem_count() == 0 {
        return Ok(None);
    }
    let image = channels_last(x)?;
    let factors = factors(&gpu, &image, norm)?;
    let room = gpu.room::<f32>(image.shape())?;
    apply(&gpu, (room.address(), Kind::F32), &image, &factors, Then::Nothing)?;
    Ok(Some(room.tensor().permute((0, 3, 1, 2))?))
}

/// A filter in bfloat16, `[size · size, outputs, channels]`.
pub(crate) struct Taps(Tensor);

impl Taps {
    /// Of `weight`, `[outputs, channels, size, size]`; nothing where there is no kernel for it.
    pub(crate) fn new(weight: &Tensor, precision: Precision) -> Result<Option<Self>> {
        let (outputs, channels, size, _) = weight.dims4()?;
        if precision == Precision::F32 || channels % 8 != 0 || gpu_of(&[Some(weight)])?.is_none() {
            return Ok(None);
        }
        let taps = weight.permute((2, 3, 0, 1))?.contiguous()?.to_dtype(DType::BF16)?;
        Ok(Some(Self(taps.reshape((size * size, outputs, channels))?)))
    }

    /// `[outputs, channels, size, size]` float32.
    pub(crate) fn to_f32(&self, size: usize) -> Result<Tensor> {
        let (_, outputs, channels) = self.0.dims3()?;
        let taps = self.0.to_dtype(DType::F32)?.reshape((size, size, outputs, channels))?;
        taps.permute((2, 3, 0, 1))?.contiguous()
    }
}

/// How a filter is moved over an image.
pub(crate) struct Moved {
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) padding: [usize; 2],
    pub(crate) wrap: Wrap,
}

/// A convolution of `x`, `[batch, channels, height, width]`, as [`crate::conv2d`].
pub(crate) fn conv2d(
    x: &Tensor,
    before: Before,
    (taps, bias): (&Taps, &Tensor),
    moved: &Moved,
    residual: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let Some(gpu) = gpu_of(&[Some(x), residual])? else { return Ok(None) };
    let image = channels_last(x)?;
    let (batch, height, width, channels) = image.dims4()?;
    // Statistics that are known are of one image.
    let known = matches!(before, Before::AffineSilu(_));
    if image.elem_count() == 0 || (known && batch != 1) {
        return Ok(None);
    }
    let narrow = gpu.room::<half::bf16>(image.shape())?;
    let out = (narrow.address(), Kind::Bf16);
    match before {
        Before::Nothing | Before::Double => {
            let values = image.elem_count();
            gpu.launch(&call::narrow(out.0, gpu.address_f32(&image)?, values))?;
        }
        Before::NormSilu(norm) => {
            apply(&gpu, out, &image, &factors(&gpu, &image, norm)?, Then::Silu)?;
        }
        Before::AffineSilu(affine) => {
            apply(&gpu, out, &image, &known_factors(affine, x.device())?, Then::Silu)?;
        }
    }
    let doubled = matches!(before, Before::Double);
    let times = if doubled { 2 } else { 1 };
    let across = |n: usize| {
        (times * n + moved.padding.iter().sum::<usize>() - moved.size) / moved.stride + 1
    };
    let (rows, columns, (_, outputs, _)) = (across(height), across(width), taps.0.dims3()?);
    let residual = residual.map(channels_last).transpose()?;
    let bias = bias.to_dtype(DType::F32)?.contiguous()?;
    let room = gpu.room::<f32>((batch, rows, columns, outputs))?;
    gpu.launch(&call::convolve(Convolution {
        out: room.address(),
        x: narrow.address(),
        filter: gpu.address_of::<half::bf16>(&taps.0)?,
        bias: gpu.address_f32(&bias)?,
        residual: residual.as_ref().map(|r| gpu.address_f32(r)).transpose()?,
        image: [batch, height, width, channels],
        result: [rows, columns, outputs],
        size: moved.size,
        stride: moved.stride,
        padding: moved.padding[0],
        doubled,
        wrap: moved.wrap,
    })?)?;
    Ok(Some(room.tensor().permute((0, 3, 1, 2))?))
}

/// Factors and offsets as kernels read them, `[1, 2, channels]`.
fn known_factors(affine: &Affine, device: &Device) -> Result<Tensor> {
    let values = [affine.factors.as_slice(), affine.offsets.as_slice()].concat();
    Tensor::from_vec(values, (1, 2, affine.factors.len()), device)
}
