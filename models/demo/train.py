"""Makes the embedded model, from nothing: `python train.py --work FOLDER`. Stages resume where they were stopped."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from recipe import vae  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--work", type=Path, default=Path("work"), help="where caches and checkpoints go")
parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the model goes")
args = parser.parse_args()
args.work.mkdir(parents=True, exist_ok=True)
model = vae.train(args.work)
print("vae error", vae.error(model))
model.save_pretrained(args.work / "vae")
