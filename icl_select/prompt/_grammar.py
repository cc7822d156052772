"""The part of Jinja that templates may use, checked before the engine sees the source.

The engine has no way to files or to Python objects, but its whole language is too much for templates that arrive
over a network: a chain of 100,000 ``not`` overflows the native stack of its parser and ends the process, and thirty
times ``{% set a = a ~ a %}`` fill the memory without spending the fuel that limits run time. What is left is
enough to write prompts and can do neither:

* ``{{ field }}``, ``{{ field.part[0] }}``, filters, ``a if b else c``, comparisons, ``and``, ``or``, ``not``,
  ``in``, ``is`` with a test, strings and numbers, ``{# comments #}``;
* ``{% if %}``, ``{% elif %}``, ``{% else %}``, ``{% for %}`` and their ends.

No assignment, macro, include, call, literal list or mapping, and no operator that builds longer strings: values
never grow, so the size of what is written is bounded by fuel and by the limit in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from icl_select.errors import TemplateError, suggest

__all__ = ["FILTERS", "check_source", "longest_in_loops"]

# fmt: off
FILTERS = frozenset([
    "abs", "capitalize", "count", "d", "default", "first", "float", "int", "items", "join", "last", "length",
    "lower", "replace", "round", "string", "title", "trim", "upper",
])
# fmt: on
_STATEMENTS = frozenset(["if", "elif", "else", "endif", "for", "endfor"])
_KEYWORDS = frozenset(["and", "or", "not", "in", "is", "if", "else"])
_MAX_SOURCE = 64_000
_MAX_TOKENS = 200
_MAX_DEPTH = 8

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[^\W\d]\w*)
    |(?P<operator>==|!=|<=|>=|//|\*\*|.)""",
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = frozenset(["==", "!=", "<", "<=", ">", ">=", "-", ".", "|", "(", ")", "[", "]", ",", ":", "="])


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True)
class _Tag:
    line: int
    mark: str
    tokens: list[_Token]
    start: int
    end: int


def check_source(source: str, name: str) -> None:
    """Refuse what the module docstring leaves out.

    Raises
    ------
    TemplateError
        Names the template, the line and what is not allowed.
    """
    if len(source) > _MAX_SOURCE:
        raise TemplateError(
            f"the {name} template has {len(source):,} characters; templates may have {_MAX_SOURCE:,}. "
            "Put long texts into a field."
        )
    depth = 0
    for tag in _tags(source, name):
        try:
            if tag.mark == "%":
                depth += _check_statement(tag.tokens)
                if depth > _MAX_DEPTH:
                    raise _RefusalError(f"blocks nested deeper than {_MAX_DEPTH}", "Write a flatter template.")
            else:
                _check_expression(tag.tokens)
        except _RefusalError as refusal:
            raise TemplateError(f"line {tag.line} of the {name} template holds {refusal}") from None


def longest_in_loops(source: str, name: str) -> int:
    """Characters of the longest text between two tags that a loop writes again and again; 0 without loops."""
    longest = depth = end = 0
    for tag in _tags(source, name):
        if depth:
            longest = max(longest, tag.start - end)
        if tag.mark == "%" and tag.tokens:
            depth += {"for": 1, "endfor": -1}.get(tag.tokens[0].text, 0)
        end = tag.end
    return longest


class _RefusalError(Exception):
    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(f"{what}. {way_out}")


def _tags(source: str, name: str) -> Iterator[_Tag]:
    """Yield every tag, its mark being "{" or "%"; comments and text are passed over."""
    pos = 0
    while (start := re.compile(r"\{[{%#]").search(source, pos)) is not None:
        line = source.count("\n", 0, start.start()) + 1
        mark = start.group()[1]
        if mark == "#":
            end = source.find("#}", start.end())
            if end < 0:
                raise _unclosed(line, name, "{#")
            pos = end + 2
            continue
        tokens, pos = _tokens(source, start.end(), "}}" if mark == "{" else "%}")
        if pos < 0:
            raise _unclosed(line, name, start.group())
        if len(tokens) > _MAX_TOKENS:
            raise TemplateError(
                f"line {line} of the {name} template holds a tag of {len(tokens)} words; {_MAX_TOKENS} are allowed. "
                "Split it."
            )
        yield _Tag(line, mark, tokens, start.start(), pos)


def _tokens(source: str, pos: int, close: str) -> tuple[list[_Token], int]:
    """The tokens of one tag and the position after it; -1 if it is never closed."""
    tokens: list[_Token] = []
    if source[pos : pos + 1] in ("-", "+"):
        pos += 1
    while pos < len(source):
        if source.startswith(close, pos):
            return tokens, pos + 2
        if source[pos] in "-+" and source.startswith(close, pos + 1):
            return tokens, pos + 3
        match = _TOKEN.match(source, pos)
        if match is None or match.lastgroup is None:
            return tokens, -1
        if match.lastgroup != "space":
            tokens.append(_Token(match.lastgroup, match.group()))
        pos = match.end()
    return tokens, -1


def _unclosed(line: int, name: str, opening: str) -> TemplateError:
    return TemplateError(
        f"line {line} of the {name} template opens {opening!r} and never closes it. Close it, or write "
        f"{{{{ {opening!r} }}}} for the characters themselves."
    )


def _check_statement(tokens: list[_Token]) -> int:
    """Check one ``{% … %}`` and return by how much it changes the nesting."""
    word = tokens[0].text if tokens else ""
    if word not in _STATEMENTS:
        raise _RefusalError(f"the statement {word!r}", "Templates may use if, elif, else and for.")
    rest = tokens[1:]
    if word == "for":
        names = [token.text for token in rest]
        if "in" not in names:
            raise _RefusalError("a for without 'in'", "Write {% for item in field %}.")
        if rest[-1].text == "recursive":
            raise _RefusalError("a recursive for", "Write one for inside another.")
        rest = rest[names.index("in") + 1 :]
    _check_expression(rest)
    return {"if": 1, "for": 1, "endif": -1, "endfor": -1}.get(word, 0)


def _check_expression(tokens: list[_Token]) -> None:
    brackets: list[str] = []
    for pos, token in enumerate(tokens):
        before = tokens[pos - 1] if pos else None
        if token.kind == "name":
            _check_name(tokens, pos)
        elif token.kind == "operator":
            _check_operator(token.text, brackets, before, tokens[:pos])


def _check_name(tokens: list[_Token], pos: int) -> None:
    if pos and tokens[pos - 1].text == "|" and tokens[pos].text not in FILTERS:
        name = tokens[pos].text
        raise _RefusalError(f"the filter {name!r}", f"It is not one of those allowed.{suggest(name, FILTERS)}")


def _check_operator(text: str, brackets: list[str], before: _Token | None, upto: list[_Token]) -> None:
    if text not in _OPERATORS:
        raise _RefusalError(f"the operator {text!r}", "Write parts side by side, as in {{ a }} {{ b }}, to join them.")
    if text == "(":
        brackets.append("call" if _takes_arguments(upto) else "group")
        if brackets[-1] == "group" and _is_value(before):
            raise _RefusalError("a call", "Templates may use fields and filters, but call nothing.")
    elif text == "[":
        if not _is_value(before):
            raise _RefusalError("a list", "Compare with 'or', or put the list into a field.")
        brackets.append("index")
    elif text in ")]":
        if brackets:
            brackets.pop()
    elif text == "," and (not brackets or brackets[-1] != "call"):
        raise _RefusalError("a list", "Compare with 'or', or put the list into a field.")
    elif text == "=" and (not brackets or brackets[-1] != "call"):
        raise _RefusalError("an assignment", "Put the value into a field.")


def _takes_arguments(upto: list[_Token]) -> bool:
    """Whether the bracket that follows opens the arguments of a filter or a test."""
    if len(upto) < 2 or upto[-1].kind != "name":
        return False
    lead = upto[-2].text
    return lead == "|" or lead == "is" or (lead == "not" and len(upto) > 2 and upto[-3].text == "is")


def _is_value(token: _Token | None) -> bool:
    if token is None:
        return False
    return (
        token.kind in ("string", "number")
        or token.text in ")]"
        or (token.kind == "name" and token.text not in _KEYWORDS)
    )
