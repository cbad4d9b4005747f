"""Reads a picture back into a scene by its pixels: what, drawn again, would come nearest to it.

No network takes part. Backgrounds and things are drawn by `draw` at the places and sizes of the world, and the nearest in mean
absolute difference is what the picture shows; a thing counts only where it explains the picture much better than none.
"""

from functools import lru_cache

import numpy as np
from PIL import Image

from . import draw, world
from .world import Scene, Thing

CLIP = 100  # a pixel counts at most this much, so that what is not modelled does not decide
BACKGROUNDS = 24
PRESENT = 0.4  # a thing must explain this share of what differs from the background where it stands
LIKE = 60
SPRITES = 4000  # kept at a time, some 300 MB: those of five pairs of time and terrain
CHOICES = [(kind, colour, size) for kind in world.KINDS for colour in world.COLOURS for size in world.SIZES]


def cost(a, b):
    return np.minimum(np.abs(a - b).mean(-1), CLIP)


def pixels(image):
    return np.asarray(image, dtype=np.float32)


@lru_cache(maxsize=None)
def backgrounds(width, height):
    out = []
    for time in world.TIMES:
        for terrain in world.TERRAINS:
            for seed in range(BACKGROUNDS):
                scene = Scene(time, terrain, "none", False)
                out.append((time, terrain, pixels(draw.draw(scene, width, height, f"judge {seed}"))))
    return out


@lru_cache(maxsize=SPRITES)
def sprite(kind, colour, size, place, time, terrain, width, height):
    """A thing without its background: where it begins, colours `[h, w, 3]` and coverage `[h, w]`."""
    scene, layers = Scene(time, terrain, "none", False), []
    for shade in (0, 255):
        c = draw.Canvas(width, height)
        c.box(0, 0, c.w, c.h, (shade,) * 3)
        draw.place(c, scene, Thing(kind, colour, size, place), min(c.w, c.h), c.h * draw.HORIZON)
        layers.append(pixels(c.image.reduce(draw.OVER)))
    alpha = 1 - (layers[1] - layers[0]).mean(-1) / 255
    ys, xs = np.where(alpha > 0.02)
    box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    return ys.min(), xs.min(), layers[0][box], alpha[box]


def sky(picture, background, scene):
    """Clouds and the sun or moon; what is found of them is put into `background`."""
    height, width, _ = picture.shape
    light = "moon" if scene.time == "night" else "sun"
    bare = background.copy()
    colour = np.array(draw.CLOUD[scene.time], dtype=np.float32)
    shares = []
    for at in (0.14, 0.5, 0.86):
        box = slice(int(0.1 * height), int(0.34 * height)), slice(max(0, int((at - 0.17) * width)), int((at + 0.17) * width))
        cloudy = (cost(picture[box], colour) < cost(picture[box], bare[box])) & (cost(picture[box], colour) < LIKE)
        background[box][cloudy] = colour
        shares.append(cloudy.mean())
    found, best = "none", 0.45
    for side in ("left", "right"):
        for y in np.arange(0.1, 0.3, 8 / height):
            disc, alpha = body(f"{light} {side}", scene.time, y, width, height)
            where = alpha > 0.5
            shown = np.where(where, cost(picture, disc) < np.minimum(LIKE, 0.8 * cost(picture, bare)), False).sum() / where.sum()
            if shown > best:
                found, best, drawn = f"{light} {side}", shown, (disc, where)
    if found != "none":
        background[drawn[1]] = drawn[0][drawn[1]]
    return found, sorted(shares)[1] > 0.07


@lru_cache(maxsize=None)
def body(name, time, y, width, height):
    layers = []
    for shade in (0, 255):
        c = draw.Canvas(width, height)
        c.box(0, 0, c.w, c.h, (shade,) * 3)
        draw.disc_of(c, name, time, c.h * y, min(c.w, c.h))
        layers.append(pixels(c.image.reduce(draw.OVER)))
    return layers[0], 1 - (layers[1] - layers[0]).mean(-1) / 255


def shifts(reach, step):
    return [(dy, dx) for dy in range(-reach, reach + 1, step) for dx in range(-reach, reach + 1, step)]


def explain(picture, background, plain, scene, kind, colour, size, place, offsets):
    """How much of the difference a thing at `place` takes away, best over `offsets`: `(gain, where, drawn, share, offset)`."""
    height, width, _ = picture.shape
    top, left, rgb, alpha = sprite(kind, colour, size, place, scene.time, scene.terrain, width, height)
    best = (0.0, None, None, 0.0, None)
    for dy, dx in offsets:
        y0, x0 = max(0, top + dy), max(0, left + dx)
        y1, x1 = min(height, top + dy + alpha.shape[0]), min(width, left + dx + alpha.shape[1])
        if y1 - y0 < 8 or x1 - x0 < 8:
            continue
        part = slice(y0 - top - dy, y1 - top - dy), slice(x0 - left - dx, x1 - left - dx)
        where = (slice(y0, y1), slice(x0, x1))
        a = alpha[part]
        drawn = rgb[part] + (1 - a[..., None]) * background[where]
        gain = (plain[where] - cost(picture[where], drawn)).sum()
        if gain > best[0]:
            solid = a > 0.5
            share = gain / (plain[where] * solid).sum().clip(12 * solid.sum())
            best = (gain, where, drawn, share, (dy, dx))
    return best


def fit(picture, background, scene, place, choices):
    """The things of `choices` at `place` that explain most: first on the grid of tokens, then the best of them a little beside it."""
    plain = cost(picture, background)

    def best(choices, offsets, keep):
        scored = [(explain(picture, background, plain, scene, *c, place, o), c) for c, o in zip(choices, offsets)]
        return sorted((s for s in scored if s[0][0] > 0), key=lambda s: -s[0][0])[:keep]

    coarse = best(choices, [shifts(16, 16)] * len(choices), 24)
    near = [[(y + dy, x + dx) for dy, dx in shifts(4, 2)] for y, x in (s[0][4] for s in coarse)]
    return best([c for _, c in coarse], near, 24)


def read(picture):
    """The scene that an `Image` shows."""
    picture = pixels(picture.convert("RGB"))
    height, width, _ = picture.shape
    time, terrain, bare = min(backgrounds(width, height), key=lambda b: cost(picture, b[2]).mean())
    scene, background = Scene(time, terrain, "none", False), bare.copy()
    body_name, clouds = sky(picture, background, scene)
    found, choices = {}, {place: CHOICES for place in world.PLACES}
    for _ in range(2):  # the second time each thing is fitted with its neighbours in place
        for place in world.PLACES:
            behind = background.copy()
            for other, (_, where, drawn, *_) in found.items():
                if other != place:
                    behind[where] = drawn
            scored = fit(picture, behind, scene, place, choices[place])
            choices[place] = [c for _, c in scored]
            found.pop(place, None)
            if scored and scored[0][0][3] > PRESENT:
                found[place] = scored[0][0]
    things = tuple(Thing(*choices[p][0], p) for p in world.PLACES if p in found)
    return Scene(time, terrain, body_name, clouds, things)


def checks(said, scene):
    """`(what, kept)` for everything that a caption's promise `said` says of the picture that shows `scene`."""
    out = [(what, getattr(scene, what) == said[what]) for what in ("time", "terrain", "clouds") if said[what] is not None]
    if said["body"]:
        out.append(("sun or moon", said["body"] in (scene.body, scene.body.split()[0])))
    for t in said["things"]:
        alike = [x for x in scene.things if x.kind == t["kind"]]
        here = [x for x in alike if x.place == t["place"]]
        out.append(("object present", bool(alike)))
        if t["place"]:
            out.append(("object's side", bool(here)))
        for what in ("colour", "size"):
            if t[what]:
                out.append((f"object's {what}", any(getattr(x, what) == t[what] for x in (here or alike))))
    return out
