"""Field templates such as ``"{subject}\\n{body}"``: names in braces, nothing else.

No attribute access, no indexing, no format specification, no conversion: a template from a stranger can
read the fields of the example and nothing more. ``{{`` and ``}}`` are literal braces.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from icl_select.errors import TemplateError, suggest

__all__ = ["field_names", "fill"]

_FORMATTER = string.Formatter()


def _parts(template: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(_FORMATTER.parse(template))
    except ValueError as exc:
        raise TemplateError(
            f"template {template!r} cannot be read ({exc}). Write field names in braces, as in "
            "'{subject}: {body}', and '{{' for a literal brace."
        ) from exc
    parts: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in parsed:
        if name is not None and (not name or spec or conversion or any(c in name for c in ".[]")):
            raise TemplateError(
                f"template {template!r} holds a placeholder that is more than a field name. Write plain names "
                "in braces, as in '{subject}: {body}'."
            )
        parts.append((literal, name))
    return parts


def field_names(template: str) -> list[str]:
    """The fields that `template` needs, in order of appearance.

    Examples
    --------
    >>> field_names("{subject}: {body}")
    ['subject', 'body']
    """
    return [name for _, name in _parts(template) if name is not None]


def fill(template: str, fields: Mapping[str, Any]) -> str:
    """Put the fields into the template. A missing or null field raises TemplateError with the nearest name.

    Examples
    --------
    >>> fill("{subject}: {body}", {"subject": "Invoice", "body": "It is wrong."})
    'Invoice: It is wrong.'
    """
    out = []
    for literal, name in _parts(template):
        out.append(literal)
        if name is None:
            continue
        if name not in fields:
            raise TemplateError(f"template {template!r} names the field {name!r}.{suggest(name, fields)}")
        if fields[name] is None:
            raise TemplateError(f"template {template!r} names the field {name!r}, which is null here. Fill it in.")
        out.append(str(fields[name]))
    return "".join(out)
