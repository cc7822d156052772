"""Prompts of campaigns: the whole text of every benchmark, what the published code cuts, and what never happens."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from eval_helpers import folder_with
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import ConfigError, ParameterError, PromptError, UnknownNameError
from icl_select.eval.config import Campaign
from icl_select.eval.prompting import Prompting, prompting_of, tokenizer_of
from icl_select.eval.tasks import Task, get_task, load_task
from icl_select.prompt import HuggingFaceTokenizer, Tokenizer, load_tokenizer
from icl_select.score import ModelScorer
from icl_select.score.encoding import encode_item
from icl_select.score.tiny import make_tiny_model
from icl_select.types import Demonstration, Example

PROTOCOLS = ["sound", "published"]
WORDS, CHARS = load_tokenizer("words"), load_tokenizer("chars")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    pytest.importorskip("torch", reason="needs icl-select[models]")
    return HuggingFaceTokenizer(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


def shown(examples: list[Example]) -> list[Demonstration]:
    """Demonstrations, the first the nearest."""
    return [Demonstration(e.id, str(e.label), 0.9 - i / 100, e.fields) for i, e in enumerate(examples)]


# The whole prompt of every benchmark ------------------------------------------------------------------------------

# Three rows each, in the shape of the data: the nearest demonstration, one farther away, the query.
ROWS: dict[str, list[dict[str, Any]]] = {
    "mrpc": [
        {"sentence1": "A dog ran", "sentence2": "A dog walked", "label": 0},
        {"sentence1": "It rained", "sentence2": "Rain fell", "label": 1},
        {"sentence1": "He left", "sentence2": "He went", "label": 1},
    ],
    "sst5": [
        {"text": "a dull film", "label": 0},
        {"text": "a stirring film", "label": 4},
        {"text": "a film", "label": 2},
    ],
    "mnli": [
        {"premise": "It rains", "hypothesis": "It is wet", "label": 0},
        {"premise": "He sings", "hypothesis": "She sings", "label": 1},
        {"premise": "They slept", "hypothesis": "They ran", "label": 2},
    ],
    "rte": [
        {"sentence1": "Ann met Bo.", "sentence2": "Bo met Ann.", "label": 0},
        {"sentence1": "It snows.", "sentence2": "It is hot.", "label": 1},
        {"sentence1": "Cy won.", "sentence2": "Cy lost.", "label": 1},
    ],
    "dbpedia": [
        {"title": "Emma", "content": " Emma is a novel.", "label": 13},
        {"title": "Acme", "content": " Acme sells anvils.", "label": 0},
        {"title": "Oak Hall", "content": " Oak Hall is a school.", "label": 1},
    ],
    "hellaswag": [
        {"activity_label": "Baking", "ctx_a": "A chef shows pans.", "ctx_b": "the pans", "ctx": "", "label": 1,
         "endings": ["sing.", "are filled.", "fly.", "melt."]},
        {"activity_label": "Skiing", "ctx_a": "A slope is seen.", "ctx_b": "a man", "ctx": "", "label": 0,
         "endings": ["skis down.", "eats it.", "reads.", "is a pan."]},
        {"activity_label": "Rowing", "ctx_a": "A boat is shown.", "ctx_b": "two women", "ctx": "", "label": 3,
         "endings": ["sink.", "bake.", "ski.", "start to row."]},
    ],
    "xsum": [
        {"document": "A bridge was shut.\nIt will open in May.", "summary": "A bridge is shut until May."},
        {"document": "A cat was found.", "summary": "A lost cat is back."},
        {"document": "Snow fell.\nRoads were closed.", "summary": "Snow closed roads."},
    ],
}  # fmt: skip

# The farther demonstration first, the nearest next to the query, as algorithms §10 lays them out.
PROMPTS = {
    "mrpc": (
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nIt rained.\nRain fell.\nanswer:\nequivalent"
        "\n\n\n"
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nA dog ran.\nA dog walked.\nanswer:\n"
        "not equivalent"
        "\n\n\n"
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nHe left.\nHe went.\nanswer:"
    ),
    "sst5": (
        "How do you feel about the following sentence?\na stirring film\nanswer:\nvery positive"
        "\n\n\n"
        "How do you feel about the following sentence?\na dull film\nanswer:\nvery negative"
        "\n\n\n"
        "How do you feel about the following sentence?\na film\nanswer:"
    ),
    "mnli": (
        'He sings. Based on that information, is the claim She sings "True", "False", or "Inconclusive"?\nanswer:\n'
        "Inconclusive"
        "\n\n\n"
        'It rains. Based on that information, is the claim It is wet "True", "False", or "Inconclusive"?\nanswer:\nTrue'
        "\n\n\n"
        'They slept. Based on that information, is the claim They ran "True", "False", or "Inconclusive"?\nanswer:'
    ),
    "rte": (
        "It snows..\nquestion: It is hot.. True or False?\nanswer:\nFalse"
        "\n\n\n"
        "Ann met Bo..\nquestion: Bo met Ann.. True or False?\nanswer:\nTrue"
        "\n\n\n"
        "Cy won..\nquestion: Cy lost.. True or False?\nanswer:"
    ),
    "dbpedia": (
        "title: Acme; content:  Acme sells anvils.\ncompany"
        "\n\n\n"
        "title: Emma; content:  Emma is a novel.\nwritten work"
        "\n\n\n"
        "title: Oak Hall; content:  Oak Hall is a school."
    ),
    "hellaswag": (
        "The topic is Skiing. A slope is seen. a man \nskis down."
        "\n\n\n"
        "The topic is Baking. A chef shows pans. the pans \nare filled."
        "\n\n\n"
        "The topic is Rowing. A boat is shown. two women "
    ),
    "xsum": (
        "write a short summary:\nA cat was found.\nTL;DR:A lost cat is back."
        "\n\n"
        "write a short summary:\nA bridge was shut.\nIt will open in May.\nTL;DR:A bridge is shut until May."
        "\n\n"
        "write a short summary:\nSnow fell.\nRoads were closed.\nTL;DR:"
    ),
}

CHOICES = {
    "mrpc": ("not equivalent", "equivalent"),
    "sst5": ("very negative", "negative", "neutral", "positive", "very positive"),
    "mnli": ("True", "Inconclusive", "False"),
    "rte": ("True", "False"),
    "dbpedia": (
        "company", "educational institution", "artist", "athlete", "office holder", "mean of transportation",
        "building", "natural place", "village", "animal", "plant", "album", "film", "written work",
    ),
    "hellaswag": ("sink.", "bake.", "ski.", "start to row."),
    "xsum": None,
}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_whole_prompt(tmp_path: Path, name: str, protocol: str) -> None:
    """Nothing is too long here, so both protocols write the same; where they differ is tested below."""
    task = get_task(name)
    near, far, query = load_task(name, folder_with(tmp_path, task.folder, ROWS[name])).pool
    prompt = Prompting(task, tokenizer=CHARS, protocol=protocol).prompt(shown([near, far]), query)
    assert prompt.text == PROMPTS[name]
    assert prompt.tokens == len(prompt.text)
    assert (prompt.info["protocol"], prompt.info["truncated"], prompt.dropped) == (protocol, False, ())
    assert [one.id for one in prompt.examples] == [far.id, near.id]
    assert task.choices_of(query) == CHOICES[name]
    assert task.prefix == "\n"


def geography(folder: Path) -> Path:
    """An invented database of two tables in the folder of the task."""
    with sqlite3.connect(folder / "geoquery" / "geography.sqlite") as connection:
        connection.execute('CREATE TABLE "city" (\n  "city_name" text,\n  "population" int DEFAULT NULL\n)')
        connection.execute('CREATE TABLE "lake" (\n  "lake_name" text,\n  "area" double\n)')
        connection.executemany("INSERT INTO city VALUES (?, ?)", [("oslo", 7), ("rome", None), ("bern", 1)])
        connection.executemany("INSERT INTO city VALUES ('rome', ?)", [(5,), (6,), (8,)])
    connection.close()
    return folder


GEOQUERY = [
    {"question": "how many live in bern", "query": 'SELECT population FROM city WHERE city_name = "bern" ;'},
    {"question": "list the lakes", "query": "SELECT lake_name FROM lake ;"},
    {"question": "how big is rome", "query": "SELECT 1 ;"},
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_whole_prompt_of_geoquery(tmp_path: Path, protocol: str) -> None:
    """Of the four rows that name Rome, the first three are shown; no lake is named."""
    near, far, query = load_task("geoquery", geography(folder_with(tmp_path, "geoquery", GEOQUERY))).pool
    prompt = Prompting(get_task("geoquery"), tokenizer=CHARS, protocol=protocol).prompt(shown([near, far]), query)
    assert prompt.text == (
        'CREATE TABLE "city" (\n  "city_name" text,\n  "population" int DEFAULT NULL\n);\n'
        "/*\nRows of city named in the question:\ncity_name\tpopulation\nrome\t\nrome\t5\nrome\t6\n*/\n"
        'CREATE TABLE "lake" (\n  "lake_name" text,\n  "area" double\n);'
        "\n\n"
        "-- Using valid SQLite, answer the following questions for the tables provided above.\n"
        "-- list the lakes\nSELECT lake_name FROM lake ;"
        "\n\n"
        '-- how many live in bern\nSELECT population FROM city WHERE city_name = "bern" ;'
        "\n\n"
        "-- how big is rome\nSELECT"
    )
    assert get_task("geoquery").choices_of(query) is None


def test_limits_of_retrieval_and_of_answers() -> None:
    limits = {name: (get_task(name).max_tokens, get_task(name).max_demonstration_tokens) for name in ROWS}
    assert limits == {
        "mrpc": (1000, 250), "sst5": (1000, 250), "mnli": (1000, 250), "rte": (1000, 250), "dbpedia": (1000, 250),
        "hellaswag": (1000, None), "xsum": (1900, None),
    }  # fmt: skip
    geoquery, xsum = get_task("geoquery"), get_task("xsum")
    assert (geoquery.max_tokens, geoquery.max_demonstration_tokens) == (3800, None)
    published = geoquery.decoding_of("published")
    assert published is not None
    assert (published.temperature, published.max_tokens, published.stop) == (0.7, 50, ("--", "\n\n", ";", "#"))
    sound = geoquery.decoding_of("sound")
    assert sound is not None
    assert (sound.temperature, sound.stop) == (0.0, published.stop)
    decodings = [xsum.decoding_of(protocol) for protocol in PROTOCOLS]
    assert [(d.max_tokens, d.stop, d.temperature) for d in decodings if d] == [(64, ("\n",), 0.0), (64, (), 0.0)]
    assert {name: get_task(name).metric for name in ("mrpc", "hellaswag", "xsum", "geoquery")} == {
        "mrpc": "acc", "hellaswag": "acc", "xsum": "rouge_l", "geoquery": "sql_execution",
    }  # fmt: skip
    assert [get_task(name).published_query_centre for name in ("mrpc", "xsum", "geoquery")] == [True, True, False]


def test_what_published_code_does_is_told_in_the_notes() -> None:
    for name in ("mrpc", "sst5", "mnli", "rte", "dbpedia", "hellaswag"):
        assert get_task(name).metaicl
        assert "loses its cue for the answer" in get_task(name).notes
    assert "joined with spaces" in get_task("xsum").notes
    assert "temperature 0.7" in get_task("geoquery").notes


# What the published code cuts -------------------------------------------------------------------------------------


def sst5(text: str, label: str = "neutral", id_: str = "q", similarity: float = 0.5) -> tuple[Example, Demonstration]:
    return Example(id_, text, {"text": text}, label), Demonstration(id_, label, similarity, {"text": text})


def words(n: int) -> str:
    return " ".join(f"w{i}" for i in range(n))


ASKED = "How do you feel about the following sentence?\n"


def test_published_cuts_the_cue_off_a_long_query() -> None:
    r"""In words: "\nvery negative" takes 3, so 251 are left; three line breaks and 10 of the question leave 238."""
    query, _ = sst5(words(300))
    _, demonstration = sst5("fine")
    prompting = Prompting(get_task("sst5"), tokenizer=WORDS, protocol="published")
    prompt = prompting.prompt([demonstration], query)
    assert prompt.text == f"{ASKED}fine\nanswer:\nneutral\n\n\n{ASKED}{words(238)}"
    # 62 words, the line break, "answer" and its colon are gone.
    assert prompt.info["cut"] == {"demonstrations": 0, "query": 65, "whole": 0}
    assert prompt.info["truncated"]
    assert prompt.messages == ({"role": "user", "content": prompt.text},)
    sound = Prompting(get_task("sst5"), tokenizer=WORDS).prompt([demonstration], query)
    assert sound.text == f"{ASKED}fine\nanswer:\nneutral\n\n\n{ASKED}{words(300)}\nanswer:"
    assert not sound.info["truncated"]


@pytest.mark.parametrize(("n", "kept"), [(238, 238), (235, 235)])
def test_published_cuts_the_cue_before_the_text(n: int, kept: int) -> None:
    """238 words leave no room for the cue, 235 leave all of it."""
    query, _ = sst5(words(n))
    prompt = Prompting(get_task("sst5"), tokenizer=WORDS, protocol="published").prompt([], query)
    cue = "" if n == 238 else "\nanswer:"
    # The separator stands before the query even without a demonstration.
    assert prompt.text == f"\n\n\n{ASKED}{words(kept)}{cue}"


def test_published_cuts_the_input_of_a_long_demonstration_and_keeps_its_answer() -> None:
    r"""HellaSwag skips no long demonstration. "\nare filled." takes 4 words, so 252 are left for the scene.

    The farther one stands first and without separator; of the nearer one three line breaks are counted too.
    """
    endings = ["melt.", "are filled."]
    near = Demonstration("near", "are filled.", 0.9, {"scene": words(300), "endings": endings})
    far = Demonstration("far", "are filled.", 0.8, {"scene": words(253), "endings": endings})
    query = Example("q", "x", {"scene": "A boat ", "endings": endings})
    prompt = Prompting(get_task("hellaswag"), tokenizer=WORDS, protocol="published").prompt([near, far], query)
    assert prompt.text == f"{words(252)}\nare filled.\n\n\n{words(249)}\nare filled.\n\n\nA boat "
    assert prompt.info["cut"] == {"demonstrations": 2, "query": 0, "whole": 0}


def test_published_cuts_the_beginning_of_the_whole() -> None:
    r"""60 demonstrations of 16 words and a query of 23 are 983, below 1000: separators are not counted.

    With three line breaks before every part but the first the whole takes 60 * 16 + 23 + 60 * 3 = 1163. Of 1024,
    3 go to "\nvery negative": 142 words are lost. That is the first demonstration (16), six more with their
    separators (6 * 19), and of the eighth the separator (3) and its first 9 tokens, up to the question mark.
    """
    demonstrations = [sst5("w", id_=f"d{i}", similarity=0.9 - i / 1000)[1] for i in range(60)]
    query, _ = sst5(words(10))
    prompt = Prompting(get_task("sst5"), tokenizer=WORDS, protocol="published").prompt(demonstrations, query)
    shot = "w\nanswer:\nneutral\n\n\n"
    assert prompt.text == "\n" + shot + (ASKED + shot) * 52 + f"{ASKED}{words(10)}\nanswer:"
    assert prompt.info["cut"] == {"demonstrations": 0, "query": 0, "whole": 142}
    assert prompt.tokens == 1021
    assert prompt.info["over_budget"] == 21
    assert len(prompt.examples) == 60


def test_published_retrieval_skips_stops_and_leaves_out_the_query_itself() -> None:
    """In words, a demonstration takes 15 more than its text. 1000 for all, 250 for one; the query takes 14."""
    sizes = {"d0": 236, "d1": 235, "d2": 235, "d3": 235, "d4": 222, "d5": 1}
    demonstrations = [sst5(words(n), id_=id_, similarity=1.0 - i / 10)[1] for i, (id_, n) in enumerate(sizes.items())]
    demonstrations.insert(1, sst5("one", id_="twin", similarity=1.0)[1])
    demonstrations[0] = replace(demonstrations[0], similarity=0.99)
    query, _ = sst5("w")
    prompt = Prompting(get_task("sst5"), tokenizer=WORDS, protocol="published").prompt(demonstrations, query)
    # 14 + 3 * 250 = 764; d4 takes 237 and leads to 1001.
    assert [one.id for one in prompt.examples] == ["d3", "d2", "d1"]
    assert {one.id: one.reason for one in prompt.dropped} == {
        "d0": "too long: 251 tokens, 250 allowed each",
        "d4": "did not fit: 1001 tokens with it, 1000 allowed; packing ended here",
        "d5": "did not fit: packing ended at a nearer demonstration",
        "twin": "similarity of exactly 1, taken for the query itself",
    }


def test_published_sends_a_query_that_alone_is_too_long() -> None:
    task = get_task("xsum")
    query = Example("q", "x", {"document": words(2500)})
    demonstration = Demonstration("d", "A summary.", 0.9, {"document": "short"})
    prompt = Prompting(task, tokenizer=WORDS, protocol="published", max_length=2048).prompt([demonstration], query)
    assert prompt.text == f"write a short summary:\n{words(2500)}\nTL;DR:"
    assert (prompt.examples, prompt.dropped[0].reason) == ((), "did not fit: the query alone takes all")
    assert prompt.info["over_budget"] == prompt.tokens - 1900 > 600


# What the sound protocol promises -----------------------------------------------------------------------------------


def test_sound_shortens_the_document_and_keeps_the_cue() -> None:
    r"""In words: 2048 - 64 = 1984 is above the task's 1900. Before the document stand 6 tokens, behind it 5.

    "write a short summary : \n" and "\n TL ; DR :".
    """
    query = Example("q", "x", {"document": words(2500)})
    demonstration = Demonstration("d", "A summary.", 0.9, {"document": "short"})
    prompt = Prompting(get_task("xsum"), tokenizer=WORDS, max_length=2048).prompt([demonstration], query)
    assert prompt.text == f"write a short summary:\n{words(1889)}\nTL;DR:"
    assert prompt.tokens == 1900
    assert prompt.info["shortened"] == {"field": "document", "tokens": 1889, "of": 2500}
    assert prompt.info["truncated"]
    assert prompt.query_id == "q"
    assert prompt.dropped[0].reason == "did not fit: 1917 tokens with it, 1900 allowed"
    shorter = Prompting(get_task("xsum"), tokenizer=WORDS, max_length=1000).prompt([], query)
    assert shorter.tokens == 1000 - 64


def test_sound_leaves_room_for_the_longest_choice() -> None:
    r"""In characters: 100 are read, "\nvery negative" and "\nvery positive" take 14."""
    prompting = Prompting(get_task("sst5"), tokenizer=CHARS, max_length=100)
    query, demonstration = sst5("x" * 40)
    prompt = prompting.prompt([demonstration], query)
    assert prompt.tokens == 86
    assert prompt.text == f"{ASKED}{'x' * (86 - len(ASKED) - 8)}\nanswer:"
    fits, _ = sst5("x" * 32)
    assert not prompting.prompt([], fits).info["truncated"]


def test_sound_refuses_what_cannot_be_shortened() -> None:
    query, _ = sst5("a film")
    for limit in (40, 54):  # 54 hold the question and the cue, and nothing of the text
        with pytest.raises(PromptError, match=rf"query 'q' takes 60 tokens alone, above max_tokens={limit}"):
            Prompting(get_task("sst5"), tokenizer=CHARS, max_tokens=limit).prompt([], query)
    assert Prompting(get_task("sst5"), tokenizer=CHARS, max_tokens=55).prompt([], query).text == f"{ASKED}a\nanswer:"
    whole = replace(get_task("sst5"), shorten=None)
    with pytest.raises(PromptError, match="shorten the query"):
        Prompting(whole, tokenizer=CHARS, max_tokens=59).prompt([], query)
    with pytest.raises(PromptError, match=r"the answer to 'q' may take 14 tokens, and the model reads and writes 14"):
        Prompting(get_task("sst5"), tokenizer=CHARS, max_length=14).prompt([], query)


TEXTS = st.lists(
    st.sampled_from(["equivalent", " the", "\n", "\n\n\n", "answer:", " ñ", "🦓", "a", " sentence?", "  "]), max_size=30
).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4), asked=TEXTS, room=st.integers(30, 160))
def test_sound_prompts_fit_the_model_whole(tiny: HuggingFaceTokenizer, texts: list[str], asked: str, room: int) -> None:
    """Read by the engine's own rule, nothing is cut; a shortened query is the longest one that fits."""
    task = get_task("sst5")
    query, _ = sst5(asked)
    demonstrations = [sst5(text, id_=str(i))[1] for i, text in enumerate(texts)]
    prompting = Prompting(task, tokenizer=tiny, max_length=room)
    limit = room - max(tiny.count("\n" + choice) for choice in task.choices or ())
    first = next((kept for kept in range(1, 9) if tiny.cut(asked, kept)), 0)  # a character may take several tokens
    if tiny.count(task.template.text([], sst5(tiny.cut(asked, first))[0])) > limit:
        with pytest.raises(PromptError):
            prompting.prompt(demonstrations, query)
        return
    prompt = prompting.prompt(demonstrations, query)
    assert prompt.tokens == tiny.count(prompt.text) <= limit
    assert prompt.text.endswith("\nanswer:")
    item = encode_item(
        lambda text: list(tiny._tokenizer(text)["input_ids"]),
        prompt.text,
        ["\n" + choice for choice in task.choices or ()],
        max_length=room,
    )
    assert not item.truncated
    shortened = cast("Mapping[str, Any] | None", prompt.info["shortened"])
    assert (shortened is None) == (tiny.count(task.template.text([], query)) <= limit)
    if shortened is not None:
        fitting = [
            kept for kept in range(shortened["of"] + 1)
            if tiny.count(task.template.text([], sst5(tiny.cut(asked, kept))[0])) <= limit
        ]  # fmt: skip
        assert shortened["tokens"] == max(fitting)
        assert prompt.text.endswith(f"{ASKED}{tiny.cut(asked, shortened['tokens'])}\nanswer:")


# Orders, chats, calibration ---------------------------------------------------------------------------------------


def test_demonstrations_that_queries_share_stand_first() -> None:
    demonstrations = [sst5(id_, id_=id_)[1] for id_ in "abcdef"]
    query, _ = sst5("x")
    prompting = Prompting(
        get_task("sst5"), tokenizer=CHARS, order="shared_first", frequency={"e": 3, "b": 3, "c": 9, "d": 1}
    )
    assert [one.id for one in prompting.prompt(demonstrations, query).examples] == ["c", "b", "e", "f", "d", "a"]
    with pytest.raises(ParameterError, match="Pass frequency, or take another order"):
        Prompting(get_task("sst5"), tokenizer=CHARS, order="shared_first").prompt(demonstrations, query)


@pytest.mark.parametrize("order", ["nearest_last", "shuffled"])
def test_content_free_prompts_show_the_same_demonstrations(order: str) -> None:
    demonstrations = [sst5(f"text {i}", id_=f"d{i}")[1] for i in range(4)]
    asked = "a film of some length, " * 5 + "and no more"
    query, _ = sst5(asked)
    whole = Prompting(get_task("sst5"), tokenizer=CHARS, order=order).prompt(demonstrations, query)
    prompting = Prompting(get_task("sst5"), tokenizer=CHARS, max_tokens=whole.tokens - len(asked) + 10, order=order)
    prompt = prompting.prompt(demonstrations, query)
    assert len(prompt.examples) < 4  # all would fit without the query's text
    assert len(prompting.prompt(demonstrations, sst5("N/A")[0]).examples) == 4
    begin = prompt.text.removesuffix(f"{asked}\nanswer:")
    assert [free.text for free in prompting.content_free(demonstrations, query)] == [
        begin + "N/A\nanswer:", begin + "[MASK]\nanswer:", begin + "\nanswer:",
    ]  # fmt: skip


def test_every_field_of_a_query_is_emptied(tmp_path: Path) -> None:
    expected = {
        "mrpc": "Are the following two sentences 'equivalent' or 'not equivalent'?\nN/A.\nN/A.\nanswer:",
        "mnli": 'N/A. Based on that information, is the claim N/A "True", "False", or "Inconclusive"?\nanswer:',
        "rte": "N/A.\nquestion: N/A. True or False?\nanswer:",
        "dbpedia": "title: N/A; content: N/A",
        "hellaswag": "N/A",
    }
    for name, text in expected.items():
        task = get_task(name)
        query = load_task(name, folder_with(tmp_path / name, task.folder, ROWS[name])).pool[0]
        assert Prompting(task, tokenizer=CHARS).content_free([], query)[0].text == text
        published = Prompting(task, tokenizer=CHARS, protocol="published").content_free([], query)
        assert published[0].text == "\n\n\n" + text
        assert task.premise
    xsum = load_task("xsum", folder_with(tmp_path / "xsum", "xsum", ROWS["xsum"])).pool[0]
    assert Prompting(get_task("xsum"), tokenizer=CHARS).content_free([], xsum) == ()


def test_chats_are_counted_and_shortened_as_chats() -> None:
    query, demonstration = sst5("y" * 60)
    prompt = Prompting(get_task("sst5"), tokenizer=CHARS, max_tokens=100, chat=True).prompt([demonstration], query)
    assert prompt.messages == ({"role": "user", "content": f"{ASKED}{'y' * 29}\nanswer:"},)
    assert prompt.tokens == CHARS.count_messages(prompt.messages) == 100
    assert prompt.info["chat"] is True
    with pytest.raises(ParameterError, match="'published' has no chat form"):
        Prompting(get_task("sst5"), tokenizer=CHARS, protocol="published", chat=True)


def test_unknown_protocol() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'published'"):
        Prompting(get_task("sst5"), tokenizer=CHARS, protocol="publishd")


# Reading what a model wrote ---------------------------------------------------------------------------------------


def test_published_summaries_are_cut_and_joined_by_tokens() -> None:
    """The first token never ends a summary; words of several tokens are torn apart (here every character is one)."""
    example = Example("q", "x", {"document": "d"})
    published = Prompting(get_task("xsum"), tokenizer=CHARS, protocol="published")
    assert published.read("\nAb c\nd", example) == "\n A b   c"
    assert published.read(";A;B", example) == "; A"
    words_ = Prompting(get_task("xsum"), tokenizer=WORDS, protocol="published")
    assert words_.read("A cat-nap", example) == "A cat - nap"
    assert words_.read("A # B", example) == "A"
    assert words_.read("", example) == ""


def test_published_summaries_split_words_of_a_real_tokenizer(tiny: HuggingFaceTokenizer) -> None:
    example = Example("q", "x", {"document": "d"})
    read = Prompting(get_task("xsum"), tokenizer=tiny, protocol="published").read(" the zebra\nwrite", example)
    pieces = tiny.pieces(" the zebra")
    assert len(pieces) > 3
    assert read == " ".join(pieces)
    assert Prompting(get_task("xsum"), tokenizer=tiny).read(" the zebra\nwrite", example) == "the zebra"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (" name FROM state ;", "SELECT name FROM state"),
        (" name\nFROM state\n\n-- how many", "SELECT name\nFROM state"),
        (" 1 -- one", "SELECT 1"),
        (" 1 # one; two", "SELECT 1"),
        (" ( SELECT 1 )", "SELECT ( SELECT 1 )"),
        ("", "SELECT"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_queries_are_read_up_to_their_end(text: str, query: str, protocol: str) -> None:
    prompting = Prompting(get_task("geoquery"), tokenizer=CHARS, protocol=protocol)
    assert prompting.read(text, Example("q", "x")) == query


def test_a_chat_may_repeat_the_select() -> None:
    read = [
        Prompting(get_task("geoquery"), tokenizer=CHARS, protocol=protocol).read("SELECT 1 ;", Example("q", "x"))
        for protocol in PROTOCOLS
    ]
    assert read == ["SELECT 1", "SELECTSELECT 1"]


# Real data --------------------------------------------------------------------------------------------------------

BENCHMARKS = ["dbpedia", "geoquery", "hellaswag", "mnli", "mrpc", "multiwoz", "rte", "sst5", "xsum"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_real_rows(shared: Path, tiny: HuggingFaceTokenizer, name: str) -> None:
    """Prompts each way: under "sound" none exceeds what the model reads, and what is cut is counted."""
    data = load_task(name, shared / "data")
    task, demonstrations = data.task, shown(list(data.pool)[:8])
    queries = list(data.test)[:40]
    for tokenizer in (tiny, load_tokenizer("utf8")):
        sound = Prompting(task, tokenizer=tokenizer, max_length=2048)
        prompts = [sound.prompt(demonstrations, query) for query in queries]
        rooms = [_room(task, tokenizer, query) for query in queries]
        assert all(prompt.tokens <= task.max_tokens for prompt in prompts)
        assert all(tokenizer.count(p.text) + room <= 2048 for p, room in zip(prompts, rooms, strict=True))
        assert all(prompt.info["truncated"] == (prompt.info["shortened"] is not None) for prompt in prompts)
        assert any(prompt.examples for prompt in prompts)
        published = Prompting(task, tokenizer=tokenizer, protocol="published", max_length=2048)
        for query in queries[:20]:
            prompt = published.prompt(demonstrations, query)
            assert prompt.tokens == tokenizer.count(prompt.text)
            if task.metaicl:
                assert prompt.tokens <= 1024
            assert prompt.info["truncated"] == any(cast("Mapping[str, int]", prompt.info["cut"]).values())


def _room(task: Task, tokenizer: Tokenizer, query: Example) -> int:
    choices = task.choices_of(query)
    if choices is not None:
        return max(tokenizer.count(task.prefix + choice) for choice in choices)
    assert task.decoding is not None
    return task.decoding.max_tokens


def test_real_articles_are_shortened_where_they_must(shared: Path, tiny: HuggingFaceTokenizer) -> None:
    data = load_task("xsum", shared / "data")
    prompting = Prompting(data.task, tokenizer=tiny, max_length=2048)
    for query in list(data.test)[:40]:
        prompt = prompting.prompt([], query)
        alone = tiny.count(data.task.template.text([], query))
        assert prompt.info["truncated"] == (alone > 1900)
        assert prompt.text.endswith("\nTL;DR:")
        assert prompt.tokens in range(1890, 1901) or not prompt.info["truncated"]


# From a campaign --------------------------------------------------------------------------------------------------


class Model:
    """A language model that says what it is and answers nothing."""

    name, versions, fingerprint, usage = "stub", {"model": "stub"}, "0", None
    max_length = 100

    def __init__(self, tokenizer_name: str | None = "chars", *, chat: bool = False) -> None:
        self.tokenizer_name = tokenizer_name
        self.chat = chat


def scorer(tokenizer_name: str | None = "chars", *, chat: bool = False) -> ModelScorer:
    return ModelScorer(cast("Any", Model(tokenizer_name, chat=chat)))


def test_a_campaign_says_how_prompts_are_written() -> None:
    campaign = Campaign(name="c", tasks=["sst5"], methods=["random"], budgets=[2])
    prompting = prompting_of(campaign, get_task("sst5"), scorer())
    query, _ = sst5("x" * 40)
    assert prompting.prompt([], query).tokens == 86  # as in the test of the longest choice
    assert (prompting.protocol, prompting.tokenizer.name, prompting.max_tokens) == ("sound", "chars", 1000)
    settings_ = {"tokenizer": "words", "max_tokens": 77}
    other = Campaign(
        name="c", tasks=["sst5"], methods=["random"], budgets=[2], protocol="published", prompt=cast("Any", settings_)
    )
    prompting = prompting_of(other, get_task("sst5"), scorer())
    assert (prompting.protocol, prompting.tokenizer.name, prompting.max_tokens) == ("published", "words", 77)


def test_the_tokenizer_of_a_campaign() -> None:
    campaign = Campaign(name="c", tasks=["sst5"], methods=["random"], budgets=[2])
    reader = cast("Any", SimpleNamespace(name="table", needs_prompt=True))
    assert tokenizer_of(campaign, reader).name == "utf8"
    assert tokenizer_of(campaign, scorer("words")) is tokenizer_of(campaign, scorer("words"))
    counted = tokenizer_of(campaign, scorer("words"))
    assert counted.count("a b") == 2 == len(counted.pieces("a b"))
    assert counted.fingerprint == "words"
    assert [counted.cut("a b c", 1), counted.cut("a b c", 1, "left"), counted.cut("a b c", 1)] == ["a", "c", "a"]
    with pytest.raises(ConfigError, match=r"prompt\.tokenizer: the tokenizer of stub is not known\. Name it"):
        tokenizer_of(campaign, scorer(None))


def test_chats_must_be_meant_on_both_sides() -> None:
    chat = Campaign(name="c", tasks=["sst5"], methods=["random"], budgets=[2], prompt=cast("Any", {"chat": True}))
    assert prompting_of(chat, get_task("sst5"), scorer(chat=True)).chat
    with pytest.raises(ConfigError, match="Write chat=True into the scorer"):
        prompting_of(chat, get_task("sst5"), scorer())
    plain = Campaign(name="c", tasks=["sst5"], methods=["random"], budgets=[2])
    assert prompting_of(plain, get_task("sst5"), scorer(chat=True)).chat
