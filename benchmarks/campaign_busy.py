"""How busy a campaign keeps its engine: requests a second in the campaign beside the same requests submitted at once.

A campaign on the shipped messages runs with an empty cache of answers; then the engine gets the very requests that
the campaign sent it, distinct ones only, in one call, in the same process. Loading is outside both: the engine is
started and warmed before, and starts every call with an empty prefix cache. Three ratios are printed, campaign over
engine alone: by the engine's own seconds (what cutting the work into calls costs it); by the processor seconds of the
thread that calls it, the same but for other work on the machine; and by the wall time of the stage "cells" (what else
the engine waits for: selection, retrieval, prompts, storing, metrics).

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 \
        python benchmarks/campaign_busy.py [--engine vllm] [--rounds 3] [--hidden 384 --layers 6]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from icl_select.eval import runner
from icl_select.eval.config import Campaign, validate
from icl_select.score import ModelScorer, load_scorer
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Decoding, Prompt


@dataclass
class Sent:
    """Everything that an engine was asked."""

    loglik: list[tuple[Prompt, tuple[str, ...]]] = field(default_factory=list)
    generate: list[tuple[Prompt, Decoding]] = field(default_factory=list)
    calls: int = 0
    processor: float = 0.0

    def __len__(self) -> int:
        return len(self.loglik) + len(self.generate)


@dataclass(frozen=True)
class Round:
    """Seconds of one round: the campaign's stage, its engine and processor, and the same of the engine alone."""

    requests: int
    calls: int
    stage: float
    engine: float
    processor: float
    alone: float
    alone_processor: float

    @property
    def ratios(self) -> dict[str, float]:
        """Requests a second of the campaign over those of the engine alone."""
        return {
            "engine time": self.alone / self.engine,
            "processor time": self.alone_processor / self.processor,
            "wall time of the stage": self.alone / self.stage,
        }


def make_model(folder: Path, hidden: int, layers: int) -> Path:
    """Write a Llama with random weights and the tokenizer of the tiny model."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(make_tiny_model(folder / "tiny"))
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    path = folder / "small"
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@contextmanager
def timed(sent: Sent) -> Iterator[None]:
    """Add the processor seconds of this thread."""
    start = time.thread_time()
    try:
        yield
    finally:
        sent.processor += time.thread_time() - start


@contextmanager
def recorded(model: Any) -> Iterator[Sent]:
    """Write down what `model` is asked inside the block."""
    sent, loglik, generate = Sent(), model.loglik, model.generate

    def record_loglik(prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]) -> Any:
        sent.calls += 1
        sent.loglik += [(prompt, tuple(words)) for prompt, words in zip(prompts, choices, strict=True)]
        with timed(sent):
            return loglik(prompts, choices)

    def record_generate(prompts: Sequence[Prompt], decoding: Decoding) -> Any:
        sent.calls += 1
        sent.generate += [(prompt, decoding) for prompt in prompts]
        with timed(sent):
            return generate(prompts, decoding)

    with mock.patch.object(model, "loglik", record_loglik), mock.patch.object(model, "generate", record_generate):
        yield sent


def at_once(model: Any, sent: Sent) -> tuple[float, float]:
    """Seconds of the same requests in one call, and those of the processor."""
    start, processor = time.perf_counter(), time.thread_time()
    if sent.loglik:
        model.loglik([prompt for prompt, _ in sent.loglik], [words for _, words in sent.loglik])
    for decoding in dict.fromkeys(decoding for _, decoding in sent.generate):
        model.generate([prompt for prompt, how in sent.generate if how == decoding], decoding)
    return time.perf_counter() - start, time.thread_time() - processor


def one_round(campaign: Campaign, scorer: ModelScorer, cache: Path) -> Round:
    """Run the campaign with an empty cache of answers, then its requests at once."""
    model = scorer.model
    before = model.usage.seconds
    with recorded(model) as sent, mock.patch.object(runner, "load_scorer", return_value=scorer):
        report = runner.run(campaign, workers=1, cache=cache, progress=False)
    assert report.n_computed == report.n_cells, "the run folder was not empty"
    assert len(sent) == len({(prompt.text, words) for prompt, words in sent.loglik}) + len(
        {(prompt.text, how) for prompt, how in sent.generate}
    ), "a request was sent twice"
    usage = json.loads((report.folder / "run.json").read_text(encoding="utf-8"))["usage"]
    engine = float(usage["seconds"]) - before
    return Round(len(sent), sent.calls, report.seconds["cells"], engine, sent.processor, *at_once(model, sent))


def measure(model: str, engine: str, rounds: int, sizes: dict[str, Any]) -> list[Round]:
    """Rounds with a loaded engine, each with a folder of its own."""
    loaded = load_scorer(f"{engine}(model={model!r})")
    assert isinstance(loaded, ModelScorer)
    warm = Prompt("warm", "The engine is started by the first call.", (), (), (), 0)
    loaded.model.loglik([warm], [["\nyes", "\nno"]])
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            content = {
                "name": "busy",
                "tasks": ["support"],
                "methods": ["random", "max_herding"],
                "encoder": "hash(dim=256)",
                "scorer": f"{engine}(model={model!r})",
                "n_resamples": 100,
                "seed": number,
                "output": str(Path(folder) / "run"),
                **sizes,
            }
            found.append(one_round(validate(content, "benchmark"), loaded, Path(folder) / "cache"))
        show(found[-1])
    return found


def show(one: Round) -> None:
    """Print a round."""
    ratios = ", ".join(f"{ratio:.3f} by {name}" for name, ratio in one.ratios.items())
    print(
        f"{one.requests} distinct requests in {one.calls} calls: stage {one.stage:.2f} s, engine {one.engine:.2f} s "
        f"({one.processor:.2f} s processor), at once {one.alone:.2f} s ({one.alone_processor:.2f} s). "
        f"Campaign / at once in requests per second: {ratios}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=384, help="width of the model, a multiple of 32")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--test-size", type=int, default=64)
    options = parser.parse_args()
    sizes = {
        "draws": options.draws,
        "random_repeats": 2,
        "budgets": options.budgets,
        "test_size": options.test_size,
        "retrieval": {"k": 5},
    }
    with tempfile.TemporaryDirectory() as folder:
        model = str(make_model(Path(folder), options.hidden, options.layers))
        rounds = measure(model, options.engine, options.rounds, sizes)
    for name in rounds[0].ratios:
        median = statistics.median(one.ratios[name] for one in rounds)
        print(f"median by {name}: {median:.3f} (target 0.90)")


if __name__ == "__main__":
    main()
