"""What all stages share: a model, its optimiser and averaged weights, saved every few minutes and taken up again."""

import copy
import json
import math
import time

import numpy as np
import torch

from .muon import Muon

SAVE_SECONDS = 120


def device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16():
    """Whether bfloat16 is arithmetic here; on older processors it is emulated, slower than float32."""
    return device() == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def mixed_precision():
    return torch.autocast(device(), torch.bfloat16, enabled=has_bfloat16())


def to_tensor(image):
    """A PIL picture as `[3, height, width]` in -1..1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


class Stage:
    """`steps` updates of `build()`; `average` is the exponential moving average that the stage ends with."""

    def __init__(self, folder, name, build, steps, lr, warmup=100, decay=0.995, hold=0.5, muon=None):
        self.path, self.name, self.steps, self.lr, self.warmup = folder / f"{name}.pt", name, steps, lr, warmup
        self.decay, self.hold = decay, hold
        torch.manual_seed(0)
        self.model = build().to(device())
        self.average = copy.deepcopy(self.model)
        self.optimizers = self.make_optimizers(muon)
        self.step, self.seconds, self.losses = 0, 0.0, []
        if self.path.exists():
            self.restore()
        self.clock = self.saved = time.time()

    def make_optimizers(self, muon):
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        hidden = [p for n, p in named if muon and p.ndim in (2, 4) and muon(n)]
        others = [p for n, p in named if not (muon and p.ndim in (2, 4) and muon(n))]
        out = [torch.optim.AdamW(others, lr=self.lr, betas=(0.9, 0.98), weight_decay=1e-3)]
        return out + ([Muon(hidden, lr=self.lr, dtype=torch.bfloat16 if has_bfloat16() else torch.float32)] if hidden else [])

    def rate(self):
        """Of the learning rate: up in `warmup` updates, held for a share `hold` of all, then along a cosine to 2%."""
        rise = min(1.0, (self.step + 1) / self.warmup)
        fall = max(0.0, self.step / self.steps - self.hold) / (1 - self.hold)
        return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))

    def update(self, loss):
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.rate()
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.model.parameters()):
                a.lerp_(p, 1 - decay)
        self.losses.append(loss.item())
        if self.step % 50 == 0:
            now = time.time()
            self.seconds, self.clock = self.seconds + now - self.clock, now
            mean = sum(self.losses[-50:]) / 50
            print(f"{self.name} {self.step}/{self.steps} loss {mean:.4f} lr {self.lr * self.rate():.2e} {self.seconds:.0f} s", flush=True)
            if now - self.saved > SAVE_SECONDS:
                self.save()

    def state(self):
        return dict(step=self.step, seconds=self.seconds, model=self.model.state_dict(), average=self.average.state_dict(),
                    optimizers=[o.state_dict() for o in self.optimizers])

    def save(self):
        self.saved = time.time()
        part = self.path.with_suffix(".part")
        torch.save(self.state(), part)
        part.rename(self.path)

    def restore(self):
        state = torch.load(self.path, map_location=device(), weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)

    def finish(self):
        self.save()
        with open(self.path.with_suffix(".json"), "w") as file:
            json.dump({"steps": self.step, "seconds": round(self.seconds)}, file)
        return self.average.eval()
