"""The model that is made on the spot: the same files every time, and texts that rounding does not fork."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from literal_models import Literal, prompt_of

from icl_select.errors import StoreError
from icl_select.score.source import find_model
from icl_select.score.tiny import make_tiny_model
from icl_select.score.transformers_model import TransformersModel
from icl_select.types import Decoding

pytest.importorskip("transformers", reason="needs icl-select[models]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_files_and_leaves_torch_alone(folder: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    again = make_tiny_model(tmp_path / "again")
    assert torch.equal(torch.rand(4), wanted)
    assert content(again) == content(folder)
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert content(other)["model.safetensors"] != content(folder)["model.safetensors"]


def test_a_complete_model_is_kept_and_anything_else_made_anew(folder: Path, tmp_path: Path) -> None:
    made = make_tiny_model(tmp_path / "tiny")
    (made / "extra").write_text("still here")
    assert (make_tiny_model(made) / "extra").exists()
    (made / "complete").write_text("an older recipe")
    assert content(make_tiny_model(made)) == content(folder)
    (made / "complete").unlink()
    assert content(make_tiny_model(made)) == content(folder)
    longer = make_tiny_model(made, max_length=512)
    assert Literal(longer).model.config.max_position_embeddings == 512


def test_it_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path))
    source = find_model("tiny")
    assert source.name == "tiny"
    assert source.revision == find_model(str(folder)).revision


def prompts(n: int) -> list[str]:
    rng = random.Random(0)
    words = "the claim is neutral very great album company sentence about name from state hotel".split()  # noqa: SIM905
    ends = ["\nanswer:", "\nTL;DR:", "\nSELECT", "\nSQL: SELECT * FROM", " "]
    return [" ".join(rng.choices(words, k=rng.randint(10, 80))) + ends[k % 5] for k in range(n)]


def test_texts_end_differ_and_stand_clear_of_rounding(folder: Path) -> None:
    engine, literal = TransformersModel(str(folder), device="cpu", threads=1), Literal(folder)
    texts = prompts(40)
    made = engine.generate([prompt_of(text) for text in texts], Decoding(max_tokens=64, stop=("\n",)))
    assert sum(one.finished for one in made) >= 36
    assert len({one.text for one in made}) >= 10
    gaps = []
    for text in texts:
        ids = literal.encode(text)
        _, new, _, _ = literal.write(text, Decoding(max_tokens=64, stop=("\n",)))
        table = np.sort(literal.next_logprobs(ids + new)[len(ids) - 1 : -1], axis=-1)
        gaps.append((table[:, -1] - table[:, -2]).min())
    # Engines differ by about 1e-5.
    assert min(gaps) > 3e-4


def test_label_words_depend_on_the_context(folder: Path) -> None:
    engine = TransformersModel(str(folder), device="cpu", threads=1)
    texts = [text for text in prompts(200) if text.endswith("answer:")]
    found = engine.loglik([prompt_of(text) for text in texts], [["\nTrue", "\nFalse", "\npositive"]] * len(texts))
    best = np.argmax(found.values / found.tokens, axis=1)
    assert len(set(best.tolist())) >= 2
    assert found.values.std(axis=0).min() > 0.1


def test_weights_are_written_and_read_without_foreign_bars(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging as bars

    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    bars.enable_progress_bar()
    model = TransformersModel(str(make_tiny_model(tmp_path / "quiet")))
    model.loglik([prompt_of("Fine.")], [("great", "terrible")])
    assert capfd.readouterr() == ("", "")
    assert bars.is_progress_bar_enabled()
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    make_tiny_model(tmp_path / "asked")
    assert "Writing" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.LlamaForCausalLM.save_pretrained", full)
    with pytest.raises(StoreError, match=r"cannot write the tiny model to .*No space left on device.*ICS_CACHE_DIR"):
        make_tiny_model(tmp_path / "tiny")
    assert not list(tmp_path.iterdir())
