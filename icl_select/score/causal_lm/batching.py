"""Which rows a model reads together: beginnings first, what stands on them in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select.score.causal_lm.prefixes import Shared, reused_tokens, share_prefixes
from icl_select.score.causal_lm.reading import Cache, CausalLM
from icl_select.score.causal_lm.stems import Questions, Read, Stem
from icl_select.score.causal_lm.writing import Writer

__all__ = ["Scheduler"]

# Tokens of a sequence, in the meaning of batch_size.
_LENGTH = 1024


class Scheduler:
    """Forms batches and runs them.

    Parameters
    ----------
    runner : CausalLM
    batch_size : int
        A batch holds at most this many times 1,024 tokens, those in caches and padding included.
    limit : int or None
        Positions that the model has.
    share : bool
        Whether caches are used at all.
    """

    def __init__(self, runner: CausalLM, batch_size: int, *, limit: int | None, share: bool) -> None:
        self._runner = runner
        self._budget = batch_size * _LENGTH
        self._limit = limit
        self._share = share

    def score(self, questions: Questions) -> tuple[npt.NDArray[np.float64], list[int]]:
        """Answer questions.

        Returns
        -------
        answers : ndarray of shape (questions.count,), float64
        reused : list of int
            For each item, tokens of its stem that were not computed for it.
        """
        answers = np.full(questions.count, np.nan)
        if not self._share:
            stems = questions.whole()
            for batch in self._batches([len(stem.tokens) for stem in stems]):
                self._read([stems[row].tokens for row in batch], [stems[row].reads for row in batch], None, answers)
            return answers, _per_item(questions, [0] * len(questions.stems))
        stems = questions.stems
        tree = share_prefixes(
            [stem.tokens for stem in stems], [min(read.column for read in stem.reads) for stem in stems]
        )
        for batch, length, past in self._walk(tree, [stem.tokens for stem in stems], extra=0):
            self._score_batch([stems[row] for row in batch], length, past, answers)
        return answers, _per_item(questions, reused_tokens(tree, len(stems)))

    def write(self, writers: Sequence[Writer]) -> list[int]:
        """Continue texts until none is open; returns the tokens of each prompt that were not computed for it."""
        if not writers:
            return []
        extra = max(writer.decoding.max_tokens for writer in writers)
        if not self._share:
            for batch in self._batches([len(writer.prompt) + extra for writer in writers]):
                self._write_whole([writers[row] for row in batch])
            return [0] * len(writers)
        sequences = [writer.prompt for writer in writers]
        tree = share_prefixes(sequences, [len(tokens) - 1 for tokens in sequences])
        for batch, length, past in self._walk(tree, sequences, extra=extra):
            self._write_batch([writers[row] for row in batch], length, past)
        return reused_tokens(tree, len(writers))

    def _walk(
        self, node: Shared, sequences: Sequence[tuple[int, ...]], *, extra: int, past: Cache | None = None
    ) -> Iterator[tuple[list[int], int, Cache | None]]:
        """Compute the beginnings of a tree, and yield batches of sequences with the cache that they stand on."""
        for batch in self._batches([len(sequences[row]) + extra for row in node.leaves]):
            yield [node.leaves[place] for place in batch], node.length, past
        for child in node.children:
            tokens = sequences[child.row][node.length : child.length]
            _, longer = self._runner.read([tokens], [(0, len(tokens) - 1)], past)
            yield from self._walk(child, sequences, extra=extra, past=longer)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows of similar length, longest first; the padded batch keeps to the budget, one row always goes."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if batch and (len(batch) + 1) * lengths[batch[0]] > self._budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _score_batch(
        self, stems: Sequence[Stem], length: int, past: Cache | None, answers: npt.NDArray[np.float64]
    ) -> None:
        moved = [[Read(read.column - length, read.token, read.slot) for read in stem.reads] for stem in stems]
        spread = None if past is None else past.take([0] * len(stems))
        tails = [(row, tail, reads) for row, stem in enumerate(stems) for tail, reads in stem.tails]
        cache = self._read([stem.tokens[length:] for stem in stems], moved, spread, answers)
        if cache is None:
            return
        for group in self._tail_batches(tails, cache):
            rows = [tails[place] for place in group]
            self._read(
                [tail for _, tail, _ in rows], [reads for *_, reads in rows], cache.take([r for r, *_ in rows]), answers
            )

    def _tail_batches(self, tails: Sequence[tuple[int, tuple[int, ...], Any]], cache: Cache) -> Iterator[list[int]]:
        """Tails on stems of similar length; a batch is as wide as its longest stem and its longest tail together,
        which must not exceed the positions of the model either."""
        batch: list[int] = []
        stem = tail = 0
        for place in sorted(range(len(tails)), key=lambda place: (-cache.length(tails[place][0]), tails[place][0])):
            held, own = cache.length(tails[place][0]), len(tails[place][1])
            width = max(stem, held) + max(tail, own)
            if batch and ((len(batch) + 1) * width > self._budget or (self._limit is not None and width > self._limit)):
                yield batch
                batch, stem, tail = [], 0, 0
            batch.append(place)
            stem, tail = max(stem, held), max(tail, own)
        if batch:
            yield batch

    def _read(
        self,
        rows: Sequence[Sequence[int]],
        reads: Sequence[Sequence[Read]],
        past: Cache | None,
        answers: npt.NDArray[np.float64],
    ) -> Cache | None:
        """Run rows and put the log-probabilities of `reads` in their places."""
        places: dict[tuple[int, int], int] = {}
        wanted = [
            (places.setdefault((row, read.column), len(places)), read.token, read.slot)
            for row, own in enumerate(reads)
            for read in own
        ]
        if self._share:
            logits, cache = self._runner.read(rows, list(places), past)
        else:
            logits, cache = self._runner.read_whole(rows, list(places)), None
        line, token, slot = (list(column) for column in zip(*wanted, strict=True))
        answers[slot] = self._runner.logprobs(logits)[line, token].cpu().numpy()
        return cache

    def _write_batch(self, writers: list[Writer], length: int, past: Cache | None) -> None:
        """Continue prompts of one batch token by token, dropping what is finished."""
        rows = [writer.prompt[length:] for writer in writers]
        cache = None if past is None else past.take([0] * len(rows))
        while True:
            logits, cache = self._runner.read(rows, [(row, len(ids) - 1) for row, ids in enumerate(rows)], cache)
            for writer, line in zip(writers, self._runner.logprobs(logits).cpu().numpy(), strict=True):
                writer.add(line)
            active = [row for row, writer in enumerate(writers) if writer.open]
            if not active:
                return
            cache = cache.take(active)
            writers = [writers[row] for row in active]
            rows = [(writer.ids[-1],) for writer in writers]

    def _write_whole(self, writers: list[Writer]) -> None:
        """Continue prompts without a cache: everything is read again for each token."""
        while active := [writer for writer in writers if writer.open]:
            rows = [(*writer.prompt, *writer.ids) for writer in active]
            logits = self._runner.read_whole(rows, [(row, len(ids) - 1) for row, ids in enumerate(rows)])
            for writer, line in zip(active, self._runner.logprobs(logits).cpu().numpy(), strict=True):
                writer.add(line)


def _per_item(questions: Questions, reused: list[int]) -> list[int]:
    """Reused tokens of each item: the first of those with the same stem has it computed, the others do not."""
    seen: set[int] = set()
    out = []
    for number in questions.stem_of:
        out.append(len(questions.stems[number].tokens) if number in seen else reused[number])
        seen.add(number)
    return out
