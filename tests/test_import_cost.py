"""Importing the package loads nothing heavy; the heavy things come with the first use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = [
    "alembic",
    "datasets",
    "dspy",
    "faiss",
    "fastapi",
    "httpx2",
    "langchain_core",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "ray",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "sqlalchemy",
    "structlog",
    "tokenizers",
    "torch",
    "transformers",
]


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after `code`."""
    code = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import icl_select") == set()


@pytest.mark.parametrize(
    "code",
    [
        "from icl_select import select",
        "from icl_select import Pool",
        "from icl_select import Example, Selection, IclSelectError",
        "from icl_select.embedding import CausalLMEncoder, load_encoder; load_encoder('minilm'); load_encoder('onnx')",
        "from icl_select import embed; embed(['a text', 'another'], 'hash', cache=False, progress=False)",
    ],
)
def test_first_names_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_unknown_name_is_an_attribute_error() -> None:
    import icl_select

    with pytest.raises(AttributeError, match="has no attribute 'embedd'"):
        _ = icl_select.embedd  # type: ignore[attr-defined]


def test_dir_lists_what_can_be_imported() -> None:
    import icl_select

    assert set(icl_select.__all__) <= set(dir(icl_select))
