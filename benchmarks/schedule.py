"""What the order of requests saves: prefix tokens that vLLM reuses, against the best possible for the set.

Each cell of a campaign has labelled demonstrations of its own and asks every query with the nearest of them. The
prompts of several cells are asked in random order and in the order of the schedule, with each query's own order of
demonstrations and with shared demonstrations first; and where a cell has no more demonstrations than a prompt shows.
The cache of keys and values holds some ten prompts, as where a large model fills its device.

Run it where vLLM is installed; the model is made here. Seconds are those that the engine spends on the processor,
which other work on the machine hardly changes, the median of rounds that take both ways in turn. The model is tiny: of
a large one a larger share of the time goes with the tokens computed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _timing  # before numpy: it sets the number of threads
import numpy as np
from transformers import AutoTokenizer

from icl_select.retrieve.ordering import prompt_order
from icl_select.score import CachedModel, LanguageModel, reusable_tokens
from icl_select.score.encoding import encode_item
from icl_select.score.source import find_model
from icl_select.score.vllm_model import VllmModel
from icl_select.types import Prompt

WORDS = ("A", "B", "C", "D", "E")  # one token each: one request for each prompt
SHOWN = 8
# Keys and values of the tiny model take 2 KiB a token.
ROOM_GIB = 0.02
SEQUENCES = 4


@dataclass(frozen=True)
class Case:
    """Cells that are asked together."""

    name: str
    order: str
    cells: int
    labelled: int
    queries: int

    def prompts(self, seed: int = 0) -> list[Prompt]:
        """One prompt of about 900 tokens for each cell and query, in random order."""
        rng = np.random.default_rng(seed)
        pool = [_demonstration(rng, number) for number in range(self.labelled * self.cells)]
        x, q = rng.normal(size=(len(pool), 8)), rng.normal(size=(self.queries, 8))
        prompts = []
        for cell in range(self.cells):
            rows = np.arange(cell * self.labelled, (cell + 1) * self.labelled)
            nearest = rows[np.argsort(-(q @ x[rows].T), axis=1)[:, :SHOWN]]
            frequency = Counter(str(row) for row in nearest.ravel())
            for query, shown in enumerate(nearest):
                places = prompt_order([str(row) for row in shown], self.order, frequency=frequency)
                parts = [*(pool[shown[place]] for place in places), f"case q{query}: the topic is {query}\nanswer: "]
                prompts.append(Prompt(f"{cell}-{query}", "\n\n".join(parts), (), (), (), 0))
        return [prompts[i] for i in rng.permutation(len(prompts))]


@dataclass(frozen=True)
class Measured:
    """One way of asking, as the engine counts it."""

    tokens: int
    reused: int
    seconds: float


def _demonstration(rng: np.random.Generator, number: int) -> str:
    words = ["question", "content", "title", "claim", "topic", "village", "album", "film", "summary", "sentence"]
    return f"case {number}: {' '.join(rng.choice(words, size=90))}\nanswer: {rng.choice(WORDS)}"


class Clock:
    """Processor seconds that the engine itself spends; those of the tokenizer are the same in any order."""

    def __init__(self, model: VllmModel) -> None:
        self.seconds = 0.0
        running = model._start()
        self.block, ask = running.block, running.ask

        def timed(*arguments: Any) -> Any:
            spent, answers = _timing.seconds(lambda: ask(*arguments))
            self.seconds += spent
            return answers

        running.ask = timed  # type: ignore[method-assign]


def _measure(clock: Clock, engine: VllmModel, model: LanguageModel, prompts: Sequence[Prompt]) -> Measured:
    tokens, reused, before = engine.usage.prompt_tokens, engine.usage.cached_tokens, clock.seconds
    model.loglik(prompts, [WORDS] * len(prompts))
    usage = engine.usage
    return Measured(usage.prompt_tokens - tokens, usage.cached_tokens - reused, clock.seconds - before)


def _contexts(prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    tokenizer = AutoTokenizer.from_pretrained(find_model("tiny").location)
    return [encode_item(tokenizer.encode, prompt.text, WORDS, max_length=None).context for prompt in prompts]


def main() -> None:
    """Print a table, and fail if the schedule reuses less than nine tenths of what can be reused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=48, help="queries of each cell")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cases = [
        Case("nearest last", "nearest_last", 5, 18, given.queries),
        Case("shared first", "shared_first", 5, 18, given.queries),
        Case("all shown", "nearest_last", 20, SHOWN, given.queries // 4),
        Case("all, shared first", "shared_first", 20, SHOWN, given.queries // 4),
    ]
    engine = VllmModel("tiny", kv_cache_gib=ROOM_GIB, max_num_seqs=SEQUENCES)
    engine.loglik(Case("", "nearest_last", 1, 18, 4).prompts(1), [WORDS] * 4)  # loads the model
    clock = Clock(engine)
    print(
        f"cache blocks of {clock.block} tokens, room for {ROOM_GIB * 2**19:.0f} tokens, {SEQUENCES} requests at a time"
    )
    print("demonstrations     requests   prompts   tokens  can be reused  reused  of that  seconds  saved")
    shares = []
    for case in cases:
        prompts, lines = case.prompts(), {}
        for _ in range(given.rounds):
            with tempfile.TemporaryDirectory() as folder:
                ways: dict[str, LanguageModel] = {"random": engine, "scheduled": CachedModel(engine, Path(folder))}
                for way, model in ways.items():
                    lines.setdefault(way, []).append(_measure(clock, engine, model, prompts))
        best = reusable_tokens(_contexts(prompts), clock.block)
        times = {way: statistics.median(one.seconds for one in rounds) for way, rounds in lines.items()}
        shares.append(lines["scheduled"][0].reused / best)
        for way, rounds in lines.items():
            print(
                f"{case.name:<17}  {way:<9} {len(prompts):>8}  {rounds[0].tokens:>7}  {best:>13}  "
                f"{rounds[0].reused:>6}  {rounds[0].reused / best:>7.1%}  {times[way]:>7.2f}  "
                f"{1 - times[way] / times['random']:>5.1%}"
            )
    if min(shares) < 0.9:
        raise SystemExit("the schedule reuses less than 90% of what can be reused")


if __name__ == "__main__":
    main()
