"""Muon (Jordan 2024) in batches of equal shapes, for matrices and convolutions.

`torch.optim.Muon` takes matrices one by one, and always in bfloat16, which older processors emulate slowly.
"""

from collections import defaultdict

import torch

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(g, dtype, rounds=5):
    """Newton-Schulz in `dtype`: `g` [batch, rows, columns] with all its singular values brought near 1."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, weight_decay=1e-3, dtype=torch.float32):
        self.dtype = dtype
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                held = self.state[p].setdefault("momentum", torch.zeros_like(p))
                held.lerp_(p.grad, 1 - group["momentum"])
                alike[p.flatten(1).shape].append((p, p.grad.lerp(held, group["momentum"]).flatten(1)))
            for (rows, columns), members in alike.items():
                scale = 0.2 * max(rows, columns) ** 0.5  # the size of AdamW's updates, so that one rate suits both
                for (p, _), update in zip(members, orthogonal(torch.stack([u for _, u in members]), self.dtype)):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p), alpha=-group["lr"] * scale)
