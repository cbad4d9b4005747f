"""Draws a scene as a flat illustration, at any size. Sizes are fractions of the shorter side, drawn twice as large.

Everything stands on the grid of latents (8 pixels) or of tokens (16): so the same thing has the same latents wherever it stands,
which a small network learns many times sooner than every shift of it. The seed varies the horizon, hills, peaks, clouds, stars and the
height of the sun; things stand where the caption puts them, on the ground that there is.
"""

import dataclasses
import math
import random

import numpy as np
from PIL import Image, ImageDraw

from .world import COLOURS

SKY = {  # top, horizon
    "dawn": ((126, 160, 214), (255, 204, 196)),
    "day": ((66, 150, 236), (196, 230, 252)),
    "sunset": ((96, 52, 122), (255, 146, 66)),
    "night": ((10, 14, 48), (38, 46, 104)),
}
LIGHT = {"dawn": (1.0, 0.93, 0.95), "day": (1, 1, 1), "sunset": (0.93, 0.78, 0.74), "night": (0.42, 0.46, 0.66)}
THING_LIGHT = {"dawn": 1.0, "day": 1.0, "sunset": 0.95, "night": 0.86}
GROUND = {  # far, near
    "hills": ((134, 190, 98), (92, 158, 74)),
    "mountains": ((120, 134, 152), (110, 158, 96)),
    "sea": ((58, 140, 190), (34, 108, 168)),
    "desert": ((238, 206, 138), (222, 178, 104)),
    "snow": ((226, 236, 246), (246, 250, 253)),
}
CLOUD = {"dawn": (255, 236, 234), "day": (255, 255, 255), "sunset": (250, 190, 150), "night": (84, 92, 138)}
SUN = {"dawn": (255, 236, 160), "day": (255, 226, 84), "sunset": (255, 214, 92)}
HORIZON = 0.6
HEIGHT = {"small": 0.26, "medium": 0.36, "big": 0.5}
ACROSS = {"left": 0.2, "middle": 0.5, "right": 0.8}
OVER = 2
LATENT, TOKEN = 8 * OVER, 16 * OVER  # on the canvas


def shade(colour, factor):
    factors = factor if isinstance(factor, tuple) else (factor,) * 3
    return tuple(max(0, min(255, round(c * f))) for c, f in zip(colour, factors))


def snap(value, grid=LATENT):
    return round(value / grid) * grid


class Canvas:
    def __init__(self, width, height):
        self.w, self.h = width * OVER, height * OVER
        self.image = Image.new("RGB", (self.w, self.h))
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, points, colour):
        self.pen.polygon([(round(x), round(y)) for x, y in points], fill=colour)

    def disc(self, x, y, rx, colour, ry=None):
        ry = rx if ry is None else ry
        self.pen.ellipse([x - rx, y - ry, x + rx, y + ry], fill=colour)

    def box(self, x0, y0, x1, y1, colour):
        self.pen.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], fill=colour)


def draw(scene, width, height, seed):
    def chance(part):
        return random.Random(f"{seed} {part}")  # one part drawn or not changes no other

    c = Canvas(width, height)
    unit = min(c.w, c.h)
    horizon = snap(c.h * (HORIZON + chance("horizon").uniform(-0.03, 0.03)))
    sky(c, scene, horizon)
    if scene.time == "night":
        stars(c, horizon, chance("stars"))
    if scene.clouds:
        clouds(c, scene, unit, chance("clouds"))
    if scene.body != "none":
        body(c, scene, unit, chance("body"))
    ground(c, scene, horizon, chance("ground"))
    for thing in sorted(scene.things, key=lambda t: t.kind == "balloon"):
        place(c, scene, thing, unit, horizon)
    return c.image.reduce(OVER)


def foreground(scene, width, height, seed):
    """The picture, and `[height, width]` where its things, sun and moon are."""
    picture = draw(scene, width, height, seed)
    bare = draw(dataclasses.replace(scene, body="none", things=()), width, height, seed)
    return picture, (np.asarray(picture) != np.asarray(bare)).any(2)


def sky(c, scene, horizon):
    top, low = (np.array(v, dtype=np.float32) for v in SKY[scene.time])
    t = np.clip(np.arange(c.h, dtype=np.float32) / horizon, 0, 1)[:, None]
    rows = (top + (low - top) * t).round().astype(np.uint8)
    c.image.paste(Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None, :], (c.h, c.w, 3)))))


def stars(c, horizon, rng):
    for _ in range(round(14 * c.w / c.h)):
        x, y, r = snap(rng.uniform(0, c.w)) + LATENT / 2, snap(rng.uniform(0, horizon * 0.85)) + LATENT / 2, 0.009 * min(c.w, c.h)
        c.disc(x, y, r, (236, 238, 255))


def body(c, scene, unit, rng):
    low = scene.time in ("dawn", "sunset")
    disc_of(c, scene.body, scene.time, c.h * (rng.uniform(0.22, 0.27) if low else rng.uniform(0.12, 0.16)), unit)


def disc_of(c, name, time, y, unit):
    x, y, r = snap(c.w * (0.35 if "left" in name else 0.65)), snap(y), unit * 0.075
    if name.startswith("sun"):
        c.disc(x, y, r * 1.1, SUN.get(time, SUN["day"]))
    else:
        c.disc(x, y, r, (244, 240, 214))
        for dx, dy, s in ((-0.35, -0.2, 0.2), (0.25, 0.3, 0.26), (0.3, -0.35, 0.14)):
            c.disc(x + dx * r, y + dy * r, r * s, (220, 214, 186))


def clouds(c, scene, unit, rng):
    for at in (0.14, 0.5, 0.86):
        x, y, r = snap(c.w * (at + rng.uniform(-0.05, 0.05))), snap(c.h * rng.uniform(0.19, 0.27)), unit * 0.045
        for dx, dy, s in ((-1.5, 0.25, 0.75), (-0.5, -0.25, 1.0), (0.7, -0.1, 0.9), (1.6, 0.3, 0.7)):
            c.disc(x + dx * r, y + dy * r, r * s, CLOUD[scene.time])
        c.box(x - 1.6 * r, y + 0.3 * r, x + 1.6 * r, y + 0.98 * r, CLOUD[scene.time])


def waves(c, base, height, phase, bumps, colour):
    points = [(x, base - height * math.sin(phase + bumps * math.pi * x / c.w)) for x in range(0, c.w + 8, 8)]
    c.polygon(points + [(c.w, c.h), (0, c.h)], colour)


def ground(c, scene, horizon, rng):
    light = LIGHT[scene.time]
    far, near = (shade(v, light) for v in GROUND[scene.terrain])
    phase = rng.choice([0.0, 1.6, 3.1, 4.7])
    if scene.terrain == "sea":
        c.box(0, horizon, c.w, c.h, far)
        c.box(0, horizon + 0.14 * c.h, c.w, c.h, near)
        for i in range(5):
            x, y = c.w * (0.1 + 0.2 * i), horizon + c.h * (0.06 + 0.06 * (i % 3))
            c.box(x - 0.05 * c.w, y, x + 0.05 * c.w, y + 0.008 * c.h, shade(far, 1.15))
        return
    if scene.terrain == "mountains":
        c.box(0, horizon, c.w, c.h, near)
        for i, at in enumerate((0.12, 0.46, 0.82)):
            x, peak, half = snap(c.w * (at + rng.uniform(-0.05, 0.05))), snap(horizon - c.h * (0.2, 0.27, 0.22)[i]), c.w * 0.3
            c.polygon([(x - half, horizon + 4), (x, peak), (x + half, horizon + 4)], shade(far, 1 - 0.06 * i))
            cap = 0.28
            edge = [(x - half * cap, peak + (horizon - peak) * cap), (x, peak), (x + half * cap, peak + (horizon - peak) * cap)]
            c.polygon(edge, shade((248, 250, 252), light))
    elif scene.terrain == "snow":
        waves(c, horizon, 0.05 * c.h, phase, 2, shade((206, 222, 238), light))
    else:
        waves(c, horizon, 0.05 * c.h, phase, 2, far)
    waves(c, horizon + 0.09 * c.h, 0.02 * c.h, phase + 2, 1.5, near)


def place(c, scene, thing, unit, horizon):
    size = unit * HEIGHT[thing.size]
    x = snap(c.w * ACROSS[thing.place], TOKEN)
    y = snap(horizon + c.h * 0.17 + size * 0.12, TOKEN)
    colour = shade(COLOURS[thing.colour], THING_LIGHT[scene.time])
    if thing.kind == "balloon":
        y = snap(c.h * 0.15 + size, TOKEN)
    elif scene.terrain == "sea" and thing.kind != "boat":
        c.disc(x, y + 0.02 * size, 0.5 * size, shade((214, 190, 130), LIGHT[scene.time]), 0.11 * size)
    THINGS[thing.kind](c, x, y, size, colour, THING_LIGHT[scene.time])


def house(c, x, y, s, colour, light):
    c.box(x - 0.36 * s, y - 0.55 * s, x + 0.36 * s, y, colour)
    c.polygon([(x - 0.48 * s, y - 0.53 * s), (x, y - s), (x + 0.48 * s, y - 0.53 * s)], shade(colour, 0.62))
    c.box(x - 0.09 * s, y - 0.3 * s, x + 0.09 * s, y, shade((92, 60, 40), light))
    for dx in (-0.23, 0.23):
        c.box(x + (dx - 0.07) * s, y - 0.42 * s, x + (dx + 0.07) * s, y - 0.26 * s, (255, 238, 170))


def tree(c, x, y, s, colour, light):
    c.box(x - 0.06 * s, y - 0.45 * s, x + 0.06 * s, y, shade((112, 74, 46), light))
    for dx, dy, r in ((-0.2, 0.5, 0.22), (0.2, 0.5, 0.22), (0, 0.72, 0.28)):
        c.disc(x + dx * s, y - dy * s, r * s, colour)


def pine(c, x, y, s, colour, light):
    c.box(x - 0.05 * s, y - 0.2 * s, x + 0.05 * s, y, shade((98, 66, 42), light))
    for low, high, half, f in ((0.14, 0.56, 0.36, 0.84), (0.38, 0.78, 0.29, 0.92), (0.62, 1.0, 0.21, 1.0)):
        c.polygon([(x - half * s, y - low * s), (x, y - high * s), (x + half * s, y - low * s)], shade(colour, f))


def boat(c, x, y, s, colour, light):
    c.polygon([(x - 0.5 * s, y - 0.26 * s), (x + 0.5 * s, y - 0.26 * s), (x + 0.34 * s, y), (x - 0.34 * s, y)], colour)
    c.box(x - 0.02 * s, y - s, x + 0.02 * s, y - 0.26 * s, shade((92, 66, 48), light))
    c.polygon([(x + 0.05 * s, y - 0.96 * s), (x + 0.42 * s, y - 0.34 * s), (x + 0.05 * s, y - 0.34 * s)], shade((250, 248, 238), light))
    c.polygon([(x - 0.05 * s, y - 0.86 * s), (x - 0.34 * s, y - 0.34 * s), (x - 0.05 * s, y - 0.34 * s)], colour)


def cactus(c, x, y, s, colour, light):
    c.box(x - 0.1 * s, y - 0.9 * s, x + 0.1 * s, y, colour)
    c.disc(x, y - 0.9 * s, 0.1 * s, colour)
    for side, high in ((-1, 0.62), (1, 0.76)):
        c.box(x, y - (high - 0.2) * s, x + side * 0.3 * s, y - (high - 0.34) * s, colour)
        c.box(x + side * 0.2 * s, y - high * s, x + side * 0.34 * s, y - (high - 0.34) * s, colour)
        c.disc(x + side * 0.27 * s, y - high * s, 0.07 * s, colour)


def tower(c, x, y, s, colour, light):
    c.box(x - 0.2 * s, y - 0.82 * s, x + 0.2 * s, y, colour)
    for dx in (-0.24, -0.06, 0.12):
        c.box(x + dx * s, y - s, x + (dx + 0.12) * s, y - 0.8 * s, shade(colour, 0.78))
    c.box(x - 0.24 * s, y - 0.86 * s, x + 0.24 * s, y - 0.76 * s, shade(colour, 0.78))
    c.box(x - 0.06 * s, y - 0.6 * s, x + 0.06 * s, y - 0.42 * s, shade((60, 52, 58), light))
    c.box(x - 0.08 * s, y - 0.2 * s, x + 0.08 * s, y, shade((84, 58, 42), light))


def windmill(c, x, y, s, colour, light):
    c.polygon([(x - 0.24 * s, y), (x - 0.13 * s, y - 0.62 * s), (x + 0.13 * s, y - 0.62 * s), (x + 0.24 * s, y)], colour)
    c.disc(x, y - 0.62 * s, 0.14 * s, shade(colour, 0.7))
    for k in range(4):
        a = math.pi / 4 + k * math.pi / 2
        dx, dy = math.cos(a), math.sin(a)
        nx, ny = -dy * 0.06 * s, dx * 0.06 * s
        ex, ey = x + dx * 0.42 * s, y - 0.62 * s + dy * 0.42 * s
        mx, my = x + dx * 0.06 * s, y - 0.62 * s + dy * 0.06 * s
        c.polygon([(mx + nx, my + ny), (ex + nx, ey + ny), (ex - nx, ey - ny), (mx - nx, my - ny)], shade((252, 246, 226), light))
    c.box(x - 0.06 * s, y - 0.18 * s, x + 0.06 * s, y, shade((84, 58, 42), light))


def lighthouse(c, x, y, s, colour, light):
    def half(t):
        return (0.19 - 0.07 * t) * s

    bands = 5
    for i in range(bands):
        t0, t1 = 0.78 * i / bands, 0.78 * (i + 1) / bands
        fill = colour if i % 2 == 0 else shade((236, 232, 224), light)
        c.polygon([(x - half(t0), y - t0 * s), (x + half(t0), y - t0 * s), (x + half(t1), y - t1 * s), (x - half(t1), y - t1 * s)], fill)
    c.box(x - 0.1 * s, y - 0.9 * s, x + 0.1 * s, y - 0.78 * s, (255, 236, 130))
    c.polygon([(x - 0.14 * s, y - 0.89 * s), (x, y - s), (x + 0.14 * s, y - 0.89 * s)], shade(colour, 0.7))


def balloon(c, x, y, s, colour, light):
    c.disc(x, y - 0.66 * s, 0.33 * s, colour)
    c.polygon([(x - 0.28 * s, y - 0.48 * s), (x + 0.28 * s, y - 0.48 * s), (x + 0.09 * s, y - 0.2 * s), (x - 0.09 * s, y - 0.2 * s)], colour)
    c.disc(x, y - 0.66 * s, 0.13 * s, shade(colour, 0.82), 0.33 * s)
    c.box(x - 0.09 * s, y - 0.14 * s, x + 0.09 * s, y, shade((124, 82, 48), light))


THINGS = dict(house=house, tree=tree, pine=pine, boat=boat, cactus=cactus, tower=tower, windmill=windmill,
              lighthouse=lighthouse, balloon=balloon)
