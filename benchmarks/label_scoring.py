"""Label scoring by vLLM: our reads against the naive way, one prompt_logprobs request for each choice, in one run.

Five label words, prompts of about 1,000 tokens. Needs vLLM (scripts/setup.sh test,vllm):
    .venv-vllm/bin/python benchmarks/label_scoring.py
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _timing import seconds

from icl_select.score.encoding import encode_item
from icl_select.score.tiny import make_tiny_model
from icl_select.score.vllm_model import VllmModel
from icl_select.types import Prompt

LABELS = ("very negative", "negative", "neutral", "positive", "very positive")
TARGET = 5.0
LENGTH = 2048


def sentences(rng: random.Random, words: int) -> str:
    vocabulary = ("title", "content", "the", "film", "company", "station", "claim", "topic", "summary", "building")
    return " ".join(rng.choice(vocabulary) for _ in range(words))


def demonstrations(rng: random.Random, count: int) -> str:
    shown = (f"How do you feel about the following sentence?\n{sentences(rng, 14)}\nanswer:" for _ in range(count))
    return "".join(f"{text}\n{rng.choice(LABELS)}\n\n\n" for text in shown)


def prompts(n: int, *, shared: bool) -> list[Prompt]:
    """Prompts of the published format; their demonstrations are the same for all, or each prompt has its own."""
    rng = random.Random(0)
    common = demonstrations(rng, 25)
    texts = []
    for _ in range(n):
        shown = common if shared else demonstrations(rng, 25)
        texts.append(f"{shown}How do you feel about the following sentence?\n{sentences(rng, 14)}\nanswer:")
    return [Prompt(str(number), text, (), (), (), 0) for number, text in enumerate(texts)]


def grown(folder: Path) -> Path:
    """The tiny model with 5 million parameters: enough for the computation, not the bookkeeping, to take the time."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    make_tiny_model(folder, max_length=LENGTH)
    config = AutoConfig.from_pretrained(folder)
    config.update({"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4})
    config.update({"num_key_value_heads": 4, "head_dim": 64})
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return folder


def naive(model: VllmModel, items: list[Prompt]) -> np.ndarray:
    """One request for each choice: log-probabilities of the whole prompt, of which the end is summed."""
    engine = model._running
    assert engine is not None
    encode = model._texts.encode
    encoded = [
        encode_item(lambda text: encode([text])[0], item.text, [f"\n{label}" for label in LABELS], max_length=LENGTH)
        for item in items
    ]
    requests = [{"prompt_token_ids": [*item.context, *tail]} for item in encoded for tail in item.choices]
    asked = engine.sampling(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
    engine.forget()
    outputs = iter(engine._llm.generate(requests, asked, use_tqdm=False))
    values = np.zeros((len(items), len(LABELS)))
    for row, item in enumerate(encoded):
        for column, tail in enumerate(item.choices):
            lines: list[Any] = next(outputs).prompt_logprobs[len(item.context) :]
            values[row, column] = sum(line[token].logprob for line, token in zip(lines, tail, strict=True))
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    choices = [[f"\n{label}" for label in LABELS]] * asked.prompts
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        model = VllmModel(str(grown(Path(folder) / "tiny")))
        model.loglik([Prompt("warm", "warm up", (), (), (), 0)], [["a", "b"]])
        for name, shared in (("shared demonstrations", True), ("demonstrations of their own", False)):
            items = prompts(asked.prompts, shared=shared)
            ratios, gap = [], 0.0
            model.usage.requests = model.usage.prompt_tokens = model.usage.cached_tokens = 0
            for _ in range(asked.runs):
                slow, expected = seconds(lambda items=items: naive(model, items))
                fast, found = seconds(lambda items=items: model.loglik(items, choices))
                ratios.append(slow / fast)
                gap = max(gap, float(np.abs(found.values - expected).max()))
                same = bool((found.values.argmax(axis=1) == expected.argmax(axis=1)).all())
                kept &= same and gap < 1e-4
            usage, ratio = model.usage, statistics.median(ratios)
            kept &= ratio >= TARGET or not shared
            print(
                f"{name}: {ratio:.1f}x (runs {', '.join(f'{one:.1f}' for one in ratios)}); "
                f"{asked.prompts} prompts of {found.prompt_tokens.mean():.0f} tokens, ours "
                f"{asked.prompts / fast:.1f} prompts/s, naive {asked.prompts / slow:.1f}; "
                f"{usage.requests / asked.runs / asked.prompts:.1f} requests a prompt, "
                f"{usage.cached_tokens / usage.prompt_tokens:.0%} of their tokens cached; "
                f"largest difference {gap:.1e}"
            )
        model.close()
    print(f"target >= {TARGET:.0f}x with shared demonstrations, differences < 1e-4: {'met' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
