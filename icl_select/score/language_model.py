"""A scorer out of any language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from icl_select._validation import check_int
from icl_select.errors import ModelError, ParameterError, PromptError, UnknownNameError, suggest
from icl_select.registry import Spec
from icl_select.score.answers import CachedModel, content
from icl_select.score.protocol import Generation, LanguageModel, Loglik
from icl_select.score.rules import RULES
from icl_select.types import Decoding, FloatArray, IntArray, Prediction, Prompt, ScoreItem

__all__ = ["RULES", "ModelScorer"]


class ModelScorer:
    r"""Classify by the likelihood of the label words, generate where there are none.

    Parameters
    ----------
    model : LanguageModel
    rule : {"mean", "sum", "contextual", "pmi"}, default="mean"
        How log-probabilities become scores, see :mod:`icl_select.score.rules`. ``mean`` is the published rule, the
        mean log-probability of a choice's tokens (length-normalised); ``sum`` the log-probability of the whole
        choice; ``contextual`` and ``pmi`` are calibrated by prompts without the query. The largest score wins; the
        first of equals.
    max_tokens : int, default=64
        Limit of a generation, for items that do not say how they are decoded.
    stop : sequence of str, default=("\n",)
        A generation ends before the first of these, for the same items.

    Attributes
    ----------
    reads : frozenset of str
        Extra fields of a :class:`ScoreItem` that the rule needs: "content_free", "premise".

    Raises
    ------
    UnknownNameError, ParameterError
        For an unknown rule; for a rule that needs log-probabilities with a model that only chooses.

    Notes
    -----
    A choice is asked as ``item.prefix + choice``, and both are scored. All requests of a call go to the model at
    once, equal ones as one; those of a calibrated rule among them, so that an engine with a prefix cache reads the
    demonstrations once.

    A model with ``scores_choices = False`` (a chat server without log-probabilities) is asked for
    ``choose(prompts, choices)``, one :class:`Generation` whose text is one of the choices; scores then stay empty.
    A text that is none of them (a refusal, a cut answer) is the prediction as it stands: wrong, never mapped to a
    choice, and marked by ``outside`` in its info.

    ``Prediction.info`` holds ``tokens`` (of each choice; of the generated text), ``prompt_tokens``, ``truncated``,
    ``finished`` (generations), and what :func:`icl_select.score.uncertainty` reads: ``mean_logprob``, the mean
    log-probability of a token, of the likeliest choice by that measure, or of the generated text; and
    ``probability_sum``, the sum of the probabilities of the generated tokens. Both are None where the model gives no
    log-probabilities.

    Examples
    --------
    >>> from icl_select.score.fake_model import TableModel
    >>> model = TableModel({"2 + 2 =": {"\n4": -0.2, "\n5": -2.5}})
    >>> item = ScoreItem("q", (), ("4", "5"), Prompt("q", "2 + 2 =", (), (), (), 7))
    >>> answer = ModelScorer(model).score([item])[0]
    >>> answer.output, dict(answer.scores)
    ('4', {'4': -0.1, '5': -1.25})
    """

    needs_prompt = True

    def __init__(
        self,
        model: LanguageModel,
        *,
        rule: str = "mean",
        max_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> None:
        if rule not in RULES:
            raise UnknownNameError(f"unknown scoring rule {rule!r}.{suggest(rule, RULES)}")
        if not getattr(model, "scores_choices", True) and rule != "mean":
            raise ParameterError(
                f"rule={rule!r} needs the log-probability of every choice, and {model.name} only names the choice it "
                "takes. Leave the rule out, or use a model that gives log-probabilities."
            )
        self.model = model
        self.rule = rule
        self.reads = RULES[rule].reads
        self.max_tokens = check_int(max_tokens, name="max_tokens", low=1)
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def versions(self) -> Mapping[str, str]:
        """Those of the model, and everything here that changes an answer. Loads no weights."""
        parameters = {"max_tokens": self.max_tokens, "rule": self.rule, "stop": list(self.stop)}
        return {**self.model.versions, "scorer": str(Spec("model", parameters))}

    def cached(self, folder: Path | None = None, *, progress: bool = False) -> ModelScorer:
        """The same scorer with every answer of the model kept in `folder`; see :class:`CachedModel`."""
        model = CachedModel(self.model, folder, progress=progress)
        return ModelScorer(model, rule=self.rule, max_tokens=self.max_tokens, stop=self.stop)

    def score(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Return one prediction for each item, in their order.

        Parameters
        ----------
        items : sequence of ScoreItem

        Returns
        -------
        list of Prediction, of the length of `items`

        Raises
        ------
        PromptError
            If an item has no prompt, no choices to choose from, or lacks what the rule reads.
        ModelError
            If the model returns something that is no log-probability.
        """
        for item in items:
            self._check(item)
        choosing = [pos for pos, item in enumerate(items) if item.choices is not None]
        answers: dict[int, Prediction] = {}
        if choosing:
            ask = self._rank if getattr(self.model, "scores_choices", True) else self._choose
            answers |= zip(choosing, ask([items[pos] for pos in choosing]), strict=True)
        for decoding, places in self._by_decoding(items).items():
            prompts, place = _distinct([_prompt(items[pos]) for pos in places], self.model.chat)
            written = self.model.generate(prompts, decoding)
            for pos, at in zip(places, place, strict=True):
                answers[pos] = _written(items[pos], written[at])
        return [answers[pos] for pos in range(len(items))]

    def _check(self, item: ScoreItem) -> None:
        _prompt(item)
        if item.choices is None:
            return
        if not item.choices:
            raise PromptError(f"item {item.id!r} has an empty list of choices. Pass None to have an answer generated.")
        if "content_free" in self.reads and not item.content_free:
            raise PromptError(
                f"rule='contextual' reads ScoreItem.content_free, and item {item.id!r} has none. Pass the item's "
                "prompt with meaningless queries in place of its own ('N/A', ''), or use another rule."
            )
        if "premise" in self.reads and item.premise is None:
            raise PromptError(
                f"rule='pmi' reads ScoreItem.premise, and item {item.id!r} has none. Pass the text that announces an "
                "answer of this domain, such as 'answer:', or use another rule."
            )

    def _by_decoding(self, items: Sequence[ScoreItem]) -> dict[Decoding, list[int]]:
        """Positions of the items to generate for, by how; in the order of their first."""
        default = Decoding(self.max_tokens, self.stop)
        groups: dict[Decoding, list[int]] = {}
        for pos, item in enumerate(items):
            if item.choices is None:
                groups.setdefault(item.decoding or default, []).append(pos)
        return groups

    def _rank(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Ask for the log-probabilities of all choices, and of what the rule compares them with, in one call."""
        requests = _Requests(self.model.chat)
        places = []
        for item in items:
            words = tuple(item.prefix + word for word in item.choices or ())
            others: tuple[Prompt, ...] = item.content_free if "content_free" in self.reads else ()
            if "premise" in self.reads:
                others = (_plain(str(item.premise)),)
            places.append((requests.add(_prompt(item), words), [requests.add(other, words) for other in others]))
        found = self.model.loglik(requests.prompts, requests.choices)
        return [self._ranked(item, found, at, others) for item, (at, others) in zip(items, places, strict=True)]

    def _ranked(self, item: ScoreItem, found: Loglik, at: int, others: Sequence[int]) -> Prediction:
        words = item.choices or ()
        tokens: IntArray = np.asarray(found.tokens)[at, : len(words)]
        table: FloatArray = np.asarray(found.values, dtype=np.float64)[[at, *others], : len(words)]
        if np.isnan(table).any() or (tokens < 1).any():
            raise ModelError(f"{self.name} gave no log-probability of a choice of item {item.id!r}. Report its engine.")
        scores = RULES[self.rule].scores(table[0], tokens, table[1:])
        info = {
            "tokens": tokens.tolist(),
            "prompt_tokens": int(found.prompt_tokens[at]),
            "truncated": bool(found.truncated[at]),
            "mean_logprob": float(np.max(table[0] / tokens)),
        }
        best = words[int(np.argmax(scores))]
        return Prediction(item.id, best, dict(zip(words, scores.tolist(), strict=True)), info)

    def _choose(self, items: Sequence[ScoreItem]) -> list[Prediction]:
        """Have a model without log-probabilities name one of the choices."""
        requests = _Requests(self.model.chat)
        places = [requests.add(_prompt(item), item.choices or ()) for item in items]
        model: Any = self.model
        chosen: list[Generation] = model.choose(requests.prompts, requests.choices)
        predictions = [_written(item, chosen[at]) for item, at in zip(items, places, strict=True)]
        return [
            replace(prediction, info={**prediction.info, "outside": prediction.output not in (item.choices or ())})
            for prediction, item in zip(predictions, items, strict=True)
        ]


@dataclass
class _Requests:
    """Distinct pairs of a prompt and its choices, in the order in which they were first added."""

    chat: bool
    prompts: list[Prompt] = field(default_factory=list)
    choices: list[tuple[str, ...]] = field(default_factory=list)
    _places: dict[tuple[Any, tuple[str, ...]], int] = field(default_factory=dict)

    def add(self, prompt: Prompt, choices: tuple[str, ...]) -> int:
        """Position of this request."""
        place = self._places.setdefault((content(prompt, self.chat), choices), len(self.prompts))
        if place == len(self.prompts):
            self.prompts.append(prompt)
            self.choices.append(choices)
        return place


def _distinct(prompts: Sequence[Prompt], chat: bool) -> tuple[list[Prompt], list[int]]:
    """The different ones among the prompts, and the position of each prompt among them."""
    requests = _Requests(chat)
    places = [requests.add(prompt, ()) for prompt in prompts]
    return requests.prompts, places


def _plain(text: str) -> Prompt:
    return Prompt("", text, ({"role": "user", "content": text},), (), (), 0)


def _written(item: ScoreItem, made: Generation) -> Prediction:
    logprobs = np.asarray(made.logprobs, dtype=np.float64)
    info = {
        "tokens": made.tokens,
        "prompt_tokens": made.prompt_tokens,
        "truncated": made.truncated,
        "finished": made.finished,
        "mean_logprob": float(logprobs.mean()) if len(logprobs) else None,
        "probability_sum": float(np.exp(logprobs).sum()) if len(logprobs) else None,
    }
    return Prediction(item.id, made.text, {}, info)


def _prompt(item: ScoreItem) -> Prompt:
    if item.prompt is None:
        raise PromptError(f"item {item.id!r} has no prompt, and a language model reads nothing else. Build one.")
    return item.prompt
