"""Makes the embedded model, from nothing: `python train.py --work FOLDER`. Stages resume where they were stopped.

Stages: the autoencoder, the text encoder, cached latents, the transformer, expansion of captions. A GPU is used when there is one.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from recipe import expand, export, latents, text, transformer, vae  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--work", type=Path, default=Path("work"), help="where caches and checkpoints go")
parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the model goes")
parser.add_argument("--steps", type=int, default=3400, help="updates of the transformer")
parser.add_argument("--shards", type=int, default=24, help="shards of 500 pictures")
parser.add_argument("--resume-from", type=Path, help="a model whose transformer is trained further")
parser.add_argument("--until", choices=["vae", "text", "latents", "transformer"])
parser.add_argument("--expand-only", action="store_true", help="only teach the model in --out to expand captions")
args = parser.parse_args()
args.work.mkdir(parents=True, exist_ok=True)


def main():
    if args.expand_only:
        return expand.train(args.out)
    autoencoder = vae.train(args.work)
    print(f"autoencoder: {vae.error(autoencoder):.2f} levels of 255 off", flush=True)
    if args.until == "vae":
        return
    encoder, tokenizer = text.train(args.work)
    print("text encoder reads {:.1%} of what captions promise, the worst field {:.1%}".format(*text.accuracy(encoder, tokenizer)), flush=True)
    if args.until == "text":
        return
    for number in range(args.shards):
        latents.make(args.work, autoencoder, number, latents.SMALL, 1_000_000)
    if args.until == "latents":
        return
    start = export.transformer_state(args.resume_from) if args.resume_from else None
    speaker = transformer.Speaker(encoder, tokenizer)
    network = transformer.train(args.work, speaker, autoencoder, latents.SMALL, args.steps, start=start)
    export.write(args.out, args.work / "tokenizer", encoder, autoencoder, network)
    if args.until != "transformer":
        expand.train(args.out)


main()
