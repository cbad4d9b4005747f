"""Records what the published optimisers do, for crates/trainer/tests/optimizers.rs.

    pip install torch==2.15.0 prodigyopt==1.1.2 bitsandbytes==0.50.2 safetensors
    python crates/trainer/tests/recorded/record.py

Everything is in float32 on the CPU.

- `adamw.safetensors` and `prodigy.safetensors` are 20 updates of three tensors towards a target, from noisy gradients: `start.I`;
  `rates` [20]; `gradients.I` and `after.I` [20, n], what each update saw and left; `found` [20], Prodigy's estimate of the
  distance. The last tensor's gradients are so small that what is added to the root in the denominator counts.
- `adamw8bit.safetensors` is bitsandbytes' AdamW8bit, 20 updates of 4196 values, which are 16 blocks and a part of one. Gradients follow a
  formula that the test knows too. `after` is where the values are in the end; `signed` and `unsigned` are what the 256 codes stand for.
"""

import math
from pathlib import Path

import torch
from bitsandbytes.functional import create_dynamic_map
from bitsandbytes.optim import AdamW8bit
from prodigyopt import Prodigy
from safetensors.torch import save_file

HERE = Path(__file__).parent
STEPS, WARMUP, DECAY = 20, 4, 0.1
SHAPES, SCALES = ((6, 5), (40,), (8,)), (1.0, 1e-2, 1e-8)
COUNT = 4196


def rate(step):
    return (step + 1) / WARMUP if step < WARMUP else (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


def descend(name, make, peak):
    generator = torch.Generator().manual_seed(5)
    draw = lambda shape: torch.randn(shape, generator=generator)
    # The tensors of an adapter begin at random values, or all at 0.
    values = [torch.nn.Parameter(draw(shape) if i else torch.zeros(shape)) for i, shape in enumerate(SHAPES)]
    targets = [draw(shape) for shape in SHAPES]
    optimizer = make(values)
    out = {f"start.{i}": p.detach().clone() for i, p in enumerate(values)}
    rates, found = [], []
    for step in range(STEPS):
        rates.append(peak * rate(step))
        optimizer.param_groups[0]["lr"] = rates[-1]
        for i, (p, target, scale) in enumerate(zip(values, targets, SCALES)):
            p.grad = scale * (p.detach() - target + 0.3 * draw(p.shape))
            out.setdefault(f"gradients.{i}", []).append(p.grad.flatten().clone())
        optimizer.step()
        found.append(optimizer.param_groups[0].get("d", 1.0))
        for i, p in enumerate(values):
            out.setdefault(f"after.{i}", []).append(p.detach().flatten().clone())
    out = {key: torch.stack(rows) if isinstance(rows, list) else rows.flatten() for key, rows in out.items()}
    out |= {"rates": torch.tensor(rates, dtype=torch.float64), "found": torch.tensor(found, dtype=torch.float64)}
    save_file(out, HERE / f"{name}.safetensors")
    print(name, "found", found[0], found[-1])


def eight_bits():
    i = torch.arange(COUNT)
    p = torch.nn.Parameter(torch.zeros(COUNT))
    # The library's is on from 4096 values on.
    optimizer = AdamW8bit([p], lr=1e-2, weight_decay=0.0)
    for step in range(STEPS):
        whole = (i * 7919 + (step + 1) * 104729) % 1999 - 999
        p.grad = whole.float() / 999 * 0.5 ** (i % 12).float()
        optimizer.step()
    assert optimizer.state[p]["state1"].dtype == torch.uint8
    tables = {"signed": create_dynamic_map(signed=True), "unsigned": create_dynamic_map(signed=False)}
    save_file({"after": p.detach().clone()} | tables, HERE / "adamw8bit.safetensors")


descend("adamw", lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=DECAY), 1e-2)
descend("prodigy", lambda p: Prodigy(p, lr=1.0, weight_decay=DECAY), 1.0)
eight_bits()
