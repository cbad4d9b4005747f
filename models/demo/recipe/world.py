"""The world: what a scene is, how one is drawn by chance, and which scenes are held out of training."""

import hashlib
import random
from dataclasses import dataclass, field

TIMES = ["dawn", "day", "sunset", "night"]
TERRAINS = ["hills", "mountains", "sea", "desert", "snow"]
BODIES = ["sun left", "sun right", "moon left", "moon right", "none"]
PLACES = ["left", "middle", "right"]
KINDS = ["house", "tree", "pine", "boat", "cactus", "tower", "windmill", "lighthouse", "balloon"]
SIZES = ["small", "medium", "big"]
COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 132, 36),
    "yellow": (247, 208, 56),
    "green": (46, 160, 67),
    "blue": (36, 92, 214),
    "purple": (132, 62, 186),
    "pink": (244, 132, 178),
    "white": (246, 246, 242),
    "brown": (128, 82, 52),
}
# What a picture shows of what its caption leaves open: the same always, so that a caption is one scene.
USUAL = dict(time="day", terrain="hills", body="none", clouds=False, size="medium")
USUAL_SIDE = "right"
USUAL_COLOUR = dict(house="red", tree="green", pine="green", boat="red", cactus="green", tower="brown", windmill="white",
                    lighthouse="red", balloon="red")


@dataclass(frozen=True)
class Thing:
    kind: str
    colour: str
    size: str
    place: str


@dataclass(frozen=True)
class Scene:
    time: str
    terrain: str
    body: str
    clouds: bool
    things: tuple = field(default_factory=tuple)


def thing_for(rng, terrain, place, crowd):
    """A thing at `place`; the more there are, the smaller they are, so that each can be seen."""
    kinds = [k for k in KINDS if k != ("cactus" if terrain == "sea" else "boat")]
    size = rng.choices(SIZES, {1: [2, 4, 4], 2: [3, 5, 2], 3: [6, 4, 0]}[crowd])[0]
    return Thing(rng.choice(kinds), rng.choice(list(COLOURS)), size, place)


def sample(rng):
    time = rng.choice(TIMES)
    light = "moon" if time == "night" else "sun"
    body = rng.choice([f"{light} left", f"{light} right", "none"])
    terrain = rng.choice(TERRAINS)
    count = rng.choices([1, 2, 3], [4, 4, 2])[0]
    places = sorted(rng.sample(PLACES, count), key=PLACES.index)
    things = tuple(thing_for(rng, terrain, place, count) for place in places)
    return Scene(time, terrain, body, rng.random() < 0.5, things)


def held_out(scene):
    """One scene in twelve, by what it shows (not by where): its combination never occurs in training."""
    key = repr((scene.time, scene.terrain, sorted((t.kind, t.colour, t.place) for t in scene.things)))
    return hashlib.sha256(key.encode()).digest()[0] % 12 == 0


def sample_training(seed):
    rng = random.Random(seed)
    while held_out(scene := sample(rng)):
        pass
    return scene


def sample_held_out(seed):
    rng = random.Random(f"held out {seed}")
    while not held_out(scene := sample(rng)):
        pass
    return scene


def combinations():
    """How many different scenes there are, positions and shapes not counted."""
    one = (len(KINDS) - 1) * len(COLOURS) * len(SIZES)
    things = 3 * one + 3 * one**2 + one**3
    return things * len(TERRAINS) * len(TIMES) * 3 * 2
