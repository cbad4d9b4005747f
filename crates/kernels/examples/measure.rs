//! Every kernel at the shapes of Z-Image, on one thread: operations a second of that thread's own time, and the share of
//! what the processor reaches in registers in the same run. Thread time does not count what other programs take.
//!
//! `words` takes linear layers of one row, as a language model has for each of its words, or of as many as are asked for: bytes of weights a second, and the share of
//! what the same thread reads from memory.
//!
//! `layer` takes what a layer of the transformer does, one operation after another: milliseconds of each.
//!
//!     cargo run --release -p zoetrope-kernels --example measure [-- linear|words|attention|conv|rows|layer] [rows]

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use cpu_time::ThreadTime;
use zoetrope_kernels::peak::{Arithmetic, multiply_in_registers, read_memory};
use zoetrope_kernels::{
    Before, Conv, Filter, GroupNorm, Input, Level, Mask, Matrix, Pairs, Precision, Recycling,
    RmsNorm, Wrap, add_gated, attention, conv2d, linear, linears, norm_and_rotate, rms_norm,
    swiglu,
};

/// As in the program that is measured: without it, a part of the time goes to the system's clearing of pages.
#[global_allocator]
static ALLOCATOR: Recycling = Recycling;

/// The best of three runs, in seconds of this thread.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut once = || {
        let start = ThreadTime::now();
        std::hint::black_box(work());
        start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Operations a second in registers.
fn peak(arithmetic: Arithmetic) -> f64 {
    let steps = 2_000_000;
    let work = multiply_in_registers(Level::best(), arithmetic, steps);
    work.map_or(f64::NAN, |work| {
        work / seconds(|| multiply_in_registers(Level::best(), arithmetic, steps))
    })
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

/// Prints what `work` reaches, once for warming up.
fn report<T>(name: &str, operations: f64, arithmetic: Arithmetic, mut work: impl FnMut() -> T) {
    work();
    let speed = operations / seconds(work);
    let share = 100.0 * speed / peak(arithmetic);
    println!("{name:<44} {:7.1} G/s {share:5.1} % of {arithmetic:?}", speed / 1e9);
}

fn forms(rows: usize) -> Result<()> {
    for (width, out) in [(3840, 3840), (3840, 10240), (10240, 3840)] {
        let (x, w) = (random(&[rows, width]), random(&[out, width]));
        let operations = 2.0 * (rows * width * out) as f64;
        let blocks = |kind| QTensor::quantize(&w, kind).map(|q| Matrix::Quantized(Arc::new(q)));
        let forms = [
            ("f32", Matrix::Dense(w.clone()), Arithmetic::F32),
            ("bf16", Matrix::Dense(w.to_dtype(DType::BF16)?), Arithmetic::Bf16),
            ("int8", Matrix::Dense(w.clone()).to_int8()?, Arithmetic::Int8),
            ("q8_0", blocks(GgmlDType::Q8_0)?, Arithmetic::Int8),
            ("q6_k", blocks(GgmlDType::Q6K)?, Arithmetic::Int8),
            ("q5_k", blocks(GgmlDType::Q5K)?, Arithmetic::Int8),
            ("q4_k", blocks(GgmlDType::Q4K)?, Arithmetic::Int8),
            ("q4_0", blocks(GgmlDType::Q4_0)?, Arithmetic::Int8),
        ];
        for (name, form, arithmetic) in forms {
            let form = form.packed()?;
            let name = format!("linear {name} {rows} x {width} x {out}");
            report(&name, operations, arithmetic, || linear(&x, &form, None).unwrap());
        }
    }
    Ok(())
}

/// One row, or as many as are asked for, through weights that no cache holds.
fn words(rows: usize) -> Result<()> {
    const BYTES: f64 = (256 << 20) as f64;
    let values = vec![1f32; BYTES as usize / 4];
    let memory = BYTES / seconds(|| read_memory(Level::best(), &values));
    println!("{:<44} {:7.1} GB/s", "reading memory", memory / 1e9);
    let (width, out) = (2560, 38912); // four times the text encoder's widest layer
    let (x, w) = (random(&[rows, width]), random(&[out, width]));
    let blocks = |kind| QTensor::quantize(&w, kind).map(|q| Matrix::Quantized(Arc::new(q)));
    let forms = [
        ("bf16", Matrix::Dense(w.to_dtype(DType::BF16)?)),
        ("int8", Matrix::Dense(w.clone()).to_int8()?),
        ("q8_0", blocks(GgmlDType::Q8_0)?),
        ("q6_k", blocks(GgmlDType::Q6K)?),
        ("q5_k", blocks(GgmlDType::Q5K)?),
        ("q4_k", blocks(GgmlDType::Q4K)?),
        ("q4_0", blocks(GgmlDType::Q4_0)?),
    ];
    for (name, form) in forms {
        let form = form.packed()?;
        let bytes = form.memory_bytes() as f64;
        linear(&x, &form, None)?; // warms up
        let speed = bytes / seconds(|| linear(&x, &form, None).unwrap());
        let (name, share) =
            (format!("linear {name} {rows} x {width} x {out}"), 100.0 * speed / memory);
        println!("{name:<44} {:7.1} GB/s {share:5.1} % of memory", speed / 1e9);
    }
    Ok(())
}

fn attentions(rows: usize) {
    for (heads, tokens, d) in [(4, rows, 128), (1, rows, 512)] {
        let x = random(&[1, heads, tokens, d]);
        let operations = 4.0 * (heads * tokens * tokens * d) as f64;
        // Half of the work of int8 attention is bfloat16, so that its share may be beyond 1.
        for (precision, arithmetic, form) in [
            (Precision::F32, Arithmetic::F32, ""),
            (Precision::Bf16, Arithmetic::Bf16, ""),
            (Precision::Int8, Arithmetic::Bf16, ", int8 scores"),
        ] {
            let name = format!("attention {heads} heads x {tokens} x {d}{form}");
            report(&name, operations, arithmetic, || {
                attention(&x, &x, &x, Mask::None, precision).unwrap()
            });
        }
    }
}

fn convs() -> Result<()> {
    for (channels, side) in [(512, 64), (256, 128), (128, 256)] {
        let x = random(&[1, side, side, channels]).permute((0, 3, 1, 2))?;
        let (weight, bias) = (random(&[channels, channels, 3, 3]), random(&[channels]));
        let norm = GroupNorm { weight: bias.clone(), bias: bias.clone(), groups: 32, eps: 1e-6 };
        let operations = 2.0 * (9 * channels * channels * side * side) as f64;
        for (precision, arithmetic) in
            [(Precision::F32, Arithmetic::F32), (Precision::Bf16, Arithmetic::Bf16)]
        {
            let filter = Filter::new(&weight, precision, 1)?;
            let conv =
                Conv { filter: &filter, bias: &bias, padding: [1, 1], wrap: Wrap::default() };
            let ways = [
                ("", Before::Nothing),
                (" normed", Before::NormSilu(&norm)),
                (" doubled", Before::Double),
            ];
            for (name, before) in ways {
                let operations = if name == " doubled" { 4.0 * operations } else { operations };
                let name = format!("conv{name} {channels} channels {side} x {side}");
                report(&name, operations, arithmetic, || conv2d(&x, before, conv, None).unwrap());
            }
        }
    }
    Ok(())
}

/// What moves memory more than it computes, in values a second.
fn rows(tokens: usize) {
    let (x, y) = (random(&[1, tokens, 3840]), random(&[1, tokens, 3840]));
    let norm = RmsNorm { weight: random(&[3840]), eps: 1e-5 };
    let gate = random(&[1, 1, 3840]);
    let values = x.elem_count() as f64;
    let print =
        |name: &str, seconds: f64| println!("{name:<44} {:7.2} G values/s", values / seconds / 1e9);
    print("rms_norm", seconds(|| rms_norm(&x, &norm, Some(&gate)).unwrap()));
    print("add_gated", seconds(|| add_gated(&x, &y, &norm, Some(&gate)).unwrap()));
    print("swiglu", seconds(|| swiglu(&x, &y).unwrap()));
    let heads = x.reshape((1, tokens, 30, 128)).unwrap();
    let norm = RmsNorm { weight: random(&[128]), eps: 1e-5 };
    let angles = random(&[tokens, 64]);
    let rotate = || norm_and_rotate(&heads, &norm, (&angles, &angles), Pairs::Neighbours).unwrap();
    print("norm_and_rotate", seconds(rotate));
}

/// A layer of the transformer with `tokens`, in the order of its work.
fn layer(tokens: usize) -> Result<()> {
    const DIM: usize = 3840;
    const INNER: usize = 10240;
    let x = random(&[1, tokens, DIM]);
    let (norm, gate) = (RmsNorm { weight: random(&[DIM]), eps: 1e-5 }, random(&[1, 1, DIM]));
    let head_norm = RmsNorm { weight: random(&[128]), eps: 1e-5 };
    let angles = random(&[tokens, 64]);
    for form in ["bf16", "int8"] {
        let weight = |out: usize, width: usize| {
            let w = random(&[out, width]);
            let w = (w / (width as f64).sqrt())?;
            match form {
                "bf16" => Matrix::Dense(w.to_dtype(DType::BF16)?).packed(),
                _ => Matrix::Dense(w).to_int8(),
            }
        };
        let [q, k, v, out] = [(); 4].map(|()| weight(DIM, DIM));
        let (q, k, v, out) = (q?, k?, v?, out?);
        let (w1, w3, w2) = (weight(INNER, DIM)?, weight(INNER, DIM)?, weight(DIM, INNER)?);
        let normed = Input::Normed { x: &x, norm: &norm, scale: Some(&gate) };
        let mut sum = 0.0;
        let mut print = |name: &str, operations: f64, seconds: f64| {
            sum += seconds;
            let speed = operations / seconds / 1e9;
            println!("{form} {name:<36} {:8.2} ms {speed:7.1} G/s", seconds * 1e3);
        };
        let product = |out: usize, width: usize| 2.0 * (tokens * out * width) as f64;
        let qkv = || linears(normed, &[(&q, None), (&k, None), (&v, None)]).unwrap();
        print("norm, q, k, v", 3.0 * product(DIM, DIM), seconds(qkv));
        let heads = |y: &Tensor| y.reshape((1, tokens, 30, 128)).unwrap();
        let projected = qkv();
        let rotate = |y| {
            norm_and_rotate(&heads(y), &head_norm, (&angles, &angles), Pairs::Neighbours).unwrap()
        };
        let both = || (rotate(&projected[0]), rotate(&projected[1]));
        print("norm and rotate", 0.0, seconds(both));
        let (queries, keys) = both();
        let values = heads(&projected[2]).transpose(1, 2)?;
        let attend =
            |precision| attention(&queries, &keys, &values, Mask::None, precision).unwrap();
        let operations = 4.0 * (tokens * tokens * DIM) as f64;
        let precision = if form == "bf16" { Precision::Bf16 } else { Precision::Int8 };
        print("attention", operations, seconds(|| attend(precision)));
        let attended = attend(precision).transpose(1, 2)?.flatten_from(2)?;
        print("out", product(DIM, DIM), seconds(|| linear(&attended, &out, None).unwrap()));
        print("add gated", 0.0, seconds(|| add_gated(&x, &attended, &norm, Some(&gate)).unwrap()));
        let up = || linears(normed, &[(&w1, None), (&w3, None)]).unwrap();
        print("norm, gate, up", 2.0 * product(INNER, DIM), seconds(up));
        let inner = up();
        let down = || {
            let gated = Input::Gated { gate: &inner[0], up: &inner[1] };
            linears(gated, &[(&w2, None)]).unwrap()
        };
        print("swiglu, down", product(DIM, INNER), seconds(down));
        print("add gated", 0.0, seconds(|| add_gated(&x, &attended, &norm, Some(&gate)).unwrap()));
        println!("{form} {:<36} {:8.2} ms", "all", sum * 1e3);
    }
    Ok(())
}

fn main() -> Result<()> {
    // Work that a pool does is not in its caller's time; inside a pool of one thread, the caller is that thread.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let what = std::env::args().nth(1).unwrap_or_else(|| "all".into());
    let asked = std::env::args().nth(2).and_then(|n| n.parse().ok());
    let tokens = asked.unwrap_or(288);
    pool.install(|| {
        println!("{}", Level::best());
        let all = what == "all";
        if all || what == "linear" {
            forms(tokens)?;
        }
        if all || what == "words" {
            words(if all { 1 } else { asked.unwrap_or(1) })?;
        }
        if all || what == "attention" {
            attentions(tokens.max(1056));
        }
        if all || what == "conv" {
            convs()?;
        }
        if all || what == "rows" {
            rows(tokens);
        }
        if all || what == "layer" {
            layer(tokens)?;
        }
        Ok(())
    })
}
