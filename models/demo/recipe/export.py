"""Writes the model in the published layout, bfloat16."""

import json
import shutil

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

from . import captions, expand, transformer

EXAMPLES = [
    "a red house on the left, a big green tree on the right, rolling hills, the sun, at noon",
    "a blue boat in the middle, the sea, at sunset, clouds",
    "a white lighthouse on the right, the ocean, the moon, at night",
    "a purple hot air balloon on the left, mountains, a clear sky, at dawn",
    "左边有一座红色的房子，雪地，夜晚，月亮",
    "a tall green cactus in the desert, an orange tower on the right, sunset",
]


def transformer_state(folder):
    return ZImageTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).state_dict()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(out, tokenizer, encoder, autoencoder, network):
    def save(model, part):
        shutil.rmtree(out / part, ignore_errors=True)
        model.to("cpu", torch.bfloat16).save_pretrained(out / part)
        for name in (out / part).glob("generation_config.json"):
            name.unlink()
        config = json.loads((out / part / "config.json").read_text())
        config.pop("_name_or_path", None)
        write_json(out / part / "config.json", config)

    save(network, "transformer")
    save(encoder.lm.model, "text_encoder")
    save(autoencoder, "vae")
    shutil.copytree(tokenizer, out / "tokenizer", dirs_exist_ok=True)
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=transformer.SHIFT).save_pretrained(out / "scheduler")
    write_json(out / "model_index.json", {
        "_class_name": "ZImagePipeline", "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"], "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"], "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"]})
    english, chinese = captions.words()
    write_json(out / "demo.json", {
        "width": 192, "height": 192, "steps": transformer.STEPS, "examples": EXAMPLES,
        "expansion": {"system_prompt": expand.PROMPT, "temperature": expand.TEMPERATURE, "tokens_max": expand.TOKENS_MAX},
        "words": english, "chinese": chinese})
