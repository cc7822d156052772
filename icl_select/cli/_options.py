"""Options that several commands share, and how they become pools and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from icl_select.cli._output import remark
from icl_select.errors import ParameterError

if TYPE_CHECKING:
    from icl_select.data import Pool
    from icl_select.embedding import Embeddings, Encoder

__all__ = [
    "EncoderOptions",
    "LabelFormat",
    "PoolOptions",
    "UsageError",
    "read_queries",
    "read_text",
    "report_duplicates",
    "shown_default",
]


LabelFormat = Literal["csv", "jsonl", "label-studio", "argilla", "prodigy"]


class UsageError(ParameterError):
    """Options that do not go together; exit code 2, like an unknown one."""


def shown_default(value: Any) -> str | None:
    """A default as help shows it: no Python, and nothing where nothing is the default."""
    if isinstance(value, bool):
        return "on" if value else None
    if isinstance(value, (tuple, list)):
        return ", ".join(str(item) for item in value) or None
    return None if value is None else str(value)


@Parameter(name="*")
@dataclass(frozen=True)
class PoolOptions:
    """How a pool is read."""

    text: str | None = None
    """Field that is embedded, or a template of fields such as '{subject}: {body}'. Default: the field 'text'."""
    id: str | None = None
    """Field that identifies a row. Default: 'id' where there is one, else a hash of the content."""
    label: str | None = None
    """Field that holds labels already made. Default: 'label' where there is one."""
    split: str | None = None
    """Split of a Hugging Face data set."""
    config: str | None = None
    """Configuration of a Hugging Face data set."""
    revision: str | None = None
    """Revision of a Hugging Face data set; pin it."""
    skip_empty: Annotated[bool, Parameter(negative="")] = False
    """Leave rows with an empty text out instead of stopping at the first."""

    def read(self, path: str) -> Pool:
        """Read a file, a saved folder, or a data set of the hub."""
        from icl_select.data import Pool

        given: dict[str, Any] = {key: value for key, value in asdict(self).items() if value is not None}
        return Pool.read(path, **given)


@Parameter(name="*")
@dataclass(frozen=True)
class EncoderOptions:
    """How texts become vectors."""

    encoder: Annotated[str, Parameter(name=["--encoder", "--embedder", "--embedding-model"])] = "minilm"
    """Encoder: minilm (offline), hash (lexical, no model), or a hub id or path with '@revision'."""
    centre: bool = True
    """Subtract the pool's mean vector, from queries too."""
    cache: bool = True
    """Keep embeddings on disk (ICS_CACHE_DIR)."""

    def load(self) -> Encoder:
        from icl_select.embedding import load_encoder

        return load_encoder(self.encoder)

    def embed(
        self, pool: Pool, encoder: Encoder | None = None, *, embed: Callable[..., Embeddings] | None = None
    ) -> Embeddings:
        """Embed with :func:`icl_select.embed`, or with something like it that works elsewhere."""
        from icl_select.embedding import embed as embed_here

        x = (embed or embed_here)(pool, encoder or self.load(), centre=self.centre, cache=None if self.cache else False)
        cut = int(x.truncated.sum())
        if cut:
            remark(f"{cut} of {len(pool)} texts are longer than the encoder reads; only their beginning counts.")
        return x


def report_duplicates(pool: Pool, x: Any) -> dict[str, Any]:
    """Find duplicates, say so on stderr, and return the report for the record."""
    from icl_select.data import duplicates

    report = duplicates(pool, x)
    remark(report.summary())
    return report.to_dict()


def read_text(path: Path) -> str:
    """Read a small text file, or raise DataError that says what is wrong with it."""
    from icl_select.errors import DataError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror}. Check the path.") from exc
    except UnicodeDecodeError as exc:
        raise DataError(f"{path} is not UTF-8 ({exc.reason} at byte {exc.start}). Save it as UTF-8.") from exc


def read_queries(texts: Sequence[str], path: str | None, source: PoolOptions) -> Pool:
    """Queries typed on the command line, or read from a file like the pool."""
    from icl_select.data import Pool

    if bool(texts) == (path is not None):
        raise UsageError("say what to answer: --query TEXT (again for more), or --queries FILE, and not both.")
    return source.read(path) if path is not None else Pool.from_texts(list(texts))
