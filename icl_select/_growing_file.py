"""The file in which a growing selection is kept: arrays and names only, checked before anything is believed.

Rows are not in it, only what tells whether they are the same. Compiled loops do not check indices, so all are checked
here.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icl_select._files import atomic_write
from icl_select._fingerprint import fingerprint, fingerprint_array
from icl_select.errors import DataError, EmbeddingError, ParameterError
from icl_select.kernels import Kernel
from icl_select.methods._growing import Growing
from icl_select.methods._kept_pairs import KeptPairs
from icl_select.types import FloatArray

__all__ = ["kept_origin", "read_growing", "write_growing"]

_FORMAT = "icl-select/growing/1"
_DIGEST = 16
_PROBES = np.linspace(-1.0, 1.0, 257)

Arrays = dict[str, npt.NDArray[Any]]


def write_growing(path: Path, growing: Growing, origin: npt.NDArray[np.float64] | None) -> None:
    """Write the file, whole or not at all."""
    arrays: dict[str, Any] = {
        "format": np.array(_FORMAT),
        "kernel": np.array(growing.kernel.name),
        "bandwidth": np.array(growing.kernel.bandwidth),
        "dtype": np.array(growing.x.dtype.name),
        "arithmetic": np.array(_arithmetic(growing.inverse, growing.kernel)),
        "digests": _digests(growing.x),
        "covered": growing.covered,
        "labelled": growing.labelled,
    }
    if growing.pairs is not None:
        arrays |= {"starts": growing.pairs.starts, "rows": growing.pairs.rows, "bounds": growing.pairs.bounds}
    if origin is not None:
        arrays["origin"] = np.asarray(origin, dtype=np.float64)
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic_write(path, content.getvalue())


def kept_origin(path: Path) -> npt.NDArray[np.float64] | None:
    """What was subtracted from the rows that a file was written for."""
    return _read(path).get("origin")


def read_growing(
    path: Path, x: FloatArray, kernel: Kernel, pairs_a_row: int
) -> tuple[Growing, npt.NDArray[np.float64] | None]:
    """Read a file for a pool whose first rows are those that it was written for."""
    arrays = _read(path)
    name, bandwidth = str(arrays["kernel"]), float(arrays["bandwidth"])
    if (name, bandwidth) != (kernel.name, kernel.bandwidth):
        raise ParameterError(
            f"{path} was kept for kernel={name!r}, bandwidth={bandwidth}, not for kernel={kernel.name!r}, "
            f"bandwidth={kernel.bandwidth}. Use another file for each."
        )
    n = len(arrays["digests"])
    _check_rows(path, x, arrays)
    growing = Growing(x[:n].copy(), kernel, pairs_a_row=pairs_a_row)
    if _arithmetic(growing.inverse, kernel) != str(arrays["arithmetic"]):
        raise EmbeddingError(
            f"{path} was written where sums are rounded otherwise (another processor or version of numba), so picks "
            "might differ in the last bit. Start a new file here."
        )
    growing.covered = arrays["covered"]
    growing.labelled = arrays["labelled"]
    if "starts" in arrays:
        growing.pairs = KeptPairs(arrays["starts"], arrays["rows"], arrays["bounds"])
    return growing, arrays.get("origin")


def _check_rows(path: Path, x: FloatArray, arrays: Arrays) -> None:
    digests, dtype = arrays["digests"], str(arrays["dtype"])
    n = len(digests)
    if len(x) < n or x.dtype.name != dtype:
        raise EmbeddingError(
            f"{path} was kept for {n} rows of {dtype}, but there are {len(x)} of {x.dtype.name}. Pass all rows that "
            "were there, in their order, before the new ones; or start a new file."
        )
    differ = (_digests(x[:n]) != digests).any(axis=1)
    if differ.any():
        raise EmbeddingError(
            f"row {int(np.argmax(differ))} is not the one that {path} was kept for ({int(differ.sum())} of {n} "
            "differ). Pass the rows as they were, in their order, before the new ones; or start a new file."
        )


def _digests(x: FloatArray) -> npt.NDArray[np.uint8]:
    joined = b"".join(hashlib.blake2b(row.tobytes(), digest_size=_DIGEST).digest() for row in x)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(x), _DIGEST)


def _arithmetic(inverse: FloatArray, kernel: Kernel) -> str:
    """Differs where sums of products are taken in another order, or the kernel rounds differently."""
    return fingerprint(fingerprint_array(inverse), fingerprint_array(kernel(_PROBES)))


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: np.asarray(content[name]) for name in content.files}
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}. Check the path, or start a new file.") from exc
    except (ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as exc:
        raise _unreadable(path) from exc
    problem = _problem(arrays)
    if problem:
        raise _unreadable(path, problem)
    return arrays


def _unreadable(path: Path, why: str = "it is damaged, or another kind of file") -> DataError:
    return DataError(f"cannot read {path} as a kept selection: {why}. Choose another file, or remove it to start anew.")


def _problem(arrays: Arrays) -> str:
    """Say what is wrong with the content; nothing if it is sound."""
    if str(arrays.get("format")) != _FORMAT:
        return f"it does not say that it is {_FORMAT}"
    needed = {"kernel": 0, "bandwidth": 0, "dtype": 0, "arithmetic": 0, "digests": 2, "covered": 1, "labelled": 1}
    if any(name not in arrays or arrays[name].ndim != ndim for name, ndim in needed.items()):
        return "a part is missing or misshapen"
    n = len(arrays["digests"])
    typed = {
        "digests": ("u1", (n, _DIGEST)),
        "covered": ("f8", (n,)),
        "labelled": ("b1", (n,)),
        "bandwidth": ("f8", ()),
    }
    if not n or any(arrays[name].dtype != kind or arrays[name].shape != shape for name, (kind, shape) in typed.items()):
        return "a part is of another shape or type"
    covered = arrays["covered"]
    if not ((covered >= 0) & (covered <= 1)).all():
        return "coverage is outside 0 to 1"
    if "origin" in arrays and (arrays["origin"].ndim != 1 or arrays["origin"].dtype != "f8"):
        return "its origin is of another shape or type"
    present = {"starts", "rows", "bounds"} & set(arrays)
    return "" if not present else _pairs_problem(arrays, n) if len(present) == 3 else "a part is missing"


def _pairs_problem(arrays: Arrays, n: int) -> str:
    starts, rows, bounds = arrays["starts"], arrays["rows"], arrays["bounds"]
    if [starts.dtype.str, rows.dtype.str, bounds.dtype.str] != ["<i8", "<i4", "<u2"] or starts.shape != (n + 1,):
        return "its pairs are of another shape or type"
    if rows.ndim != 1 or rows.shape != bounds.shape or starts[0] != 0 or starts[-1] != len(rows):
        return "its pairs do not fit together"
    if (np.diff(starts) < 0).any() or (len(rows) and (rows.min() < 0 or rows.max() >= n)):
        return "its pairs name rows that are not there"
    return ""
