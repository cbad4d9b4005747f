#!/usr/bin/env python3
"""Zoetrope against diffusers in bfloat16, stage by stage, on this machine: a table of seconds and ratios in Markdown.

    cargo build --release
    python scripts/compare_speed.py MODEL_DIR [--size 256 --size 512] [--dtype bf16 --dtype q8_0] [--threads 2]

MODEL_DIR is a full-size Z-Image in diffusers' layout; what its weights are does not matter for speed. Needs torch,
diffusers, transformers and accelerate. Both sides run one after the other, so nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64
PADDED = 512  # what diffusers' pipeline fills every prompt up to


def median(work, runs):
    """Seconds of a run after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[runs // 2]


def diffusers_stage(model, stage, sizes, threads, runs):
    """One stage of the reference, in this process: `{stage: seconds}`."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    bf16 = torch.bfloat16
    if stage == "text":
        from transformers import Qwen3Model

        network = Qwen3Model.from_pretrained(model, subfolder="text_encoder", dtype=bf16)
        ids = torch.randint(5, 400, (1, PADDED))
        mask = torch.zeros(1, PADDED, dtype=torch.bool)
        mask[:, :TOKENS] = True
        run = lambda: network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return {f"text encoder {TOKENS} tokens": median(run, runs)}
    if stage == "step":
        from diffusers import ZImageTransformer2DModel

        network = ZImageTransformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=bf16)
        caption, t = [torch.randn(TOKENS, network.config.cap_feat_dim, dtype=bf16)], torch.tensor([0.5])

        def step(size):
            latents = [torch.randn(network.config.in_channels, 1, size // 8, size // 8, dtype=bf16)]
            return median(lambda: network(latents, t, caption, return_dict=False), runs)

        return {f"transformer step {size}x{size}": step(size) for size in sizes}
    from diffusers import AutoencoderKL

    network = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=bf16)
    network.to(memory_format=torch.channels_last)

    def decode(size):
        latents = torch.randn(1, network.config.latent_channels, size // 8, size // 8, dtype=bf16)
        return median(lambda: network.decode(latents, return_dict=False), runs)

    return {f"decode {size}x{size}": decode(size) for size in sizes}


def reference(args):
    """All stages, each in a process of its own, so that memory is told for each."""
    seconds, memory = {}, 0
    for stage in ("text", "step", "decode"):
        command = [sys.executable, __file__, args.model, "--stage", stage, "--threads", str(args.threads)]
        command += ["--runs", str(args.runs)] + [f"--size={size}" for size in args.size]
        out = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seconds |= out["seconds"]
        memory = max(memory, out["memory_bytes"])
    return seconds, memory


def own(args, dtype):
    """What `zoetrope bench` says."""
    sizes = ",".join(f"{size}x{size}" for size in args.size)
    command = [args.zoetrope, "bench", "--model", args.model, "--dtype", dtype, "--size", sizes, "--json"]
    command += ["--runs", str(args.runs), "--tokens", str(TOKENS)]
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    return json.loads(out)


def processor():
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, action="append", help="pixels a side [256, 512 and 1024]")
    parser.add_argument("--dtype", action="append", help="of zoetrope's weights [bf16 and q8_0]")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--zoetrope", default=str(ROOT / "target/release/zoetrope"))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.size = args.size or [256, 512, 1024]
    if args.stage:
        seconds = diffusers_stage(args.model, args.stage, args.size, args.threads, args.runs)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "memory_bytes": memory}))
        return

    dtypes = args.dtype or ["bf16", "q8_0"]
    theirs, their_memory = reference(args)
    ours = {dtype: own(args, dtype) for dtype in dtypes}
    first = ours[dtypes[0]]
    peaks = ", ".join(f"{kind} {speed / 1e9:.0f}" for kind, speed in first["peak_operations_a_second"].items())
    print(f"{processor()}, {args.threads} threads, {first['instructions']}; in registers, GFLOP/s: {peaks}\n")
    print("| stage | diffusers bf16, s | " + " | ".join(f"{d}, s | ratio | GFLOP/s" for d in dtypes) + " |")
    print("| --- |" + " ---: |" * (1 + 3 * len(dtypes)))
    for stage, seconds in theirs.items():
        cells = []
        for dtype in dtypes:
            row = next(s for s in ours[dtype]["stages"] if s["stage"] == stage)
            speed = row["operations"] / row["seconds"] / 1e9
            cells.append(f"{row['seconds']:.2f} | {row['seconds'] / seconds:.2f} | {speed:.0f}")
        print(f"| {stage} | {seconds:.2f} | " + " | ".join(cells) + " |")
    memory = [f"{ours[d]['peak_memory_bytes'] / 1e9:.1f} GB | |" for d in dtypes]
    print(f"| peak memory | {their_memory / 1e9:.1f} GB | " + " | ".join(memory) + " |")


if __name__ == "__main__":
    main()
