#!/usr/bin/env python3
"""What reduced precision and acceleration cost, against float32 from the same seeds: two tables in Markdown.

    cargo build --release
    python scripts/measure_quality.py [--count 50] [--dtype q8_0 --dtype q4_k] [--acceleration high]

The first table draws held-out prompts with the embedded model: relative error of the final latents, PSNR of the pictures, and
the share of the captions' promises that `models/demo/recipe/judge.py` finds kept. The second runs one step of a network of
the full widths, fewer layers and random weights: the relative error of its velocity. Needs torch, diffusers, transformers,
safetensors, numpy and Pillow.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "models/demo"
sys.path.insert(0, str(DEMO))
from recipe import captions, judge, world  # noqa: E402

DTYPES = ["f32", "bf16", "f16", "fp8", "int8", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0"]
FIRST = 1000  # number of the first held-out prompt, as in models/demo/evaluate.py
EXACT = ("f32", "none")


def prompt(number):
    """A held-out prompt and what it promises."""
    return captions.caption(world.sample_held_out(number), random.Random(f"evaluate {number}"))


def generate(zoetrope, folder, name, text, *options):
    """Draws into `folder/name.png` and `.safetensors`; the latents."""
    latents = folder / f"{name}.safetensors"
    command = [zoetrope, "generate", text, "-o", folder / f"{name}.png", "--save-latents", latents, *options]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return load_file(latents)["latents"]


def draw(folder, variant, zoetrope, size, number):
    """One held-out prompt in one variant."""
    dtype, level = variant
    options = ["--dtype", dtype, "--acceleration", level, "--seed", number, "--steps", 8, "--size", size]
    (folder / dtype / level).mkdir(parents=True, exist_ok=True)
    generate(zoetrope, folder / dtype / level, number, prompt(number)[0], *options)


def error(got, want, origin=0.0):
    """Relative to the distance of `want` from `origin`."""
    return float((got - want).norm() / (want - origin).norm())


def compared(folder, variant, numbers):
    """Mean relative error of latents, PSNR over all pixels, worst picture's PSNR, share of promises kept."""
    here, exact = folder.joinpath(*variant), folder.joinpath(*EXACT)
    errors, squares, kept = [], [], []
    for number in numbers:
        latents = [load_file(at / f"{number}.safetensors")["latents"] for at in (here, exact)]
        errors.append(error(*latents))
        got, want = [np.asarray(Image.open(at / f"{number}.png").convert("RGB"), float) for at in (here, exact)]
        squares.append(np.mean((got - want) ** 2))
        kept += [fine for _, fine in judge.checks(prompt(number)[1], judge.read(Image.open(here / f"{number}.png")))]
    decibels = lambda square: 10 * np.log10(255**2 / square) if square else float("inf")
    return np.mean(errors), decibels(np.mean(squares)), decibels(max(squares)), np.mean(kept)


def pictures(args, variants, folder):
    """The first table."""
    numbers = range(FIRST, FIRST + args.count)
    with ProcessPoolExecutor(args.workers) as pool:
        for variant in variants:
            list(pool.map(partial(draw, folder, variant, args.zoetrope, args.size), numbers))
        rows = pool.map(partial(compared, folder), variants, [numbers] * len(variants))
        print("| dtype | acceleration | latents, relative error | PSNR, dB | worst picture, dB | promises kept |")
        print("| --- | --- | ---: | ---: | ---: | ---: |")
        for (dtype, level), (off, psnr, worst, kept) in zip(variants, rows):
            print(f"| {dtype} | {level} | {off:.2e} | {psnr:.1f} | {worst:.1f} | {kept:.1%} |", flush=True)


def write_slice(folder):
    """A model of the full widths with two main layers, one of each refiner and one layer of the text encoder that runs."""
    from diffusers import ZImageTransformer2DModel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    for part in ("vae", "tokenizer", "scheduler"):
        shutil.copytree(DEMO / part, folder / part)
    shutil.copy(DEMO / "model_index.json", folder)
    words = len(PreTrainedTokenizerFast(tokenizer_file=str(DEMO / "tokenizer/tokenizer.json")))
    text = Qwen3Config(vocab_size=words, hidden_size=2560, intermediate_size=9728, num_hidden_layers=2, num_attention_heads=32,
                       num_key_value_heads=8, head_dim=128, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    networks = {"text_encoder": Qwen3Model(text), "transformer": ZImageTransformer2DModel(n_layers=2, n_refiner_layers=1)}
    for name, network in networks.items():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5 * parameter[0].numel() ** -0.5)
        network.to(torch.bfloat16).save_pretrained(folder / name)


def steps(args, variants, folder):
    """The second table. A level changes one step by its arithmetic only."""
    write_slice(folder / "model")
    options = ["--model", folder / "model", "--steps", 1, "--seed", 1, "--size", "256x256", "--guidance-scale", 0]
    of = lambda dtype, level: generate(args.zoetrope, folder, f"{dtype}-{level}", "a red house", *options,
                                       "--dtype", dtype, "--acceleration", level)
    exact = of(*EXACT)
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    print("| dtype | acceleration | one step, relative error |\n| --- | --- | ---: |")
    for variant in variants:
        print(f"| {' | '.join(variant)} | {error(of(*variant), exact, noise):.2e} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "target/release/zoetrope")
    parser.add_argument("--count", type=int, default=50, help="held-out prompts; 0 leaves the first table out")
    parser.add_argument("--size", default="192x192")
    parser.add_argument("--dtype", action="append", help="with acceleration none [all]")
    parser.add_argument("--acceleration", action="append", help="with dtype auto [regular and high]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-step", action="store_true", help="leave the second table out, which takes 6 GB")
    parser.add_argument("--keep", type=Path, help="keep the pictures in this folder")
    args = parser.parse_args()
    variants = [EXACT] + [(dtype, "none") for dtype in args.dtype or DTYPES if dtype != "f32"]
    levels = args.acceleration or ["regular", "high"]
    # `regular` rounds beside narrow weights alone, which the embedded model does not have by itself.
    variants += [("auto", level) for level in levels] + [("bf16", level) for level in levels if level == "regular"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        if args.count:
            pictures(args, variants, folder)
        if not args.no_step:
            print()
            steps(args, variants[1:], Path(temporary))


if __name__ == "__main__":
    main()
