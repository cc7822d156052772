"""Prompts as exact strings."""

from __future__ import annotations

from pathlib import Path

import pytest

from icl_select.errors import DataError, TemplateError, UnknownNameError
from icl_select.prompt import PromptTemplate
from icl_select.types import Demonstration, Example


def shown(id_: str, word: str, /, **fields: object) -> Demonstration:
    return Demonstration(id_, word, 0.5, fields)


MRPC = PromptTemplate(
    demonstration=(
        "Are the following two sentences 'equivalent' or 'not equivalent'?\n{{ s1 }}.\n{{ s2 }}.\nanswer:\n{{ label }}"
    ),
    query="Are the following two sentences 'equivalent' or 'not equivalent'?\n{{ s1 }}.\n{{ s2 }}.\nanswer:",
    separator="\n\n\n",
)


def test_the_published_format_for_classification() -> None:
    """Input, line break, output; three line breaks between; the query last. No instruction."""
    demonstrations = [
        shown("1", "equivalent", s1="He left", s2="He went away"),
        shown("2", "not equivalent", s1="It rains", s2="It snows", label=1),
    ]
    query = Example("q", "", {"s1": "A <b>", "s2": "C & d", "label": 0})
    assert MRPC.text(demonstrations, query) == (
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nHe left.\nHe went away.\nanswer:\n"
        "equivalent\n\n\n"
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nIt rains.\nIt snows.\nanswer:\n"
        "not equivalent\n\n\n"
        "Are the following two sentences 'equivalent' or 'not equivalent'?\nA <b>.\nC & d.\nanswer:"
    )


def test_no_demonstrations_leave_the_query_alone() -> None:
    assert PromptTemplate().text([], Example("q", "How?")) == "How?"
    assert PromptTemplate(instruction="Answer.").text([], Example("q", "How?")) == "Answer.\n\nHow?"


def test_sql_format_with_an_instruction_over_the_fields_of_the_query() -> None:
    template = PromptTemplate(
        "-- {{ question }}\n{{ label }}", "-- {{ question }}\nSELECT", instruction="{{ schema }}\n-- Using SQLite.\n"
    )
    query = Example("q", "", {"question": "how long is b", "schema": "CREATE TABLE t(x)"})
    demonstrations = [shown("1", "SELECT 1 ;", question="how long is a", schema="another")]
    assert template.text(demonstrations, query) == (
        "CREATE TABLE t(x)\n-- Using SQLite.\n-- how long is a\nSELECT 1 ;\n\n-- how long is b\nSELECT"
    )


def test_number_counts_places_in_the_prompt() -> None:
    template = PromptTemplate("#{{ number }} {{ text }}: {{ label }}", "#{{ number }} {{ text }}:", separator="\n")
    demonstrations = [shown("1", "x", text="a"), shown("2", "y", text="b", number="own")]
    assert template.text(demonstrations, Example("q", "c")) == "#1 a: x\n#own b: y\n#3 c:"


def test_text_is_the_embedded_text_unless_a_field_says_otherwise() -> None:
    assert PromptTemplate().text([], Example("q", "embedded", {"text": "own"})) == "own"
    assert PromptTemplate().text([], Example("q", "embedded", {"body": "own"})) == "embedded"


def test_chat_messages() -> None:
    template = PromptTemplate(
        demonstration="{{ text }} -> {{ label }}", query="{{ text }} ->", user="{{ text }}", instruction=" Be short.\n"
    )
    demonstrations = [shown("1", "x", text="a"), shown("2", "y", text="b")]
    assert template.messages(demonstrations, Example("q", "c")) == (
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "y"},
        {"role": "user", "content": "c"},
    )
    assert PromptTemplate(instruction="Text.", system="").messages([], Example("q", "c")) == (
        {"role": "user", "content": "c"},
    )
    assert PromptTemplate(query="{{ text }} ->").messages([], Example("q", "c"))[0]["content"] == "c ->"


def test_a_turn_is_a_question_and_an_answer() -> None:
    template = PromptTemplate(query="{{ number }}. {{ text }}?", assistant="{{ number }}: {{ label }}")
    assert template.render_turn(shown("1", "x", text="a"), 3) == ("3. a?", "3: x")
    assert template.render_turn(shown("1", "x", text="a")) == ("1. a?", "1: x")
    with pytest.raises(TemplateError, match="user template names the field 'label'"):
        PromptTemplate(user="{{ label }}").render_turn(shown("1", "x", text="a"))


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("{{ text }}", False),
        ("{{ number }}", True),
        ("{{ text[number] }}", True),
        ("{% if number == 1 %}first{% endif %}", True),
        ("{{ text|default(number) }}", True),
        ("{% for number in words %}{{ number }}{% endfor %}", False),
        ("{% for number in words %}{{ number }}{% endfor %}{{ number }}", True),
        ("number {{ numbers }}", False),
    ],
)
def test_a_template_says_whether_places_matter(part: str, numbers: bool) -> None:
    assert PromptTemplate(part).numbers_demonstrations is numbers
    assert PromptTemplate(assistant=part).numbers_demonstrations is numbers
    assert PromptTemplate(user=part).numbers_demonstrations is numbers
    assert PromptTemplate(query=part).numbers_demonstrations is numbers  # it is the user's part where that is left out
    assert PromptTemplate(query=part, user="x").numbers_demonstrations is False
    assert PromptTemplate(instruction=part, system=part).numbers_demonstrations is False


def test_the_query_never_sees_its_label() -> None:
    query = Example("q", "x", {"label": "the answer"}, label="the answer")
    with pytest.raises(TemplateError, match="the query template names the label"):
        PromptTemplate(query="{{ text }} {{ label }}")
    sly = PromptTemplate(query="{% for x in text if x == 'x' %}{{ x }}{% endfor %}", user="{{ text }}{{ label }}")
    with pytest.raises(TemplateError, match="'label'"):
        sly.messages([], query)
    with pytest.raises(TemplateError, match="'label'"):
        sly.messages([shown("1", "x", text="a", label=3)], query)
    assert "answer" not in PromptTemplate().text([], query)


def test_a_missing_field_names_the_nearest() -> None:
    with pytest.raises(TemplateError, match=r"demonstration template names the field 'txt'.* Did you mean 'text'"):
        PromptTemplate("{{ txt }}").text([shown("1", "x", text="a")], Example("q", "c"))


def test_fingerprint_changes_with_every_part() -> None:
    variants = [
        PromptTemplate(),
        PromptTemplate("{{ label }}"),
        PromptTemplate(query="{{ text }}:"),
        PromptTemplate(separator="\n"),
        PromptTemplate(instruction="x"),
        PromptTemplate(user="{{ text }}"),
        PromptTemplate(assistant="{{ label }}."),
        PromptTemplate(system="x"),
    ]
    assert len({template.fingerprint for template in variants}) == len(variants)
    assert PromptTemplate().fingerprint == PromptTemplate().fingerprint


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text('demonstration: "{{ text }}: {{ label }}"\nquery: "{{ text }}é:"\n', encoding="utf-8")
    assert PromptTemplate.from_file(path) == PromptTemplate("{{ text }}: {{ label }}", "{{ text }}é:")
    path.write_text("demonstraton: x\n", encoding="utf-8")
    with pytest.raises(UnknownNameError, match=r"'demonstraton'\. Did you mean 'demonstration'"):
        PromptTemplate.from_file(path)
    path.write_text("- x\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a mapping"):
        PromptTemplate.from_file(path)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        PromptTemplate.from_file(path)
    path.write_text("separator: 3\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="separator=3 is not text"):
        PromptTemplate.from_file(path)
    with pytest.raises(DataError, match=r"absent\.yaml"):
        PromptTemplate.from_file(tmp_path / "absent.yaml")


def test_from_file_warns_of_backslash_n_in_single_quotes(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("separator: '\\n'\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="separator .* holds a backslash and an n"):
        assert PromptTemplate.from_file(path).separator == "\\n"
