//! Launches of kernels: which one, over which grid, with which arguments; `B` is whatever stands for a buffer where it is launched.

use candle_core::Result;

use crate::Wrap;

/// Threads of a block that makes a row.
const ROW_THREADS: u32 = 256;

/// Pixels that one block of [`channel_sums`] adds up.
pub(crate) const PIXELS_AT_ONCE: usize = 256;

/// Values of a GPU's number types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F32,
    Bf16,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// An argument, as the kernel's parameter has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<B> {
    Buffer(B),
    /// A buffer that may be missing, and is.
    Null,
    I32(i32),
    I64(i64),
    F32(f32),
}

impl<B> From<Option<B>> for Arg<B> {
    fn from(buffer: Option<B>) -> Self {
        buffer.map_or(Self::Null, Self::Buffer)
    }
}

/// One launch.
#[derive(Clone, Debug)]
pub(crate) struct Call<B> {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: u32,
    /// Of shared memory, beside what the kernel has itself.
    pub(crate) shared_bytes: u32,
    pub(crate) args: Vec<Arg<B>>,
}

impl<B> Call<B> {
    /// A block for each of `rows` rows.
    fn of_rows(
        kernel: String,
        rows: usize,
        shared_bytes: usize,
        args: Vec<Arg<B>>,
    ) -> Result<Self> {
        let grid = [int(rows)?.unsigned_abs(), 1, 1];
        let shared_bytes = int(shared_bytes)?.unsigned_abs();
        Ok(Self { kernel, grid, threads: ROW_THREADS, shared_bytes, args })
    }
}

/// What rows are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<B> {
    /// `norm(x) · weight · scale`, where `shared` rows in a row have one row of `scale`.
    Normed { x: (B, Kind), weight: B, scale: Option<B>, shared: usize, eps: f64 },
    /// `silu(gate) · up`, both of one kind.
    Gated { gate: B, up: B, kind: Kind },
    /// As they are.
    Kept { x: (B, Kind) },
}

impl<B> Rows<B> {
    /// The first half of a kernel's name, and its arguments.
    fn source(self) -> (String, Vec<Arg<B>>, Vec<Arg<B>>) {
        match self {
            Self::Normed { x: (x, kind), weight, scale, shared, eps } => (
                format!("norm_{}", kind.name()),
                vec![Arg::Buffer(x), Arg::Buffer(weight), scale.into()],
                vec![Arg::I32(shared as i32), Arg::F32(eps as f32)],
            ),
            Self::Gated { gate, up, kind } => {
                let buffers = vec![Arg::Buffer(gate), Arg::Buffer(up)];
                (format!("gate_{}", kind.name()), buffers, Vec::new())
            }
            Self::Kept { x: (x, kind) } => {
                (format!("keep_{}", kind.name()), vec![Arg::Buffer(x)], Vec::new())
            }
        }
    }
}

/// `rows` of `width` values, as `kind`; norms may be `added` to float32 rows. Rows that are [`Rows::Kept`] are not written anew.
pub(crate) fn write_rows<B>(
    (out, kind): (B, Kind),
    source: Rows<B>,
    added: Option<B>,
    [rows, width]: [usize; 2],
) -> Result<Call<B>> {
    let normed = matches!(source, Rows::Normed { .. });
    let (name, buffers, numbers) = source.source();
    let mut args = vec![Arg::Buffer(out)];
    args.extend(buffers);
    if normed {
        args.push(added.into());
    }
    args.push(Arg::I32(int(width)?));
    args.extend(numbers);
    Call::of_rows(format!("{name}_{}", kind.name()), rows, 0, args)
}

/// The same rounded to e4m3, with a scale for each row.
pub(crate) fn write_fp8<B>(
    (out, scales): (B, B),
    source: Rows<B>,
    [rows, width]: [usize; 2],
) -> Result<Call<B>> {
    let (name, buffers, numbers) = source.source();
    let mut args = vec![Arg::Buffer(out), Arg::Buffer(scales)];
    args.extend(buffers);
    args.push(Arg::I32(int(width)?));
    args.extend(numbers);
    Call::of_rows(format!("{name}_fp8"), rows, 4 * width, args)
}

/// e4m3 rows with their scales as bfloat16.
pub(crate) fn widen_fp8<B>(out: B, x: B, scales: B, [rows, width]: [usize; 2]) -> Result<Call<B>> {
    let args = vec![Arg::Buffer(out), Arg::Buffer(x), Arg::Buffer(scales), Arg::I32(int(width)?)];
    Call::of_rows("widen_fp8".into(), rows, 0, args)
}

/// Multiplies `y`, `[rows, width]`, by a factor for each row and one for each column.
pub(crate) fn scale<B>(
    (y, kind): (B, Kind),
    of_rows: B,
    of_columns: B,
    [rows, width]: [usize; 2],
) -> Result<Call<B>> {
    let args =
        vec![Arg::Buffer(y), Arg::Buffer(of_rows), Arg::Buffer(of_columns), Arg::I32(int(width)?)];
    Call::of_rows(format!("scale_{}", kind.name()), rows, 0, args)
}

/// Widest head that [`turn`] takes.
pub(crate) const TURN_WIDTH_MOST: usize = 256;

/// Heads `[batch, tokens, heads, d]`, normed and turned.
pub(crate) struct Turn<B> {
    pub(crate) out: B,
    pub(crate) x: B,
    pub(crate) kind: Kind,
    pub(crate) weight: B,
    pub(crate) cos: B,
    pub(crate) sin: B,
    pub(crate) dims: [usize; 4],
    pub(crate) halves: bool,
    pub(crate) eps: f64,
}

/// A warp for each head.
pub(crate) fn turn<B>(turn: Turn<B>) -> Result<Call<B>> {
    const HEADS_AT_ONCE: usize = 8;
    let Turn { out, x, kind, weight, cos, sin, dims: [batch, tokens, heads, d], halves, eps } =
        turn;
    let rows = batch * tokens * heads;
    let mut args: Vec<_> = [out, x, weight, cos, sin].into_iter().map(Arg::Buffer).collect();
    for number in [rows, tokens, heads, d, usize::from(halves)] {
        args.push(Arg::I32(int(number)?));
    }
    args.push(Arg::F32(eps as f32));
    let grid = [int(rows.div_ceil(HEADS_AT_ONCE))?.unsigned_abs(), 1, 1];
    let kernel = format!("turn_{}", kind.name());
    Ok(Call { kernel, grid, threads: 32 * HEADS_AT_ONCE as u32, shared_bytes: 0, args })
}

/// How many pieces of [`PIXELS_AT_ONCE`] pixels an image has.
pub(crate) fn chunks(pixels: usize) -> usize {
    pixels.div_ceil(PIXELS_AT_ONCE)
}

/// Sums and sums of squares, `[batch, chunks, 2, channels]`, of `x`, `[batch, pixels, channels]`.
pub(crate) fn channel_sums<B>(
    sums: B,
    x: B,
    [batch, pixels, channels]: [usize; 3],
) -> Result<Call<B>> {
    let mut args = vec![Arg::Buffer(sums), Arg::Buffer(x)];
    for number in [pixels, channels, PIXELS_AT_ONCE] {
        args.push(Arg::I32(int(number)?));
    }
    let grid = [int(chunks(pixels))?.unsigned_abs(), int(batch)?.unsigned_abs(), 1];
    let shared_bytes = 2 * 4 * ROW_THREADS;
    Ok(Call { kernel: "channel_sums".into(), grid, threads: ROW_THREADS, shared_bytes, args })
}

/// A group norm's factors and offsets, `[batch, 2, channels]`, from [`channel_sums`].
pub(crate) fn group_factors<B>(
    factors: B,
    [sums, weight, bias]: [B; 3],
    [batch, pixels, channels]: [usize; 3],
    groups: usize,
    eps: f64,
) -> Result<Call<B>> {
    let mut args: Vec<_> = [factors, sums, weight, bias].into_iter().map(Arg::Buffer).collect();
    for number in [chunks(pixels), pixels, channels, groups] {
        args.push(Arg::I32(int(number)?));
    }
    args.push(Arg::F32(eps as f32));
    let grid = [int(groups)?.unsigned_abs(), int(batch)?.unsigned_abs(), 1];
    Ok(Call { kernel: "group_factors".into(), grid, threads: 32, shared_bytes: 0, args })
}

/// What follows a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    Silu,
}

/// `x · factor + offset` of an image, `[batch, pixels, channels]`.
pub(crate) fn apply<B>(
    (out, kind): (B, Kind),
    x: B,
    factors: B,
    [batch, pixels, channels]: [usize; 3],
    then: Then,
) -> Result<Call<B>> {
    let values = pixels * channels;
    let args = vec![
        Arg::Buffer(out),
        Arg::Buffer(x),
        Arg::Buffer(factors),
        Arg::I64(values as i64),
        Arg::I32(int(channels)?),
        Arg::I32(i32::from(then == Then::Silu)),
    ];
    let grid = [elementwise_blocks(values.div_ceil(4)), int(batch)?.unsigned_abs(), 1];
    let kernel = format!("apply_{}", kind.name());
    Ok(Call { kernel, grid, threads: ROW_THREADS, shared_bytes: 0, args })
}

/// float32 to bfloat16.
pub(crate) fn narrow<B>(out: B, x: B, values: usize) -> Call<B> {
    let args = vec![Arg::Buffer(out), Arg::Buffer(x), Arg::I64(values as i64)];
    let grid = [elementwise_blocks(values), 1, 1];
    Call { kernel: "narrow".into(), grid, threads: ROW_THREADS, shared_bytes: 0, args }
}

/// Blocks for so many threads with a loop of their own: enough to fill the largest GPU several times.
fn elementwise_blocks(threads: usize) -> u32 {
    const MOST: usize = 4096;
    threads.div_ceil(ROW_THREADS as usize).clamp(1, MOST) as u32
}

/// A convolution of an image with channels last; channels are a multiple of 8.
pub(crate) struct Convolution<B> {
    /// `[batch, rows, columns, outputs]` float32
    pub(crate) out: B,
    /// `[batch, height, width, channels]` bfloat16
    pub(crate) x: B,
    /// `[size · size, outputs, channels]` bfloat16
    pub(crate) filter: B,
    pub(crate) bias: B,
    pub(crate) residual: Option<B>,
    /// Batch, height, width and channels.
    pub(crate) image: [usize; 4],
    /// Rows, columns and outputs.
    pub(crate) result: [usize; 3],
    pub(crate) size: usize,
    pub(crate) stride: usize,
    /// At the left and top.
    pub(crate) padding: usize,
    pub(crate) doubled: bool,
    /// No edge is farther from a filter's middle than the image is long.
    pub(crate) wrap: Wrap,
}

/// A block for 128 pixels and 128 outputs.
pub(crate) fn convolve<B>(convolution: Convolution<B>) -> Result<Call<B>> {
    const TILE: usize = 128;
    /// Two tiles of 32 units of depth, three times.
    const SHARED_BYTES: u32 = 3 * 2 * 128 * 32 * 2;
    let c = convolution;
    let ([batch, height, width, channels], [rows, columns, outputs]) = (c.image, c.result);
    let mut args: Vec<_> = [c.out, c.x, c.filter, c.bias].into_iter().map(Arg::Buffer).collect();
    args.push(c.residual.into());
    let shape = [height, width, channels, rows, columns, outputs];
    let wraps = usize::from(c.wrap.rows) + 2 * usize::from(c.wrap.columns);
    let moved = [c.size, c.stride, c.padding, usize::from(c.doubled), wraps];
    for number in shape.into_iter().chain(moved) {
        args.push(Arg::I32(int(number)?));
    }
    let tiles = |n: usize| Ok::<_, candle_core::Error>(int(n.div_ceil(TILE))?.unsigned_abs());
    let grid = [tiles(rows * columns)?, tiles(outputs)?, int(batch)?.unsigned_abs()];
    Ok(Call { kernel: "convolve".into(), grid, threads: 256, shared_bytes: SHARED_BYTES, args })
}

/// Where a tensor's heads lie: values from one picture, token and head to the next. A head's values have no gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strides {
    pub(crate) batch: usize,
    pub(crate) token: usize,
    pub(crate) head: usize,
}

/// Attention over bfloat16 heads.
pub(crate) struct Attention<B> {
    pub(crate) out: (B, Strides),
    pub(crate) q: (B, Strides),
    pub(crate) k: (B, Strides),
    pub(crate) v: (B, Strides),
    /// Batch, heads, heads of keys, queries, keys and `d`.
    pub(crate) dims: [usize; 6],
    pub(crate) causal: bool,
}

/// Whether [`attend`] has a kernel for heads of `d` values.
pub(crate) fn attends(d: usize) -> bool {
    matches!(d, 64 | 128)
}

/// A block for 128 queries of a head.
pub(crate) fn attend<B>(attention: Attention<B>) -> Result<Call<B>> {
    const QUERIES: usize = 128;
    const KEYS: usize = 64;
    let Attention { out, q, k, v, dims: [batch, heads, kv_heads, queries, keys, d], causal } =
        attention;
    let all = [out, q, k, v];
    let strides: Vec<Strides> = all.iter().map(|(_, strides)| *strides).collect();
    let mut args: Vec<_> = all.into_iter().map(|(buffer, _)| Arg::Buffer(buffer)).collect();
    for Strides { batch, token, head } in strides {
        args.extend([batch, token, head].map(|n| Arg::I64(n as i64)));
    }
    for number in [queries, keys, heads / kv_heads, usize::from(causal)] {
        args.push(Arg::I32(int(number)?));
    }
    args.push(Arg::F32(std::f32::consts::LOG2_E / (d as f32).sqrt()));
    let grid = [queries.div_ceil(QUERIES), heads, batch];
    let grid = [int(grid[0])?, int(grid[1])?, int(grid[2])?].map(i32::unsigned_abs);
    // The queries, and two tiles each of keys and values; two bytes a value.
    let shared_bytes = 2 * (QUERIES * d + 2 * 2 * KEYS * d) as u32;
    Ok(Call { kernel: format!("attend_{d}"), grid, threads: 128, shared_bytes, args })
}

/// Kernels count in 32 bits.
fn int(n: usize) -> Result<i32> {
    i32::try_from(n)
        .map_err(|_| candle_core::Error::Msg(format!("{n} is more than a GPU's kernels count to")))
}
