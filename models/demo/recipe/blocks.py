"""diffusers' Z-Image block as one function of its tensors, which `torch.compile` fuses once for all blocks.

The parameters stay where diffusers keeps them; `check` in `transformer.py` compares both forms before training starts.
"""

import torch
import torch.nn.functional as F


def rotation(angles):
    """`[tokens, pairs]` complex numbers of diffusers' rotary embedding as cosines and sines."""
    return angles.real[None, :, None].contiguous(), angles.imag[None, :, None].contiguous()


def parameters(block):
    a, f = block.attention, block.feed_forward
    return (
        torch.cat([a.to_q.weight, a.to_k.weight, a.to_v.weight]), a.norm_q.weight, a.norm_k.weight, a.to_out[0].weight,
        torch.cat([f.w1.weight, f.w3.weight]), f.w2.weight,
        block.attention_norm1.weight, block.attention_norm2.weight, block.ffn_norm1.weight, block.ffn_norm2.weight,
    )


def rotate(x, cos, sin):
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def attention(q, k, v):
    """Spelled out, since on processors the backward pass of torch's fused kernel takes twice the time at these sizes."""
    seen = (q @ k.transpose(-1, -2)).mul(q.shape[-1] ** -0.5).softmax(-1, dtype=torch.float32)
    return seen.to(v.dtype) @ v


def modulated(x, cos, sin, scale1, gate1, scale2, gate2, weights):
    qkv, norm_q, norm_k, out, up, down, before1, after1, before2, after2 = weights
    batch, tokens, dim = x.shape
    q, k, v = F.linear(norm(x, before1) * scale1, qkv).view(batch, tokens, 3, -1, norm_q.shape[0]).unbind(2)
    q, k = rotate(norm(q, norm_q), cos, sin), rotate(norm(k, norm_k), cos, sin)
    seen = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    x = x + gate1 * norm(F.linear(seen.transpose(1, 2).reshape(batch, tokens, dim), out), after1)
    gate, value = F.linear(norm(x, before2) * scale2, up).chunk(2, -1)
    return x + gate2 * norm(F.linear(F.silu(gate) * value, down), after2)


torch._dynamo.config.recompile_limit = 64  # a form for each size of picture and of caption
compiled = torch.compile(modulated, dynamic=False)


def run(block, x, angles, c=None, fast=True):
    """`block` on `x` [batch, tokens, dim] with `angles` of `rotation` and the time's embedding `c` [batch, 256]."""
    if block.modulation:
        scale1, gate1, scale2, gate2 = block.adaLN_modulation(c)[:, None].chunk(4, 2)
        scales = (1 + scale1, gate1.tanh(), 1 + scale2, gate2.tanh())
    else:
        scales = (x.new_ones(x.shape[0], 1, x.shape[2]),) * 4
    return (compiled if fast else modulated)(x, *angles, *scales, parameters(block))
