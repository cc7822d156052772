"""Models of every family with random weights and the tiny model's tokenizer, and what they say read literally."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._fingerprint import seed_from
from icl_select.score.encoding import encode_item
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Decoding, Prompt

POSITIONS = 256

# Narrow and shallow, with two heads or more; windows far shorter than the prompts of the tests.
_PLAIN = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _PLAIN),
    "gpt_neox": (
        "GPTNeoXConfig",
        {key: value for key, value in _PLAIN.items() if key != "num_key_value_heads"} | {"rotary_pct": 0.5},
    ),
    "gptj": ("GPTJConfig", _GPT | {"rotary_dim": 4}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "gpt2": ("GPT2Config", _GPT),
    "qwen2": ("Qwen2Config", _PLAIN),
    "qwen3": ("Qwen3Config", _PLAIN | {"head_dim": 8}),
    "mistral": ("MistralConfig", _PLAIN | {"sliding_window": 16}),
    # One sliding layer and one full one, logits capped after the output layer.
    "gemma2": (
        "Gemma2Config",
        _PLAIN | {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    # No position ids: positions come from the attention mask.
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    # Learned positions with an offset.
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": POSITIONS,
            "word_embed_proj_dim": 32,
        },
    ),
    # Logits are scaled after the output layer.
    "cohere": ("CohereConfig", _PLAIN | {"logit_scale": 0.5}),
}


def save_family(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write a random model of a family with the tiny tokenizer; its weights are large enough to matter."""
    import torch
    import transformers

    kind, settings = FAMILIES[family]
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_tiny_model(folder.parent / "tiny"))
    tokenizer.model_max_length = 10**30
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), tie_word_embeddings=False, **ids, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:  # fresh weights near 0.02: make attention and positions matter
                    parameter.mul_(30 if name.startswith(("lm_head", "embed_out")) else 8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompt_of(text: str, name: str = "q") -> Prompt:
    return Prompt(name, text, ({"role": "user", "content": text},), (), (), 0)


class Literal:
    """One forward pass for each sequence, no cache, no padding, no batch."""

    def __init__(self, folder: Path, *, max_length: int | None = POSITIONS) -> None:
        import torch
        import transformers

        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.max_length = max_length

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def next_logprobs(self, ids: Sequence[int]) -> Any:
        """(len(ids), vocabulary): what follows each token."""
        with self.torch.no_grad():
            logits = self.model(input_ids=self.torch.tensor([list(ids)]), use_cache=False).logits[0]
        return self.torch.log_softmax(logits.float(), -1).numpy()

    def loglik(self, text: str, words: Sequence[str]) -> list[float]:
        item = encode_item(self.encode, text, words, max_length=self.max_length)
        sums = []
        for choice in item.choices:
            table = self.next_logprobs(item.context + choice)
            start = len(item.context) - 1
            sums.append(float(sum(table[start + k, token] for k, token in enumerate(choice))))
        return sums

    def write(self, text: str, decoding: Decoding) -> tuple[str, list[int], list[float], bool]:
        """Greedy or drawn, everything computed again for each token, the text decoded as a whole each time."""
        ids = self.encode(text)
        if self.max_length is not None:
            ids = ids[-(self.max_length - decoding.max_tokens) :]
        rng = np.random.default_rng(seed_from(decoding.seed, text))
        new: list[int] = []
        logprobs: list[float] = []
        while len(new) < decoding.max_tokens:
            line = self.next_logprobs(ids + new)[-1]
            token = int(np.argmax(line)) if decoding.temperature == 0 else _drawn(line, decoding.temperature, rng)
            new.append(token)
            logprobs.append(float(line[token]))
            if token == self.tokenizer.eos_token_id:
                return self.text_of(ids, new[:-1]), new, logprobs, True
            written = self.text_of(ids, new)
            found = [written.index(stop) for stop in decoding.stop if stop in written]
            if found:
                return written[: min(found)], new, logprobs, True
        return self.text_of(ids, new), new, logprobs, False

    def text_of(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The bytes that `ids` add to what stands before them."""
        lead = self.tokenizer.decode(before[-8:], skip_special_tokens=True)
        whole = self.tokenizer.decode([*before[-8:], *ids], skip_special_tokens=True)
        return whole[len(lead) :] if whole.startswith(lead) else self.tokenizer.decode(ids, skip_special_tokens=True)


def _drawn(logprobs: Any, temperature: float, rng: np.random.Generator) -> int:
    weights = np.exp(logprobs.astype(np.float64) / temperature)
    point, total = rng.random() * weights.sum(), 0.0
    for token, weight in enumerate(weights):
        total += weight
        if point < total:
            return token
    return len(weights) - 1
