"""What templates can and cannot do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_select.errors import TemplateError
from icl_select.prompt._sandbox import Sandbox


def render(source: str, **fields: Any) -> str:
    return Sandbox(source, "query")(fields)


@pytest.mark.parametrize(
    ("source", "fields", "expected"),
    [
        ("{{ a }}", {"a": "<b> & 'c'\n"}, "<b> & 'c'\n"),
        ("{{ a }}\n\n", {"a": True}, "True\n\n"),
        ("{{ a }} {{ b }}", {"a": 1.5, "b": 10**30}, "1.5 1000000000000000000000000000000"),
        ("{{ a.b[0] }}{{ c[1:] }}", {"a": {"b": ["x"]}, "c": "yz"}, "xz"),
        ("{{ a|upper|replace('X', 'y') }}", {"a": "x"}, "y"),
        ("{{ a|join(' | ') }}", {"a": ["x", 1]}, "x | 1"),
        ("{{ a|default('none') }}", {}, "none"),
        ("{% if a is defined %}x{% else %}y{% endif %}", {}, "y"),
        ("{{ 'yes' if a == 'x' and not b in c else 'no' }}", {"a": "x", "b": "q", "c": ["r"]}, "yes"),
        ("{% for k, v in a|items %}{{ k }}={{ v }}{% if not loop.last %}, {% endif %}{% endfor %}",
         {"a": {"p": 1, "q": "z"}}, "p=1, q=z"),
        ("{% for x in a if x != 'y' %}{{ loop.index }}{{ x }}{% endfor %}", {"a": ["x", "y", "z"]}, "1x2z"),
        ("{#- {{ nothing }} {% set %} -#}{{ '{{' }}{%- if a -%} {{ a - 1 }} {%- endif %}", {"a": 3}, "{{2"),
        ("{{ a }}", {"a": type("Text", (str,), {})("plain")}, "plain"),
    ],
)  # fmt: skip
def test_what_templates_may_do(source: str, fields: dict[str, Any], expected: str) -> None:
    assert render(source, **fields) == expected


@pytest.mark.parametrize(
    ("source", "fields", "problem"),
    [
        ("{{ txt }}", {"text": "x"}, "line 1 of the query template names the field 'txt'.* Did you mean 'text'"),
        ("a\n{{ a.titel }}", {"a": {"title": 1}}, "line 2 .*names the field 'a.titel'.* Did you mean 'title'"),
        ("{% if nothing %}{% endif %}", {"a": 1}, "names the field 'nothing'.* Known: a"),
        ("{{ a[5] }}", {"a": ["x"]}, "names something that the example does not have"),
        ("{{ a }}", {"a": None}, "null"),
        ("{{ a }}", {"a": ["x"]}, "writes a list"),
        ("{{ a|join }}", {"a": [["x"]]}, "neither text nor numbers"),
        ("{{ a|join }}", {"a": 3}, "wrong arguments"),
        ("{{ a|join(d=1) }}", {"a": ["x"]}, "wrong arguments"),
        ("{{ a|replace('x', 1) }}", {"a": "x"}, "not text"),
        ("{{ a|round('x') }}", {"a": 3}, "cannot convert"),
        ("{{ a }}", {"a": object()}, "field 'a' holds a object"),
    ],
)
def test_what_a_rendering_refuses(source: str, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        render(source, **fields)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% set a = 1 %}", "the statement 'set'"),
        ("{% macro f() %}{% endmacro %}", "the statement 'macro'"),
        ("{% with a = 1 %}{% endwith %}", "the statement 'with'"),
        ("{% include '/etc/passwd' %}", "the statement 'include'"),
        ("{% import 'os' as os %}", "the statement 'import'"),
        ("{% extends 'x' %}", "the statement 'extends'"),
        ("{% raw %}{% endraw %}", "the statement 'raw'"),
        ("{% %}", "the statement ''"),
        ("{% for x in a recursive %}{% endfor %}", "a recursive for"),
        ("{% for x of a %}{% endfor %}", "a for without 'in'"),
        ("{{ a ~ a }}", "the operator '~'"),
        ("{{ a + a }}", r"the operator '\+'"),
        ("{{ a * 9 }}", r"the operator '\*'"),
        ("{{ a ** 9 }}", r"the operator '\*\*'"),
        ("{{ {'a': 1} }}", "the operator '{'"),
        ("{{ [a, a] }}", "a list"),
        ("{{ (a, a) }}", "a list"),
        ("{% for x in a, a %}{% endfor %}", "a list"),
        ("{{ a.upper() }}", "a call"),
        ("{{ range(3) }}", "a call"),
        ("{{ a[0](1) }}", "a call"),
        ("{{ a = 1 }}", "an assignment"),
        ("{{ a|tojson }}", "the filter 'tojson'"),
        ("{{ a|uper }}", "Did you mean 'upper'"),
        ("x\n{{ a", "line 2 .*opens '{{' and never closes it"),
        ("{# a", "opens '{#'"),
        ("{{ 'a }}", "'\"'|\"'\""),
        ("{{ a| }}", "cannot be read"),
        ("{% if a %}", "cannot be read"),
        ("{% if a %}" * 9, "deeper than 8"),
        ("{{ not " + "not " * 300 + "a }}", "a tag of 302 words"),
        ("x" * 64_001, "64,001 characters"),
    ],
)
def test_what_is_refused_before_the_engine_sees_it(source: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        Sandbox(source, "query")


@pytest.mark.parametrize(
    ("source", "size", "problem"),
    [
        ("{% for a in x %}{% for b in x %}{% for c in x %}{{ c }}{% endfor %}{% endfor %}{% endfor %}", 1000, "steps"),
        ("{% for a in x %}{{ x }}{% endfor %}", 5000, "far more than its fields hold"),
        ("{{ x|replace('', x)|replace('', x)|replace('', x) }}", 5000, "far more than its fields hold"),
        ("{% for a in x %}{% if x|join(x) %}{% endif %}{% endfor %}", 5000, "far more than its fields hold"),
    ],
)
def test_runaway_templates_are_stopped(source: str, size: int, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        render(source, x="x" * size)


def test_a_long_field_may_be_written_whole() -> None:
    assert len(render("{{ a }}{{ a }}", a="x" * 3_000_000)) == 6_000_000
    assert len(render("{% for x in a %}{{ x }}\n{% endfor %}", a=["ab"] * 2000)) == 6000


@pytest.mark.parametrize("length", [10, 200, 1_000, 10_000, 30_000, 63_000])
@pytest.mark.parametrize(
    "body",
    ["@", "@{# remark #}", "@{{ '' }}@", "{% if true %}@{% endif %}", "{% for b in x %}@{% endfor %}", "{{ a }}@"],
)
def test_a_text_in_a_loop_is_written_up_to_a_number_of_characters(body: str, length: int) -> None:
    """The engine takes it for one step, however long it is."""
    template = Sandbox(
        "{% for a in x %}" + body.replace("@", "w" * (length // body.count("@"))) + "{% endfor %}", "query"
    )
    longest = 0
    for size in (1, 3, 10, 30, 100, 300, 1_000, 3_000):
        with contextlib.suppress(TemplateError):
            longest = max(longest, len(template({"x": "x" * size})))
    assert length // 2 <= longest <= 1_200_000


def test_a_long_text_outside_of_loops_costs_no_steps() -> None:
    long = "w" * 30_000
    source = long + "{% for a in x %}{{ a }},{% endfor %}" + long[:20_000] + "{% if x %}{{ x[0] }}{% endif %}" * 100
    assert len(render(source, x=["a"] * 1_000)) == 30_000 + 2_000 + 20_000 + 100
    assert len(render("{% for a in x %}{{ a }}" + "w" * 1_000 + "{% endfor %}", x=["a"] * 500)) == 500 * 1_001


@pytest.mark.parametrize(
    "path",
    ["a.__class__", "a.__class__.__mro__", "a.__init__.__globals__", "b.__class__", "c.__len__", "d.append", "e.pop",
     "e.keys", "self", "loop", "debug", "namespace", "super", "caller"],
)  # fmt: skip
def test_python_and_the_engine_are_out_of_reach(path: str) -> None:
    fields = {"a": "x", "b": 1, "c": [1], "d": ["x"], "e": {"k": "v"}}
    with pytest.raises(TemplateError):
        render("{{ " + path + " }}", **fields)
    assert fields == {"a": "x", "b": 1, "c": [1], "d": ["x"], "e": {"k": "v"}}


def test_a_field_may_bear_the_name_of_a_method() -> None:
    assert render("{{ a.items }}{{ a.keys }}", a={"items": "x", "keys": "y"}) == "xy"


HOSTILE = ["{{ not " + "not " * 100_000 + "a }}", "{% set a = a ~ a %}" * 40 + "{{ a }}", "{{" + "(" * 50_000]


@pytest.mark.parametrize("source", HOSTILE)
def test_templates_that_would_end_the_process(source: str, tmp_path: Any) -> None:
    """In a process of its own: the bare engine crashes on the first and fills the memory with the second."""
    (tmp_path / "hostile").write_text(source, encoding="utf-8")
    code = (
        "import pathlib, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from icl_select.prompt._sandbox import Sandbox\n"
        "from icl_select.errors import TemplateError\n"
        "try:\n"
        "    Sandbox(pathlib.Path(sys.argv[1]).read_text(encoding='utf-8'), 'query')({'a': 'x'})\n"
        "except TemplateError as exc:\n"
        "    print('refused')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "hostile")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout == "refused\n"


PIECES = st.sampled_from(
    ["{{", "}}", "{%", "%}", "{#", "#}", " a ", "b", "if ", "for x in ", "endif", "endfor", "else", "|upper", "|join",
     "(", ")", "[", "]", "'", '"', "\\", ".", ",", "0", "-", "not ", "is defined", "~", "\n", "é", "="]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=25))
def test_any_source_renders_or_raises_our_error(pieces: list[str]) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render("".join(pieces), a="x", b=["y", 1]), str)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_fields_are_written_as_they_are(text: str) -> None:
    assert render("[{{ a }}]", a=text) == f"[{text}]"


def test_one_sandbox_serves_many_threads() -> None:
    sandbox = Sandbox("{% for x in a %}{{ x }}{% endfor %}", "query")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: sandbox({"a": [str(i)] * 100}), range(200)))
    assert answers == [str(i) * 100 for i in range(200)]
