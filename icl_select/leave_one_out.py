"""A pool's labels examined by themselves: each labelled row is answered by the other labelled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_select._label_report import Confusion, LabelRecall, LeaveOneOut, Suspect, Vote
from icl_select._validation import check_embeddings, check_int, is_number
from icl_select._vote_tests import n_shuffles, vote_tests
from icl_select.errors import DataError, EmbeddingError, LabelError, ParameterError
from icl_select.retrieve import Retriever
from icl_select.score import KnnScorer
from icl_select.types import Demonstration, FloatArray, IntArray, Prediction, Retrieved, ScoreItem

__all__ = ["Confusion", "LabelRecall", "LeaveOneOut", "Suspect", "Vote", "leave_one_out"]

# The default number of demonstrations of a prompt: the labels are judged as they would be used.
_REPORT_K = 8
# Rows more similar than this point in the same direction, up to rounding.
_COPY = 1.0 - 1e-6
# A clear vote: the voted label has twice the votes of all others together, from several rows.
_CLEAR_SHARE, _CLEAR_VOTERS = 2 / 3, 3
_CONFUSIONS = 20
_BLOCK = 1024


def leave_one_out(
    x: Any,
    labels: Sequence[str],
    ids: Sequence[str],
    *,
    ks: Sequence[int] = (1, 3, 5, 8, 16),
    seed: int = 0,
    alpha: float = 0.05,
    keep: int = 50,
) -> LeaveOneOut:
    """Let the other labelled rows vote for the label of each, and test whether they know it.

    The nearest `k` rows vote with their similarity (:class:`icl_select.score.KnnScorer`). They are compared, row by
    row, with always answering the most frequent label. Rows whose neighbours clearly vote for another label are
    listed: wrong labels are often among them.

    Parameters
    ----------
    x : array-like of shape (m, d)
        Vectors of the labelled rows only, ``m >= 2``, centred as for retrieval, at any scale.
    labels : sequence of str, length m
    ids : sequence of str, length m
        Distinct ids.
    ks : sequence of int, default=(1, 3, 5, 8, 16)
        How many rows vote; what exceeds the ``m - 1`` others means all of them. All ks are one Holm family.
    seed : int, default=0
        Seeds the random labels.
    alpha : float, default=0.05
        Level of the verdicts, from 0.001 to 0.5; the intervals have level ``1 - alpha``.
    keep : int, default=50
        How many suspect rows are listed at most.

    Returns
    -------
    LeaveOneOut
        The same for any order of the rows: wherever something is equal, the id decides.

    Raises
    ------
    LabelError
        If a label is None, or there are fewer than two rows.
    EmbeddingError
        If `x` does not have one row per label, or a row is zero, NaN or infinite.
    DataError
        If `ids` do not fit, or one occurs twice.
    ParameterError
        If `ks`, `seed`, `alpha` or `keep` is out of range.

    Notes
    -----
    A verdict needs two tests, like those of :func:`icl_select.stats.compare`. McNemar's exact test speaks of new rows
    like these, but takes rows for independent, which they are not where they vote for each other; and the baseline is
    the best constant answer, found with these labels. So a vote that is "better" must also be right more often than
    with shuffled labels, and one that is "worse" fall further behind than with equally likely labels. The first holds
    exactly for labels that have nothing to do with the vectors, the second for those that are equally likely besides,
    whatever copies there are (docs/statistics.md).

    The baseline counts the row itself. Without it, the majority of the *other* rows is never the row's own label
    where labels are equally frequent: that baseline would be right in 0% of two balanced labels, and any vote
    "better". For the same reason a vote of nearly all other rows leans away from the right label.

    Time O(m^2 d) for the neighbours and O(s m sum(ks)) for s sets of random labels (1,000 with five ks); memory two
    copies of `x`, O(m max(ks)), and blocks of 64 MB. With 20,000 rows of 384 dimensions 10 s of one core and 120 MB.

    Examples
    --------
    Two directions of texts; one row of the first bears the label of the second.

    >>> x = [[9, 0], [9, 1], [9, 2], [9, 3], [9, 4], [0, 9], [1, 9], [2, 9], [3, 9]]
    >>> labels = ["log in", "log in", "refund", "log in", "log in", "refund", "refund", "refund", "refund"]
    >>> report = leave_one_out(x, labels, list("abcdefghi"), ks=[3])
    >>> round(report.votes[0].accuracy, 2), report.baseline_label, round(report.baseline_accuracy, 2)
    (0.89, 'refund', 0.56)
    >>> [(suspect.id, suspect.label, suspect.voted) for suspect in report.suspects]
    [('c', 'refund', 'log in')]
    >>> report.votes[0].verdict   # nine rows are too few
    'no evidence'
    """
    vectors, words, names = _check_rows(x, labels, ids)
    others = len(names) - 1
    asked = _check_ks(ks)
    used = sorted({min(k, others) for k in asked})
    report_k = min(min(asked, key=lambda k: (abs(k - _REPORT_K), k)), others)
    check_int(keep, name="keep", low=1)
    seed = check_int(seed, name="seed", low=0)
    if not is_number(alpha) or not 0.001 <= alpha <= 0.5:
        raise ParameterError(f"alpha={alpha!r} is no level of a test. Pass a number from 0.001 to 0.5.")
    ballots = _vote(vectors, words, names, used, report_k)
    counts = Counter(words)
    baseline = min(counts, key=lambda word: (-counts[word], word))
    suspects = _suspects(ballots, words, names, report_k)
    votes = vote_tests(ballots.voted, words, baseline, ballots.nearest, ballots.similar, alpha=float(alpha), seed=seed)
    n_copies = int((ballots.similar[:, 0] >= _COPY).sum())
    return LeaveOneOut(
        n=len(names),
        baseline_label=baseline,
        baseline_accuracy=counts[baseline] / len(names),
        votes=votes,
        report_k=report_k,
        labels=_recalls(ballots.voted[report_k], words, counts),
        confusions=_confusions(ballots.voted[report_k], words),
        suspects=tuple(suspects[:keep]),
        n_suspects=len(suspects),
        n_copies=n_copies,
        alpha=float(alpha),
        seed=seed,
        n_shuffles=n_shuffles(len(used), alpha),
        notes=_notes(asked, others, counts, n_copies, votes),
    )


def _check_rows(x: Any, labels: Sequence[str], ids: Sequence[str]) -> tuple[FloatArray, list[str], list[str]]:
    """Vectors, labels and ids in the order of the ids, so that the order of the rows decides nothing."""
    words, names = list(labels), list(ids)
    if len(names) != len(words) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{len(names)} ids for {len(words)} labels. Pass one id, a string, for each labelled row.")
    for name, word in zip(names, words, strict=True):
        if not isinstance(word, str):
            raise LabelError(f"the label of {name!r} is {word!r}. Pass the labelled rows only, each label a string.")
    if len(words) < 2:
        raise LabelError(
            f"leave-one-out needs at least two labelled rows, one to answer the other, but got {len(words)}. "
            "Label more rows first."
        )
    vectors = check_embeddings(x)
    if len(vectors) != len(words):
        raise EmbeddingError(f"x has {len(vectors)} rows for {len(words)} labels. Pass the labelled rows only.")
    zero = ~vectors.any(axis=1)
    if zero.any():
        at = int(np.argmax(zero))
        raise EmbeddingError(
            f"the vector of {names[at]!r} (row {at} of x) is zero and has no direction. Leave that row out, or check "
            "the encoder (after centring, a text equal to the pool mean gives a zero row)."
        )
    order = sorted(range(len(names)), key=names.__getitem__)
    return vectors[order], [words[pos] for pos in order], [names[pos] for pos in order]


def _check_ks(ks: Sequence[int]) -> list[int]:
    asked = sorted({check_int(k, name="k", low=1) for k in ks})
    if not asked:
        raise ParameterError("ks is empty: no vote was asked for. Pass for example ks=(1, 3, 5, 8, 16).")
    return asked


@dataclass(frozen=True, slots=True, eq=False)
class _Ballots:
    """How the others voted: nearest rows and their similarity (m, k), the voted labels for every k used, and at the
    reported k the share of the voted label and how many rows voted for it."""

    nearest: IntArray
    similar: FloatArray
    voted: dict[int, list[str]]
    share: list[float]
    voters: list[int]


def _vote(x: FloatArray, words: list[str], names: list[str], ks: list[int], report_k: int) -> _Ballots:
    """Ask the neighbours block by block: what a block retrieves is dropped but for two arrays."""
    retriever = Retriever(x, names)
    width = max(*ks, report_k)
    nearest, similar = np.empty((len(names), width), dtype=np.int64), np.empty((len(names), width))
    scorers = {k: KnnScorer(k) for k in ks}
    ballots = _Ballots(nearest, similar, {k: [] for k in ks}, [], [])
    for start in range(0, len(names), _BLOCK):
        block = slice(start, start + _BLOCK)
        found = retriever.retrieve(x[block], width, query_ids=names[block])
        nearest[block], similar[block] = [hits.rows for hits in found], [hits.similarities for hits in found]
        items = [_item(name, hits, words) for name, hits in zip(names[block], found, strict=True)]
        for k, scorer in scorers.items():
            answers = scorer.score(items)
            ballots.voted[k].extend(answer.output for answer in answers)
            if k == report_k:
                ballots.share.extend(answer.scores[answer.output] for answer in answers)
                ballots.voters.extend(map(_voters, items, answers))
    return ballots


def _item(name: str, hits: Retrieved, words: list[str]) -> ScoreItem:
    shown = [
        Demonstration(id_, words[row], float(similarity))
        for id_, row, similarity in zip(hits.ids, hits.rows.tolist(), hits.similarities, strict=True)
    ]
    # Labels that no neighbour bears get no vote: left out, thousands of labels cost nothing.
    return ScoreItem(name, tuple(shown), choices=tuple(dict.fromkeys(one.label for one in shown)))


def _voters(item: ScoreItem, answer: Prediction) -> int:
    """How many rows gave weight to the label voted for."""
    cast = item.demonstrations[: answer.info["voters"]]
    return sum(one.label == answer.output and one.similarity > 0 for one in cast)


def _recalls(voted: list[str], words: list[str], counts: Counter[str]) -> tuple[LabelRecall, ...]:
    right = Counter(word for one, word in zip(voted, words, strict=True) if one == word)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(
        LabelRecall(word, counts[word], right[word] / counts[word] if counts[word] > 1 else None) for word in ordered
    )


def _confusions(voted: list[str], words: list[str]) -> tuple[Confusion, ...]:
    pairs = Counter((word, one) for one, word in zip(voted, words, strict=True) if one != word)
    ordered = sorted(pairs, key=lambda pair: (-pairs[pair], pair))
    return tuple(Confusion(*pair, pairs[pair]) for pair in ordered[:_CONFUSIONS])


def _suspects(ballots: _Ballots, words: list[str], names: list[str], report_k: int) -> list[Suspect]:
    """Rows that a copy contradicts, then rows whose neighbours clearly vote for another label."""
    found = []
    for row, word in enumerate(words):
        voted, share = ballots.voted[report_k][row], ballots.share[row]
        copy = _contradiction(row, ballots, words)
        clear = voted != word and share >= _CLEAR_SHARE and ballots.voters[row] >= _CLEAR_VOTERS
        if clear or copy is not None:
            nearest = names[ballots.nearest[row, 0]]
            near = float(ballots.similar[row, 0])
            found.append(Suspect(names[row], word, voted, share, nearest, near, None if copy is None else names[copy]))
    return sorted(found, key=lambda s: (s.copy is None, s.voted == s.label, -s.share, -s.similarity, s.id))


def _contradiction(row: int, ballots: _Ballots, words: list[str]) -> int | None:
    """The first row in the same direction with another label, unless more of these rows bear this label."""
    copies = ballots.nearest[row][ballots.similar[row] >= _COPY].tolist()
    counts = Counter(words[copy] for copy in copies)
    own = 1 + counts.pop(words[row], 0)
    if not counts or own > max(counts.values()):
        return None
    return next(int(copy) for copy in copies if words[copy] != words[row])


def _notes(
    asked: list[int], others: int, counts: Counter[str], n_copies: int, votes: tuple[Vote, ...]
) -> tuple[str, ...]:
    notes = []
    beyond = [k for k in asked if k > others]
    if beyond:
        listed = ", ".join(map(str, beyond))
        notes.append(f"k = {listed} is more than the {others} other rows, all of which vote instead")
    if len(counts) == 1:
        notes.append("all rows bear one label, so there is nothing to tell apart")
    alone = sum(count == 1 for count in counts.values())
    if alone and len(counts) > 1:
        notes.append(f"no row can vote for the labels that a single row bears ({alone:,})")
    if n_copies:
        notes.append(
            f"{n_copies:,} rows have a copy among the others, which knows more than a new text's neighbours do"
        )
    undecided = [vote.k for vote in votes if vote.verdict == "no evidence" and not vote.low <= 0 <= vote.high]
    if undecided:
        listed = ", ".join(map(str, undecided))
        notes.append(f"the interval at k = {listed} leaves out 0, but the verdict follows the adjusted p")
    return tuple(notes)
