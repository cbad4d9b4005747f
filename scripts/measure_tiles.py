#!/usr/bin/env python3
"""How steep the seams of pictures that tile are, and what tiling costs of the prompts' promises: a table in Markdown.

    cargo build --release
    python scripts/measure_tiles.py [--count 16]

Draws held-out prompts with the embedded model, not tiled and with `--tile x`, `y` and `both`. A seam's steepness is the mean difference of the pixels
on its two sides, in levels of 255; beside it stands the mean of the same over all other neighbouring columns, or rows. Fails where a
seam is steeper than the pictures, or where tiling loses more than 3 of 100 promises. Needs numpy and Pillow.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/demo"))
from recipe import captions, judge, world  # noqa: E402

FIRST = 1000  # number of the first held-out prompt, as in models/demo/evaluate.py
LOSS_MAX = 0.03
# Which edges meet: left and right, top and bottom.
MODES = {"not tiled": (False, False), "x": (True, False), "y": (False, True), "both": (True, True)}


def gradients(picture, axis):
    """Over the seam, and over the rest."""
    pixels = np.asarray(picture, dtype=float)
    steps = np.abs(pixels - np.roll(pixels, 1, axis)).mean(axis=(1 - axis, 2))
    return steps[0], steps[1:].mean()


def one(job):
    """Gradients across and down, and which promises are kept, of one picture."""
    zoetrope, folder, mode, number = job
    text, said = captions.caption(world.sample_held_out(number), random.Random(f"evaluate {number}"))
    file = folder / f"{mode} {number}.png"
    options = [] if mode == "not tiled" else ["--tile", mode]
    command = [zoetrope, "generate", text, "--model", "demo", "--seed", str(number), "--steps", "8", "--size", "192x192", "-o", file]
    subprocess.run([*command, *options], check=True, capture_output=True)
    picture = Image.open(file).convert("RGB")
    return gradients(picture, 1), gradients(picture, 0), [kept for _, kept in judge.checks(said, judge.read(picture))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "target/release/zoetrope")
    parser.add_argument("--count", type=int, default=16, help="held-out prompts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep the pictures in this folder")
    args = parser.parse_args()
    problems, plain = [], None
    print("| | left to right: seam, rest | top to bottom: seam, rest | promises kept |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(args.workers) as pool:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for mode, meet in MODES.items():
            jobs = [(args.zoetrope, folder, mode, number) for number in range(FIRST, FIRST + args.count)]
            made = list(pool.map(one, jobs))
            means = [np.mean([picture[i] for picture in made], axis=0) for i in (0, 1)]
            kept = np.mean([fine for picture in made for fine in picture[2]])
            plain = kept if plain is None else plain
            print(f"| {mode} | {means[0][0]:.2f}, {means[0][1]:.2f} | {means[1][0]:.2f}, {means[1][1]:.2f} | {kept:.1%} |", flush=True)
            problems += [f"{mode}: a seam of {seam:.2f} in pictures of {rest:.2f}"
                         for (seam, rest), meets in zip(means, meet) if meets and seam > rest]
            if plain - kept > LOSS_MAX:
                problems.append(f"{mode}: {kept:.1%} of the promises kept, and {plain:.1%} without tiling")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
