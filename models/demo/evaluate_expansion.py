"""Measures what the binary makes of brief captions with `--expand`, on scenes that training never saw.

`python evaluate_expansion.py --zoetrope ../../target/release/zoetrope`: an expansion is well formed if it is a detailed caption of a scene that
the world has, in the language of the brief one; it keeps the brief one's promises if that scene does. Then the picture that was drawn
from it is read back by its pixels, and so is one that was drawn from the brief caption as it is.
"""

import argparse
import json
import random
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image
from recipe import captions, expand, judge, world

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--zoetrope", type=Path, required=True, help="the binary that makes the pictures")
parser.add_argument("--model", default="demo", help="a folder in place of the embedded model")
parser.add_argument("--count", type=int, default=240, help="held-out brief captions")
parser.add_argument("--pictures", type=int, default=120, help="of which so many are drawn")
parser.add_argument("--size", default="192x192")
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--report", type=Path, help="write the table to this file")


EXPAND = ["--expand", "--expand-system-prompt", expand.PROMPT, "--expand-temperature", str(expand.TEMPERATURE), "--expand-tokens", str(expand.TOKENS_MAX)]


def drawn(prompt, number, more, steps, size, args, folder):
    path = folder / f"{number}.png"
    command = [args.zoetrope, "generate", prompt, "--model", args.model, "--seed", str(number), "--steps", str(steps), "--size", size,
               "--json", "-o", path, *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["prompt"], Image.open(path)


def judged(number, args, folder):
    """`(brief, expanded, [(what, kept)])`."""
    brief, said, _ = expand.pair(f"evaluate {number}", world.sample_held_out)
    draws = number < args.pictures
    expanded, picture = drawn(brief, number, EXPAND, 8 if draws else 1, args.size if draws else "32x32", args, folder)
    scene = expand.read(expanded)
    fine = scene is not None and expand.is_chinese(brief) == expand.is_chinese(expanded)
    promises = judge.checks(said, scene) if fine else []
    as_many = fine and (not said["things"] or len(said["things"]) == len(scene.things))
    checks = [("expansions that are well formed", fine), ("expansions that keep every promise", as_many and all(k for _, k in promises))]
    if draws and fine:
        shown = judge.read(picture)
        checks += [("promises of the brief caption, in the picture of the expanded one", kept) for _, kept in judge.checks(said, shown)]
        everything = captions.promise(scene, random.Random(0), captions.ALL)
        checks += [("promises of the expanded caption, in its picture", kept) for _, kept in judge.checks(everything, shown)]
        _, plain = drawn(brief, number, [], 8, args.size, args, folder)
        checks += [("promises of the brief caption, in its own picture", kept) for _, kept in judge.checks(said, judge.read(plain))]
    return brief, expanded, checks


def main():
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(args.workers) as pool:
        results = list(pool.map(judged, range(args.count), [args] * args.count, [Path(temporary)] * args.count))
    asked, kept = Counter(), Counter()
    for brief, expanded, checks in results:
        if not checks[1][1]:
            print(f"{brief}\n    -> {expanded}")
        for what, fine in checks:
            asked[what] += 1
            kept[what] += fine
    lines = ["| what | kept | of | share |", "| --- | --- | --- | --- |"]
    lines += [f"| {what} | {kept[what]} | {asked[what]} | {kept[what] / asked[what]:.1%} |" for what in asked]
    text = "\n".join(lines)
    print(text)
    if args.report:
        args.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
