//! Every kernel on the emulator, launched as a GPU is, against its plain twin.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};

use super::call::{self, Arg, Attention, Call, Convolution, Kind, Rows, Strides, Then, Turn};
use crate::group_norm::{self, GroupNorm};
use crate::norm::{RmsNorm, rms_norm_plain, rows_of_a_scale};
use crate::testing::{random, rounded, share, worst};
use crate::{Before, Conv, FP8_E4M3FN, Filter, Mask, Pairs, Precision, Wrap, fp8_e4m3fn_from_f32};

/// The emulator, compiled once for all tests.
fn emulator() -> &'static PathBuf {
    static EMULATOR: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = EMULATOR.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/source/emulate.cpp");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("emulate");
        let made = Command::new("c++")
            .args(["-std=c++17", "-O1", "-w", "-o"])
            .args([path.as_os_str(), source.as_ref()])
            .output()
            .expect("the kernels' emulator needs a C++ compiler by the name of c++ (Debian: g++)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (folder, path)
    });
    path
}

/// A device's memory: buffers, of which a call has the places.
#[derive(Default)]
struct Memory(Vec<Vec<u8>>);

impl Memory {
    fn put(&mut self, bytes: Vec<u8>) -> usize {
        self.0.push(bytes);
        self.0.len() - 1
    }

    /// The values of `x`, in the order in which they are counted.
    fn f32(&mut self, x: &Tensor) -> usize {
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        self.put(bytemuck::cast_slice(&values).to_vec())
    }

    fn bf16(&mut self, x: &Tensor) -> usize {
        let values: Vec<half::bf16> =
            x.to_dtype(DType::BF16).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        self.put(bytemuck::cast_slice(&values).to_vec())
    }

    fn of(&mut self, x: &Tensor, kind: Kind) -> usize {
        match kind {
            Kind::F32 => self.f32(x),
            Kind::Bf16 => self.bf16(x),
        }
    }

    /// Room for a result: not a number, until it is written.
    fn poison(&mut self, values: usize, value_bytes: usize) -> usize {
        self.put(vec![0xff; values * value_bytes])
    }

    fn room(&mut self, values: usize, kind: Kind) -> usize {
        self.poison(values, if kind == Kind::F32 { 4 } else { 2 })
    }

    fn run(&mut self, call: Call<usize>) {
        let mut input = format!("{}\n", call.kernel).into_bytes();
        let [x, y, z] = call.grid;
        for number in [x, y, z, call.threads, call.shared_bytes, call.args.len() as u32] {
            input.extend(number.to_le_bytes());
        }
        let mut buffers = Vec::new();
        for arg in &call.args {
            match arg {
                Arg::Buffer(buffer) => {
                    input.push(b'b');
                    input.extend((self.0[*buffer].len() as u64).to_le_bytes());
                    input.extend(&self.0[*buffer]);
                    buffers.push(*buffer);
                }
                Arg::Null => input.push(b'0'),
                Arg::I32(number) => {
                    input.push(b'i');
                    input.extend(number.to_le_bytes());
                }
                Arg::I64(number) => {
                    input.push(b'l');
                    input.extend(number.to_le_bytes());
                }
                Arg::F32(number) => {
                    input.push(b'f');
                    input.extend(number.to_le_bytes());
                }
            }
        }
        let mut child = Command::new(emulator())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{}: {:?} {said}", call.kernel, done.status);
        let mut left = &done.stdout[..];
        for buffer in buffers {
            let (own, others) = left.split_at(self.0[buffer].len());
            self.0[buffer] = own.to_vec();
            left = others;
        }
        assert!(left.is_empty());
    }

    /// What a buffer holds, in float32.
    fn tensor(&self, buffer: usize, kind: Kind, shape: &[usize]) -> Tensor {
        let bytes = &self.0[buffer];
        let values: Vec<f32> = match kind {
            Kind::F32 => floats(bytes),
            Kind::Bf16 => {
                let narrow = bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]));
                narrow.map(half::bf16::to_f32).collect()
            }
        };
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// As a kernel that reads `kind` gets `x`.
fn seen(x: &Tensor, kind: Kind) -> Tensor {
    if kind == Kind::Bf16 { rounded(x) } else { x.clone() }
}

/// The largest difference as a share of what values of `kind` may be off: below 1 is right.
fn off(got: &Tensor, want: &Tensor, kind: Kind) -> f32 {
    let most = want.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let most = most.to_scalar::<f32>().unwrap().max(1.0);
    worst(got, want) / most / if kind == Kind::F32 { 2e-6 } else { 2f32.powi(-8) }
}

/// Rows that are alone, that fill packets of four or do not, and one wider than a block has threads.
const ROWS: &[[usize; 3]] = &[[1, 1, 7], [2, 3, 64], [1, 5, 192], [3, 2, 1100]];

#[test]
fn norms_are_those_of_the_plain_twin() {
    for &[batch, tokens, width] in ROWS {
        for (from, to) in
            [Kind::F32, Kind::Bf16].map(|f| [(f, Kind::F32), (f, Kind::Bf16)]).concat()
        {
            // Without a scale, with one for a picture, and with one for every token, as pictures without noise make them.
            for scales in [None, Some(1), Some(tokens)] {
                let (x, added) = (random(&[batch, tokens, width]), random(&[batch, tokens, width]));
                let norm = RmsNorm { weight: random(&[width]), eps: 1e-5 };
                let scale = scales.map(|scales| random(&[batch, scales, width]));
                let want = rms_norm_plain(&seen(&x, from), &norm, scale.as_ref()).unwrap();
                let want = if scale.is_some() { (&want + &added).unwrap() } else { want };
                let mut memory = Memory::default();
                let out = memory.room(x.elem_count(), to);
                let source = Rows::Normed {
                    x: (memory.of(&x, from), from),
                    weight: memory.f32(&norm.weight),
                    scale: scale.as_ref().map(|scale| memory.f32(scale)),
                    shared: rows_of_a_scale(&x, &norm, scale.as_ref()).unwrap(),
                    eps: norm.eps,
                };
                let added = scale.is_some().then(|| memory.f32(&added));
                let dims = [batch * tokens, width];
                memory.run(call::write_rows((out, to), source, added, dims).unwrap());
                let off = off(&memory.tensor(out, to, x.dims()), &want, to);
                assert!(off < 1.0, "{from:?} to {to:?} {dims:?} {scales:?}: {off}");
            }
        }
    }
}

#[test]
fn gates_are_those_of_the_plain_twin() {
    for &[batch, tokens, width] in ROWS {
        for (from, to) in
            [(Kind::F32, Kind::F32), (Kind::F32, Kind::Bf16), (Kind::Bf16, Kind::Bf16)]
        {
            let (gate, up) =
                ((random(&[batch, tokens, width]) * 3.0).unwrap(), random(&[batch, tokens, width]));
            let want = (seen(&gate, from).silu().unwrap() * seen(&up, from)).unwrap();
            let mut memory = Memory::default();
            let out = memory.room(gate.elem_count(), to);
            let source =
                Rows::Gated { gate: memory.of(&gate, from), up: memory.of(&up, from), kind: from };
            let dims = [batch * tokens, width];
            memory.run(call::write_rows((out, to), source, None, dims).unwrap());
            let off = off(&memory.tensor(out, to, gate.dims()), &want, to);
            assert!(off < 1.0, "{from:?} to {to:?} {dims:?}: {off}");
        }
    }
}

#[test]
fn eight_bits_are_the_nearest_and_widen_to_what_they_are() {
    for &[batch, tokens, width] in ROWS {
        let x = random(&[batch * tokens, width]);
        for from in [Kind::F32, Kind::Bf16] {
            let mut memory = Memory::default();
            let (out, scales) =
                (memory.poison(x.elem_count(), 1), memory.room(batch * tokens, Kind::F32));
            let source = Rows::Kept { x: (memory.of(&x, from), from) };
            memory.run(call::write_fp8((out, scales), source, [batch * tokens, width]).unwrap());
            let factors = floats(&memory.0[scales]);
            let rows: Vec<Vec<f32>> = seen(&x, from).to_vec2().unwrap();
            for ((row, factor), bytes) in rows.iter().zip(&factors).zip(memory.0[out].chunks(width))
            {
                let most = row.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert!((factor * 448.0 / most - 1.0).abs() < 1e-6);
                for (value, byte) in row.iter().zip(bytes) {
                    let near = fp8_e4m3fn_from_f32(value * (1.0 / factor));
                    assert_eq!(*byte, near, "{value} with {factor}");
                }
            }
            let wide = memory.room(x.elem_count(), Kind::Bf16);
            memory.run(call::widen_fp8(wide, out, scales, [batch * tokens, width]).unwrap());
            let want: Vec<f32> = memory.0[out]
                .chunks(width)
                .zip(&factors)
                .flat_map(|(row, factor)| row.iter().map(move |b| FP8_E4M3FN[*b as usize] * factor))
                .collect();
            let want = Tensor::from_vec(want, x.dims(), &Device::Cpu).unwrap();
            assert_eq!(worst(&memory.tensor(wide, Kind::Bf16, x.dims()), &rounded(&want)), 0.0);
        }
    }
}

#[test]
fn norms_and_gates_in_eight_bits_are_the_rounded_plain_twins() {
    let (batch, tokens, width) = (2, 3, 192);
    let (rows, shape) = (batch * tokens, [batch, tokens, width]);
    let (x, up) = (random(&shape), random(&shape));
    let norm = RmsNorm { weight: random(&[width]), eps: 1e-5 };
    let scales = [random(&[batch, 1, width]), random(&shape)];
    for kind in [Kind::F32, Kind::Bf16] {
        let gated = (seen(&x, kind).silu().unwrap() * seen(&up, kind)).unwrap();
        let normed = |scale| rms_norm_plain(&seen(&x, kind), &norm, Some(scale)).unwrap();
        let normed = scales.iter().map(|scale| (normed(scale), Some(scale)));
        for (want, scale) in normed.chain([(gated, None)]) {
            let mut memory = Memory::default();
            let (out, factors) = (memory.poison(rows * width, 1), memory.room(rows, Kind::F32));
            let place = memory.of(&x, kind);
            let source = match scale {
                None => Rows::Gated { gate: place, up: memory.of(&up, kind), kind },
                Some(scale) => Rows::Normed {
                    x: (place, kind),
                    weight: memory.f32(&norm.weight),
                    scale: Some(memory.f32(scale)),
                    shared: rows_of_a_scale(&x, &norm, Some(scale)).unwrap(),
                    eps: norm.eps,
                },
            };
            memory.run(call::write_fp8((out, factors), source, [rows, width]).unwrap());
            let factors = memory.tensor(factors, Kind::F32, &[batch, tokens, 1]);
            let values: Vec<f32> = memory.0[out].iter().map(|b| FP8_E4M3FN[*b as usize]).collect();
            let got = Tensor::from_vec(values, &shape, &Device::Cpu).unwrap();
            let got = got.broadcast_mul(&factors).unwrap();
            // Half a step of three bits after the first.
            assert!(share(&got, &want) < 0.03, "{kind:?}: {}", share(&got, &want));
        }
    }
}

#[test]
fn scales_of_rows_and_columns_are_multiplied_in() {
    let (rows, width) = (5, 300);
    let (y, of_rows, of_columns) =
        (random(&[rows, width]), random(&[rows, 1]), random(&[1, width]));
    for kind in [Kind::F32, Kind::Bf16] {
        let mut memory = Memory::default();
        let place = memory.of(&y, kind);
        let scales = [memory.f32(&of_rows), memory.f32(&of_columns)];
        memory.run(call::scale((place, kind), scales[0], scales[1], [rows, width]).unwrap());
        let want =
            seen(&y, kind).broadcast_mul(&of_rows).unwrap().broadcast_mul(&of_columns).unwrap();
        assert!(off(&memory.tensor(place, kind, y.dims()), &want, kind) < 1.0);
    }
}

#[test]
fn heads_turn_as_the_plain_twin_turns_them() {
    for (batch, tokens, heads, d) in
        [(1, 1, 1, 2), (2, 5, 3, 20), (1, 9, 2, 128), (1, 3, 4, 66), (1, 2, 1, 256)]
    {
        let x = random(&[batch, tokens, heads, d]);
        let norm = RmsNorm { weight: random(&[d]), eps: 1e-5 };
        let angles = random(&[tokens, d / 2]);
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        for pairs in [Pairs::Neighbours, Pairs::Halves] {
            for kind in [Kind::F32, Kind::Bf16] {
                let want = crate::rope::plain(&seen(&x, kind), &norm, (&cos, &sin), pairs).unwrap();
                let mut memory = Memory::default();
                let out = memory.room(x.elem_count(), kind);
                let turn = Turn {
                    out,
                    x: memory.of(&x, kind),
                    kind,
                    weight: memory.f32(&norm.weight),
                    cos: memory.f32(&cos),
                    sin: memory.f32(&sin),
                    dims: [batch, tokens, heads, d],
                    halves: pairs == Pairs::Halves,
                    eps: norm.eps,
                };
                memory.run(call::turn(turn).unwrap());
                let got = memory.tensor(out, kind, x.dims()).transpose(1, 2).unwrap();
                assert!(off(&got, &want, kind) < 2.0, "{pairs:?} {kind:?} {:?}", x.dims());
            }
        }
    }
}

#[test]
fn group_norms_are_those_of_the_plain_twin() {
    for (batch, channels, height, width, groups) in
        [(1, 6, 3, 5, 2), (2, 24, 20, 30, 4), (1, 320, 9, 7, 32)]
    {
        let x = (random(&[batch, height, width, channels]) + 1.0).unwrap();
        let (weight, bias) = (random(&[channels]), random(&[channels]));
        let norm = GroupNorm { weight, bias, groups, eps: 1e-6 };
        let image = x.permute((0, 3, 1, 2)).unwrap();
        let want = group_norm::plain(&image.contiguous().unwrap(), &norm).unwrap();
        for (kind, then) in
            [(Kind::F32, Then::Nothing), (Kind::F32, Then::Silu), (Kind::Bf16, Then::Silu)]
        {
            let want = if then == Then::Silu { want.silu().unwrap() } else { want.clone() };
            let dims = [batch, height * width, channels];
            let mut memory = Memory::default();
            let (place, out) = (memory.f32(&x), memory.room(x.elem_count(), kind));
            let sums = memory.room(batch * call::chunks(dims[1]) * 2 * channels, Kind::F32);
            memory.run(call::channel_sums(sums, place, dims).unwrap());
            let factors = memory.room(batch * 2 * channels, Kind::F32);
            let from = [sums, memory.f32(&norm.weight), memory.f32(&norm.bias)];
            memory.run(call::group_factors(factors, from, dims, groups, norm.eps).unwrap());
            memory.run(call::apply((out, kind), place, factors, dims, then).unwrap());
            let got = memory.tensor(out, kind, x.dims()).permute((0, 3, 1, 2)).unwrap();
            assert!(off(&got, &want, kind) < 2.0, "{kind:?} {dims:?}: {}", off(&got, &want, kind));
        }
    }
}

#[test]
fn convolutions_are_those_of_the_plain_twin() {
    // Channels that fill a unit of depth and do not, more pixels and outputs than a tile, every size, stride and padding that networks have.
    let cases = [
        ([1, 16, 9, 13], 40, 3, 1, [1, 1], false),
        ([2, 40, 7, 11], 130, 3, 1, [1, 1], true),
        ([1, 64, 12, 14], 3, 3, 2, [0, 1], false),
        ([1, 24, 5, 6], 20, 1, 1, [0, 0], false),
    ];
    // Edges that meet and do not, each with everything else.
    let wraps = [(false, false), (true, false), (false, true), (true, true)];
    let wraps = wraps.map(|(rows, columns)| Wrap { rows, columns });
    let cases = cases.iter().flat_map(|case| wraps.map(|wrap| (*case, wrap)));
    for (([batch, channels, height, width], outputs, size, stride, padding, doubled), wrap) in cases
    {
        let x = rounded(&random(&[batch, channels, height, width]));
        let weight = rounded(&random(&[outputs, channels, size, size]));
        let bias = random(&[outputs]);
        let filter = Filter::new(&weight, Precision::F32, stride).unwrap();
        let before = if doubled { Before::Double } else { Before::Nothing };
        let conv = Conv { filter: &filter, bias: &bias, padding, wrap };
        let want = crate::conv::plain(&x, before, conv, None).unwrap();
        let (_, _, rows, columns) = want.dims4().unwrap();
        let residual = random(want.dims());
        for added in [false, true] {
            let mut memory = Memory::default();
            let out = memory.room(want.elem_count(), Kind::F32);
            let last = |x: &Tensor| x.permute((0, 2, 3, 1)).unwrap();
            let taps = weight.permute((2, 3, 0, 1)).unwrap(); // [size, size, outputs, channels]
            let convolution = Convolution {
                out,
                x: memory.bf16(&last(&x)),
                filter: memory.bf16(&taps),
                bias: memory.f32(&bias),
                residual: added.then(|| memory.f32(&last(&residual))),
                image: [batch, height, width, channels],
                result: [rows, columns, outputs],
                size,
                stride,
                padding: padding[0],
                doubled,
                wrap,
            };
            memory.run(call::convolve(convolution).unwrap());
            let got = memory.tensor(out, Kind::F32, &[batch, rows, columns, outputs]);
            let got = got.permute((0, 3, 1, 2)).unwrap();
            let want = if added { (&want + &residual).unwrap() } else { want.clone() };
            assert!(
                off(&got, &want, Kind::F32) < 2.0,
                "{:?} {wrap:?}: {}",
                x.dims(),
                off(&got, &want, Kind::F32)
            );
        }
    }
}

#[test]
fn attention_is_that_of_the_plain_twin() {
    // Batch, heads, heads of keys, queries, keys, d: tiles that are full and not, grouped queries, fewer queries than keys.
    let cases = [
        ([1, 2, 1, 150, 150, 128], Mask::Causal),
        ([2, 2, 2, 130, 200, 64], Mask::None),
        ([1, 1, 1, 5, 70, 128], Mask::None),
        ([1, 2, 2, 40, 90, 128], Mask::Causal),
        ([1, 1, 1, 128, 64, 64], Mask::None),
    ];
    for (dims, mask) in cases {
        let [batch, heads, kv_heads, queries, keys, d] = dims;
        let of = |tokens, heads| rounded(&random(&[batch, tokens, heads, d]));
        let (q, k, v) = (of(queries, heads), of(keys, kv_heads), of(keys, kv_heads));
        let view = |x: &Tensor| x.transpose(1, 2).unwrap();
        let want = crate::attention::plain(&view(&q), &view(&k), &view(&v), mask).unwrap();
        let mut memory = Memory::default();
        let strides =
            |tokens, heads| Strides { batch: tokens * heads * d, token: heads * d, head: d };
        let (of_queries, of_keys) = (strides(queries, heads), strides(keys, kv_heads));
        let out = memory.room(q.elem_count(), Kind::Bf16);
        let attention = Attention {
            out: (out, of_queries),
            q: (memory.bf16(&q), of_queries),
            k: (memory.bf16(&k), of_keys),
            v: (memory.bf16(&v), of_keys),
            dims,
            causal: mask == Mask::Causal,
        };
        memory.run(call::attend(attention).unwrap());
        let got = view(&memory.tensor(out, Kind::Bf16, q.dims()));
        // Weights are rounded by 2⁻⁹ of each, and average over values below 5; so is the result.
        assert!(worst(&got, &want) < 2e-2, "{dims:?}: {}", worst(&got, &want));
        assert!(share(&got, &want) < 5e-3, "{dims:?}: {}", share(&got, &want));
    }
}
