"""Stage 3: pictures drawn and encoded once, in shards of one size each, so that stage 4 only reads."""

import random

import torch
import torch.nn.functional as F

from . import draw, world
from .stage import device, to_tensor

# Buckets by area, width and height in multiples of 16; the first are cheap to learn on, the second are what is shown.
SMALL = [(192, 192), (192, 192), (192, 192), (256, 144), (144, 256), (224, 160), (160, 224)]
FULL = [(256, 256), (256, 256), (256, 256), (320, 192), (192, 320), (288, 224), (224, 288)]
SHARD = 500
FOREGROUND = 4.0  # things are a tenth of a picture and most of its caption, so their places weigh more in the loss


def size_of(number, buckets):
    return buckets[number % len(buckets)]


def path_of(folder, number, buckets):
    return folder / "latents" / f"{'small' if buckets is SMALL else 'full'}-{number:04}.pt"


@torch.no_grad()
def make(folder, vae, number, buckets, first_seed):
    """One shard: latents in the transformer's scale, float16, what each of their places weighs, and the seeds of their scenes."""
    path = path_of(folder, number, buckets)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size_of(number, buckets)
    seeds = [first_seed + number * SHARD + i for i in range(SHARD)]
    rows, weights = [], []
    for start in range(0, SHARD, 10):
        drawn = [draw.foreground(world.sample_training(s), width, height, s) for s in seeds[start : start + 10]]
        z = vae.encode(torch.stack([to_tensor(picture) for picture, _ in drawn]).to(device())).latent_dist.mean
        rows.append(((z - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu())
        masks = torch.stack([torch.from_numpy(mask) for _, mask in drawn])[:, None].half()
        weights.append(1 + FOREGROUND * F.max_pool2d(masks, 8))
    part = path.with_suffix(".part")
    torch.save(dict(latents=torch.cat(rows), weights=torch.cat(weights), seeds=seeds), part)
    part.rename(path)


class Pool:
    """All shards made so far, looked for anew now and then."""

    def __init__(self, folder, buckets):
        self.folder, self.kind, self.shards = folder, "small" if buckets is SMALL else "full", {}
        self.refresh()

    def refresh(self):
        for path in sorted((self.folder / "latents").glob(f"{self.kind}-*.pt")):
            if path not in self.shards:
                self.shards[path] = torch.load(path, weights_only=True)

    def draw(self, rng, accept, count):
        """`count` latents of one size with their weights and a caption that `accept(seed)` makes, or passes over with `None`."""
        shard = self.shards[rng.choice(list(self.shards))]
        picked, said = [], []
        while len(picked) < count:
            i = rng.randrange(SHARD)
            caption = accept(shard["seeds"][i])
            if caption is not None:
                picked.append(i)
                said.append(caption)
        return shard["latents"][picked].float(), shard["weights"][picked].float(), said
