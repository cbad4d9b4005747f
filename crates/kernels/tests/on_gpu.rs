//! The named operations on a GPU, through the doors that networks use, against the same on the processor. Run where there is one:
//! `cargo test -p zoetrope-kernels --features cuda --test on_gpu -- --ignored`.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)]

#[path = "../src/testing.rs"]
mod testing;

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use testing::{random, rounded, share, worst};
use zoetrope_kernels::{
    Before, Conv, Filter, GroupNorm, Input, Mask, Matrix, Pairs, Precision, RmsNorm, Statistics,
    Wrap, add_gated, attention, conv2d, group_norm, linears, norm_and_rotate, open_cuda, rms_norm,
    swiglu,
};

fn gpu() -> Device {
    open_cuda(0).unwrap()
}

fn there(x: &Tensor) -> Tensor {
    x.to_device(&gpu()).unwrap()
}

fn back(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu).unwrap()
}

fn narrow(x: &Tensor) -> Tensor {
    there(x).to_dtype(DType::BF16).unwrap()
}

fn norm_there(norm: &RmsNorm) -> RmsNorm {
    RmsNorm { weight: there(&norm.weight), eps: norm.eps }
}

#[test]
#[ignore = "needs a GPU"]
fn norms_gates_and_turns_are_those_of_the_processor() {
    for (tokens, width) in [(1, 256), (70, 3840), (33, 130)] {
        let (x, y) = (random(&[2, tokens, width]), random(&[2, tokens, width]));
        let norm = RmsNorm { weight: random(&[width]), eps: 1e-5 };
        let of_gpu = norm_there(&norm);
        // One for a picture, and one for every token.
        for scale in [random(&[2, 1, width]), random(&[2, tokens, width])] {
            let got = rms_norm(&there(&x), &of_gpu, Some(&there(&scale))).unwrap();
            assert!(worst(&back(&got), &rms_norm(&x, &norm, Some(&scale)).unwrap()) < 5e-5);
            let got = add_gated(&there(&x), &there(&y), &of_gpu, Some(&there(&scale))).unwrap();
            assert!(worst(&back(&got), &add_gated(&x, &y, &norm, Some(&scale)).unwrap()) < 5e-5);
        }
        let got = swiglu(&there(&x), &there(&y)).unwrap();
        assert!(worst(&back(&got), &swiglu(&x, &y).unwrap()) < 2e-5);
    }
    let (x, angles) = (random(&[1, 70, 30, 128]), random(&[70, 64]));
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let norm = RmsNorm { weight: random(&[128]), eps: 1e-5 };
    for pairs in [Pairs::Neighbours, Pairs::Halves] {
        let want = norm_and_rotate(&x, &norm, (&cos, &sin), pairs).unwrap();
        let (cos, sin) = (there(&cos), there(&sin));
        let got = norm_and_rotate(&there(&x), &norm_there(&norm), (&cos, &sin), pairs).unwrap();
        assert!(worst(&back(&got), &want) < 5e-5, "{pairs:?}");
        let got = norm_and_rotate(&narrow(&x), &norm_there(&norm), (&cos, &sin), pairs).unwrap();
        assert_eq!(got.dtype(), DType::BF16);
        assert!(share(&back(&got), &want) < 5e-3, "{pairs:?}");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_is_that_of_the_processor() {
    for (heads, kv_heads, queries, keys, d, mask) in [
        (30, 30, 1056, 1056, 128, Mask::None),
        (32, 8, 77, 77, 128, Mask::Causal),
        (3, 3, 130, 200, 64, Mask::None),
        (1, 1, 700, 700, 512, Mask::None),
        (2, 2, 40, 40, 96, Mask::None),
    ] {
        let of = |tokens, heads| rounded(&random(&[1, tokens, heads, d])).transpose(1, 2).unwrap();
        let (q, k, v) = (of(queries, heads), of(keys, kv_heads), of(keys, kv_heads));
        let want = attention(&q, &k, &v, mask, Precision::F32).unwrap();
        let got = attention(&there(&q), &there(&k), &there(&v), mask, Precision::F32).unwrap();
        assert!(worst(&back(&got), &want) < 5e-5, "{d} float32: {}", worst(&back(&got), &want));
        let got = attention(&narrow(&q), &narrow(&k), &narrow(&v), mask, Precision::Bf16).unwrap();
        assert_eq!(got.dims(), want.dims());
        assert!(share(&back(&got), &want) < 8e-3, "{d}: {}", share(&back(&got), &want));
    }
}

#[test]
#[ignore = "needs a GPU"]
fn linear_layers_are_those_of_the_processor() {
    let (x, norm) = (random(&[1, 70, 512]), RmsNorm { weight: random(&[512]), eps: 1e-5 });
    let w = (random(&[256, 512]) / 22.0).unwrap();
    let bias = random(&[256]);
    let dense = |w: &Tensor| Matrix::Dense(narrow(w));
    let blocks = |kind| {
        let blocks = Matrix::Quantized(Arc::new(QTensor::quantize(&w, kind).unwrap()));
        blocks.to_device(&gpu()).unwrap()
    };
    // What each form may add to the rounding of inputs to bfloat16, as a share of the results.
    let forms = [
        (Matrix::Dense(there(&w)), 1e-5),
        (dense(&w), 8e-3),
        (dense(&w).to_fp8_rows().unwrap(), 6e-2),
        (blocks(GgmlDType::Q8_0), 1e-2),
        (blocks(GgmlDType::Q4K), 9e-2),
    ];
    let x_there = there(&x);
    let of_gpu = norm_there(&norm);
    let up = random(&[1, 70, 512]);
    let up_there = there(&up);
    for (form, allowed) in &forms {
        for (input, wide) in [
            (Input::Plain(&x_there), x.clone()),
            (
                Input::Normed { x: &x_there, norm: &of_gpu, scale: None },
                rms_norm(&x, &norm, None).unwrap(),
            ),
            (Input::Gated { gate: &x_there, up: &up_there }, swiglu(&x, &up).unwrap()),
        ] {
            let want =
                wide.broadcast_matmul(&w.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
            let bias = there(&bias);
            let one = linears(input, &[(form, Some(&bias))]).unwrap();
            assert_eq!(one[0].dtype(), DType::F32);
            let two = linears(input, &[(form, Some(&bias)), (form, Some(&bias))]).unwrap();
            for got in one.iter().chain(&two) {
                assert_eq!(got.dims(), [1, 70, 256]);
                let off = share(&back(got), &want);
                assert!(off < *allowed, "{form:?}: {off}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn convolutions_and_their_norms_are_those_of_the_processor() {
    let x = random(&[1, 64, 37, 29]);
    let norm = GroupNorm { weight: random(&[64]), bias: random(&[64]), groups: 32, eps: 1e-6 };
    let of_gpu = GroupNorm { weight: there(&norm.weight), bias: there(&norm.bias), ..norm.clone() };
    let got = group_norm(&there(&x), &of_gpu).unwrap();
    assert!(worst(&back(&got), &group_norm(&x, &norm).unwrap()) < 5e-5);

    let mut statistics = [Statistics::default(), Statistics::default()];
    for (start, rows) in [(0, 20), (20, 17)] {
        let piece = x.narrow(2, start, rows).unwrap();
        statistics[0].add(&piece).unwrap();
        statistics[1].add(&there(&piece)).unwrap();
    }
    let known = [norm.with(&statistics[0]).unwrap(), of_gpu.with(&statistics[1]).unwrap()];

    for (outputs, size, stride, padding) in
        [(130, 3, 1, [1, 1]), (64, 3, 2, [0, 1]), (3, 1, 1, [0, 0])]
    {
        let weight = (random(&[outputs, 64, size, size]) / 20.0).unwrap();
        let bias = random(&[outputs]);
        for precision in [Precision::F32, Precision::Bf16] {
            let filter = Filter::new(&weight, Precision::F32, stride).unwrap();
            let filter_there = Filter::new(&there(&weight), precision, stride).unwrap();
            let bias_there = there(&bias);
            // Edges that do not meet, and a left and right that do.
            let wrap = Wrap { rows: false, columns: stride == 1 };
            let conv = Conv { filter: &filter, bias: &bias, padding, wrap };
            let conv_there = Conv { filter: &filter_there, bias: &bias_there, padding, wrap };
            let pairs = [
                (Before::Nothing, Before::Nothing),
                (Before::Double, Before::Double),
                (Before::NormSilu(&norm), Before::NormSilu(&of_gpu)),
                (Before::AffineSilu(&known[0]), Before::AffineSilu(&known[1])),
            ];
            for (before, before_there) in pairs {
                let want = conv2d(&x, before, conv, None).unwrap();
                let residual = random(want.dims());
                let want = (want + &residual).unwrap();
                let got =
                    conv2d(&there(&x), before_there, conv_there, Some(&there(&residual))).unwrap();
                let allowed = if precision == Precision::F32 { 1e-4 } else { 6e-3 };
                let off = share(&back(&got), &want);
                assert!(off < allowed, "{size} x {size}, {precision:?}: {off}");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_tells_its_name_and_memory() {
    let (free, all) = zoetrope_kernels::device_memory(&gpu()).unwrap();
    assert!(free <= all && all > 1 << 30);
    assert!(zoetrope_kernels::device_name(&gpu()).unwrap().contains("compute capability"));
}
