"""Stage 2: tokenizer and text encoder, a small Qwen3 that learns to speak captions and to know what they promise."""

import json
import random

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from . import captions, world
from .stage import Stage, device, mixed_precision

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen3's added tokens in its order; (text, special).
ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True)] + [
    (f"<|{n}|>", True)
    for n in ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end", "vision_start",
              "vision_end", "vision_pad", "image_pad", "video_pad")
] + [("<tool_call>", False), ("</tool_call>", False)] + [
    (f"<|{n}|>", False) for n in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
] + [("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False)]
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
SUFFIX = 5  # <|im_end|> \n <|im_start|> assistant \n
HIDDEN = 128


def corpus(count):
    for i in range(count):
        rng = random.Random(i)
        yield chat(captions.caption(world.sample_training(i), rng)[0])
        if i % 10 == 0:
            yield "user\nassistant\n"


def chat(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def write_tokenizer(folder):
    """Byte-level BPE over captions, in the published form."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tok.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1400, min_frequency=30, initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator((t.replace("<|im_start|>", "").replace("<|im_end|>", "") for t in corpus(30000)), trainer)
    state = json.loads(tok.to_str())
    size = len(state["model"]["vocab"])
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    state["added_tokens"] = [dict(id=size + i, content=t, **flags, special=s) for i, (t, s) in enumerate(ADDED)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    decoder = {str(t["id"]): {k: t[k] for k in (*flags, "content", "special")} for t in state["added_tokens"]}
    config = dict(add_bos_token=False, add_prefix_space=False, added_tokens_decoder=decoder, bos_token=None, chat_template=TEMPLATE,
                  clean_up_tokenization_spaces=False, eos_token="<|im_end|>", errors="replace", model_max_length=40960,
                  pad_token="<|endoftext|>", split_special_tokens=False, tokenizer_class="Qwen2Tokenizer", unk_token=None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return size + len(ADDED)


class Encoder(nn.Module):
    """The language model with probes; only the model is kept."""

    def __init__(self, vocabulary):
        super().__init__()
        self.lm = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=384, num_hidden_layers=5, num_attention_heads=4,
            num_key_value_heads=2, head_dim=32, max_position_embeddings=40960, rms_norm_eps=1e-6, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, attention_bias=False, use_sliding_window=False))
        self.norm = nn.LayerNorm(HIDDEN)
        self.probes = nn.ModuleList(nn.Linear(HIDDEN, n) for _, n in FIELDS)


# A probe reads one suffix token: the sky from the first, what stands where from the others.
OBJECT = [("kind", len(world.KINDS) + 1), ("colour", len(world.COLOURS) + 1), ("size", 4)]
FIELDS = [("time", 5), ("terrain", 6), ("body", 8), ("clouds", 3)] + [f for _ in range(4) for f in OBJECT]
READS = [0, 0, 0, 0] + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
BODIES = list(captions.EN["body"])


def labels(said):
    """One class a field; the last object is the one whose place was left open. 0 is `nothing said`."""
    def index(options, value):
        return 0 if value is None else 1 + list(options).index(value)

    out = [index(world.TIMES, said["time"]), index(world.TERRAINS, said["terrain"]), index(BODIES, said["body"]),
           index([False, True], said["clouds"])]
    for place in [*world.PLACES, None]:
        t = next((t for t in said["things"] if t["place"] == place), None)
        out += [0, 0, 0] if t is None else [index(world.KINDS, t["kind"]), index(world.COLOURS, t["colour"]), index(world.SIZES, t["size"])]
    return out


def batch(tokenizer, seed, count):
    texts, targets = [], []
    for i in range(count):
        rng = random.Random(f"{seed} {i}")
        text, said = captions.caption(world.sample_training(seed * 4096 + i), rng)
        texts.append(tokenizer(chat(text)).input_ids)
        targets.append(labels(said))
    return texts, torch.tensor(targets, device=device())


def padded(ids):
    longest = max(map(len, ids))
    return torch.tensor([x + [0] * (longest - len(x)) for x in ids], device=device())


def suffix(hidden, ids):
    """`[batch, 5, hidden]`: what stands at the template's last tokens."""
    ends = torch.tensor([len(x) for x in ids], device=hidden.device)
    at = ends[:, None] - SUFFIX + torch.arange(SUFFIX, device=hidden.device)
    return hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1]))


def probe(encoder, hidden, ids):
    tail = encoder.norm(suffix(hidden, ids))
    return [p(tail[:, i]) for p, i in zip(encoder.probes, READS)]


def train(folder, steps=900, count=64):
    size = write_tokenizer(folder / "tokenizer") if not (folder / "tokenizer").exists() else None
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    size = (len(tokenizer) + 31) // 32 * 32
    stage = Stage(folder, "text", lambda: Encoder(size), steps, lr=3e-3, muon=lambda n: "_proj" in n)
    while stage.step < steps:
        ids, targets = batch(tokenizer, stage.step, count)
        x = padded(ids)
        mask = torch.tensor([[i < len(row) - 1 for i in range(x.shape[1] - 1)] for row in ids], device=x.device)
        with mixed_precision():
            out = stage.model.lm(input_ids=x, output_hidden_states=True)
            probed = probe(stage.model, out.hidden_states[-2], ids)
        speak = F.cross_entropy(out.logits[:, :-1][mask].float(), x[:, 1:][mask])
        know = sum(F.cross_entropy(y.float(), t) for y, t in zip(probed, targets.T))
        stage.update(know + 0.2 * speak)
    return stage.finish(), tokenizer


@torch.no_grad()
def accuracy(encoder, tokenizer, count=512):
    """Share of fields that the probes read right from captions of scenes that training did not see."""
    ids, targets = [], []
    for i in range(count):
        text, said = captions.caption(world.sample_held_out(i), random.Random(f"accuracy {i}"))
        ids.append(tokenizer(chat(text)).input_ids)
        targets.append(labels(said))
    hidden = encoder.lm(input_ids=padded(ids), output_hidden_states=True).hidden_states[-2]
    right = [(y.argmax(1).cpu() == t).float().mean().item() for y, t in zip(probe(encoder, hidden, ids), torch.tensor(targets).T)]
    lengths = sorted(map(len, ids))
    print("tokens: median", lengths[count // 2], "longest", lengths[-1], "at most 32:", sum(n <= 32 for n in lengths) / count)
    return sum(right) / len(right), min(right)
