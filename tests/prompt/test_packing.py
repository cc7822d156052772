"""Packing: never above the budget, equal to a literal greedy reference, the published rule by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ParameterError, PromptError, TemplateError, UnknownNameError
from icl_select.prompt import CharTokenizer, HuggingFaceTokenizer, PromptTemplate, Tokenizer, WordTokenizer, pack
from icl_select.retrieve import order as retrieval_order
from icl_select.types import Demonstration, Example, Retrieved

TEMPLATE = PromptTemplate("{{ text }}\n{{ label }}", "{{ text }}", separator="\n\n\n")


def shown(*texts: str, label: str = "yes") -> list[Demonstration]:
    return [Demonstration(f"d{i}", label, 1.0 - i / 100, {"text": text}) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Path]) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(build(tmp_path_factory.mktemp("bpe")))


def test_by_hand_in_characters() -> None:
    """Query 1 character; each demonstration its text + 4 (line break, yes), and 3 for the separator."""
    prompt = pack(
        TEMPLATE, shown("a" * 5, "b" * 9, "c" * 3), Example("q", "x"), max_tokens=23, tokenizer=CharTokenizer()
    )
    assert prompt.text == "ccc\nyes\n\n\naaaaa\nyes\n\n\nx"
    assert prompt.tokens == 23 == len(prompt.text)
    assert [d.id for d in prompt.examples] == ["d2", "d0"]
    assert prompt.ranks == (2, 0)
    assert [(d.id, d.reason) for d in prompt.dropped] == [("d1", "did not fit: 29 tokens with it, 23 allowed")]
    assert prompt.query_id == "q"
    assert prompt.info["over_budget"] == 0
    assert prompt.info["template"] == TEMPLATE.fingerprint
    tighter = pack(
        TEMPLATE, shown("a" * 5, "b" * 9, "c" * 3), Example("q", "x"), max_tokens=22, tokenizer=CharTokenizer()
    )
    assert tighter.ranks == (0,)


def test_without_a_budget_everything_is_in_and_counted() -> None:
    prompt = pack(TEMPLATE, shown("a", "b"), Example("q", "x"))
    assert prompt.text == "b\nyes\n\n\na\nyes\n\n\nx"
    assert (prompt.tokens, prompt.dropped) == (len(prompt.text), ())


def test_more_text_than_is_allowed_fails_before_it_is_counted() -> None:
    """Two demonstrations of 9 characters with their separators have 24; the text has 25."""

    class Counting(CharTokenizer):
        counted = 0

        def count(self, text: str) -> int:
            self.counted += 1
            return super().count(text)

    tokenizer = Counting()
    demonstrations, query = shown("a" * 5, "b" * 5), Example("q", "x")
    for limit in (0, 23):
        with pytest.raises(PromptError, match=f"more than {limit} characters, which is the limit"):
            pack(TEMPLATE, demonstrations, query, tokenizer=tokenizer, max_tokens=10, max_characters=limit)
    assert tokenizer.counted == 0
    with pytest.raises(PromptError, match="more than 24 characters"):
        pack(TEMPLATE, demonstrations, query, max_characters=24)
    assert len(pack(TEMPLATE, demonstrations, query, max_characters=25).text) == 25


def test_the_query_is_never_cut() -> None:
    query = Example("long", "word " * 50)
    with pytest.raises(PromptError, match=r"query 'long' takes 50 tokens alone, above max_tokens=49 .*'words'"):
        pack(TEMPLATE, shown("a"), query, max_tokens=49, tokenizer=WordTokenizer())
    alone = pack(TEMPLATE, shown("a"), query, max_tokens=50, tokenizer=WordTokenizer())
    assert alone.text == query.text
    with pytest.raises(PromptError, match="takes 50 tokens alone"):
        pack(TEMPLATE, [], query, max_tokens=49, tokenizer=WordTokenizer(), rule="published")


def test_duplicates_are_dropped_once_and_reported() -> None:
    demonstrations = [*shown("a", "a"), Demonstration("other", "no", 0.5, {"text": "a"})]
    prompt = pack(TEMPLATE, demonstrations, Example("q", "x"))
    assert [d.id for d in prompt.examples] == ["other", "d0"]
    assert [(d.id, d.reason) for d in prompt.dropped] == [("d1", "duplicate of 'd0'")]
    assert len(pack(TEMPLATE, demonstrations, Example("q", "x"), drop_duplicates=False).examples) == 3
    assert len(pack(TEMPLATE, demonstrations, Example("q", "x"), rule="published").examples) == 3


def test_too_long_by_itself() -> None:
    prompt = pack(
        TEMPLATE, shown("a" * 20, "b"), Example("q", "x"), tokenizer=CharTokenizer(), max_demonstration_tokens=10
    )
    assert prompt.ranks == (1,)
    assert prompt.dropped[0].reason == "too long: 24 tokens, 10 allowed each"


def test_published_rule_by_hand() -> None:
    """Characters; demonstrations of 10, 30 (skipped: above 25), 12, 40 (ends it), 5; query 8; limit 50.

    8 + 10 = 18, + 12 = 30, + 40 = 70 > 50: packing ends although the last would fit. The final text counts two
    separators more: 30 + 6 = 36.
    """
    texts = ["a" * 6, "b" * 26, "c" * 8, "d" * 21, "e"]
    prompt = pack(
        TEMPLATE, shown(*texts), Example("q", "x" * 8), max_tokens=50, tokenizer=CharTokenizer(), rule="published",
        max_demonstration_tokens=25,
    )  # fmt: skip
    assert prompt.text == "c" * 8 + "\nyes\n\n\n" + "a" * 6 + "\nyes\n\n\n" + "x" * 8
    assert prompt.ranks == (2, 0)
    assert prompt.tokens == 36
    assert [(d.id, d.reason.split(":")[0]) for d in prompt.dropped] == [
        ("d1", "too long"), ("d3", "did not fit"), ("d4", "did not fit"),
    ]  # fmt: skip


def test_published_rule_counts_no_separators_and_reports_the_excess() -> None:
    prompt = pack(
        TEMPLATE, shown("a", "b", "c"), Example("q", "x"), max_tokens=16, tokenizer=CharTokenizer(), rule="published"
    )
    assert len(prompt.examples) == 3
    assert prompt.tokens == 25
    assert prompt.info["over_budget"] == 9


def slow_pack(
    demonstrations: list[Demonstration], query: Example, limit: int, tokenizer: Tokenizer, how: str, chat: bool
) -> tuple[list[int], int]:
    """The rule word for word: one at a time, nearest first, kept if the final rendering fits."""

    def final(ranks: list[int]) -> tuple[list[int], int]:
        chosen = [demonstrations[rank] for rank in ranks]
        as_retrieved = Retrieved(rows=ranks, ids=tuple(d.id for d in chosen), similarities=[0.0] * len(ranks))
        arranged = [ranks[pos] for pos in retrieval_order(as_retrieved, how, query_id=query.id, seed=7)]
        parts = [demonstrations[rank] for rank in arranged]
        if chat:
            return arranged, tokenizer.count_messages(TEMPLATE.messages(parts, query))
        text = "\n\n\n".join([*(f"{d.fields['text']}\n{d.label}" for d in parts), query.text])
        return arranged, tokenizer.count(text)

    kept: list[int] = []
    seen: set[tuple[object, str]] = set()
    for rank, demonstration in enumerate(demonstrations):
        key = (demonstration.fields["text"], demonstration.label)
        if key not in seen and final([*kept, rank])[1] <= limit:
            kept.append(rank)
        seen.add(key)
    return final(kept)


WORDS = st.lists(
    st.sampled_from(["the", "quick", "fox", "\n", "\n\n", " ", "answer:", "yes", "é", "dog.", "jumps over"]),
    min_size=1,
    max_size=8,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(WORDS, max_size=7),
    asked=WORDS,
    limit=st.integers(1, 90),
    how=st.sampled_from(["nearest_last", "nearest_first", "shuffled"]),
    chat=st.booleans(),
)
def test_equals_brute_force_on_a_byte_pair_tokenizer(
    bpe: HuggingFaceTokenizer, texts: list[str], asked: str, limit: int, how: str, chat: bool
) -> None:
    demonstrations, query = shown(*texts), Example("q", asked)
    options = {"max_tokens": limit, "tokenizer": bpe, "order": how, "seed": 7, "chat": chat}
    alone = bpe.count_messages(TEMPLATE.messages([], query)) if chat else bpe.count(asked)
    if alone > limit:
        with pytest.raises(PromptError):
            pack(TEMPLATE, demonstrations, query, **options)  # type: ignore[arg-type]
        return
    prompt = pack(TEMPLATE, demonstrations, query, **options)  # type: ignore[arg-type]
    ranks, tokens = slow_pack(demonstrations, query, limit, bpe, how, chat)
    assert list(prompt.ranks) == ranks
    assert prompt.tokens == tokens <= limit
    assert prompt.tokens == (bpe.count_messages(prompt.messages) if chat else bpe.count(prompt.text))
    assert sorted([d.id for d in prompt.examples] + [d.id for d in prompt.dropped]) == [d.id for d in demonstrations]
    assert prompt == pack(TEMPLATE, demonstrations, query, **options)  # type: ignore[arg-type]


def test_parts_do_not_add_up_so_the_whole_is_counted(bpe: HuggingFaceTokenizer) -> None:
    """The separator joins with the line break before it: the sum of parts is too large, the exact count fits."""
    demonstrations, query = shown("the quick brown fox", label="jumps over\n"), Example("q", "the lazy dog")
    whole = TEMPLATE.text(demonstrations, query)
    parts = bpe.count(TEMPLATE.render_demonstration(demonstrations[0])) + bpe.count("\n\n\n") + bpe.count(query.text)
    assert bpe.count(whole) < parts
    assert len(pack(TEMPLATE, demonstrations, query, max_tokens=bpe.count(whole), tokenizer=bpe).examples) == 1


def test_shuffled_order_depends_on_the_query_id() -> None:
    demonstrations = shown(*"abcdefgh")
    first = pack(TEMPLATE, demonstrations, Example("q1", "x"), order="shuffled", seed=1)
    assert first.ranks == pack(TEMPLATE, demonstrations, Example("q1", "y"), order="shuffled", seed=1).ranks
    assert first.ranks != pack(TEMPLATE, demonstrations, Example("q2", "x"), order="shuffled", seed=1).ranks
    assert first.info["seed"] == 1


def test_errors() -> None:
    query = Example("q", "x")
    with pytest.raises(UnknownNameError, match="Did you mean 'exact'"):
        pack(TEMPLATE, [], query, rule="exat")
    with pytest.raises(UnknownNameError, match="unknown order 'last'"):
        pack(TEMPLATE, shown("a"), query, order="last")
    with pytest.raises(ParameterError, match="max_tokens=0"):
        pack(TEMPLATE, [], query, max_tokens=0)
    with pytest.raises(TemplateError, match="'text'"):
        pack(TEMPLATE, [Demonstration("d", "x", 0.1, {})], query)


def test_what_cannot_fit_is_not_counted_with_the_whole() -> None:
    """Characters: query 1; the first takes 10 + 3, 14 is the total; 16 are left of 30. 33 is 17 more than that."""

    class Counting(CharTokenizer):
        counted: list[str] = []  # noqa: RUF012

        def count(self, text: str) -> int:
            self.counted.append(text)
            return super().count(text)

    tokenizer = Counting()
    prompt = pack(
        TEMPLATE, shown("a" * 6, "b" * 29, "c" * 28, "d" * 9), Example("q", "x"), max_tokens=30, tokenizer=tokenizer
    )
    assert prompt.ranks == (3, 0)
    assert [one.reason for one in prompt.dropped] == [
        "did not fit: 33 tokens alone, 16 left", "did not fit: 49 tokens with it, 30 allowed",
    ]  # fmt: skip
    whole = [set(text) - set("\nyes") for text in tokenizer.counted if "x" in text]
    assert whole == [set("x"), set("abcdx"), set("ax"), set("acx"), set("adx"), set("adx")]  # never with b after all


def test_a_chat_is_always_counted_whole() -> None:
    """Its messages may show less than the demonstration's own template does."""
    template = PromptTemplate("{{ text }}\n{{ label }}", "{{ text }}", user="?")
    prompt = pack(template, shown("a" * 90), Example("q", "x"), max_tokens=60, tokenizer=CharTokenizer(), chat=True)
    assert prompt.ranks == (0,)
    assert [m["content"] for m in prompt.messages] == ["?", "yes", "?"]
