"""What the prompt engine keeps in memory: when it is used again, when it is not, and how large it may become."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
from engine_cases import Stage, asked, on_one_database, outcomes
from hypothesis import given
from hypothesis import strategies as st
from store_cases import add, count, row

from icl_select.errors import TemplateError
from icl_select.prompt import PromptTemplate
from icl_select.service.engine import rebuild
from icl_select.service.engine.rendering import Written, remembering
from icl_select.service.errors import ConflictError, NotFoundError
from icl_select.service.recent import Recent
from icl_select.service.schemas import TemplateIn
from icl_select.service.store import pools, prompts
from icl_select.service.store.tables import prompt_settings
from icl_select.service.store.tables import prompts as prompts_table
from icl_select.types import Demonstration, Example


@on_one_database
def test_a_repeated_query_is_answered_from_memory(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    first, other = stage.one("x"), stage.one("y")
    again = stage.one("x")
    assert again is first
    assert other.body != first.body
    assert fake.batches == [["x"], ["y"]]
    assert stage.counted("ics_cache_hits_total", cache="prompt") == 1
    assert count(stage.here.database, prompts_table) == 2


@on_one_database
def test_an_answer_from_memory_is_right_now(stage: Stage) -> None:
    """Whatever an answer depends on is part of what it is kept under."""
    stage.pool(texts=["a", "b", "c", "d"], labelled=3)
    stage.pool("other", texts=["a", "b", "c", "d"], labelled=3)
    bodies = {stage.one("a").body}

    def differs(**options: Any) -> None:
        found = stage.one("a", **options)
        assert found.body not in bodies, options
        bodies.add(found.body)
        assert stage.one("a", **options) is found

    for options in (
        {"k": 1}, {"k": 2}, {"order": "nearest_first"}, {"max_tokens": 10}, {"tokenizer": "words"},
        {"template": TemplateIn(separator="|")}, {"chat": True}, {"mmr": 0.25}, {"balance": True, "k": 2},
        {"min_similarity": 0.5}, {"seed": 3}, {"rule": "published", "max_tokens": 10}, {"pool": "other"},
        {"max_demonstration_tokens": 1},
    ):  # fmt: skip
        differs(**options)
    stage.label(0, "new")
    differs()
    stage.label(0, None)
    differs()
    add(stage.here.database, "p", [row("later", text="later")])
    differs()
    stage.embed()  # of the labelled items nothing changes, and it is another embedding all the same
    differs()
    with stage.here.database.write() as connection:
        pools.configure(connection, pools.lock(connection, "p"), {"prompt": {"k": 2}})
    differs()


@on_one_database
def test_a_text_is_encoded_once_whatever_is_asked_about_it(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    stage.pool("other")
    stage.one("x", k=1)
    stage.one("x", k=2)
    stage.one({"text": "x", "more": 1})
    stage.label(0, "new")
    stage.one("x")
    stage.one("x", pool="other")
    assert fake.batches == [["x"]]
    assert stage.counted("ics_cache_hits_total", cache="vector") == 4


@on_one_database
def test_equal_queries_that_come_together_are_encoded_once(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    found = outcomes(stage, *(asked(stage, "same") for _ in range(5)), asked(stage, "other", "same"))
    assert fake.batches == [["same", "other"]]
    assert len({answers[0].body for answers in found[:5]}) == 1
    assert found[5][1].body == found[0][0].body
    assert count(stage.here.database, prompts_table) == 2


@on_one_database
def test_queries_that_come_together_are_answered_as_each_alone(stage: Stage) -> None:
    stage.pool(texts=20, labelled=15)
    stage.pool("other", texts=20, labelled=15, centre=True)
    ways: list[dict[str, Any]] = [
        {"k": 1}, {"k": 4}, {"mmr": 0.3}, {"balance": True, "k": 4}, {"min_similarity": 0.7}, {"pool": "other"},
        {"k": 4, "order": "shuffled"}, {"k": 4, "max_tokens": 40},
    ]  # fmt: skip
    together = outcomes(stage, *(asked(stage, "text of i3", "i17", **way) for way in ways))
    assert len({answers[0].body for answers in together}) == len(ways)
    stage.renew()
    assert [[stage.one(query, **way) for query in ("text of i3", "i17")] for way in ways] == together


@on_one_database
def test_a_memory_of_no_prompts_keeps_none(stage: Stage) -> None:
    fake = stage.fake()
    stage.pool()
    stage.renew(cache_prompts=0)
    first, again = stage.one("x"), stage.one("x")
    assert again is not first
    assert again == first
    assert stage.counted("ics_cache_hits_total", cache="prompt") == 0
    assert fake.batches == [["x"]]


@on_one_database
def test_the_memory_keeps_the_prompts_that_were_used_last(stage: Stage) -> None:
    stage.pool()
    stage.renew(cache_prompts=2)
    first, second = stage.one("1"), stage.one("2")
    assert stage.one("1") is first
    stage.one("3")
    assert stage.one("1") is first
    assert stage.one("2") is not second


@on_one_database
def test_a_restart_changes_no_byte(stage: Stage) -> None:
    stage.pool(centre=True)
    queries = ["x", "y", {"text": "z", "id": "mine"}]
    before = stage.ask(*queries)
    stage.renew()
    assert stage.ask(*reversed(queries)) == before[::-1]
    assert count(stage.here.database, prompts_table) == 3


@on_one_database
def test_template_and_options_are_kept_once(stage: Stage) -> None:
    stage.pool()
    stage.pool("other")
    options: dict[str, Any] = {"template": TemplateIn(instruction="Sort."), "k": 2}
    outcomes(stage, *(asked(stage, f"q{number}", **options) for number in range(5)))
    stage.ask("x", pool="other", **options)
    stage.renew()
    stage.ask("y", **options)
    assert count(stage.here.database, prompt_settings) == 1
    assert count(stage.here.database, prompts_table) == 7


TEMPLATES = [
    TemplateIn(),
    TemplateIn(demonstration="{{ number }}. {{ text }} {{ label }}", query="{{ number }}. {{ text }}"),
    TemplateIn(user="{% if number > 1 %}again: {% endif %}{{ text }}", assistant="{{ label }}!", system="Be short."),
    TemplateIn(instruction="{{ text|upper }}\n", demonstration="{{ text[:3] }}{{ text[number] }}: {{ label }}"),
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_is_written_again_byte_for_byte_whatever_came_after(stage: Stage, template: TemplateIn) -> None:
    stage.pool(texts=["text of i0", "☕ text", "nul \0 text", "text of i0", "more", "e\u0301"], labelled=5)
    answers = [
        stage.one(query, template=template, **options)
        for query in ("query", "q\0 ☕", {"text": "some words", "id": "i1", "n": [1, {"x": None}]})
        for options in ({}, {"k": 2, "order": "shuffled"}, {"max_tokens": 60, "chat": True}, {"mmr": 0.5, "k": 3})
    ]
    stage.label(0, "other")
    stage.label(1, None)
    add(stage.here.database, "p", [row("later")])
    for answer in answers:
        with stage.here.database.read() as connection:
            assert rebuild(connection, answer.id).body == answer.body


@on_one_database
def test_a_prompt_that_would_be_written_otherwise_is_not_shown(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.pool()
    answer = stage.one("x")
    monkeypatch.setattr(PromptTemplate, "text", lambda self, shown, query: "another version")
    with stage.here.database.read() as connection:
        with pytest.raises(ConflictError, match="comes out otherwise"):
            rebuild(connection, answer.id)
        with pytest.raises(NotFoundError):
            rebuild(connection, "prompt_nothing")


@on_one_database
def test_a_prompt_of_a_deleted_pool_is_gone(stage: Stage) -> None:
    stage.pool()
    answer = stage.one("x")
    with stage.here.database.write() as connection:
        pools.delete(connection, "p")
    with stage.here.database.read() as connection, pytest.raises(NotFoundError):
        prompts.find(connection, answer.id)


# Ids name content: an item is the same wherever it is shown. One has a number of its own.
ITEMS: dict[str, dict[str, Any]] = {
    "a": {"text": "Text of a", "words": ["a", "b"], "title": "T"},
    "b": {"text": "Text of b", "words": [], "number": 3},
    "c": {"text": "Text of c", "words": ["z"], "title": "<c>"},
}
PARTS = [
    "{{ text }}", "{{ label }}", "{{ number }}", "{{ text[number] }}", "{% if number == 2 %}two{% endif %}",
    "{% for number in words %}{{ number }}{% endfor %}", "{% for w in words %}{{ w }}{{ loop.index }}{% endfor %}",
    "{{ title|upper }}", "{{ text[:number] }}", "{{ title|default(number) }}", "{{ words|join(', ') }}", "literal",
    "{% for w in words if loop.first or number %}{{ w }}{% endfor %}", "{{ 'x' if number > 1 else 'y' }}", "\n",
    "{{ number.x|default('none') }}", "{% if title is defined %}{{ title }}{% endif %}",
]  # fmt: skip
written = st.lists(st.sampled_from(PARTS), max_size=4).map("".join)
questions = st.lists(st.sampled_from([part for part in PARTS if "label" not in part]), max_size=3).map("".join)
demonstrations = st.lists(
    st.builds(
        lambda name, label: Demonstration(name, label, 0.5, ITEMS[name]),
        st.sampled_from(sorted(ITEMS)),
        st.sampled_from(["yes", "no"]),
    ),
    max_size=6,
)


def said(write: Callable[[], Any]) -> Any:
    """What is written, or why it cannot be."""
    try:
        return write()
    except TemplateError as exc:
        return str(exc)


@given(written, questions, st.none() | questions, written, demonstrations, demonstrations)
def test_a_template_that_remembers_writes_what_one_does_that_does_not(
    demonstration: str,
    query: str,
    user: str | None,
    assistant: str,
    first: list[Demonstration],
    second: list[Demonstration],
) -> None:
    plain = PromptTemplate(demonstration, query, user=user, assistant=assistant, instruction="{{ text }}")
    template = remembering(plain, 1, Written())
    example = Example("q", "Query text", {"text": "Query text", "words": ["z"], "title": "Q"})
    for shown in (first, second, first):
        for how in ("text", "messages"):
            mine, theirs = getattr(template, how), getattr(plain, how)
            assert said(functools.partial(mine, shown, example)) == said(functools.partial(theirs, shown, example))
        for place, one in enumerate(shown):
            for how in ("render_demonstration", "render_turn"):
                mine, theirs = getattr(template, how), getattr(plain, how)
                assert said(functools.partial(mine, one, place)) == said(functools.partial(theirs, one, place))
    assert template.fingerprint == plain.fingerprint


def test_templates_that_share_a_memory_do_not_mix_up_pools_templates_and_labels() -> None:
    memory = Written()
    first, second = PromptTemplate("{{ text }} {{ label }}"), PromptTemplate("{{ label }} {{ text }}")
    one = Demonstration("i", "x", 0.5, {"text": "one"})
    two = Demonstration("i", "x", 0.5, {"text": "two"})  # an item of another pool
    relabelled = Demonstration("i", "y", 0.5, {"text": "one"})
    for _ in range(2):
        assert remembering(first, 1, memory).render_demonstration(one) == "one x"
        assert remembering(second, 1, memory).render_demonstration(one) == "x one"
        assert remembering(first, 2, memory).render_demonstration(two) == "two x"
        assert remembering(first, 1, memory).render_demonstration(relabelled) == "one y"
        assert remembering(first, 1, memory).render_turn(relabelled) == ("one", "y")


def test_what_templates_wrote_is_kept_up_to_a_number_of_characters() -> None:
    memory = Written(characters=10_000)
    template = remembering(PromptTemplate("{{ text }}"), 1, memory)
    for number in range(100):
        text = "w" * (number * 40)
        assert template.render_demonstration(Demonstration(str(number), "x", 0.5, {"text": text})) == text
        assert template.render_turn(Demonstration(str(number), "x", 0.5, {"text": text})) == (text, "x")
        assert memory.weight <= 10_000
    assert 0 < len(memory) < 10


def test_a_missing_field_is_told_each_time() -> None:
    template = remembering(PromptTemplate("{{ nothing }}"), 1, Written())
    for _ in range(2):
        with pytest.raises(TemplateError, match="nothing"):
            template.render_demonstration(Demonstration("i", "x", 0.5, {"text": "x"}))


@given(st.integers(0, 4), st.none() | st.integers(1, 12), st.integers(0, 2**32))
def test_recent_keeps_what_was_used_last(size: int, most: int | None, seed: int) -> None:
    """Against the plainest thing that could do it: a list in the order of use."""
    draw = random.Random(seed)
    recent: Recent[int, int] = Recent(size, most)
    model: list[tuple[int, int, int]] = []
    for step in range(60):
        key = draw.randrange(6)
        found = next((entry for entry in model if entry[0] == key), None)
        if draw.random() < 0.5:
            assert recent.get(key) == (None if found is None else found[1])
            if found is not None:
                model.remove(found)
                model.append(found)
            continue
        weight = draw.randint(1, 15)
        recent.put(key, step, weight)
        if found is not None:
            model.remove(found)
        if size and (most is None or weight <= most):
            model.append((key, step, weight))
        while len(model) > size or (most is not None and sum(entry[2] for entry in model) > most):
            del model[0]
        assert len(recent) == len(model)
        assert recent.weight == sum(entry[2] for entry in model)
