#!/usr/bin/env python3
"""Trains the embedded model a style that it does not know, and measures what it learned and what it forgot.

    cargo build --release
    python scripts/measure_training.py [--count 48] [--sheet docs/training.png]

The style is that of an old print from an album: blacks have faded to brown, whites are cream, corners are dark, and there is a frame of paper around it.
20 pictures of scenes that the model was trained on are the data. Then held-out prompts are drawn with and without the adapter, from the same
seeds:

- how far the pictures went towards the same pictures as old prints, 0 to 1, by the mean difference of their pixels;
- which share of the captions' promises is kept (`models/demo/recipe/judge.py`), by the pictures with what the print did to colours taken back. That
  the judge can read old prints is measured too: pictures of the model without the adapter, printed and read.

It ends with 1 where a margin below is missed.

Needs numpy and Pillow.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/demo"))
from recipe import captions, draw, judge, world  # noqa: E402

FIRST = 1000  # number of the first held-out prompt, as in models/demo/evaluate.py
TRAIN = ["--steps", 600, "--batch", 4, "--rank", 32, "--learning-rate", 0.002, "--schedule", "cosine", "--warmup", 20,
         "--caption-dropout", 0, "--seed", 1]


WAY_MIN = 0.7  # of the way to an old print
LOST_MAX = 0.05  # of the promises

PAPER = np.array([247, 240, 222], dtype=np.float64)
SHADOW = np.array([62, 40, 30], dtype=np.float64)  # what black fades to
LIGHT = np.array([244, 228, 188], dtype=np.float64)  # what white turns to
FRAME = 1 / 16  # of the picture's side


def fading(side):
    """What remains of the light at each pixel, `[side, side, 1]`: less in the corners."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    return (1 - 0.2 * (x * x + y * y))[..., None]


def inside(side):
    """Where the picture is, and not the frame: `[side, side, 1]`."""
    at = np.arange(side)
    within = (at >= side * FRAME) & (at < side * (1 - FRAME))
    return (within[:, None] & within[None, :])[..., None]


def printed(image):
    """`image` as an old print."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    faded = (SHADOW + pixels / 255 * (LIGHT - SHADOW)) * fading(len(pixels))
    return Image.fromarray(np.where(inside(len(pixels)), faded, PAPER).round().astype(np.uint8))


def restored(image):
    """An old print with its colours as they were; what the frame covers is told from what is nearest."""
    pixels = np.asarray(image, dtype=np.float64)
    side, frame = len(pixels), round(len(pixels) * FRAME)
    colours = ((pixels / fading(side) - SHADOW) / (LIGHT - SHADOW) * 255)[frame : side - frame, frame : side - frame]
    colours = np.pad(colours, ((frame, frame), (frame, frame), (0, 0)), mode="edge")
    return Image.fromarray(colours.clip(0, 255).round().astype(np.uint8))


def data(folder, count=20):
    folder.mkdir()
    for i in range(count):
        scene = world.sample_training(500 + i)
        printed(draw.draw(scene, 192, 192, i)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(captions.caption(scene, random.Random(f"print {i}"))[0], encoding="utf-8")


def drawn(number, args, lora):
    """A held-out prompt's picture, and the promises of its caption."""
    prompt, said = captions.caption(world.sample_held_out(number), random.Random(f"evaluate {number}"))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "out.png"
        command = [args.zoetrope, "generate", prompt, "--seed", number, "--steps", 8, "--size", "192x192", "-o", path]
        subprocess.run(list(map(str, command + (["--lora", lora] if lora else []))), check=True, capture_output=True)
        return Image.open(path).convert("RGB"), said


def kept(results, view):
    checks = [fine for picture, said in results for _, fine in judge.checks(said, judge.read(view(picture)))]
    return sum(checks) / len(checks)


def way(before, after):
    """How far `after` is on the way from `before` to its old print."""
    a, b, t = (np.asarray(image, dtype=np.float64) for image in (before, after, printed(before)))
    return 1 - np.abs(b - t).mean() / np.abs(a - t).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "target/release/zoetrope")
    parser.add_argument("--count", type=int, default=48, help="held-out prompts")
    parser.add_argument("--sheet", type=Path, help="write some of the pictures, before and after, to this file")
    parser.add_argument("--work", type=Path, help="keep the run in this folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        lora = folder / "print.safetensors"
        if not lora.exists():
            data(folder / "pictures")
            begun = time.time()
            command = [args.zoetrope, "train", folder / "pictures", *TRAIN, "--output", lora, "--work", folder / "run"]
            subprocess.run(list(map(str, command)), check=True)
            print(f"trained in {time.time() - begun:.0f} s")
        numbers = range(FIRST, FIRST + args.count)
        with ProcessPoolExecutor(2) as pool:
            before = list(pool.map(partial(drawn, args=args, lora=None), numbers))
            after = list(pool.map(partial(drawn, args=args, lora=lora), numbers))
    share = np.mean([way(b, a) for (b, _), (a, _) in zip(before, after)])
    result = {
        "towards_print": round(float(share), 3),
        "promises_kept_before": round(kept(before, lambda image: image), 4),
        "promises_kept_before_printed": round(kept(before, lambda image: restored(printed(image))), 4),
        "promises_kept_after": round(kept(after, restored), 4),
    }
    print(json.dumps(result))
    lost = result["promises_kept_before"] - result["promises_kept_after"]
    missed = result["towards_print"] < WAY_MIN or lost > LOST_MAX
    if args.sheet:
        columns = min(6, args.count)
        sheet = Image.new("RGB", (200 * columns - 8, 392), "white")
        for column in range(columns):
            for row, results in enumerate((before, after)):
                sheet.paste(results[column][0], (200 * column, 200 * row))
        sheet.save(args.sheet, optimize=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
