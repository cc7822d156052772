"""What decides how a prompt looks: the request's options over the pool's over the service's defaults."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from icl_select._fingerprint import fingerprint
from icl_select.errors import ModelError, UnknownNameError, suggest
from icl_select.prompt import HuggingFaceTokenizer, PromptTemplate, Tokenizer, load_tokenizer

from ..errors import InvalidError
from ..loads import Loads
from ..recent import Recent
from ..schemas import PromptOptions
from ..settings import Settings
from ..store.database import loads

__all__ = ["Options", "OptionsOf", "Tokenizers", "check_options", "options_from", "options_of"]

_KEPT_CHARACTERS = 16 * 1024 * 1024
_PLAIN = ("utf8", "chars", "words")
_NAMES = tuple(PromptOptions.model_fields)


@dataclass(frozen=True)
class Options:
    """All that a prompt depends on beside its query and the labels; ``name`` is a hash of it."""

    template: PromptTemplate
    tokenizer: str
    k: int = 8
    order: str = "nearest_last"
    max_tokens: int | None = None
    rule: str = "exact"
    max_demonstration_tokens: int | None = None
    chat: bool = False
    mmr: float | None = None
    balance: bool = False
    min_similarity: float | None = None
    seed: int = 0

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """As JSON values; :func:`options_from` reads it back."""
        return asdict(self)

    @functools.cached_property
    def name(self) -> str:
        """Hash of everything."""
        return fingerprint(self.content, length=32)

    @functools.cached_property
    def template_name(self) -> str:
        """Hash of the template."""
        return self.template.fingerprint

    @functools.cached_property
    def search(self) -> tuple[Any, ...]:
        """What retrieval depends on: queries that agree in it are searched together."""
        return (self.k, self.mmr, self.balance, self.min_similarity)


def options_from(content: Mapping[str, Any]) -> Options:
    """Read what :attr:`Options.content` wrote."""
    return Options(**{**content, "template": PromptTemplate(**content["template"])})


def options_of(request: PromptOptions, pool: Mapping[str, Any], settings: Settings) -> Options:
    """Put options together; what the request leaves out is the pool's, and what that leaves out the default.

    Raises
    ------
    InvalidError, ParameterError, TemplateError, UnknownNameError
        If an option is above its limit, or cannot be.
    """
    given = {**pool, **request.model_dump(exclude_none=True, include=set(_NAMES))}
    parts = given.pop("template", None)
    tokenizer = given.pop("tokenizer", "utf8")
    template = PromptTemplate(**{**asdict(PromptTemplate()), **(parts or {})})
    options = Options(template=template, tokenizer=tokenizer, **given)
    limits = settings.limits
    if options.k > limits.k:
        raise InvalidError(f"k={options.k} exceeds the {limits.k} demonstrations that a prompt may show here.")
    written = _length(template)
    if written > limits.template_chars:
        raise InvalidError(f"the template has {written:,} characters, and {limits.template_chars:,} are the limit.")
    check_tokenizer(tokenizer, settings)
    return options


def _length(template: PromptTemplate) -> int:
    return sum(len(part) for part in asdict(template).values() if part)


class OptionsOf:
    """:func:`options_of`, worked out once for requests that ask alike of pools that are set up alike."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: Recent[tuple[Any, ...], Options] = Recent(1_024, _KEPT_CHARACTERS)

    def __call__(self, request: PromptOptions, pool: str) -> Options:
        """Options of a request to a pool, whose defaults are given as JSON."""
        key = (pool, *(getattr(request, name) for name in _NAMES))
        options = self._kept.get(key)
        if options is None:
            options = options_of(request, loads(pool), self._settings)
            self._kept.put(key, options, len(pool) + _length(options.template))
        return options


def check_options(request: PromptOptions, settings: Settings) -> None:
    """Raise the error that says why these options could never be used, if so."""
    options_of(request, {}, settings)


def check_tokenizer(name: str, settings: Settings) -> None:
    """Raise UnknownNameError unless the tokenizer is offered: a request must not make the service read or fetch one."""
    if name not in _PLAIN and name not in settings.tokenizers:
        raise UnknownNameError(
            f"the tokenizer {name!r} is not offered here.{suggest(name, [*_PLAIN, *settings.tokenizers])} Whoever runs "
            "the service can offer more: icl-select serve --tokenizer NAME=ID_OR_FOLDER."
        )


class Tokenizers(Loads[Tokenizer]):
    """The tokenizers that are offered, by the names under which they are. Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self._sources = settings.tokenizers
        super().__init__(self._made, max(1, len(settings.tokenizers)))
        self._plain = {name: load_tokenizer(name) for name in _PLAIN}

    def ready(self, name: str) -> Tokenizer | None:
        """The tokenizer of a name, if it can count without being loaded first."""
        return self._plain.get(name) or super().ready(name)

    def _made(self, name: str) -> Tokenizer:
        # What is answered names it as it is offered: where it lies on this machine is nobody's business.
        try:
            tokenizer = load_tokenizer(self._sources[name])
        except (ModelError, UnknownNameError) as exc:
            raise ModelError(f"the tokenizer {name!r} cannot be loaded. The service's log says why.") from exc
        if isinstance(tokenizer, HuggingFaceTokenizer):
            tokenizer.name = name
        return tokenizer
