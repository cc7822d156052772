"""Label scoring by the Transformers engine against one forward pass for each prompt and label, in one run.

A Llama with random weights and the tiny model's tokenizer, prompts of about 1,000 tokens, label words of one to a few
tokens. Two settings: all prompts share their demonstrations, and each has its own. The naive way computes logits for
the label tokens only, one sequence at a time. Runs take turns; where there is a GPU the model is larger and runs there.

    OMP_NUM_THREADS=1 python benchmarks/transformers_scoring.py [--prompts 16] [--rounds 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._models import start_torch
from icl_select.score.encoding import encode_item
from icl_select.score.tiny import make_tiny_model
from icl_select.score.transformers_model import TransformersModel
from icl_select.types import Prompt

LABELS = ["\nvery negative", "\nnegative", "\nneutral", "\npositive", "\nvery positive"]
# Hidden size, layers, heads.
SIZES = {"cpu": (256, 4, 8), "cuda": (2048, 24, 16)}


def save_model(folder: Path, device: str) -> Path:
    import torch
    import transformers

    hidden, layers, heads = SIZES["cuda" if device.startswith("cuda") else "cpu"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_tiny_model(folder.parent / "tiny"))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_prompts(n: int, *, shared: bool, tokenizer: Any, tokens: int = 1000) -> list[Prompt]:
    """Demonstrations up to about `tokens`, the same for all prompts or drawn for each; the question is its own."""
    rng = random.Random(0)
    words = ["the", "topic", "claim", "company", "artist", "album", "sentence", "great", "terrible", "very", "film"]

    def example(length: int) -> str:
        return f"How do you feel about the sentence? {' '.join(rng.choices(words, k=length))}\nanswer:"

    def demonstrations() -> str:
        text = ""
        while len(tokenizer(text)["input_ids"]) < tokens - 60:
            text += f"{example(15)}{rng.choice(LABELS)}\n\n\n"
        return text

    common = demonstrations()
    texts = [(common if shared else demonstrations()) + example(rng.randint(8, 20)) for _ in range(n)]
    return [Prompt(str(k), text, (), (), (), 0) for k, text in enumerate(texts)]


def naive(model: Any, tokenizer: Any, prompts: list[Prompt], device: str) -> np.ndarray:
    import torch

    out = np.empty((len(prompts), len(LABELS)))
    with torch.inference_mode():
        for row, prompt in enumerate(prompts):
            item = encode_item(lambda text: tokenizer(text)["input_ids"], prompt.text, LABELS, max_length=2048)
            for column, choice in enumerate(item.choices):
                ids = torch.tensor([item.context + choice], device=device)
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(choice) + 1).logits[0, :-1]
                found = torch.log_softmax(logits.float(), -1)[range(len(choice)), list(choice)]
                out[row, column] = float(found.sum())
    return out


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Wall seconds of one call; results are on the CPU, so the device has finished."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(engine: TransformersModel, device: str, prompts: list[Prompt], title: str, rounds: int) -> None:
    model, tokenizer = engine._loaded[0], engine._texts.tokenizer
    engine.loglik(prompts[:1], [LABELS])
    before = vars(engine.usage).copy()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        slow, plain = timed(lambda: naive(model, tokenizer, prompts, device))
        fast, ours = timed(lambda: engine.loglik(prompts, [LABELS] * len(prompts)).values)
        times.append((slow, fast))
    slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = " ".join(f"{a / b:.1f}" for a, b in times)
    usage = {key: value - before[key] for key, value in vars(engine.usage).items()}
    length = usage["prompt_tokens"] / usage["requests"]
    print(f"{title}: {len(prompts)} prompts of {length:.0f} tokens, {len(LABELS)} labels, {device}")
    print(f"  one forward for each prompt and label {len(prompts) / slow:8.2f} prompts/s")
    print(f"  this engine                           {len(prompts) / fast:8.2f} prompts/s")
    print(f"  ratio {slow / fast:.1f}x (by round: {ratios}); largest difference {np.abs(plain - ours).max():.1e}")
    print(f"  prompt tokens not computed again: {usage['cached_tokens'] / usage['prompt_tokens']:.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", help="default: the GPU if there is one")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    _, device = start_torch(options.device, None, extra="models", purpose="this benchmark")
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(Path(folder) / "llama", device)
        engine = TransformersModel(str(saved), device=device, batch_size=options.batch_size)
        engine.load()
        for shared, title in ((True, "shared demonstrations"), (False, "own demonstrations")):
            prompts = make_prompts(options.prompts, shared=shared, tokenizer=engine._texts.tokenizer)
            compare(engine, device, prompts, title, options.rounds)


if __name__ == "__main__":
    main()
