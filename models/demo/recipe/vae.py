"""Stage 1: the autoencoder, diffusers' AutoencoderKL with few channels, on crops of drawn pictures."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from . import draw, world
from .stage import Stage, device, mixed_precision, to_tensor

WHOLE = [(192, 192), (256, 144), (144, 256), (224, 160), (160, 224), (256, 256)]
PILOT = 1.5
SIDES = [(192, 192), (256, 256), (320, 192), (192, 320)]


def build():
    model = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, sample_size=256,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64], layers_per_block=1, norm_num_groups=1,
        use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=True, force_upcast=True,
        scaling_factor=1.0, shift_factor=0.0,
    )
    add_pilots(model.encoder)
    add_pilots(model.decoder)
    return model


@torch.no_grad()
def add_pilots(net):
    """Starts two channels of every norm's input as large constants of both signs.

    A group norm takes away the level and the contrast of a picture, which in flat illustrations are most of what there is. With
    constants that outweigh the rest, mean and deviation hardly depend on the picture and the norm begins as the identity.
    """
    for name, part in net.named_modules():
        if isinstance(part, nn.GroupNorm):
            part.weight.fill_((2 * PILOT**2 + 1) ** 0.5)
        elif isinstance(part, nn.Conv2d) and not name.endswith("conv_out"):
            level = PILOT * part.out_channels**0.5 * (not name.endswith("conv2"))  # conv2 adds to a stream that has them
            part.weight[:2] = 0
            part.bias[:2] = torch.tensor([level, -level])
        if isinstance(part, nn.Conv2d) and not name.endswith("conv_in"):
            part.weight[:, :2] = 0


def picture(seed):
    width, height = SIDES[seed % len(SIDES)]
    return to_tensor(draw.draw(world.sample_training(seed), width, height, seed))


def crops(rng, count, side, pool):
    """Crops of pictures; half of them around where things stand."""
    out = []
    for _ in range(count):
        x = pool[rng.randrange(len(pool))]
        top, left = rng.randrange(0, x.shape[1] - side + 1), rng.randrange(0, x.shape[2] - side + 1)
        if rng.random() < 0.6:
            top = min(x.shape[1] - side, int(x.shape[1] * rng.uniform(0.3, 0.6)))
        out.append(x[:, top : top + side, left : left + side])
    return torch.stack(out).float().to(device()) / 127.5 - 1


def edges(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(model, x):
    posterior = model.encode(x).latent_dist
    y = model.decode(posterior.sample()).sample.float()
    sharp = sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x)))
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    flat = F.l1_loss(F.avg_pool2d(y, 8), F.avg_pool2d(x, 8))  # the colour of areas, which norms like to forget
    return F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 2 * flat + 0.5 * sharp + 5e-4 * kl


def inner(name):
    """The weights that Muon trains: all convolutions and the attention but the outermost."""
    return not name.endswith(("conv_in.weight", "conv_out.weight"))


def train(folder, steps=1800, batch=16, side=64):
    stage = Stage(folder, "vae", lambda: build().to(memory_format=torch.channels_last), steps, lr=4e-3, warmup=50, muon=inner)
    rng = random.Random(stage.step)
    pool = [(picture(i) + 1).mul(127.5).round().to(torch.uint8) for i in range(1200 if stage.step < steps else 0)]
    while stage.step < steps:
        x = crops(rng, batch, side, pool)
        with mixed_precision():
            loss = loss_of(stage.model, x)
        stage.update(loss)
    return train_whole(folder, stage.finish())


def train_whole(folder, start, steps=300, batch=2):
    """Whole pictures at the sizes that are shown: the norms' statistics are of all of a picture, not of a crop."""
    stage = Stage(folder, "vae-whole", build, steps, lr=1e-3, warmup=20, muon=inner)
    if stage.step == 0:
        stage.model.load_state_dict(start.state_dict())
        stage.average.load_state_dict(start.state_dict())
    while stage.step < steps:
        width, height = WHOLE[stage.step % len(WHOLE)]
        seeds = [2_000_000 + stage.step * batch + i for i in range(batch)]
        pictures = [to_tensor(draw.draw(world.sample_training(s), width, height, s)) for s in seeds]
        stage.update(loss_of(stage.model, torch.stack(pictures).to(device())))
    return train_decoder(folder, stage.finish())


def with_frozen_encoder():
    model = build()
    model.encoder.requires_grad_(False)
    return model


def train_decoder(folder, start, steps=600, batch=2):
    """The decoder alone, for sharper edges: latents stay what they are, so that this can run beside or after the transformer."""
    stage = Stage(folder, "vae-decoder", with_frozen_encoder, steps, lr=1.5e-3, warmup=20, hold=0.3,
                  muon=lambda name: name.startswith("decoder.") and inner(name))
    if stage.step == 0:
        stage.model.load_state_dict(start.state_dict())
        stage.average.load_state_dict(start.state_dict())
    while stage.step < steps:
        width, height = WHOLE[stage.step % len(WHOLE)]
        seeds = [3_000_000 + stage.step * batch + i for i in range(batch)]
        x = torch.stack([to_tensor(draw.draw(world.sample_training(s), width, height, s)) for s in seeds]).to(device())
        with torch.no_grad():
            posterior = stage.model.encode(x).latent_dist
            z = posterior.mean + 0.3 * posterior.std * torch.randn_like(posterior.mean)
        with mixed_precision():
            y = stage.model.decode(z).sample.float()
        sharp = sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x)))
        stage.update(F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + sharp)
    model = stage.finish()
    normalise(model)
    return model


@torch.no_grad()
def normalise(model):
    """Brings the channels of latents nearer to each other and their deviation over all channels to 1.

    A channel that varies little would be drowned by noise until the last of 8 steps. Scaling one is exact: the encoder's last
    convolution and the decoder's first take it up.
    """
    z = torch.cat([model.encode(picture(4 * i)[None].to(device())).latent_dist.mean.flatten(2) for i in range(64)], 2)[0]
    scale = z.std(1) ** -0.5
    channels = len(scale)
    out, into = model.encoder.conv_out, model.decoder.conv_in
    out.weight[:channels] *= scale[:, None, None, None]
    out.bias[:channels] *= scale
    out.bias[channels:] += 2 * scale.log()  # the other half are logarithms of variances
    into.weight /= scale[:, None, None]
    z = z * scale[:, None]
    model.register_to_config(scaling_factor=round(1 / z.std().item(), 4), shift_factor=round(z.mean().item(), 4))


@torch.no_grad()
def error(model, count=32):
    """Mean absolute error in levels of 255 on pictures that training did not see, latents rounded to the mean."""
    total = 0.0
    for i in range(count):
        x = picture(10_000_000 + i)[None].to(device())
        total += (model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1) - x).abs().mean().item() * 127.5
    return total / count
