//! Compiles the kernels of NVIDIA's GPUs, where the feature `cuda` asks for them; otherwise does nothing.
//!
//! One file holds machine code for every generation, and code that drivers compile for those to come. nvcc is found by `NVCC`, then in
//! `CUDA_HOME`, `CUDA_PATH` and `/usr/local/cuda`, then on the path; `scripts/cuda_toolkit` installs one.

#![allow(
    clippy::disallowed_methods,
    reason = "Cargo tells build scripts everything by the environment"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ampere in data centres and in desktops, Ada, Hopper, Blackwell.
const GENERATIONS: &[&str] = &["80", "86", "89", "90a", "120"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=src/cuda/source");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo says where results go"));
    let nvcc = nvcc();
    compile(&nvcc, &out.join("kernels.fatbin"));
    link_runtime(&nvcc, &out);
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].map(env::var_os).into_iter().flatten();
    let homes = homes.chain(["/usr/local/cuda".into()]);
    let found = homes.map(|home| Path::new(&home).join("bin/nvcc")).find(|nvcc| nvcc.is_file());
    found.unwrap_or_else(|| "nvcc".into())
}

fn compile(nvcc: &Path, to: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-O3", "-std=c++17", "-fatbin", "-o"]).arg(to);
    for generation in GENERATIONS {
        command.arg(format!("-gencode=arch=compute_{generation},code=sm_{generation}"));
    }
    let newest = GENERATIONS.last().expect("there are some");
    command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
    let done = command.arg("src/cuda/source/kernels.cu").status();
    let done = done.unwrap_or_else(|why| {
        panic!("{} does not run: {why}. scripts/build_cuda brings one along", nvcc.display())
    });
    assert!(done.success(), "{} could not compile the kernels", nvcc.display());
}

/// candle's own kernels name CUDA's runtime. The static one is linked, so that no such library has to be where the program runs.
fn link_runtime(nvcc: &Path, out: &Path) {
    let home = nvcc.parent().and_then(Path::parent).unwrap_or(Path::new("/usr/local/cuda"));
    let folders = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
    let archives = folders.map(|folder| home.join(folder).join("libcudart_static.a"));
    if let Some(archive) = archives.iter().find(|archive| archive.is_file()) {
        // By the name that is asked for.
        std::fs::copy(archive, out.join("libcudart.a")).expect("the build folder can be written");
        println!("cargo::rustc-link-search=native={}", out.display());
    }
}
