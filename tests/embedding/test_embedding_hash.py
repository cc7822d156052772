"""HashEncoder: the recipe in its docstring, transcribed literally, and the laws that every text must obey."""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_select.embedding import Encoder, HashEncoder, load_encoder
from icl_select.errors import DataError, ParameterError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(lambda t: not t.isspace())


def reference(text: str, dim: int, seed: int) -> list[float]:
    """The recipe with plain Python numbers: every occurrence counts, with the square root in quarters."""
    salt = hashlib.sha256(str(seed).encode()).digest()[:16]

    def h(feature: str) -> int:
        return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8, salt=salt).digest(), "big")

    text = text.lower()
    words = re.findall(r"\w+", text) or [text]
    total = [0] * dim
    for word in set(words):
        weight = round(4 * math.sqrt(min(words.count(word), 64)))
        features = [word]
        for n in (3, 4, 5):
            padded = f"<{word}>"
            features += [padded[i : i + n] for i in range(len(padded) - n + 1)]
        for feature in features:
            total[h(feature) % dim] += weight if h(feature) >= 2**63 else -weight
    if not any(total):
        total[h(text) % dim] = 1
    norm = math.sqrt(sum(t * t for t in total))
    return [t / norm for t in total]


@given(TEXT, st.sampled_from([1, 2, 7, 256]), st.sampled_from([0, 1, 2**130]))
def test_equals_the_literal_recipe(text: str, dim: int, seed: int) -> None:
    vector = HashEncoder(dim, seed).encode([text]).vectors[0]
    assert vector.tolist() == np.array(reference(text, dim, seed), dtype=np.float32).tolist()


def test_same_bits_on_every_machine() -> None:
    texts = ["Where is my invoice?", "Wo ist meine Rechnung?", "請求書はどこですか", ":-)", "a a a b"]
    vectors = HashEncoder().encode(texts).vectors
    assert vectors.dtype == np.float32
    assert hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest() == GOLDEN


GOLDEN = "5613f57a755266c679a794abd51682cb46701fc5d9f3bce3d9394a7d0c634699"


@given(st.lists(TEXT, min_size=1, max_size=8), st.sampled_from([1, 3, 64]))
def test_unit_norm_and_independent_of_the_batch(texts: list[str], dim: int) -> None:
    encoder = HashEncoder(dim)
    together = encoder.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-6)
    assert not together.truncated.any()
    for text, row in zip(texts, together.vectors, strict=True):
        assert encoder.encode([text]).vectors[0].tolist() == row.tolist()


def test_shared_words_and_typos_are_closer_than_strangers() -> None:
    query, typo, same_topic, stranger = (
        HashEncoder()
        .encode(
            [
                "I was charged twice for my subscription",
                "i was chraged twice for my subscripton!",
                "My subscription was charged two times",
                "The parcel never arrived at the pickup point",
            ]
        )
        .vectors
    )
    assert min(query @ typo, query @ same_topic) > 0.5 > 0.2 > query @ stranger


def test_is_an_encoder_whose_name_reads_back() -> None:
    for encoder in (HashEncoder(), HashEncoder(512), HashEncoder(64, seed=3)):
        assert isinstance(encoder, Encoder)
        again = load_encoder(encoder.name)
        assert again.name == encoder.name
        assert again.fingerprint == encoder.fingerprint
    assert HashEncoder().name == "hash"
    assert HashEncoder(64).max_tokens is None
    assert len({HashEncoder(d, s).fingerprint for d in (64, 65) for s in (0, 1)}) == 4


@pytest.mark.parametrize(("options", "message"), [({"dim": 0}, "dim=0 is below 1"), ({"seed": -1}, "seed=-1 is below")])
def test_bad_parameters(options: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        HashEncoder(**options)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", ""], "text 1 is empty"),
        ([" \n\t"], "text 0 is empty"),
        (["fine", None], "text 1 is NoneType"),
        ("one string", r"Pass \[text\]"),
        (7, "texts is int"),
        (["half \ud800 pair"], "text 0 holds half of a surrogate pair at character 5"),
    ],
)
def test_texts_that_cannot_be_embedded(texts: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        HashEncoder().encode(texts)  # type: ignore[arg-type]
