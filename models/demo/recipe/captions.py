"""Captions: a grammar with free order and synonyms, in English and Chinese, and what each caption promises."""

import random

from . import world

EN = {
    "time": {
        "dawn": ["at dawn", "at sunrise", "in the early morning"],
        "day": ["by day", "in daylight", "at noon"],
        "sunset": ["at sunset", "at dusk", "in the evening"],
        "night": ["at night", "under the stars", "at midnight"],
    },
    "terrain": {
        "hills": ["green hills", "rolling hills", "meadows"],
        "mountains": ["mountains", "snowy peaks"],
        "sea": ["the sea", "the ocean", "calm water"],
        "desert": ["the desert", "sand dunes"],
        "snow": ["snow", "a snowy field", "winter"],
    },
    "body": {
        "sun left": ["the sun on the left", "sun at left"],
        "sun right": ["the sun on the right", "sun at right"],
        "moon left": ["the moon on the left", "moon at left"],
        "moon right": ["the moon on the right", "moon at right"],
        "sun": ["the sun", "a sun"],
        "moon": ["the moon", "a moon"],
        "none": ["no sun or moon"],
    },
    "clouds": {True: ["clouds", "a cloudy sky", "some clouds"], False: ["a clear sky", "no clouds"]},
    "kind": {
        "house": ["house", "cottage"], "tree": ["tree", "oak"], "pine": ["pine", "fir"], "boat": ["boat", "sailboat"],
        "cactus": ["cactus"], "tower": ["tower", "castle tower"], "windmill": ["windmill", "mill"],
        "lighthouse": ["lighthouse"], "balloon": ["balloon", "hot air balloon"],
    },
    "size": {"small": ["small", "little", "tiny"], "medium": ["medium"], "big": ["big", "large", "huge"]},
    "place": {
        "left": ["on the left", "at left", "to the left"],
        "middle": ["in the middle", "in the centre"],
        "right": ["on the right", "at right", "to the right"],
    },
    "colour": {c: [c] for c in ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "brown"]},
}

ZH = {
    "time": {"dawn": ["黎明", "清晨", "日出时分"], "day": ["白天", "中午"], "sunset": ["日落", "黄昏", "傍晚"], "night": ["夜晚", "夜里", "星空下"]},
    "terrain": {"hills": ["绿色的山丘", "草地"], "mountains": ["群山", "雪山"], "sea": ["大海", "海面"], "desert": ["沙漠", "沙丘"], "snow": ["雪地", "冬天"]},
    "body": {
        "sun left": ["左边有太阳"], "sun right": ["右边有太阳"], "moon left": ["左边有月亮"], "moon right": ["右边有月亮"],
        "sun": ["太阳"], "moon": ["月亮"], "none": ["没有日月"],
    },
    "clouds": {True: ["有云", "多云"], False: ["晴空", "没有云"]},
    "kind": {"house": ["房子", "小屋"], "tree": ["树", "大树"], "pine": ["松树"], "boat": ["船", "帆船"], "cactus": ["仙人掌"],
             "tower": ["塔", "塔楼"], "windmill": ["风车"], "lighthouse": ["灯塔"], "balloon": ["气球", "热气球"]},
    "size": {"small": ["小小的", "小"], "medium": ["中等的"], "big": ["大大的", "大", "巨大的"]},
    "place": {"left": ["左边", "左侧"], "middle": ["中间", "中央"], "right": ["右边", "右侧"]},
    "colour": {"red": ["红色的"], "orange": ["橙色的"], "yellow": ["黄色的"], "green": ["绿色的"], "blue": ["蓝色的"],
               "purple": ["紫色的"], "pink": ["粉色的"], "white": ["白色的"], "brown": ["棕色的"]},
}
ONE = {"boat": "一条", "house": "一座", "tower": "一座", "windmill": "一座", "lighthouse": "一座", "balloon": "一个"}

# Chances that a caption leaves open what is as usual; whatever is not as usual is always said.
OPEN = dict(time=0.4, terrain=0.4, body=0.6, body_side=0.4, clouds=0.6, colour=0.4, size=0.7, place=0.5)
ALL = dict.fromkeys(OPEN, 0.0)


def promise(scene, rng, open_=OPEN):
    """What a caption will say of `scene`: the same fields, `None` where it says nothing."""
    def keep(value, what, usual):
        return None if value == usual and rng.random() < open_[what] else value

    body = keep(scene.body, "body", world.USUAL["body"])
    if body and body.endswith(world.USUAL_SIDE) and rng.random() < open_["body_side"]:
        body = body.split()[0]
    things = []
    for t in scene.things:
        alone = len(scene.things) == 1
        things.append(dict(
            kind=t.kind, colour=keep(t.colour, "colour", world.USUAL_COLOUR[t.kind]), size=keep(t.size, "size", world.USUAL["size"]),
            place=keep(t.place, "place", "middle") if alone else t.place))
    return dict(time=keep(scene.time, "time", world.USUAL["time"]), terrain=keep(scene.terrain, "terrain", world.USUAL["terrain"]),
                body=body, clouds=keep(scene.clouds, "clouds", world.USUAL["clouds"]), things=things)


def english(said, rng, ordered=False):
    def word(table, key):
        return rng.choice(EN[table][key])

    parts = []
    for t in said["things"]:
        looks = [word(k, t[k]) for k in ("size", "colour") if t[k] is not None]
        name = " ".join(looks + [word("kind", t["kind"])])
        name = ("an " if name[0] in "aeiou" else "a ") + name
        if t["place"]:
            where = word("place", t["place"])
            name = f"{where} {name}" if rng.random() < 0.2 else f"{name} {where}"
        parts.append(name)
    if not ordered:
        rng.shuffle(parts)
    rest = [word(k, said[k]) for k in ("terrain", "body", "clouds", "time") if said[k] is not None]
    rng.shuffle(rest)
    parts = parts + rest if rng.random() < 0.7 else rest + parts
    if rng.random() < 0.1 and not ordered:
        rng.shuffle(parts)
    text = ", ".join(parts)
    if rng.random() < 0.15:
        text = rng.choice(["a picture of ", "an illustration of "]) + text
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.15 else "")


def chinese(said, rng, ordered=False):
    def word(table, key):
        return rng.choice(ZH[table][key])

    parts = []
    for t in said["things"]:
        looks = "".join(word(k, t[k]) for k in ("size", "colour") if t[k] is not None)
        name = ONE.get(t["kind"], "一棵") + looks + word("kind", t["kind"])
        parts.append((word("place", t["place"]) + rng.choice(["有", "是", ""]) if t["place"] else "") + name)
    if not ordered:
        rng.shuffle(parts)
    rest = [word(k, said[k]) for k in ("terrain", "body", "clouds", "time") if said[k] is not None]
    rng.shuffle(rest)
    parts = parts + rest if rng.random() < 0.6 else rest + parts
    return "，".join(parts) + ("。" if rng.random() < 0.2 else "")


def caption(scene, rng, open_=OPEN):
    """`(text, promise)`; one caption in four is Chinese."""
    said = promise(scene, rng, open_)
    return (chinese if rng.random() < 0.25 else english)(said, rng), said


def words():
    """Every word of the grammar, for telling whether a prompt is of this world."""
    out = set()
    for table in EN.values():
        for options in table.values():
            for option in options:
                out.update(option.split())
    chinese_words = {w for table in ZH.values() for options in table.values() for w in options}
    return sorted(out | {"a", "an", "picture", "illustration", "of"}), sorted(chinese_words | {"一座", "一条", "一个", "一棵", "有", "是"})
