"""Whole demonstrations, packed to an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from icl_select._ordering import prompt_order
from icl_select._validation import check_int
from icl_select.errors import PromptError, UnknownNameError, suggest
from icl_select.prompt.template import PromptTemplate
from icl_select.prompt.tokenizers import Tokenizer, Utf8Tokenizer
from icl_select.types import Demonstration, Dropped, Example, Prompt

__all__ = ["RULES", "pack"]

# Tokens that may be saved where byte pairs join across the borders of a demonstration: far more than ever were.
_SAVED = 16


def pack(
    template: PromptTemplate,
    demonstrations: Sequence[Demonstration],
    query: Example,
    *,
    max_tokens: int | None = None,
    tokenizer: Tokenizer | None = None,
    order: str = "nearest_last",
    seed: int = 0,
    rule: str = "exact",
    chat: bool = False,
    max_demonstration_tokens: int | None = None,
    drop_duplicates: bool | None = None,
    frequency: Mapping[str, int] | None = None,
    max_characters: int | None = None,
) -> Prompt:
    """Write the prompt for one query, with as many whole demonstrations as fit.

    Nothing is ever cut: a demonstration is in or out, and the query is always whole.

    Parameters
    ----------
    template : PromptTemplate
    demonstrations : sequence of Demonstration
        Nearest first, as retrieved.
    query : Example
    max_tokens : int, optional
        Budget of the whole prompt (leave room for the answer yourself). None sets no limit.
    tokenizer : Tokenizer, optional
        Of the target model; None counts bytes of UTF-8.
    order : {"nearest_last", "nearest_first", "shuffled", "shared_first"}, default="nearest_last"
        Order of the demonstrations that are in; see :func:`icl_select.retrieve.order`.
    seed : int, default=0
        Read by the order "shuffled" only.
    rule : {"exact", "published"}, default="exact"
        ``exact`` takes the demonstrations one by one, nearest first, and keeps each with which the *final
        rendering* still counts at most `max_tokens`; one that does not fit is passed over and the next, perhaps
        shorter, is tried. ``published`` is the rule of the Vote-k code: lengths of query (with instruction) and
        demonstrations are counted one by one and added, separators left out, and the first demonstration that
        leads above `max_tokens` ends the packing, so the final rendering may exceed the budget; ``info`` says by
        how much. That code also limits the demonstrations of classification tasks to 250 tokens: pass
        ``max_demonstration_tokens=250``.
    chat : bool, default=False
        Count the chat messages instead of the text. Both renderings are in the result.
    max_demonstration_tokens : int, optional
        Longer demonstrations, each counted alone as text, are left out.
    drop_duplicates : bool, optional
        Leave out a demonstration whose rendering equals that of a nearer one. None means yes under "exact", no
        under "published".
    frequency : mapping of str to int, optional
        In how many of the prompts that go together each demonstration stands; the order "shared_first" needs it.
    max_characters : int, optional
        Of all candidates together, and of the final rendering: a guard for who packs what strangers ask for, since
        counting tokens of text without end takes memory and time without end. Above it the packing fails.

    Returns
    -------
    Prompt
        ``tokens`` is the exact count of the final rendering, whatever the rule. ``dropped`` lists what was left
        out, nearest first, each reason beginning "duplicate", "too long" or "did not fit".

    Raises
    ------
    PromptError
        If the query alone exceeds `max_tokens`, or there is more text than `max_characters`.
    TemplateError
        If the query or a demonstration lacks a field of the template.
    UnknownNameError
        If the rule or the order is not known.
    ParameterError
        If the order "shared_first" gets no `frequency`, or a number is out of range.

    Notes
    -----
    Under "exact" the whole prompt is counted once where everything fits, else once for each demonstration tried;
    in a text, one that alone counts over 16 tokens more than are left is passed over without that. Deterministic.

    Examples
    --------
    >>> shown = [Demonstration(str(i), "yes", 0.9, {"text": "word " * 10}) for i in range(3)]
    >>> query = Example("q", "word " * 10)
    >>> template = PromptTemplate()
    >>> prompt = pack(template, shown, query, max_tokens=120, drop_duplicates=False)
    >>> len(prompt.examples), prompt.tokens, prompt.dropped[0].reason
    (1, 106, 'did not fit: 54 tokens alone, 14 left')
    """
    if rule not in RULES:
        raise UnknownNameError(f"unknown packing rule {rule!r}.{suggest(rule, RULES)}")
    packer = _Packer(
        template=template,
        query=query,
        demonstrations=tuple(demonstrations),
        tokenizer=tokenizer or Utf8Tokenizer(),
        limit=None if max_tokens is None else check_int(max_tokens, name="max_tokens", low=1),
        order=order,
        seed=seed,
        chat=chat,
        frequency=frequency,
        max_characters=max_characters,
    )
    packer.pass_over(max_demonstration_tokens, rule == "exact" if drop_duplicates is None else drop_duplicates)
    RULES[rule](packer)
    return packer.prompt(rule)


@dataclass
class _Packer:
    """The state of one packing: ranks still in question, ranks kept, and why the others are out."""

    template: PromptTemplate
    query: Example
    demonstrations: tuple[Demonstration, ...]
    tokenizer: Tokenizer
    limit: int | None
    order: str
    seed: int
    chat: bool
    frequency: Mapping[str, int] | None
    max_characters: int | None
    rendered: list[str] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def alone(self, rank: int) -> int:
        return self.tokenizer.count(self.rendered[rank])

    def arranged(self, ranks: Sequence[int]) -> list[int]:
        ids = [self.demonstrations[rank].id for rank in ranks]
        order = prompt_order(ids, self.order, query_id=self.query.id, seed=self.seed, frequency=self.frequency)
        return [ranks[pos] for pos in order]

    def tokens(self, ranks: Sequence[int]) -> int:
        """Count the prompt that shows these ranks."""
        arranged = self.arranged(ranks)
        if self.chat:
            return self.tokenizer.count_messages(self.messages(arranged))
        return self.tokenizer.count(self.text(arranged))

    def text(self, arranged: Sequence[int]) -> str:
        if self.template.numbers_demonstrations:
            return self.template.text([self.demonstrations[rank] for rank in arranged], self.query)
        return self.template.join([self.rendered[rank] for rank in arranged], self.query)

    def messages(self, arranged: Sequence[int]) -> tuple[Mapping[str, str], ...]:
        return self.template.messages([self.demonstrations[rank] for rank in arranged], self.query)

    def pass_over(self, max_demonstration_tokens: int | None, drop_duplicates: bool) -> None:
        """Leave out duplicates and what is too long by itself."""
        first: dict[str, str] = {}
        written = 0
        for rank, demonstration in enumerate(self.demonstrations):
            text = self.template.render_demonstration(demonstration)
            self.rendered.append(text)
            written += len(text) + len(self.template.separator)
            self.check_size(written)
            if drop_duplicates and text in first:
                self.reasons[rank] = f"duplicate of {first[text]!r}"
                continue
            first.setdefault(text, demonstration.id)
            if max_demonstration_tokens is not None and self.tokenizer.count(text) > max_demonstration_tokens:
                self.reasons[rank] = (
                    f"too long: {self.tokenizer.count(text)} tokens, {max_demonstration_tokens} allowed each"
                )
            else:
                self.candidates.append(rank)

    def is_hopeless(self, total: int, *ranks: int) -> bool:
        """Whether these would not fit even if every border with their neighbours saved `_SAVED` tokens.

        Spares counting a whole prompt for each of many demonstrations that cannot fit. A chat may show other text
        than the demonstration's own template, so nothing is known of it before it is counted.
        """
        if self.limit is None or self.chat:
            return False
        return total + sum(self.alone(rank) - _SAVED for rank in ranks) > self.limit

    def fit_together(self, total: int) -> bool:
        """Whether all candidates fit at once."""
        if self.limit is None or self.is_hopeless(total, *self.candidates):
            return False
        return self.tokens(self.candidates) <= self.limit

    def check_size(self, written: int) -> None:
        if self.max_characters is not None and written > self.max_characters:
            raise PromptError(
                f"the prompt would have more than {self.max_characters:,} characters, which is the limit. Ask for "
                "fewer demonstrations (k), or write less of each."
            )

    def check_query(self, tokens: int) -> None:
        if self.limit is not None and tokens > self.limit:
            raise PromptError(
                f"query {self.query.id!r} takes {tokens} tokens alone, above max_tokens={self.limit} of the tokenizer "
                f"{self.tokenizer.name!r}. It is never cut: raise max_tokens, or shorten the query or instruction."
            )

    def prompt(self, rule: str) -> Prompt:
        ranks = self.arranged(self.kept)
        shown = tuple(self.demonstrations[rank] for rank in ranks)
        text = self.text(ranks)
        self.check_size(len(text))
        messages = self.messages(ranks)
        tokens = self.tokenizer.count_messages(messages) if self.chat else self.tokenizer.count(text)
        info: dict[str, object] = {
            "rule": rule,
            "order": self.order,
            "max_tokens": self.limit,
            "tokenizer": self.tokenizer.name,
            "template": self.template.fingerprint,
            "chat": self.chat,
            "over_budget": 0 if self.limit is None else max(0, tokens - self.limit),
        }
        if self.order == "shuffled":
            info["seed"] = self.seed
        return Prompt(
            query_id=self.query.id,
            text=text,
            messages=messages,
            examples=shown,
            ranks=tuple(ranks),
            tokens=tokens,
            dropped=tuple(Dropped(self.demonstrations[rank].id, self.reasons[rank]) for rank in sorted(self.reasons)),
            info=info,
        )


def _exact(packer: _Packer) -> None:
    if packer.limit is None:
        packer.kept = packer.candidates
        return
    total = packer.tokens([])
    packer.check_query(total)
    if packer.fit_together(total):
        packer.kept = packer.candidates
        return
    for rank in packer.candidates:
        if packer.is_hopeless(total, rank):
            left = packer.limit - total
            packer.reasons[rank] = f"did not fit: {packer.alone(rank)} tokens alone, {left} left"
            continue
        tokens = packer.tokens([*packer.kept, rank])
        if tokens <= packer.limit:
            packer.kept.append(rank)
            total = tokens
        else:
            packer.reasons[rank] = f"did not fit: {tokens} tokens with it, {packer.limit} allowed"


def _published(packer: _Packer) -> None:
    template, query = packer.template, packer.query
    total = packer.tokenizer.count(template.render_instruction(query) + template.render_query(query))
    packer.check_query(total)
    for place, rank in enumerate(packer.candidates):
        own = packer.alone(rank)
        if packer.limit is not None and total + own > packer.limit:
            reason = f"did not fit: {total + own} tokens with it, {packer.limit} allowed; packing ended here"
            packer.reasons[rank] = reason
            later = "did not fit: packing ended at a nearer demonstration"
            packer.reasons.update(dict.fromkeys(packer.candidates[place + 1 :], later))
            return
        total += own
        packer.kept.append(rank)


RULES: Mapping[str, Callable[[_Packer], None]] = {"exact": _exact, "published": _published}
