"""Small labelled messages, and run folders as bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

TOPICS = {
    "billing": ["invoice", "charge", "refund", "card", "payment", "price"],
    "delivery": ["parcel", "courier", "late", "address", "tracking", "box"],
    "login": ["password", "account", "locked", "email", "code", "sign"],
}
FILLER = ["please", "help", "the", "my", "is", "wrong", "again", "today", "why", "with"]


def rows(n: int, seed: int) -> list[dict[str, str]]:
    """Messages whose words mostly tell the topic."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        label = list(TOPICS)[int(rng.integers(3))]
        words = [*rng.choice(TOPICS[label], 2), *rng.choice(FILLER, 4)]
        if rng.random() < 0.3:
            words += list(rng.choice(TOPICS[list(TOPICS)[int(rng.integers(3))]], 2))
        made.append({"id": f"{seed}-{i}", "text": " ".join(words), "label": label})
    return made


def write_rows(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder that must not differ between two runs of the same campaign."""
    skip = {"run.json", "campaign.json", ".lock"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skip
    }


HELLASWAG = {
    "activity_label": "Baking",
    "ctx_a": "A chef shows pans.",
    "ctx_b": "the pans",
    "ctx": "A chef shows pans. the pans",
    "endings": ["melt.", "sing.", "fly.", "are filled."],
    "label": 3,
}


def folder_with(
    tmp_path: Path, name: str, pool: list[dict[str, Any]], test: list[dict[str, Any]] | None = None
) -> Path:
    """A data directory with one benchmark."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    for part, rows in (("pool", pool), ("test", pool if test is None else test)):
        with gzip.open(folder / f"{part}.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path
