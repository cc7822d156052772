"""Texts per second of the ONNX encoder beside the torch encoder of the same model, in one run and on one thread.

The two take turns over the same texts, once in batches and once one by one, as queries come. CPU seconds of this
process count, so that other load on the machine does not; a ratio above 1 means that ONNX is the faster. Their
vectors must agree within 1e-6.

    python benchmarks/onnx_encoder.py [--texts 300] [--single 60] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import _timing
import numpy as np
from embed_speed import sentences

from icl_select.embedding import Encoder, OnnxEncoder, SentenceTransformerEncoder

Work = Callable[[Encoder], object]


def alternate(encoders: Sequence[Encoder], work: Work, rounds: int) -> list[list[float]]:
    """CPU seconds of `work` with each encoder in turn: one list for each encoder."""
    spent: list[list[float]] = [[] for _ in encoders]
    for round_ in range(rounds):
        turns = list(zip(encoders, spent, strict=True))
        for encoder, column in reversed(turns) if round_ % 2 else turns:
            column.append(_timing.seconds(lambda encoder=encoder: work(encoder))[0])
    return spent


def report(title: str, encoders: Sequence[Encoder], spent: list[list[float]], n: int) -> None:
    print(title)
    for encoder, column in zip(encoders, spent, strict=True):
        print(f"  {encoder.name:<16}{n / statistics.median(column):8.1f} texts/CPU-s")
    ratios = [torch / onnx for torch, onnx in zip(*spent, strict=True)]
    print(f"  onnx / torch, by round: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  median ratio {statistics.median(ratios):.2f}")


def latencies(encoder: Encoder, texts: Sequence[str]) -> list[float]:
    """Milliseconds of the clock for each text alone."""
    times = []
    for text in texts:
        start = time.perf_counter()
        encoder.encode([text])
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--single", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    encoders = SentenceTransformerEncoder(device="cpu", threads=1), OnnxEncoder(threads=1)
    texts = sentences(options.texts)
    torch, onnx = (encoder.encode(texts).vectors for encoder in encoders)  # loads both, and warms them up
    gap = float(np.abs(torch - onnx).max())
    print(f"largest difference between vectors: {gap:.1e}")
    if gap > 1e-6:
        raise SystemExit("the vectors differ by more than 1e-6")
    batched = alternate(encoders, lambda encoder: encoder.encode(texts), options.rounds)
    report(f"{len(texts)} texts, batches of 32", encoders, batched, len(texts))
    single = texts[: options.single]
    alone = alternate(encoders, lambda encoder: [encoder.encode([text]) for text in single], options.rounds)
    report(f"{len(single)} texts, one by one", encoders, alone, len(single))
    for encoder in encoders:
        times = latencies(encoder, single)
        print(f"  {encoder.name:<16}{statistics.median(times):8.1f} ms median, {min(times):.1f} ms least, by the clock")


if __name__ == "__main__":
    main()
