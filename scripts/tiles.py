"""Draws docs/tiles.png: the same scene not tiled, with --tile x, y and both, each laid three times across and down.

    python scripts/tiles.py target/release/zoetrope
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
SCENE = "a red house on the left, a big green tree on the right, rolling hills, clouds, at noon"
SEED = 1
KINDS = [("not tiled", []), ("x", ["--tile", "x"]), ("y", ["--tile", "y"]), ("both", ["--tile", "both"])]
GAP, LABEL = 12, 18


def main(binary):
    sheets = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, options) in enumerate(KINDS):
            file = Path(folder) / f"{i}.png"
            subprocess.run([binary, "generate", SCENE, "--seed", str(SEED), "-o", file, *options], check=True)
            tile = Image.open(file).convert("RGB").resize((96, 96), Image.Resampling.LANCZOS)
            sheet = Image.new("RGB", (288, 288))
            for x in range(3):
                for y in range(3):
                    sheet.paste(tile, (96 * x, 96 * y))
            sheets.append((name, sheet))
    out = Image.new("RGB", (len(sheets) * (288 + GAP) - GAP, 288 + LABEL), "white")
    draw = ImageDraw.Draw(out)
    for i, (name, sheet) in enumerate(sheets):
        draw.text((i * (288 + GAP), 2), name, fill="black")
        out.paste(sheet, (i * (288 + GAP), LABEL))
    out.save(ROOT / "docs" / "tiles.png", optimize=True)


main(sys.argv[1])
