"""Stage 5: the text encoder learns to expand brief captions into detailed ones, without changing a single picture.

What pictures are made from are the hidden states that enter the last layer, so that the last layer and the final norm are free to
learn something else. So are the embeddings of tokens that no caption has: `<think>` and `</think>`, which stand before every answer of a
chat without thinking, and those of `PROMPT`, the model's system prompt, whose only meaning is what is learned here (prompt tuning,
Lester et al. 2021).
"""

import copy
import json
import random
import re
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from . import captions, judge, text, world
from .muon import Muon
from .stage import device

PROMPT = "".join(f"<|{n}|>" for n in ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end",
                                      "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"))
ORDER = ("terrain", "body", "clouds", "time")
TOKENS_MAX = 96
TEMPERATURE = 0.7


def chat(brief):
    return f"<|im_start|>system\n{PROMPT}<|im_end|>\n{text.chat(brief)}<think>\n\n</think>\n\n"


def brief_of(scene, rng):
    """Some of what could be said of `scene`, and of how many of its things."""
    said = captions.promise(scene, rng, captions.ALL)
    share = rng.random()  # a caption says little of everything, or much
    for what in ORDER:
        if rng.random() < share:
            said[what] = None
    if said["body"] and said["body"] != "none" and rng.random() < 0.4:
        said["body"] = said["body"].split()[0]
    if rng.random() < 0.15:
        said["things"] = []
    placed = rng.random() >= share
    for thing in said["things"]:
        thing["place"] = thing["place"] if placed else None
        for what in ("colour", "size"):
            if rng.random() < share:
                thing[what] = None
    if not said["things"] and not any(said[what] is not None for what in ORDER):
        said["terrain"] = scene.terrain
    return said


def detailed(scene, chinese):
    """Everything that a caption can say of `scene`, in one order and with one word for each."""
    table = captions.ZH if chinese else captions.EN

    def word(kind, key):
        return table[kind][key][0]

    parts = []
    for t in scene.things:
        looks = word("size", t.size), word("colour", t.colour), word("kind", t.kind)
        if chinese:
            parts.append(f"{word('place', t.place)}有{captions.ONE.get(t.kind, '一棵')}{''.join(looks)}")
        else:
            name = " ".join(looks)
            parts.append(f"{'an' if name[0] in 'aeiou' else 'a'} {name} {word('place', t.place)}")
    parts += [word(what, getattr(scene, what)) for what in ORDER]
    return ("，" if chinese else ", ").join(parts)


def pair(number, sample=world.sample_training):
    """`(brief, what it promises, the detailed caption of one scene that keeps that)`."""
    rng = random.Random(f"expand {number}")
    scene = sample(number)
    said, chinese = brief_of(scene, rng), rng.random() < 0.25
    ordered = any(t["place"] is None for t in said["things"])  # what has no place is told from left to right
    return (captions.chinese if chinese else captions.english)(said, rng, ordered), said, detailed(scene, chinese)


def is_chinese(caption):
    return any("一" <= c <= "鿿" for c in caption)


def read(caption):
    """The scene that a detailed caption tells, or `None` for anything else."""
    chinese = is_chinese(caption)
    table = captions.ZH if chinese else captions.EN
    named = {what: {words[0]: key for key, words in table[what].items()} for what in table}
    *things, terrain, body, clouds, at = parts if len(parts := re.split("，|, ", caption)) >= 5 else [""] * 5
    choice = {what: "|".join(map(re.escape, sorted(named[what], key=len, reverse=True))) for what in named}
    if chinese:
        pattern = f"(?P<place>{choice['place']})有(一.)(?P<size>{choice['size']})(?P<colour>{choice['colour']})(?P<kind>{choice['kind']})"
    else:
        pattern = f"an? (?P<size>{choice['size']}) (?P<colour>{choice['colour']}) (?P<kind>{choice['kind']}) (?P<place>{choice['place']})"
    found = [re.fullmatch(pattern, thing) for thing in things]
    fields = [named[what].get(part) for what, part in zip(ORDER, (terrain, body, clouds, at))]
    if not found or None in found or None in fields:
        return None
    things = tuple(world.Thing(*(named[what][m[what]] for what in ("kind", "colour", "size", "place"))) for m in found)
    scene = world.Scene(fields[3], fields[0], fields[1], fields[2], things)
    return scene if detailed(scene, chinese) == caption and is_possible(scene) else None


def is_possible(scene):
    """Whether the world has such a scene."""
    places = [world.PLACES.index(t.place) for t in scene.things]
    light = "moon" if scene.time == "night" else "sun"
    misplaced = "cactus" if scene.terrain == "sea" else "boat"
    return (len(places) <= 3 and places == sorted(set(places)) and (scene.body == "none" or scene.body.startswith(light))
            and all(t.kind != misplaced for t in scene.things))


def batch(tokenizer, first, count):
    """`(ids, where an answer's token stands)`, both `[count, longest]`."""
    ids, answers = [], []
    for number in range(first, first + count):
        brief, _, caption = pair(number)
        asked = tokenizer(chat(brief)).input_ids
        answer = tokenizer(caption + "<|im_end|>").input_ids
        ids.append(asked + answer)
        answers.append(len(asked))
    x = text.padded(ids)
    at = torch.arange(x.shape[1], device=x.device)[None]
    ends = torch.tensor([len(row) for row in ids], device=x.device)[:, None]
    return x, (at >= torch.tensor(answers, device=x.device)[:, None]) & (at < ends)


class Learner(torch.nn.Module):
    """The language model; only what pictures do not depend on is trained."""

    def __init__(self, lm, tokenizer):
        super().__init__()
        self.lm = lm.requires_grad_(False)
        self.free = [lm.model.layers[-1], lm.model.norm]
        for part in self.free:
            part.requires_grad_(True)
        own = sorted({*tokenizer(PROMPT).input_ids, *tokenizer("<think></think>").input_ids})
        self.register_buffer("rows", torch.tensor(own))
        self.own = torch.nn.Parameter(lm.model.embed_tokens.weight[self.rows].clone())

    def table(self):
        return self.lm.model.embed_tokens.weight.index_copy(0, self.rows, self.own)

    def loss(self, x, answers):
        table = self.table()
        hidden = self.lm.model(inputs_embeds=F.embedding(x, table)).last_hidden_state
        mask = answers[:, 1:]
        return F.cross_entropy(hidden[:, :-1][mask] @ table.T, x[:, 1:][mask])

    def finished(self):
        """The whole model, as it is exported."""
        self.lm.model.embed_tokens.weight.data.copy_(self.table())
        return self.lm.to(torch.bfloat16).float().eval()


def load(model):
    """The exported text encoder with its tied head, and its tokenizer."""
    config = Qwen3Config.from_pretrained(model / "text_encoder")
    lm = Qwen3ForCausalLM(config)
    weights = load_file(model / "text_encoder/model.safetensors")
    lm.model.load_state_dict({name.removeprefix("model."): value.float() for name, value in weights.items()})
    lm.tie_weights()
    return lm.to(device()), Qwen2Tokenizer.from_pretrained(model / "tokenizer")


def train(model, steps=2000, count=48, lr=3e-3):
    """Trains the text encoder of the exported `model` and writes it back, now and then and at the end."""
    torch.manual_seed(0)
    lm, tokenizer = load(model)
    learner = Learner(lm, tokenizer).to(device())
    matrices = [p for n, p in learner.named_parameters() if p.requires_grad and "_proj" in n]
    others = [p for n, p in learner.named_parameters() if p.requires_grad and "_proj" not in n]
    optimizers = [torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=1e-3), Muon(matrices, lr=lr)]
    begun, losses = time.time(), []
    for step in range(steps):
        rate = min(1, (step + 1) / 50) * (1 if step < steps // 2 else max(0.02, 2 * (1 - step / steps)))
        loss = learner.loss(*batch(tokenizer, step * count, count))
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*matrices, *others], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"expand {step + 1}/{steps} loss {sum(losses[-50:]) / 50:.4f} {time.time() - begun:.0f} s", flush=True)
        if (step + 1) % 400 == 0:
            write(model, copy.deepcopy(learner).finished())
    lm = learner.finished()
    write(model, lm)
    print(json.dumps(measure(lm, tokenizer)), flush=True)


def write(model, lm):
    """Puts the weights back in the names and order that they had; what pictures are made from must not have changed."""
    path = model / "text_encoder/model.safetensors"
    before = load_file(path)
    state = lm.model.state_dict()
    after = {name: state[name.removeprefix("model.")].to(torch.bfloat16).cpu().contiguous() for name in before}
    last = f"layers.{lm.config.num_hidden_layers - 1}."
    for name, value in before.items():
        free = last in name or name.endswith("norm.weight") and "layers." not in name or "embed_tokens" in name
        assert free or torch.equal(value, after[name]), name
    save_file(after, path, metadata={"format": "pt"})


@torch.no_grad()
def answer(lm, tokenizer, brief):
    ids = tokenizer(chat(brief), return_tensors="pt").to(device())
    out = lm.generate(**ids, max_new_tokens=TOKENS_MAX, do_sample=False, eos_token_id=tokenizer("<|im_end|>").input_ids[0], pad_token_id=0)
    return tokenizer.decode(out[0, ids.input_ids.shape[1]:], skip_special_tokens=True)


def measure(lm, tokenizer, count=200):
    """Of held-out scenes: shares of expansions that are a detailed caption of a possible scene in the language of the brief one, and that
    keep all that it promises."""
    well_formed = kept = 0
    for number in range(count):
        brief, said, _ = pair(f"measure {number}", world.sample_held_out)
        expanded = answer(lm, tokenizer, brief)
        scene = read(expanded)
        fine = scene is not None and is_chinese(brief) == is_chinese(expanded)
        well_formed += fine
        keeps = fine and all(k for _, k in judge.checks(said, scene)) and (not said["things"] or len(said["things"]) == len(scene.things))
        kept += keeps
        if not keeps and number < 60:
            print(f"{brief}\n    -> {expanded}", flush=True)
    return {"well_formed": well_formed / count, "kept": kept / count}
