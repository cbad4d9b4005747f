"""Measures whether pictures keep what their captions promise, on scenes that training never saw.

`python evaluate.py --zoetrope ../../target/release/zoetrope` makes the pictures with the binary; `--drawn` judges true drawings
of the same scenes instead, which shows how far the judge itself can be trusted.
"""

import argparse
import random
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image
from recipe import captions, draw, judge, world

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--zoetrope", type=Path, help="the binary that makes the pictures")
parser.add_argument("--model", default="demo", help="a folder in place of the embedded model")
parser.add_argument("--drawn", action="store_true", help="judge true drawings")
parser.add_argument("--count", type=int, default=240, help="held-out prompts")
parser.add_argument("--first", type=int, default=1000, help="number of the first")
parser.add_argument("--size", default="192x192")
parser.add_argument("--keep", type=Path, help="keep the pictures in this folder")
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--report", type=Path, help="write the table to this file")


def judged(number, args, folder):
    """`(number, prompt, checks)` of one held-out prompt."""
    scene = world.sample_held_out(number)
    prompt, said = captions.caption(scene, random.Random(f"evaluate {number}"))
    width, height = map(int, args.size.split("x"))
    if args.drawn:
        picture = draw.draw(scene, width, height, number)
    else:
        path = folder / f"{number}.png"
        command = [args.zoetrope, "generate", prompt, "--model", args.model, "--seed", str(number), "--steps", "8",
                   "--size", args.size, "-o", path]
        subprocess.run(command, check=True, capture_output=True)
        picture = Image.open(path)
    return number, prompt, judge.checks(said, judge.read(picture))


def table(results):
    asked, kept = Counter(), Counter()
    for _, prompt, checks in results:
        chinese = any("一" <= c <= "鿿" for c in prompt)
        for what, fine in checks:
            for row in (what, "all", "all, Chinese captions" if chinese else "all, English captions"):
                asked[row] += 1
                kept[row] += fine
    order = ["time", "terrain", "clouds", "sun or moon", "object present", "object's colour", "object's side", "object's size",
             "all", "all, English captions", "all, Chinese captions"]
    lines = ["| what the caption promises | kept | of | share |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| {w} | {kept[w]} | {asked[w]} | {kept[w] / asked[w]:.1%} |" for w in order if asked[w]])


def main():
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.count)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(args.workers) as pool:
            results = list(pool.map(judged, numbers, [args] * len(numbers), [folder] * len(numbers)))
    for number, prompt, checks in results:
        if missed := [what for what, fine in checks if not fine]:
            print(f"{number}: {prompt}\n    missed: {', '.join(missed)}")
    text = table(results)
    print(text)
    if args.report:
        args.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
