"""The page about models cannot drift: parameters, sizes, and what vLLM runs, each held against the real thing."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icl_select.score.http_model import HttpModel
from icl_select.score.rules import RULES
from icl_select.score.transformers_model import TransformersModel
from icl_select.score.vllm_model import VllmModel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
TEXT = PAGE.read_text(encoding="utf-8")

ENGINES = {"vllm": VllmModel, "transformers": TransformersModel, "openai": HttpModel}

# What tests pass in place of a clock is no parameter for users.
HIDDEN = {"self", "clock"}


def section(title: str) -> str:
    """The text below a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def table(text: str) -> list[list[str]]:
    """Rows of the tables of a text, headers and rulers left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row
        for row, following in zip(rows, [*rows[1:], [""]], strict=True)
        if not set("".join(row)) <= set("-: ") and not (set("".join(following)) <= set("-: ") and "".join(following))
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_every_parameter_of_an_engine_is_on_the_page_and_no_other(name: str) -> None:
    parameters = set(inspect.signature(ENGINES[name].__init__).parameters) - HIDDEN
    listed = {word for row in table(section(f"`{name}`")) for word in re.findall(r"`(\w+)`", row[0])}
    assert listed == parameters


@pytest.mark.parametrize("name", ENGINES)
def test_defaults_are_those_of_the_code(name: str) -> None:
    rows = {re.findall(r"`(\w+)`", row[0])[0]: row[1] for row in table(section(f"`{name}`"))}
    for parameter in inspect.signature(ENGINES[name].__init__).parameters.values():
        if isinstance(parameter.default, (bool, int, float)) and parameter.name in rows:
            assert rows[parameter.name] in (str(parameter.default).lower(), f"{parameter.default:g}"), parameter.name


def test_every_scoring_rule_has_a_row() -> None:
    assert {row[0].strip("`") for row in table(section("Scoring rules"))} == set(RULES)


def configs() -> dict[str, Callable[[], Any]]:
    """The published shapes, as far as they decide how large a model is."""
    import transformers as t

    return {
        "EleutherAI/gpt-j-6b": lambda: t.GPTJConfig(tie_word_embeddings=False),
        "EleutherAI/gpt-neo-2.7B": lambda: t.GPTNeoConfig(
            hidden_size=2560, num_layers=32, num_heads=20, attention_types=[[["global", "local"], 16]]
        ),
        "EleutherAI/gpt-neox-20b": lambda: t.GPTNeoXConfig(tie_word_embeddings=False),
        "EleutherAI/pythia-6.9b": lambda: t.GPTNeoXConfig(
            hidden_size=4096,
            num_hidden_layers=32,
            num_attention_heads=32,
            intermediate_size=16384,
            vocab_size=50432,
            tie_word_embeddings=False,
        ),
        "meta-llama/Llama-3.1-8B": lambda: t.LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            tie_word_embeddings=False,
        ),
        "Qwen/Qwen2.5-7B": lambda: t.Qwen2Config(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=131072,
            tie_word_embeddings=False,
        ),
        "Qwen/Qwen3-8B-Base": lambda: t.Qwen3Config(
            vocab_size=151936,
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
        ),
    }


def model_rows() -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in table(section("Published models"))}


def test_the_table_of_models_lists_these() -> None:
    assert list(model_rows()) == list(configs())


@pytest.mark.parametrize("name", list(model_rows()))
def test_sizes_are_those_of_the_architecture(name: str) -> None:
    """Counted on shapes alone: parameters, weights in 16 bit, and keys and values of a thousand tokens."""
    pytest.importorskip("transformers", reason="needs icl-select[models]")
    from icl_select.eval.footprint import kv_numbers, skeleton

    _, architecture, parameters, context, weights, kept, _ = model_rows()[name]
    config = configs()[name]()
    model = skeleton(config)
    n = sum(weight.numel() for weight in model.parameters())
    assert type(model).__name__ == architecture.strip("`")
    assert parameters == f"{n / 1e9:.2f}"
    assert context == f"{config.max_position_embeddings:,}"
    assert weights == f"{2 * n / 1e9:.1f} GB"
    assert kept == f"{2 * 1000 * kv_numbers(config, name) / 1e6:.0f} MB"


# vLLM -------------------------------------------------------------------------------------------------------------


def through_vllm(name: str, folder: Path) -> dict[str, Any]:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    script = Path(__file__).with_name("one_architecture.py")
    done = subprocess.run(
        [sys.executable, str(script), name, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def claim(architecture: str) -> str:
    """What the page says of vLLM and an architecture."""
    found = {row[6] for row in model_rows().values() if row[1].strip("`") == architecture}
    assert len(found) == 1
    return found.pop()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("gptj", "GPTJForCausalLM"),
        ("gpt_neox", "GPTNeoXForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("gpt_neo", "GPTNeoForCausalLM"),
    ],
)
def test_vllm_runs_what_the_page_says_and_how(name: str, architecture: str, tmp_path: Path) -> None:
    """Tiny random models of each architecture, loaded for real; numbers as those of the bare model."""
    pytest.importorskip("vllm", reason="needs icl-select[vllm]")
    found, said = through_vllm(name, tmp_path), claim(architecture)
    if said == "no":
        assert "error" in found, found
        return
    assert found["difference"] < 1e-4
    assert found["class"] == {"native": architecture, "its Transformers backend": "TransformersForCausalLM"}[said]


@pytest.mark.vllm
@pytest.mark.parametrize("architecture", sorted({row[1].strip("`") for row in model_rows().values()}))
def test_the_registry_of_vllm_agrees(architecture: str) -> None:
    """Also for the architectures whose loading is not tried here, or is tried by the other tests of the engine."""
    pytest.importorskip("vllm", reason="needs icl-select[vllm]")
    from vllm.model_executor.models.registry import _TRANSFORMERS_SUPPORTED_MODELS, ModelRegistry

    known = architecture in ModelRegistry.get_supported_archs()
    backend = architecture in _TRANSFORMERS_SUPPORTED_MODELS
    assert claim(architecture) == ("no" if not known else "its Transformers backend" if backend else "native")
