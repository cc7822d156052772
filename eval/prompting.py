"""Every prompt of a campaign: one way that is sound, and one that repeats what the published code does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from icl_select.errors import ConfigError, ParameterError, PromptError, UnknownNameError, suggest
from icl_select.prompt import Tokenizer, pack
from icl_select.score import ModelScorer, Scorer
from icl_select.types import Decoding, Demonstration, Dropped, Example, Prompt

from ._counting import tokenizer_of
from ._metaicl import assemble
from .tasks import Task

if TYPE_CHECKING:
    from .config import Campaign

__all__ = ["CONTENT_FREE", "PROTOCOLS", "Prompting", "check_chat", "prompting_of", "tokenizer_of"]

PROTOCOLS = ("sound", "published")

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What stands for a query without content (Zhao et al., "Calibrate Before Use", 2021)."""


class Prompting:
    """Writes the prompts of one task under one protocol.

    Parameters
    ----------
    task : Task
    tokenizer : Tokenizer
        Counts every limit; that of the model, which for the published figures is that of GPT-2.
    protocol : {"sound", "published"}, default="sound"
        ``sound`` shows whole demonstrations, as many as fit together with the query and the longest answer into
        what the task allows and the model reads, counted on the final text. A query that alone is too long has its
        field `task.shorten` cut from the end; its cue for the answer stays. ``published`` repeats the published
        code: demonstrations of exactly similarity 1 are skipped, lengths are added without separators, the first
        demonstration that does not fit ends the search, and tasks with `task.metaicl` are cut by
        :func:`eval._metaicl.assemble`, which may cut the cue off.
    order : str, default="nearest_last"
        Order of the demonstrations, see :func:`icl_select.retrieve.order`.
    seed : int, default=0
        Read by the order "shuffled" only.
    max_tokens : int, optional
        Limit of demonstrations plus query; None means that of the task.
    max_length : int, optional
        Tokens that the model reads and writes together. Read by "sound" only: the published code sends what it has,
        and the engine cuts it on the left.
    chat : bool, default=False
        Count and send chat messages.
    frequency : mapping of str to int, optional
        In how many prompts of the cell each demonstration was retrieved; the order "shared_first" needs it.

    Raises
    ------
    UnknownNameError
        If the protocol is not known.
    ParameterError
        If "published" is asked for as a chat: that code knows text only.

    Notes
    -----
    ``Prompt.info`` says under which protocol a prompt was written and what was cut: ``shortened`` (field, tokens
    kept, tokens it had) under "sound", ``cut`` under "published", and ``truncated`` if it was anything.
    """

    def __init__(
        self,
        task: Task,
        *,
        tokenizer: Tokenizer,
        protocol: str = "sound",
        order: str = "nearest_last",
        seed: int = 0,
        max_tokens: int | None = None,
        max_length: int | None = None,
        chat: bool = False,
        frequency: Mapping[str, int] | None = None,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise UnknownNameError(f"unknown protocol {protocol!r}.{suggest(protocol, PROTOCOLS)}")
        if chat and protocol == "published":
            raise ParameterError(
                "the protocol 'published' has no chat form: that code sends one text. Use the protocol 'sound', or a "
                "model that is not asked as a chat."
            )
        self.task = task
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.max_tokens = task.max_tokens if max_tokens is None else max_tokens
        self.max_length = max_length
        self.chat = chat
        self._order: dict[str, Any] = {"order": order, "seed": seed, "frequency": frequency}
        self._template = task.template
        self._write = self._sound if protocol == "sound" else self._published

    @property
    def decoding(self) -> Decoding | None:
        """How answers are generated; None where there are choices."""
        return self.task.decoding_of(self.protocol)

    def prompt(self, demonstrations: Sequence[Demonstration], example: Example) -> Prompt:
        """Write the prompt for one query.

        Parameters
        ----------
        demonstrations : sequence of Demonstration
            Nearest first, as retrieved.
        example : Example

        Returns
        -------
        Prompt

        Raises
        ------
        PromptError
            If the query does not fit even with one token of the field that may be cut, or no field may, or the answer
            alone takes all that the model reads ("sound" only).
        TemplateError
            If the query or a demonstration lacks a field of the template.
        """
        return self._write(demonstrations, example)

    def content_free(self, demonstrations: Sequence[Demonstration], example: Example) -> tuple[Prompt, ...]:
        """Write the prompt for one query with meaningless text in its place, for contextual calibration.

        Parameters
        ----------
        demonstrations : sequence of Demonstration
            Nearest first, as retrieved. Those that stand in the prompt for `example` are shown, in the same order.
        example : Example

        Returns
        -------
        tuple of Prompt
            One for each of :data:`CONTENT_FREE`; empty where the task has no choices.
        """
        if self.task.choices_of(example) is None:
            return ()
        prompt = self._write(demonstrations, example)
        shown = [
            shown for _, shown in sorted(zip(prompt.ranks, prompt.examples, strict=True), key=lambda pair: pair[0])
        ]
        blanked = [dict.fromkeys(self.task.blank, text) for text in CONTENT_FREE]
        return tuple(self._write(shown, replace(example, fields={**example.fields, **blank})) for blank in blanked)

    def read(self, text: str, example: Example) -> str:
        """From what a model wrote to what ``task.finish`` takes.

        Parameters
        ----------
        text : str
            Without the stop string.
        example : Example

        Returns
        -------
        str

        Notes
        -----
        Where the published code joins tokens that it decoded one by one (`task.published_text`), the text is
        tokenised again: a model that wrote a word in other pieces than its tokenizer would is not told apart.
        """
        if self.protocol == "published" and self.task.published_text is not None:
            text = self.task.published_text(self.tokenizer.pieces(text))
        return self.task.parse(text, example, self.protocol)

    # Sound ------------------------------------------------------------------------------------------------------

    def _sound(self, demonstrations: Sequence[Demonstration], example: Example) -> Prompt:
        limit = self._limit(example)
        asked, shortened = self._shortened(example, limit)
        prompt = pack(
            self._template,
            demonstrations,
            asked,
            max_tokens=limit,
            tokenizer=self.tokenizer,
            chat=self.chat,
            **self._order,
        )
        info = {"protocol": "sound", "shortened": shortened, "truncated": shortened is not None}
        return replace(prompt, info={**prompt.info, **info})

    def _limit(self, example: Example) -> int:
        """Tokens that the prompt may take."""
        if self.max_length is None:
            return self.max_tokens
        left = self.max_length - self._room(example)
        if left < 1:
            raise PromptError(
                f"the answer to {example.id!r} may take {self._room(example)} tokens, and the model reads and writes "
                f"{self.max_length} together. Use a model with a longer context."
            )
        return min(self.max_tokens, left)

    def _room(self, example: Example) -> int:
        """Tokens of the longest answer."""
        choices = self.task.choices_of(example)
        if choices is not None:
            return max(self.tokenizer.count(self.task.prefix + choice) for choice in choices)
        return 0 if self.decoding is None else self.decoding.max_tokens

    def _alone(self, example: Example) -> int:
        if self.chat:
            return self.tokenizer.count_messages(self._template.messages([], example))
        return self.tokenizer.count(self._template.text([], example))

    def _shortened(self, example: Example, limit: int) -> tuple[Example, dict[str, object] | None]:
        """The query with as much of the field `task.shorten` as fits; what was cut, if anything was.

        Tokens nearly add up, so the search starts where they would, goes away from there in steps that double until
        the border between what fits and what does not is passed, and halves what is left.
        """
        name = self.task.shorten
        alone = self._alone(example)
        if alone <= limit:
            return example, None
        if name is None:
            raise PromptError(
                f"query {example.id!r} takes {alone} tokens alone, above the {limit} that its prompt may take, and "
                f"task {self.task.name} names no field that may be cut. Name one under its key `shorten`, "
                "raise prompt.max_tokens where the model reads more, or shorten the query."
            )
        value = str(example.fields.get(name, example.text))

        def with_tokens(kept: int) -> Example:
            return replace(example, fields={**example.fields, name: self.tokenizer.cut(value, kept)})

        whole = self.tokenizer.count(value) - self.tokenizer.count("")
        low, high, step = -1, whole, 1
        probe = whole - (alone - limit)
        while high - low > 1:  # low tokens fit (or none do), high tokens do not
            if not low < probe < high:
                probe = (low + high) // 2
            if self._alone(with_tokens(probe)) <= limit:
                low, probe = probe, probe + step
            else:
                high, probe = probe, probe - step
            step *= 2
        if low < 0 or not self.tokenizer.cut(value, low):  # not without all of the field: packing says so
            return example, None
        return with_tokens(low), {"field": name, "tokens": low, "of": whole}

    # Published --------------------------------------------------------------------------------------------------

    def _published(self, demonstrations: Sequence[Demonstration], example: Example) -> Prompt:
        identical = [one for one in demonstrations if one.similarity == 1.0]
        shown = [one for one in demonstrations if one.similarity != 1.0]
        fits = self._alone(example) <= self.max_tokens
        prompt = pack(
            self._template,
            shown if fits else (),
            example,
            max_tokens=self.max_tokens if fits else None,
            tokenizer=self.tokenizer,
            rule="published",
            max_demonstration_tokens=self.task.max_demonstration_tokens,
            **self._order,
        )
        dropped = [Dropped(one.id, "similarity of exactly 1, taken for the query itself") for one in identical]
        if not fits:
            dropped += [Dropped(one.id, "did not fit: the query alone takes all") for one in shown]
        cut: dict[str, int] = {}
        if self.task.metaicl:
            choices = self.task.choices_of(example) or ()
            text, cut = assemble(self.task, self.tokenizer, prompt.examples, example, choices)
            message = {"role": "user", "content": text}
            prompt = replace(prompt, text=text, messages=(message,), tokens=self.tokenizer.count(text))
        info = {
            "protocol": "published",
            "max_tokens": self.max_tokens,
            "over_budget": max(0, prompt.tokens - self.max_tokens),
            "cut": cut,
            "truncated": any(cut.values()),
        }
        return replace(prompt, dropped=(*prompt.dropped, *dropped), info={**prompt.info, **info})


def check_chat(campaign: Campaign, scorer: Scorer) -> None:
    """Refuse a chat with a model that was loaded for texts, and one under a protocol that has none.

    Raises
    ------
    ConfigError
    """
    model = scorer.model if isinstance(scorer, ModelScorer) else None
    if model is not None and campaign.prompt.chat and not model.chat:
        raise ConfigError(
            f"prompt.chat: {scorer.name} is sent texts. Write chat=True into the scorer, or leave out prompt.chat."
        )
    if campaign.protocol == "published" and (campaign.prompt.chat if model is None else model.chat):
        raise ConfigError(
            "protocol: published has no chat form: that code sends one text. Use protocol: sound, or a model that is "
            "not asked as a chat."
        )


def prompting_of(
    campaign: Campaign, task: Task, scorer: Scorer, *, frequency: Mapping[str, int] | None = None
) -> Prompting:
    """The prompts of one task of a campaign, for its scorer.

    Parameters
    ----------
    campaign : Campaign
    task : Task
    scorer : Scorer
        One that is made of a language model says what the model reads, and whether it is asked as a chat.
    frequency : mapping of str to int, optional
        In how many prompts of the cell each demonstration was retrieved.

    Raises
    ------
    ConfigError
        If the tokenizer is not known, or the campaign asks a model as a chat that was loaded for texts.
    """
    check_chat(campaign, scorer)
    model = scorer.model if isinstance(scorer, ModelScorer) else None
    return Prompting(
        task,
        tokenizer=tokenizer_of(campaign, scorer),
        protocol=campaign.protocol,
        order=campaign.retrieval.order,
        seed=campaign.seed,
        max_tokens=campaign.prompt.max_tokens,
        max_length=None if model is None else model.max_length,
        chat=campaign.prompt.chat if model is None else model.chat,
        frequency=frequency,
    )
