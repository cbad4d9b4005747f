#!/usr/bin/env python3
"""Trains the embedded model a style that it does not know, and measures what it learned and what it forgot.

    cargo build --release
    python scripts/measure_training.py [--count 48] [--sheet docs/training.png]

The style is that of infrared film: leaves are red and skies violet, because red and green have changed places. 20 pictures of scenes that
the model was trained on are the data. Then held-out prompts are drawn with and without the adapter, from the same seeds:

- how far the pictures went towards the same pictures on infrared film, 0 to 1, by the mean difference of their pixels;
- which share of the captions' promises is kept (`models/demo/recipe/judge.py`), by the same pictures with the colours changed back.

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


def infrared(image):
    red, green, blue = image.convert("RGB").split()
    return Image.merge("RGB", (green, red, blue))


def data(folder, count=20):
    folder.mkdir()
    for i in range(count):
        scene = world.sample_training(500 + i)
        infrared(draw.draw(scene, 192, 192, i)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(captions.caption(scene, random.Random(f"infrared {i}"))[0], encoding="utf-8")


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
    """How far `after` is on the way from `before` to its infrared picture."""
    a, b, t = (np.asarray(image, dtype=np.float64) for image in (before, after, infrared(before)))
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
        lora = folder / "infrared.safetensors"
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
        "towards_infrared": round(float(share), 3),
        "promises_kept_before": round(kept(before, lambda image: image), 4),
        "promises_kept_after": round(kept(after, infrared), 4),
    }
    print(json.dumps(result))
    if args.sheet:
        columns = min(6, args.count)
        sheet = Image.new("RGB", (200 * columns - 8, 392), "white")
        for column in range(columns):
            for row, results in enumerate((before, after)):
                sheet.paste(results[column][0], (200 * column, 200 * row))
        sheet.save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
