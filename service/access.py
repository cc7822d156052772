"""Who may do what: API keys, their scopes, and how fast each may ask."""

from __future__ import annotations

import base64
import hmac
import threading
import time
from dataclasses import dataclass

from .errors import BusyError, UnauthorisedError
from .store import keys as keys_store
from .store.database import Database

__all__ = ["ANONYMOUS", "Access", "Principal", "RateLimiter", "key_of"]

# A revoked key stops working, and a first key closes the service, within so many seconds.
_FRESH_SECONDS = 2.0


@dataclass(frozen=True)
class Principal:
    """Who asks. Without keys everybody may do everything, on loopback."""

    id: str
    name: str
    scope: str
    per_minute: int | None = None

    def may(self, scope: str) -> bool:
        """Whether the scope of this key includes another."""
        return keys_store.SCOPES.index(self.scope) >= keys_store.SCOPES.index(scope)


ANONYMOUS = Principal("anonymous", "anonymous", "admin")


def key_of(authorization: str) -> str | None:
    """The key in an Authorization header: a bearer token, or the password of a browser's log-in."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor UTF-8
            return None
    return None


class Access:
    """The keys, read again every two seconds. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._keys: dict[str, keys_store.KeyRecord] = {}
        self._closed = False
        self._read_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether the keys need not be read again yet."""
        return time.monotonic() - self._read_at < _FRESH_SECONDS

    def refresh(self) -> None:
        """Read the keys; one thread does, others wait for it."""
        with self._lock:
            if self.is_fresh:
                return
            with self._database.read() as connection:
                self._keys = keys_store.valid(connection)
                self._closed = keys_store.any_key(connection)
            self._read_at = time.monotonic()

    @property
    def closed(self) -> bool:
        """Whether a key is needed: one was made, at any time."""
        return self._closed

    def principal(self, authorization: str | None) -> Principal:
        """Who sends this header; UnauthorisedError if nobody may.

        The comparison takes the same time whatever part of the secret is right.
        """
        if not self._closed:
            return ANONYMOUS
        key = None if authorization is None else key_of(authorization)
        parts = None if key is None else keys_store.parse(key)
        if parts is None:
            raise _refused("this service needs a key. Send it as 'Authorization: Bearer ics_…'.")
        record = self._keys.get(parts[0])
        expected = "" if record is None else record.hash
        same = hmac.compare_digest(keys_store.digest(parts[1]), expected)
        if record is None or not same:
            raise _refused("the key is not valid: it is unknown or was revoked. Ask whoever runs the service for one.")
        return Principal(record.id, record.name, record.scope, record.per_minute)


def _refused(detail: str) -> UnauthorisedError:
    # A browser asks for a password, which is the key. Bearer is not offered beside it: Chromium reads one challenge a
    # header and would ask for nothing. Programs need no challenge to send a bearer token.
    return UnauthorisedError(detail, headers={"WWW-Authenticate": 'Basic realm="icl-select", charset="UTF-8"'})


class RateLimiter:
    """A bucket of requests for each key: so many a minute, with as many in store after a quiet minute."""

    def __init__(self, default: int | None) -> None:
        self._default = default
        self._buckets: dict[str, tuple[float, float]] = {}

    def check(self, principal: Principal, client: str, moment: float | None = None) -> None:
        """Take one request out of the bucket; BusyError, with the time to wait, if it is empty."""
        rate = principal.per_minute or self._default
        if rate is None:
            return
        moment = time.monotonic() if moment is None else moment
        name = client if principal is ANONYMOUS else principal.id
        left, seen = self._buckets.get(name, (float(rate), moment))
        left = min(float(rate), left + (moment - seen) * rate / 60)
        if left < 1:
            self._buckets[name] = (left, moment)
            wait = (1 - left) * 60 / rate
            raise BusyError(
                f"this key may send {rate} requests a minute. Wait {wait:.0f} s.", retry_after=int(wait) + 1
            )
        if len(self._buckets) > 10_000:  # addresses of strangers must not fill the memory
            self._buckets.clear()
        self._buckets[name] = (left - 1, moment)
