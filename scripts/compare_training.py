#!/usr/bin/env python3
"""Updates of a LoRA on the embedded model, by PyTorch and by Zoetrope in turn: seconds each, and the ratio.

    cargo build --release
    python scripts/compare_training.py [--rounds 3] [--batch 4] [--rank 16]

PyTorch runs diffusers' own transformer with peft and AdamW in float32, on the latents and captions that Zoetrope encoded, at the same
batch size; its optimiser and everything else around the network is in the time, as it is in Zoetrope's. Needs torch, diffusers, peft,
safetensors, numpy and Pillow.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import ZImageTransformer2DModel
from peft import LoraConfig
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/demo"))
from recipe import captions, draw, world  # noqa: E402

ENDINGS = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
BLOCKS = ("noise_refiner", "context_refiner", "layers")


def pictures(folder, count=8):
    folder.mkdir()
    for i in range(count):
        scene = world.sample_training(500 + i)
        draw.draw(scene, 192, 192, i).convert("RGB").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(captions.caption(scene, random.Random(i))[0], encoding="utf-8")


def zoetrope(args, folder, steps):
    """Seconds of each update."""
    command = [args.zoetrope, "train", folder / "pictures", "--steps", steps, "--batch", args.batch, "--rank", args.rank,
               "--work", folder / "work", "--output", folder / "lora.safetensors", "--restart", "--save-every", 10**6]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    events = map(json.loads, (folder / "work/events.jsonl").read_text().splitlines())
    return [event["seconds"] for event in events if event["event"] == "step"][-steps:]


class Peer:
    """The same with PyTorch."""

    def __init__(self, args, cache):
        torch.manual_seed(0)
        model = ZImageTransformer2DModel.from_pretrained(ROOT / "models/demo/transformer", torch_dtype=torch.float32)
        model.requires_grad_(False)
        linears = [key for key, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        targets = [key for key in linears if key.split(".")[0] in BLOCKS and key.endswith(ENDINGS)]
        model.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=targets))
        self.model, self.batch = model, args.batch
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        tensors = [load_file(path) for path in sorted(cache.iterdir())]
        self.latents = [t["mean"] for t in tensors if "mean" in t]
        self.features = [t["features"] for t in tensors if "features" in t]

    def update(self):
        begun = time.perf_counter()
        latents = [random.choice(self.latents) for _ in range(self.batch)]
        noise = [torch.randn_like(x) for x in latents]
        sigmas = torch.rand(self.batch)
        noised = [(s * n + (1 - s) * x).unsqueeze(1) for s, n, x in zip(sigmas, noise, latents)]
        features = [random.choice(self.features) for _ in range(self.batch)]
        out = self.model(noised, 1 - sigmas, features, return_dict=False)[0]
        target = torch.stack([(x - n).unsqueeze(1) for x, n in zip(latents, noise)])
        loss = (torch.stack(list(out)) - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        loss.item()
        return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoetrope", type=Path, default=ROOT / "target/release/zoetrope")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="updates of each in a round")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures(folder / "pictures")
        zoetrope(args, folder, 1)
        peer = Peer(args, folder / "work/cache")
        peer.update()
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours += zoetrope(args, folder, args.steps)
            theirs += [peer.update() for _ in range(args.steps)]
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"batch {args.batch}, rank {args.rank}: PyTorch {theirs:.3f} s an update, Zoetrope {ours:.3f} s,", end=" ")
    print(f"{theirs / ours:.2f} of PyTorch's updates a second")


if __name__ == "__main__":
    main()
