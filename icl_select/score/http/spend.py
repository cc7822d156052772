"""What a run may cost: an estimate before it, and a cap that holds during it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from icl_select.errors import ParameterError, SpendError

__all__ = ["Estimate", "Need", "Spend"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """Tokens that a request may take: those of its prompts, and the most that it may write."""

    prompt: int
    generated: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.generated


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take.

    Attributes
    ----------
    requests : int
    prompt_tokens : int
        Exact (before retries) if the model has a tokenizer; else the bytes of the texts, of which no byte-level
        tokenizer makes more tokens: an upper bound, for English about four times too high.
    generated_tokens : int
        The most that may be written.
    cost : float or None
        At the prices of the model; None without prices. Discounts for cached prompts are not counted.
    exact : bool
        Whether `prompt_tokens` were counted by a tokenizer.
    """

    requests: int
    prompt_tokens: int
    generated_tokens: int
    cost: float | None
    exact: bool


class Spend:
    """Money spent so far, and the cap.

    Parameters
    ----------
    price_in, price_out : float or None
        Of a million prompt tokens and of a million generated ones, in any currency. Both or neither.
    cap : float or None
        What may be spent by one model object.

    Notes
    -----
    A request reserves the most that it may cost before it is sent, so the requests in flight together cannot pass the
    cap either. Its answer replaces the reserve by what the server says it used. A request that was sent and never
    answered is counted in full: the server may charge for it.
    """

    def __init__(self, price_in: float | None, price_out: float | None, cap: float | None) -> None:
        if (price_in is None) != (price_out is None):
            raise ParameterError("price_in and price_out go together. Give both, per million tokens, or neither.")
        for name, value in (("price_in", price_in), ("price_out", price_out), ("max_spend", cap)):
            if value is not None and not 0 <= value < float("inf"):
                raise ParameterError(f"{name}={value} is no amount of money. Pass a number of at least 0.")
        if cap is not None and price_in is None:
            raise ParameterError(
                f"max_spend={cap} needs the prices to count with. Give price_in and price_out, per million tokens."
            )
        self._price_in, self._price_out = price_in, price_out
        self._cap = cap
        self._lock = threading.Lock()
        self._spent = 0.0
        self._reserved = 0.0

    @property
    def spent(self) -> float:
        """What the answers so far cost; 0 without prices."""
        return self._spent

    def cost(self, need: Need) -> float | None:
        """The price of so many tokens; None without prices."""
        if self._price_in is None or self._price_out is None:
            return None
        return (need.prompt * self._price_in + need.generated * self._price_out) / _MILLION

    def reserve(self, need: Need) -> float:
        """Set aside the most that a request may cost.

        Raises
        ------
        SpendError
            If it might pass the cap.
        """
        most = self.cost(need) or 0.0
        with self._lock:
            if self._cap is not None and self._spent + self._reserved + most > self._cap:
                raise SpendError(
                    f"the next request may cost {most:.6g}, and {self._spent:.6g} of max_spend={self._cap:g} is spent"
                    + (f" ({self._reserved:.6g} more is set aside for requests in flight)" if self._reserved else "")
                    + ". Raise max_spend and run again: answers that were kept are not paid twice."
                )
            self._reserved += most
        return most

    def settle(self, reserved: float, used: Need | None) -> float:
        """Replace a reserve by what was used: None for all of it. Returns what was charged."""
        charge = reserved if used is None else (self.cost(used) or 0.0)
        with self._lock:
            # Sums of floats drift; nothing in flight is exactly nothing.
            self._reserved = max(0.0, self._reserved - reserved)
            self._spent += charge
        return charge
