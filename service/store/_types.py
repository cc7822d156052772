"""The types of the columns: what is written, or looked for, is checked alike for both databases."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ..errors import InvalidError

__all__ = ["Text", "Whole"]


class Text(sa.types.TypeDecorator[str]):
    """Text that both databases take, and that sorts by its bytes in both, whatever language the server speaks."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """PostgreSQL's order depends on the database, and an index on the version of a library, unless it is ``C``."""
        return postgresql.TEXT(collation="C") if dialect.name == "postgresql" else sa.Text()

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Refuse what PostgreSQL cannot keep, or no file can: a NUL, and half of a surrogate pair."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        try:
            encoded = value.encode()
        except UnicodeEncodeError as exc:
            raise InvalidError(
                f"{value[:80]!r} holds U+{ord(value[exc.start]):04X}, half of a surrogate pair. Repair the text."
            ) from exc
        if 0 in encoded:
            raise InvalidError(f"{value[:80]!r} holds a NUL (U+0000), which the store does not take. Leave it out.")
        return value


class Whole(sa.types.TypeDecorator[int]):
    """A whole number of 64 bits."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int | None:
        """Refuse what is larger: the databases fail at it, each in its own way."""
        if value is not None and not -(2**63) <= value < 2**63:
            raise InvalidError(f"the number {value} needs more than 64 bits, and nothing here is so large.")
        return value
