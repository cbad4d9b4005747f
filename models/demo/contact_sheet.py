"""Sixteen pictures of prompts that training never saw, made by the binary: `python contact_sheet.py ZOETROPE OUT.png`."""

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from recipe import captions, world

COLUMNS, ROWS = 8, 2


def main(zoetrope, out):
    tiles = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(COLUMNS * ROWS):
            prompt = captions.caption(world.sample_held_out(i), random.Random(i), captions.ALL)[0]
            path = Path(folder) / f"{i}.png"
            subprocess.run([zoetrope, "generate", prompt, "--seed", str(i), "-o", path], check=True, stdout=subprocess.DEVNULL)
            print(i, prompt)
            tiles.append(Image.open(path).convert("RGB"))
    width, height = tiles[0].size
    sheet = Image.new("RGB", (COLUMNS * width, ROWS * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % COLUMNS * width, i // COLUMNS * height))
    sheet.save(out, optimize=True)


main(*sys.argv[1:])
