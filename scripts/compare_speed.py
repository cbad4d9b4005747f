#!/usr/bin/env python3
"""Zoetrope against diffusers in bfloat16, stage by stage, on this machine: a table of seconds and ratios in Markdown.

    cargo build --release
    python scripts/compare_speed.py MODEL_DIR [--size 256 --size 512] [--level regular --level high] [--threads 2]

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
# What a level's transformer is, where the file's weights are wider than 8 bits.
LEVELS = {"none": "weights and attention in bfloat16", "regular": "weights in bfloat16, attention's scores in int8",
          "high": "weights and attention's scores in int8, and 3 of a picture's 8 steps predicted"}
STEPS, PREDICTED = 8, 3  # of a picture by Turbo; `high` predicts the third, fifth and seventh step
# Ratios that must hold, for `none` and `regular`, and for `high`.
FLOORS = {"text encoder 64 tokens": (0.15, 0.15), "transformer step 256x256": (0.46, 0.28), "transformer step 512x512": (0.70, 0.40),
          "transformer step 1024x1024": (0.52, 0.33), "decode 512x512": (0.60, 0.60), "decode 1024x1024": (0.60, 0.60),
          "picture 512x512": (0.66, 0.28)}


def median(work, runs):
    """Seconds of a run after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[runs // 2]


def resident(network):
    """The network with its weights in memory of their own: mapped files that do not stay cached would be read in every run."""
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
    return network


def diffusers_stage(model, stage, sizes, threads, runs):
    """One stage of the reference, in this process: `{stage: seconds}`."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    bf16 = torch.bfloat16
    if stage == "text":
        from transformers import Qwen3Model

        network = resident(Qwen3Model.from_pretrained(model, subfolder="text_encoder", dtype=bf16))
        ids = torch.randint(5, 400, (1, PADDED))
        mask = torch.zeros(1, PADDED, dtype=torch.bool)
        mask[:, :TOKENS] = True
        run = lambda: network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return {f"text encoder {TOKENS} tokens": median(run, runs)}
    if stage == "step":
        from diffusers import ZImageTransformer2DModel

        network = resident(ZImageTransformer2DModel.from_pretrained(model, subfolder="transformer", torch_dtype=bf16))
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


def own(args, level):
    """What `zoetrope bench` says of an acceleration level."""
    sizes = ",".join(f"{size}x{size}" for size in args.size)
    command = [args.zoetrope, "bench", "--model", args.model, "--acceleration", level, "--size", sizes, "--json"]
    command += ["--runs", str(args.runs), "--tokens", str(TOKENS), "--packed-gb", "0"]
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    return json.loads(out)


def pictures(seconds, sizes):
    """Adds whole pictures, as the sum of their stages."""
    for size in (f"{size}x{size}" for size in sizes):
        step = seconds[f"transformer step {size}"]
        predicted = seconds.pop(f"predicted step {size}", step)
        steps = (STEPS - PREDICTED) * step + PREDICTED * predicted
        seconds[f"picture {size}"] = seconds[f"text encoder {TOKENS} tokens"] + steps + seconds[f"decode {size}"]
    return seconds


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
    parser.add_argument("--level", action="append", help="of zoetrope's acceleration [regular and high]")
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

    levels = args.level or ["regular", "high"]
    theirs, their_memory = reference(args)
    reports = {level: own(args, level) for level in levels}
    first = reports[levels[0]]
    peaks = ", ".join(f"{kind} {speed / 1e9:.0f}" for kind, speed in first["peak_operations_a_second"].items())
    print(f"{processor()}, {args.threads} threads, {first['instructions']}; in registers, GFLOP/s: {peaks}\n")
    print("; ".join(f"`{level}`: {LEVELS[level]}" for level in levels) + "\n")
    theirs = pictures(theirs, args.size)
    ours, work = {}, {}
    for level, report in reports.items():
        ours[level] = pictures({stage["stage"]: stage["seconds"] for stage in report["stages"]}, args.size)
        work[level] = {stage["stage"]: stage["operations"] for stage in report["stages"]}
    print("| stage | diffusers bf16, s | " + " | ".join(f"{level}, s | ratio | floor | GFLOP/s" for level in levels) + " |")
    print("| --- |" + " ---: |" * (1 + 4 * len(levels)))
    for stage, seconds in theirs.items():
        cells = []
        for level in levels:
            took, floors = ours[level][stage], FLOORS.get(stage)
            floor = f"{floors[level == 'high']:.2f}" if floors else ""
            speed = f"{work[level][stage] / took / 1e9:.0f}" if stage in work[level] else ""
            cells.append(f"{took:.2f} | {took / seconds:.2f} | {floor} | {speed}")
        print(f"| {stage} | {seconds:.2f} | " + " | ".join(cells) + " |")
    memory = [f"{reports[level]['peak_memory_bytes'] / 1e9:.1f} GB | | |" for level in levels]
    print(f"| peak memory | {their_memory / 1e9:.1f} GB | " + " | ".join(memory) + " |")


if __name__ == "__main__":
    main()
