"""Stage 4: the transformer, by flow matching on cached latents, mostly at the noise levels that 8 steps visit."""

import random

import torch
import torch.nn.functional as F
from diffusers import ZImageTransformer2DModel
from PIL import Image

from . import blocks, captions, text, world
from .latents import Pool
from .stage import Stage, device, mixed_precision

SHIFT = 3.0
STEPS = 8


def build():
    return ZImageTransformer2DModel(
        all_patch_size=[2], all_f_patch_size=[1], in_channels=16, dim=192, n_layers=7, n_refiner_layers=1, n_heads=6,
        n_kv_heads=6, norm_eps=1e-5, qk_norm=True, cap_feat_dim=text.HIDDEN, rope_theta=256.0, t_scale=1000.0,
        axes_dims=[8, 12, 12], axes_lens=[1536, 512, 512])


def positions(caption, rows, columns, fill):
    cap = [(1 + i, 0, 0) for i in range(caption)]
    image = [(caption + 1, r, c) for r in range(rows) for c in range(columns)] + [(0, 0, 0)] * fill
    return torch.tensor(image), torch.tensor(cap)


def forward(model, x, features, lengths, t, fast=True):
    """diffusers' forward for a batch of one size and one padded caption length, without its lists.

    `x` [batch, 16, h, w]; `features` [batch, padded, text.HIDDEN], padded a multiple of 32; `t` [batch] in 0..1.
    """
    b, ch, h, w = x.shape
    rows, columns, cap = h // 2, w // 2, features.shape[1]
    tokens = x.view(b, ch, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, 4 * ch)
    fill = -tokens.shape[1] % 32
    image_ids, cap_ids = positions(cap, rows, columns, fill)
    c = model.t_embedder(t * model.t_scale)
    img = model.all_x_embedder["2-1"](tokens).float()  # what flows through the blocks stays float32 in mixed precision
    img = torch.cat([img, model.x_pad_token.expand(b, fill, -1)], 1)
    rope = [model.rope_embedder(ids.to(x.device)) for ids in (image_ids, cap_ids)]
    turns = [blocks.rotation(r) for r in (*rope, torch.cat(rope))]
    for block in model.noise_refiner:
        img = blocks.run(block, img, turns[0], c, fast)
    txt = model.cap_embedder(features).float()
    real = torch.arange(cap, device=x.device)[None, :] < lengths[:, None]
    txt = torch.where(real[:, :, None], txt, model.cap_pad_token[None])
    for block in model.context_refiner:
        txt = blocks.run(block, txt, turns[1], None, fast)
    both = torch.cat([img, txt], 1)
    for block in model.layers:
        both = blocks.run(block, both, turns[2], c, fast)
    out = model.all_final_layer["2-1"](both[:, : rows * columns], c)
    return out.view(b, rows, columns, 2, 2, ch).permute(0, 5, 1, 3, 2, 4).reshape(b, ch, h, w)


def schedule(steps):
    s = torch.linspace(1, 1 / steps, steps)
    return torch.cat([SHIFT * s / (1 + (SHIFT - 1) * s), torch.zeros(1)])


class Speaker:
    """The frozen text encoder: captions to features."""

    def __init__(self, encoder, tokenizer):
        self.lm, self.tokenizer = encoder.lm.model.to(device()).eval(), tokenizer
        self.lm.layers = self.lm.layers  # all kept; the last is never used

    @torch.no_grad()
    def features(self, texts):
        ids = [self.tokenizer(text.chat(t)).input_ids for t in texts]
        lengths = torch.tensor([len(x) for x in ids], device=device())
        hidden = self.lm(input_ids=text.padded(ids), output_hidden_states=True).hidden_states[-2]
        fill = -hidden.shape[1] % 32
        return F.pad(hidden, (0, 0, 0, fill)), lengths


def noise_levels(rng, count):
    """Seven in ten at the levels of 8 steps, slightly off; the rest anywhere, more often noisy."""
    stops = schedule(STEPS)[:-1].tolist()
    out = []
    for i in range(count):
        if rng.random() < 0.7:
            out.append(min(1.0, max(0.02, stops[(i + rng.randrange(8)) % 8] + rng.uniform(-0.02, 0.02))))
        else:
            u = rng.random()
            out.append(max(0.005, SHIFT * u / (1 + (SHIFT - 1) * u)))
    return torch.tensor(out, device=device())


def train(folder, speaker, vae, buckets, steps, count=16, lr=2e-3, name="transformer", start=None):
    stage = Stage(folder, name, build, steps, lr=lr, warmup=60, decay=0.997, hold=0.3,
                  muon=lambda n: ("layers." in n or "refiner" in n) and "adaLN" not in n)
    if start is not None and stage.step == 0:
        stage.model.load_state_dict(start)
        stage.average.load_state_dict(start)
    pool = Pool(folder, buckets)
    while stage.step < steps:
        rng = random.Random(f"{name} {stage.step}")
        most = 32 if rng.random() < 0.5 else 64

        def accept(seed):
            said = captions.caption(world.sample_training(seed), rng)[0]
            n = len(speaker.tokenizer(text.chat(said)).input_ids)
            return said if most - 32 < n <= most else None

        x0, weights, texts = pool.draw(rng, accept, count)
        x0, weights = x0.to(device()), weights.to(device())
        features, lengths = speaker.features(texts)
        sigma = noise_levels(rng, count)
        noise = torch.randn(x0.shape, device=x0.device)
        s = sigma[:, None, None, None]
        with mixed_precision():
            out = forward(stage.model, s * noise + (1 - s) * x0, features, lengths, 1 - sigma)
        stage.update(((out.float() - x0 + noise).square() * weights).mean() / weights.mean())
        if stage.step % 200 == 0:
            pool.refresh()
        if stage.step % 400 == 0:
            sheet(folder / f"{name}-{stage.step:05}.png", stage.average, speaker, vae, buckets[0])
    return stage.finish()


@torch.no_grad()
def generate(model, speaker, vae, texts, size, seed=0, steps=STEPS):
    features, lengths = speaker.features(texts)
    sigmas = schedule(steps)
    x = torch.randn((len(texts), 16, size[1] // 8, size[0] // 8), generator=torch.Generator().manual_seed(seed)).to(device())
    for now, then in zip(sigmas[:-1], sigmas[1:]):
        t = (1 - now).expand(len(texts)).to(device())
        x = x - (then - now) * forward(model, x, features, lengths, t, fast=False)
    y = vae.decode(x / vae.config.scaling_factor + vae.config.shift_factor).sample
    return ((y / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sheet(path, model, speaker, vae, size, count=16):
    """Pictures of held-out scenes, to be looked at."""
    texts = [captions.caption(world.sample_held_out(i), random.Random(i))[0] for i in range(count)]
    out = Image.new("RGB", (size[0] * 8, size[1] * (count // 8)))
    for i, picture in enumerate(generate(model, speaker, vae, texts, size)):
        out.paste(Image.fromarray(picture), (i % 8 * size[0], i // 8 * size[1]))
    out.save(path)
