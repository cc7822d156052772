"""Run one architecture through vLLM in this process, and say how far its log-probabilities are from the bare model's.

    python tests/one_architecture.py NAME FOLDER

writes a JSON line: the class that vLLM ran, and the largest difference; or the error that refused the model. One
process for each architecture: vLLM keeps one engine in a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from icl_select.errors import ModelError
from icl_select.score.tiny import make_tiny_model
from icl_select.score.vllm_model import VllmModel
from icl_select.types import Prompt

PROMPT = (
    "How do you feel about the sentence? Long enough to leave a window of thirty-two tokens behind, which the local "
    "layers of GPT-Neo read.\nanswer:"
)
CHOICES = ["\nvery negative", "\nnegative", "\ngreat"]

# Two layers, four heads of 32 numbers: the smallest that vLLM's kernels for CPUs take.
CONFIGS: dict[str, Callable[..., Any]] = {
    "gptj": lambda **more: transformers.GPTJConfig(
        n_positions=256, n_embd=128, n_layer=2, n_head=4, rotary_dim=16, tie_word_embeddings=False, **more
    ),
    "gpt_neox": lambda **more: transformers.GPTNeoXConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        **more,
    ),
    "gpt_neo": lambda **more: transformers.GPTNeoConfig(
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        intermediate_size=256,
        max_position_embeddings=256,
        attention_types=[[["global", "local"], 1]],
        window_size=32,
        **more,
    ),
    "qwen3": lambda **more: transformers.Qwen3Config(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=256,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        **more,
    ),
}


def make(name: str, folder: Path) -> Any:
    """Write the model and its tokenizer; returns the model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_tiny_model(folder / "tiny"))
    config = CONFIGS[name](vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return model


def literal(model: Any, folder: Path) -> list[float]:
    """Log-probability of every choice, one sequence at a time, without a cache."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    start, sums = len(tokenizer(PROMPT)["input_ids"]), []
    for choice in CHOICES:
        ids = torch.tensor([tokenizer(PROMPT + choice)["input_ids"]])
        assert ids[0, :start].tolist() == tokenizer(PROMPT)["input_ids"]
        with torch.inference_mode():
            found = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
        sums.append(sum(float(found[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])))
    return sums


def main(name: str, folder: Path) -> dict[str, Any]:
    """Compare the engine with the bare model."""
    # Before the engine: vLLM's Transformers backend changes the classes of transformers in its process.
    wanted = literal(make(name, folder), folder / name)
    model = VllmModel(str(folder / name), dtype="float32", max_num_seqs=8)
    try:
        found = model.loglik([Prompt("q", PROMPT, (), (), (), 0)], [CHOICES]).values[0]
    except ModelError as exc:
        return {"error": str(exc)}
    runner = model._running._llm.llm_engine.model_executor.driver_worker.worker.model_runner  # type: ignore[union-attr]
    difference = max(abs(ours - theirs) for ours, theirs in zip(found, wanted, strict=True))
    return {"class": type(runner.model).__name__, "difference": float(difference)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))) + "\n")
