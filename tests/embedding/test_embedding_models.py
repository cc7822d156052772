"""Encoders that run a model: tiny ones made here, compared with the loop that anyone would write by hand."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select._models import length_batches
from icl_select.embedding import CausalLMEncoder, Encoder, SentenceTransformerEncoder, embed, load_encoder
from icl_select.errors import DataError, MissingDependencyError, ModelError, ParameterError, UnknownNameError

pytest.importorskip("sentence_transformers", reason="needs the extra 'models'")

import tiny_models

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(tiny_models.WORDS, size=n)) for n in (3, 1, 17, 8, 30, 2, 2, 11, 5)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "gptj": tiny_models.save_language_model(base / "gptj", "gptj"),
        "gptj-left": tiny_models.save_language_model(base / "gptj-left", "gptj", side="left"),
        "gpt2-no-pad": tiny_models.save_language_model(base / "gpt2-no-pad", "gpt2", pad=False),
        "gpt2-frame": tiny_models.save_language_model(base / "gpt2-frame", "gpt2", frame=True),
        "bert": tiny_models.save_language_model(base / "bert", "bert", frame=True),
        "raw": tiny_models.save_sentence_model(base / "raw", normalise=False),
        "unit": tiny_models.save_sentence_model(base / "unit", normalise=True),
        "prompted": tiny_models.save_sentence_model(base / "prompted", normalise=True, prompt="w9 w8 "),
    }


@functools.cache
def by_hand(folder: Path) -> Any:
    """One text at a time, no padding, no batch: the mean over the tokens of the last hidden state."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = [model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state for text in TEXTS]
    return np.stack([states[0].mean(0).numpy() for states in hidden])


@pytest.mark.parametrize("kind", ["gptj", "gptj-left", "gpt2-no-pad", "gpt2-frame", "bert"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_mean_pooling_equals_the_loop(folders: dict[str, Path], kind: str, batch_size: int) -> None:
    encoder = CausalLMEncoder(str(folders[kind]), device="cpu", batch_size=batch_size)
    encoded = encoder.encode(TEXTS)
    assert isinstance(encoder, Encoder)
    assert encoded.vectors.dtype == np.float32
    assert encoded.vectors.shape == (len(TEXTS), encoder.dim)
    np.testing.assert_allclose(encoded.vectors, by_hand(folders[kind]), atol=1e-5)


def test_the_side_of_padding_does_not_matter(folders: dict[str, Path]) -> None:
    right, left = (CausalLMEncoder(str(folders[k]), device="cpu").encode(TEXTS).vectors for k in ("gptj", "gptj-left"))
    np.testing.assert_allclose(left, right, atol=1e-6)


def test_no_special_token_unless_the_tokenizer_adds_it(folders: dict[str, Path]) -> None:
    """One word is one token: it fits a limit of 1, two words do not."""
    encoder = CausalLMEncoder(str(folders["gptj"]), device="cpu", max_tokens=1)
    assert encoder.encode(["w1", "w1 w2"]).truncated.tolist() == [False, True]
    framed = CausalLMEncoder(str(folders["gpt2-frame"]), device="cpu", max_tokens=3)
    assert framed.encode(["w1", "w1 w2"]).truncated.tolist() == [False, True]


def test_truncation_is_exact_and_keeps_the_last_special_token(folders: dict[str, Path]) -> None:
    encoder = CausalLMEncoder(str(folders["gpt2-frame"]), device="cpu", max_tokens=6)
    encoded = encoder.encode(["w1 w2 w3 w4", "w1 w2 w3 w4 w5", "w1 w2 w3 w4 w6 w7"])
    assert encoded.truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(encoded.vectors[1:], encoded.vectors[[0, 0]], atol=1e-6)


def test_limit_is_the_smaller_of_positions_and_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    assert CausalLMEncoder(str(folders["gptj"]), device="cpu").max_tokens == 32
    loose = tiny_models.save_language_model(tmp_path / "loose", "gpt2", limit=10**30)
    encoder = CausalLMEncoder(str(loose), device="cpu")
    assert encoder.max_tokens == 64
    assert encoder.encode(["w1 " * 64, "w1 " * 65]).truncated.tolist() == [False, True]


def test_low_precision_is_close_and_another_fingerprint(folders: dict[str, Path]) -> None:
    encoders = {d: CausalLMEncoder(str(folders["gptj"]), device="cpu", dtype=d) for d in ("float32", "bfloat16")}
    full, low = (encoder.encode(TEXTS).vectors for encoder in encoders.values())
    assert low.dtype == np.float32
    cosine = (full * low).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(low, axis=1)
    assert cosine.min() > 0.99
    assert not np.array_equal(full, low)
    assert len({encoder.fingerprint for encoder in encoders.values()}) == 2
    assert "bfloat16" in encoders["bfloat16"].name


@pytest.mark.parametrize("kind", ["raw", "unit", "prompted"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_sentence_model_equals_its_library(folders: dict[str, Path], kind: str, batch_size: int) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformerEncoder(str(folders[kind]), device="cpu", batch_size=batch_size)
    model = SentenceTransformer(str(folders[kind]), device="cpu")
    encoded = encoder.encode(TEXTS)
    expected = np.stack([model.encode([text])[0] for text in TEXTS])
    np.testing.assert_allclose(encoded.vectors, expected, atol=1e-5)
    # [CLS], [SEP] and the prompt are tokens too.
    extra = 4 if kind == "prompted" else 2
    assert encoded.truncated.tolist() == [len(text.split()) + extra > 12 for text in TEXTS]
    assert (encoder.dim, encoder.max_tokens) == (16, 12)
    norms = np.linalg.norm(encoded.vectors, axis=1)
    assert np.allclose(norms, 1, atol=1e-6) == (kind != "raw")


def test_prompt_of_the_model_can_be_replaced(folders: dict[str, Path]) -> None:
    own = SentenceTransformerEncoder(str(folders["prompted"]), device="cpu")
    none = SentenceTransformerEncoder(str(folders["prompted"]), device="cpu", prompt="")
    other = SentenceTransformerEncoder(str(folders["prompted"]), device="cpu", prompt="w9 w8 ")
    texts = ["w1 w2", "w3"]
    np.testing.assert_allclose(other.encode(texts).vectors, own.encode(texts).vectors, atol=1e-6)
    assert np.abs(none.encode(texts).vectors - own.encode(texts).vectors).max() > 1e-3
    assert len({encoder.fingerprint for encoder in (own, none, other)}) == 3


def test_normalised_model_in_low_precision_gives_unit_vectors(folders: dict[str, Path]) -> None:
    encoder = SentenceTransformerEncoder(str(folders["unit"]), device="cpu", dtype="bfloat16")
    norms = np.linalg.norm(encoder.encode(TEXTS).vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["gptj", "raw"])
def test_no_texts_give_no_rows(folders: dict[str, Path], kind: str) -> None:
    maker = CausalLMEncoder if kind == "gptj" else SentenceTransformerEncoder
    encoded = maker(str(folders[kind]), device="cpu").encode([])
    assert encoded.vectors.shape == (0, 16)
    assert encoded.truncated.shape == (0,)


def test_text_without_a_token(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="text 1 gives no token"):
        CausalLMEncoder(str(folders["gptj"]), device="cpu").encode(["w1", tiny_models.ZERO_WIDTH])


def test_fingerprint_is_of_the_content_not_of_the_place(folders: dict[str, Path], tmp_path: Path) -> None:
    first = CausalLMEncoder(str(folders["gptj"]))
    for place in ("one", "two"):
        shutil.copytree(folders["gptj"], tmp_path / place / "gptj")
    copies = [CausalLMEncoder(str(tmp_path / place / "gptj")) for place in ("one", "two")]
    assert {encoder.fingerprint for encoder in copies} == {first.fingerprint}
    assert str(tmp_path) not in copies[0].name
    (tmp_path / "one" / "gptj" / "README.md").write_text("words only", encoding="utf-8")
    (tmp_path / "one" / "gptj" / ".lock").touch()
    assert CausalLMEncoder(str(tmp_path / "one" / "gptj")).fingerprint == first.fingerprint
    path = tmp_path / "two" / "gptj" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("w59", "v59"), encoding="utf-8")
    assert CausalLMEncoder(str(tmp_path / "two" / "gptj")).fingerprint != first.fingerprint


def test_names_lead_to_the_same_encoders(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = str(folders["gptj"])
    assert load_encoder(f"causal_lm(model={folder!r})").fingerprint == CausalLMEncoder(folder).fingerprint
    sentence = str(folders["raw"])
    assert load_encoder(sentence).fingerprint == SentenceTransformerEncoder(sentence).fingerprint
    low = load_encoder(f"sentence_transformer(model={sentence!r}, dtype='bfloat16', device='cpu')")
    assert low.fingerprint == SentenceTransformerEncoder(sentence, dtype="bfloat16").fingerprint
    x = embed(TEXTS, sentence, cache=tmp_path, progress=False, centre=False)
    np.testing.assert_allclose(x.vectors, low.encode(TEXTS).vectors, rtol=0.1, atol=0.1)


def hub_cache(folder: Path, model: Path, commit: str) -> Path:
    """A hub cache, as a download leaves it, with `model` under owner/tiny at branch main."""
    repository = folder / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    shutil.copytree(model, repository / "snapshots" / commit)
    return folder


@pytest.mark.parametrize("kind", ["gptj", "raw"])
def test_hub_model_is_pinned_to_its_commit(
    folders: dict[str, Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub_cache(tmp_path, folders[kind], commit)))
    maker = CausalLMEncoder if kind == "gptj" else SentenceTransformerEncoder
    floating, pinned = maker("owner/tiny", device="cpu"), maker("owner/tiny", commit, device="cpu")
    assert floating.revision == pinned.revision == commit
    assert floating.fingerprint == pinned.fingerprint
    assert floating.name.startswith("owner/tiny@0123456789ab")
    local = maker(str(folders[kind]), device="cpu").encode(TEXTS).vectors
    np.testing.assert_allclose(floating.encode(TEXTS).vectors, local, atol=1e-6)
    if kind == "raw":
        assert load_encoder(f"owner/tiny@{commit}").fingerprint == pinned.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/absent", r"cannot load the model owner/absent.*hf download owner/absent\..*HF_HOME"),
        ("owner/absent@v2", r"hf download owner/absent --revision v2"),
        ("all-mpnet-base-v2", r"hf download sentence-transformers/all-mpnet-base-v2\."),
        ("paraphrase-mpnet-base-v2", r"hf download sentence-transformers/paraphrase-mpnet-base-v2\."),
        ("causal_lm(model='EleutherAI/gpt-j-6b')", r"hf download EleutherAI/gpt-j-6b\."),
        ("./absent", r"no folder \./absent.*hub id"),
        ("a/b/c", r"no folder a/b/c"),
        ("@folder", r"holds no model: neither config.json"),
    ],
)
def test_model_that_cannot_be_found(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=message):
        load_encoder(name.replace("@folder", str(tmp_path)))


def test_pinned_model_that_is_not_there_says_so_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for kind in ("causal_lm", "sentence_transformer"):
        encoder = load_encoder(f"{kind}(model='owner/absent', revision='{'a' * 40}')")
        with pytest.raises(ModelError, match=f"hf download owner/absent --revision {'a' * 40}"):
            encoder.encode(["w1"])


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["gptj", "raw"])
def test_damaged_model_folder(folders: dict[str, Path], kind: str, damage: str, tmp_path: Path) -> None:
    shutil.copytree(folders[kind], tmp_path / "model")
    path = tmp_path / "model" / damage
    path.write_bytes(path.read_bytes()[:100])
    maker = CausalLMEncoder if kind == "gptj" else SentenceTransformerEncoder
    with pytest.raises(ModelError, match=r"cannot load the model model.*complete model"):
        maker(str(tmp_path / "model"), device="cpu").encode(["w1"])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hsh", UnknownNameError, "Did you mean 'hash'"),
        ("hash(dims=3)", UnknownNameError, "Did you mean 'dim'"),
        ("mini(dtype='float32')", UnknownNameError, "unknown encoder 'mini'"),
        ("minilm(model='x')", UnknownNameError, "'minilm' has no parameter 'model'"),
        ("minilm(dtype='float23')", ParameterError, "Did you mean 'float32'"),
        ("minilm(batch_size=0)", ParameterError, "batch_size=0"),
        ("minilm(threads=0)", ParameterError, "threads=0"),
        ("causal_lm", ParameterError, r"Write causal_lm\(model="),
        ("hash(dim=", ParameterError, "cannot read"),
        ("", UnknownNameError, "unknown encoder ''"),
    ],
)
def test_names_that_lead_nowhere(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_encoder(name)


def test_a_folder_called_minilm_is_that_folder(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folders["unit"], tmp_path / "minilm")
    monkeypatch.chdir(tmp_path)
    encoder = SentenceTransformerEncoder("./minilm")
    assert encoder.encode(["a text"]).vectors.shape[1] != 384
    assert encoder.fingerprint != SentenceTransformerEncoder("minilm").fingerprint


def test_folder_with_a_revision(folders: dict[str, Path]) -> None:
    with pytest.raises(ParameterError, match="has only its content"):
        CausalLMEncoder(str(folders["gptj"]), "main")


def test_device_that_is_not_there(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"device='cuda:3'.*Pass device='cpu'"):
        CausalLMEncoder(str(folders["gptj"]), device="cuda:3").encode(["w1"])
    with pytest.raises(ParameterError, match="device='gpu'"):
        SentenceTransformerEncoder(str(folders["raw"]), device="gpu").encode(["w1"])


def test_model_that_fails_while_running(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(transformers.GPTJModel, "forward", fail)
    monkeypatch.setattr(transformers.BertModel, "forward", fail)
    for encoder in (
        CausalLMEncoder(str(folders["gptj"]), device="cpu"),
        SentenceTransformerEncoder(str(folders["raw"])),
    ):
        with pytest.raises(ModelError, match=r"out of memory.*smaller batch_size"):
            encoder.encode(["w1 w2"])


def test_threads_are_set_only_when_asked(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    CausalLMEncoder(str(folders["gptj"]), device="cpu").encode(["w1"])
    assert asked == []
    CausalLMEncoder(str(folders["gptj"]), device="cpu", threads=3).load()
    assert asked == [3]


def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    encoder = SentenceTransformerEncoder()
    assert encoder.fingerprint, "naming an encoder needs no library"
    with pytest.raises(MissingDependencyError, match=r"pip install 'icl-select\[minilm\]'"):
        encoder.encode(["text"])


def test_batches_are_of_similar_length_longest_first() -> None:
    lengths = [3, 9, 1, 9, 4]
    assert [batch.tolist() for batch in length_batches(lengths, 2)] == [[1, 3], [4, 0], [2]]
    assert length_batches([], 2) == []
