"""diffusers loads the adapters that Zoetrope writes, in every naming, and makes of them what is meant.

The files are those that crates/checkpoint/tests/written.rs holds the writer to. What is meant is computed here from the files that they were
made of, without diffusers' loader: scale · up · down, added to the weights.
"""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install torch diffusers==0.42.1 peft transformers)")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (pip install diffusers==0.42.1 peft transformers)")
pytest.importorskip("peft", reason="peft is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from safetensors.torch import load_file  # noqa: E402

FIXTURES = Path(__file__).parent.parent / "fixtures"
MODEL = FIXTURES / "turbo" / "model"


def meant():
    """What is added to each layer's weight, by module."""
    style = load_file(FIXTURES / "turbo/lora/style.peft_alpha.safetensors")  # rank 4, alpha 2
    deltas = {}
    for key, down in style.items():
        found = re.fullmatch(r"transformer\.((?:layers|context_refiner)\.0\..*)\.lora_A\.weight", key)
        if found:
            deltas[found[1]] = 2 / 4 * style[key.replace("lora_A", "lora_B")] @ down
    subject = load_file(FIXTURES / "turbo/lora/subject.kohya.safetensors")
    name = "lora_unet_layers_1_adaLN_modulation_0"
    up, down, alpha = (subject[f"{name}.{part}"] for part in ("lora_up.weight", "lora_down.weight", "alpha"))
    deltas["layers.1.adaLN_modulation.0"] = alpha / down.shape[0] * up @ down
    assert len(deltas) == 15
    return deltas


def velocity(transformer):
    generator = torch.Generator().manual_seed(3)
    config = transformer.config
    latents = torch.randn(config.in_channels, 1, 8, 12, generator=generator)
    features = torch.randn(21, config.cap_feat_dim, generator=generator)
    with torch.no_grad():
        return transformer([latents], torch.tensor([0.4]), [features], return_dict=False)[0][0]


@pytest.fixture(scope="module")
def outputs():
    """The velocity without an adapter, and with what is meant."""
    transformer = diffusers.ZImageTransformer2DModel.from_pretrained(MODEL / "transformer", dtype=torch.float32)
    plain = velocity(transformer)
    modules = dict(transformer.named_modules())
    with torch.no_grad():
        for name, delta in meant().items():
            modules[name].weight += delta
    return plain, velocity(transformer)


def off(got, want):
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("naming", ["diffusers", "comfyui", "kohya"])
def test_an_adapter_as_written_is_what_is_meant(naming, outputs):
    plain, merged = outputs
    pipeline = diffusers.ZImagePipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipeline.load_lora_weights(FIXTURES / "written", weight_name=f"{naming}.safetensors")
    assert off(plain, merged) > 1e-2, "the adapter is too weak to tell"
    assert off(velocity(pipeline.transformer), merged) < 1e-4
