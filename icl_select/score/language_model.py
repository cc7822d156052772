"""A scorer out of any language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from icl_select.errors import PromptError, UnknownNameError, suggest
from icl_select.registry import Spec
from icl_select.score.protocol import LanguageModel
from icl_select.types import Decoding, FloatArray, IntArray, Prediction, Prompt, ScoreItem

__all__ = ["RULES", "ModelScorer"]


def _mean(values: FloatArray, tokens: IntArray) -> FloatArray:
    out: FloatArray = values / np.maximum(tokens, 1)
    return out


def _total(values: FloatArray, tokens: IntArray) -> FloatArray:
    return values


RULES = {"mean": _mean, "sum": _total}


class ModelScorer:
    r"""Classify by the likelihood of the label words, generate where there are none.

    Parameters
    ----------
    model : LanguageModel
    rule : {"mean", "sum"}, default="mean"
        ``mean`` is the published score, the mean log-probability of a choice's tokens (length-normalised);
        ``sum`` the log-probability of the whole choice. The largest wins; the first of equals.
    prefix : str, default="\n"
        Written between the prompt and each choice, and scored with it, as published.
    max_tokens : int, default=64
        Limit of a generation.
    stop : sequence of str, default=("\n",)
        A generation ends before the first of these.

    Notes
    -----
    ``Prediction.scores`` holds the score of every choice, so that the smallest mean negative log-likelihood over
    the choices, the published measure of how unsure a model is, is ``-max(scores.values())`` under "mean".
    """

    needs_prompt = True

    def __init__(
        self,
        model: LanguageModel,
        *,
        rule: str = "mean",
        prefix: str = "\n",
        max_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> None:
        if rule not in RULES:
            raise UnknownNameError(f"unknown scoring rule {rule!r}.{suggest(rule, RULES)}")
        self.model = model
        self.rule = rule
        self.prefix = prefix
        self.max_tokens = max_tokens
        self.stop = tuple(stop)

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def versions(self) -> Mapping[str, str]:
        """Those of the model, and everything here that changes an answer."""
        parameters = {"max_tokens": self.max_tokens, "prefix": self.prefix, "rule": self.rule, "stop": list(self.stop)}
        return {**self.model.versions, "scorer": str(Spec("model", parameters))}

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
            If an item has no prompt.
        """
        prompts = [_prompt(item) for item in items]
        choosing = [pos for pos, item in enumerate(items) if item.choices is not None]
        writing = [pos for pos, item in enumerate(items) if item.choices is None]
        answers: dict[int, Prediction] = {}
        if choosing:
            answers |= self._choose(choosing, items, prompts)
        if writing:
            decoding = Decoding(self.max_tokens, self.stop)
            written = self.model.generate([prompts[p] for p in writing], decoding)
            for pos, made in zip(writing, written, strict=True):
                info = {"tokens": made.tokens, "finished": made.finished, "prompt_tokens": prompts[pos].tokens}
                answers[pos] = Prediction(items[pos].id, made.text, {}, info)
        return [answers[pos] for pos in range(len(items))]

    def _choose(
        self, choosing: Sequence[int], items: Sequence[ScoreItem], prompts: Sequence[Prompt]
    ) -> dict[int, Prediction]:
        words = {pos: items[pos].choices or () for pos in choosing}
        found = self.model.loglik(
            [prompts[pos] for pos in choosing], [[self.prefix + word for word in words[pos]] for pos in choosing]
        )
        values = RULES[self.rule](np.asarray(found.values, dtype=np.float64), np.asarray(found.tokens))
        answers = {}
        for line, pos in enumerate(choosing):
            scores = values[line, : len(words[pos])]
            info = {
                "tokens": np.asarray(found.tokens)[line, : len(scores)].tolist(),
                "truncated": bool(len(found.truncated) and found.truncated[line]),
                "prompt_tokens": prompts[pos].tokens,
            }
            best = words[pos][int(np.argmax(scores))]
            answers[pos] = Prediction(items[pos].id, best, dict(zip(words[pos], scores.tolist(), strict=True)), info)
        return answers


def _prompt(item: ScoreItem) -> Prompt:
    if item.prompt is None:
        raise PromptError(f"item {item.id!r} has no prompt, and a language model reads nothing else. Build one.")
    return item.prompt
