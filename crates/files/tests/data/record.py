"""Makes the AVIF files of this folder with libavif, and what libavif decodes them to.

    pip install "pillow>=13" numpy
    python record.py

`NAME.avif.png` is what `NAME.avif` becomes; `turned.avif` is turned by its container.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent


def scene(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red = 127 + 120 * np.sin(x / 9) * np.cos(y / 7)
    green = 255 * x / width
    blue = 255 * (1 - y / height)
    image = np.stack([red, green, blue], -1)
    image[height // 3 : height // 2, width // 4 : width // 2] = [250, 20, 30]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def avif(name, image, **options):
    image.save(HERE / f"{name}.avif", quality=90, speed=6, **options)
    back = Image.open(HERE / f"{name}.avif")
    back.load()
    back.save(HERE / f"{name}.avif.png", optimize=True)


def main():
    plain = scene(61, 37)
    for subsampling in ["4:4:4", "4:2:2", "4:2:0"]:
        avif("avif" + subsampling.replace(":", ""), plain, subsampling=subsampling)
    avif("limited", plain, subsampling="4:2:0", range="limited")
    alpha = plain.convert("RGBA")
    alpha.putalpha(Image.fromarray((np.mgrid[0:37, 0:61][1] * 4).clip(0, 255).astype(np.uint8)))
    avif("transparent", alpha, subsampling="4:4:4")
    avif("grey", plain.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.save(HERE / "turned.avif", quality=90, speed=6, subsampling="4:4:4", exif=exif)
    back = Image.open(HERE / "turned.avif")
    back.transpose(Image.Transpose.ROTATE_270).save(HERE / "turned.avif.png", optimize=True)


main()
