"""What a prompt looks like: one template for a demonstration, one for the query."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select.errors import DataError, TemplateError, UnknownNameError, suggest
from icl_select.prompt._sandbox import Sandbox, compile_template
from icl_select.types import Demonstration, Example

__all__ = ["PromptTemplate"]


@dataclass(frozen=True)
class PromptTemplate:
    r"""How demonstrations and the query are written, as text and as chat messages.

    The text is ``instruction``, then the demonstrations and the query joined by `separator`. The messages are
    ``system`` with the instruction, then ``user`` and ``assistant`` for each demonstration, then ``user`` with
    the query.

    Parameters
    ----------
    demonstration : str, default="{{ text }}\n{{ label }}"
        Template of a labelled example.
    query : str, default="{{ text }}"
        Template of the query. It never sees a label.
    separator : str, default="\n\n"
        Stands between the parts, literally.
    instruction : str, default=""
        Template over the fields of the query, written first. Unless it ends with a line break, the separator
        follows it.
    user : str, optional
        Template of a user message, for demonstrations and the query alike; None means that of the query.
    assistant : str, default="{{ label }}"
        Template of the answer to a demonstration.
    system : str, optional
        Template of the system message over the fields of the query; None means the instruction. Blanks around
        it are cut; no message is made of an empty one.

    Raises
    ------
    TemplateError
        If a template cannot be read, or holds more than the allowed part of Jinja: fields, filters, comparisons,
        ``if`` and ``for``. When an example lacks a field, rendering raises it too and names the field and the
        nearest one.

    Notes
    -----
    Templates see the fields of the example; ``text``, the embedded text, if no field has that name; ``label``,
    the label word, in demonstrations only (a field of the name ``label`` is hidden: in the query it would be the
    answer); and ``number``, the place in the prompt from 1, if no field has that name.
    Templates may come from strangers: they reach neither Python nor files, and run with limited steps and output.

    Examples
    --------
    >>> template = PromptTemplate("{{ text }}\nintent: {{ label }}", "{{ text }}\nintent:")
    >>> shown = Demonstration("1", "refund", 0.9, {"text": "Money back!"})
    >>> print(template.text([shown], Example("q", "I want my money.")))
    Money back!
    intent: refund
    <BLANKLINE>
    I want my money.
    intent:
    """

    demonstration: str = "{{ text }}\n{{ label }}"
    query: str = "{{ text }}"
    separator: str = "\n\n"
    instruction: str = ""
    user: str | None = None
    assistant: str = "{{ label }}"
    system: str | None = None

    def __post_init__(self) -> None:
        for name, source in asdict(self).items():
            if source is None and name in ("user", "system"):
                continue
            if not isinstance(source, str):
                raise TemplateError(f"{name}={source!r} is not text. Write the {name} template as a string.")
            if name != "separator":
                sandbox = compile_template(source, name)
                if name in ("query", "instruction", "system") and "label" in sandbox.variables:
                    raise TemplateError(
                        f"the {name} template names the label, which the query does not have. "
                        "Use label in demonstration and assistant only."
                    )

    @classmethod
    def from_file(cls, path: str | Path) -> PromptTemplate:
        """Read the parameters from a YAML file.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        PromptTemplate

        Raises
        ------
        DataError
            If the file cannot be read, or is not a mapping of parameter names to text.
        UnknownNameError
            If it holds another key; the nearest one is suggested.
        """
        import yaml

        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise DataError(f"the template file {path} cannot be read ({exc}). Write YAML, one key a part.") from exc
        known = [field.name for field in fields(cls)]
        if not isinstance(content, Mapping):
            raise DataError(f"the template file {path} is not a mapping. Write keys such as {', '.join(known[:2])}.")
        for key, value in content.items():
            if key not in known:
                raise UnknownNameError(f"the template file {path} holds the key {key!r}.{suggest(str(key), known)}")
            if isinstance(value, str) and "\\n" in value:
                warnings.warn(
                    f"{key} in {path} holds a backslash and an n, not a line break. In YAML, \\n is a line break "
                    "only inside double quotes.",
                    UserWarning,
                    stacklevel=2,
                )
        return cls(**content)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names everything that changes a prompt."""
        return fingerprint(asdict(self))

    def render_demonstration(self, demonstration: Demonstration, number: int = 1) -> str:
        """Write one demonstration.

        Parameters
        ----------
        demonstration : Demonstration
        number : int, default=1
            Its place in the prompt, from 1.

        Returns
        -------
        str

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        return compile_template(self.demonstration, "demonstration")(_shown(demonstration, number))

    def render_turn(self, demonstration: Demonstration, number: int = 1) -> tuple[str, str]:
        """Write one demonstration as a turn of a chat.

        Parameters
        ----------
        demonstration : Demonstration
        number : int, default=1
            Its place in the prompt, from 1.

        Returns
        -------
        user, assistant : str
            Contents of the two messages.

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        seen = _shown(demonstration, number)
        question = {key: value for key, value in seen.items() if key != "label"}
        return self._user()(question), compile_template(self.assistant, "assistant")(seen)

    def _user(self) -> Sandbox:
        return compile_template(self.query if self.user is None else self.user, "user")

    @functools.cached_property
    def numbers_demonstrations(self) -> bool:
        """Whether a demonstration is written otherwise at another place of the prompt."""
        parts = [compile_template(self.demonstration, "demonstration"), compile_template(self.assistant, "assistant")]
        return any("number" in part.variables for part in (*parts, self._user()))

    def render_query(self, query: Example, number: int = 1) -> str:
        """Write the query alone.

        Parameters
        ----------
        query : Example
        number : int, default=1
            Its place in the prompt, from 1.

        Returns
        -------
        str

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        return compile_template(self.query, "query")(_asked(query, number))

    def render_instruction(self, query: Example) -> str:
        """Write what stands before the first demonstration.

        Parameters
        ----------
        query : Example

        Returns
        -------
        str
            With the separator, unless it is empty or ends with a line break.

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        if not self.instruction:
            return ""
        text = compile_template(self.instruction, "instruction")(_asked(query, 1))
        return text if not text or text.endswith("\n") else text + self.separator

    def text(self, demonstrations: Sequence[Demonstration], query: Example) -> str:
        """Write the whole prompt as text.

        Parameters
        ----------
        demonstrations : sequence of Demonstration
            In prompt order.
        query : Example

        Returns
        -------
        str

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        parts = [self.render_demonstration(shown, number) for number, shown in enumerate(demonstrations, start=1)]
        return self.join(parts, query)

    def join(self, rendered: Sequence[str], query: Example) -> str:
        """Write the whole prompt as text, of demonstrations that are written already.

        Parameters
        ----------
        rendered : sequence of str
            What :meth:`render_demonstration` wrote, in prompt order.
        query : Example

        Returns
        -------
        str

        Raises
        ------
        TemplateError
            If a template names a field that the query does not have.
        """
        asked = self.render_query(query, len(rendered) + 1)
        return self.render_instruction(query) + self.separator.join([*rendered, asked])

    def messages(self, demonstrations: Sequence[Demonstration], query: Example) -> tuple[Mapping[str, str], ...]:
        """Write the whole prompt as chat messages.

        Parameters
        ----------
        demonstrations : sequence of Demonstration
            In prompt order.
        query : Example

        Returns
        -------
        tuple of mapping
            Each with ``"role"`` and ``"content"``.

        Raises
        ------
        TemplateError
            If the template names a field that the example does not have.
        """
        system = self.instruction if self.system is None else self.system
        opening = compile_template(system, "system")(_asked(query, 1)).strip() if system else ""
        messages = [{"role": "system", "content": opening}] if opening else []
        for number, shown in enumerate(demonstrations, start=1):
            question, answer = self.render_turn(shown, number)
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        user = self._user()
        messages.append({"role": "user", "content": user(_asked(query, len(demonstrations) + 1))})
        return tuple(messages)


def _shown(demonstration: Demonstration, number: int) -> dict[str, Any]:
    return {"number": number, **demonstration.fields, "label": demonstration.label}


def _asked(query: Example, number: int) -> dict[str, Any]:
    seen = {"number": number, "text": query.text, **query.fields}
    seen.pop("label", None)
    return seen
