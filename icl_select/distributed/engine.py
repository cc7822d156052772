"""Where jobs run: a Ray cluster that is there, or a Ray of this machine that lasts as long as the engine."""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from icl_select._optional import require
from icl_select._progress import progress_of
from icl_select._validation import (
    check_budget,
    check_directions,
    check_embeddings,
    check_given,
    check_int,
    check_rng,
    unit_rows,
)
from icl_select.distributed._encoding import encode_on_ray
from icl_select.distributed._tasks import run_on_ray
from icl_select.embedding import Embeddings, Encoder, embed
from icl_select.errors import DataError, EmbeddingError, IclSelectError, ParameterError
from icl_select.kernels import Kernel
from icl_select.methods.max_herding import is_near, select_near
from icl_select.registry import Spec, own_parameters, resolve
from icl_select.types import FloatArray, Progress, Selection

__all__ = ["RayEngine", "check_method"]

_LOG = logging.getLogger(__name__)

# Ray reads them when it is first imported. The second is how it is told, on every system, that no other machine will
# join: then its ports listen on loopback only.
_ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def check_method(method: str | Spec, n: int, budget: int) -> tuple[Spec, Kernel]:
    """Make sure that a method runs on Ray, and return it with the kernel that it asks for.

    Parameters
    ----------
    method : str or Spec
        Name with parameters.
    n : int
        Rows of the pool.
    budget : int

    Raises
    ------
    ParameterError
        If the method has no distributed form, or would select exactly, or one of its parameters has a bad value.
    UnknownNameError
        For an unknown method or parameter.
    """
    if not isinstance(method, (str, Spec)):
        raise ParameterError(f"the method {method!r} is no name. On Ray runs 'max_herding'; pass its name.")
    spec, function = resolve(method)
    if spec.name != "max_herding":
        raise ParameterError(
            f"method {spec.name!r} does not run on Ray; 'max_herding' does, near-exact. Pass that, or select with "
            "icl_select.select (--engine local)."
        )
    defaults = {name: parameter.default for name, parameter in own_parameters(function).items()}
    chosen = {**defaults, **spec.params}
    if not is_near(n, budget, chosen["variant"], chosen["exactness"]):
        raise ParameterError(
            f"{spec} picks {budget} of {n} rows exactly, which runs on one machine only. Pass exactness='near' and "
            "variant='paper' (--exactness near), or select with icl_select.select (--engine local)."
        )
    return spec, Kernel(chosen["kernel"], chosen["bandwidth"])


class RayEngine:
    """Embeds and selects on Ray. A context manager: the connection is there inside the ``with`` block.

    Parameters
    ----------
    address : str, optional
        A cluster's head, ``"host:6379"``, or ``"auto"`` on a machine of the cluster. Left out, the Ray that this
        process is connected to already, else one that is started on this machine, whose ports listen on loopback only,
        and stopped at the end.
    workers : int, optional
        Tasks and actors at the same time at most; by default as many as there are CPUs. Not a part of what decides
        the picks.

    Raises
    ------
    MissingDependencyError
        If the extra ``ray`` is not installed.
    ParameterError
        If `workers` is below 1, or no cluster answers at `address`.

    Notes
    -----
    Every machine of the cluster needs the same version of Python, Ray and icl-select. A Ray that is started here does
    not report its use to the makers of Ray, unless ``RAY_USAGE_STATS_ENABLED`` says otherwise. A process that has
    started one cannot join a cluster later: Ray has settled on loopback.

    Examples
    --------
    >>> with RayEngine(workers=8) as engine:  # doctest: +SKIP
    ...     x = engine.embed(pool, "minilm")
    ...     picked = engine.select("max_herding(exactness='near')", x, budget=100, seed=0)
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._address = address
        self._workers = None if workers is None else check_int(workers, name="workers", low=1)
        self._ray: ModuleType | None = None
        self._started = False

    def __enter__(self) -> RayEngine:
        if self._address is None:
            for name, value in _ALONE.items():
                os.environ.setdefault(name, value)
        ray: Any = require("ray", extra="ray", purpose="the engine ray")
        if self._address is not None:
            self._join(ray, self._address)
        elif not ray.is_initialized():
            self._start(ray)
        self._ray = ray
        return self

    def __exit__(self, *_: object) -> None:
        ray, self._ray = self._ray, None
        if ray is not None and self._started:
            ray.shutdown()
            self._started = False

    def _start(self, ray: Any) -> None:
        ray.init("local", num_cpus=self._workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._started = True
        if not ray.util.get_node_ip_address().startswith("127."):
            _LOG.warning(
                "Ray was imported before the engine, so its ports listen on every network interface; "
                "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Python starts for loopback only"
            )

    def _join(self, ray: Any, address: str) -> None:
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as exc:
            raise ParameterError(
                f"no Ray cluster can be used at {address!r} ({exc}). Start one with `ray start --head`, check the "
                "address, that Python and Ray have the same versions there, and, if the cluster wants a token, "
                "RAY_AUTH_MODE=token; or leave the address out."
            ) from exc
        self._started = True

    def _open(self) -> Any:
        if self._ray is None:
            raise IclSelectError("the engine is not connected. Use it inside `with RayEngine(...) as engine:`.")
        return self._ray

    def _cpus(self) -> int:
        return max(1, int(self._open().cluster_resources().get("CPU", 1)))

    def embed(
        self,
        texts: Any,
        encoder: str | Encoder = "minilm",
        *,
        centre: bool = True,
        cache: str | Path | bool | None = None,
        progress: bool = True,
        gpus: float = 0,
    ) -> Embeddings:
        """Turn the texts of a pool into vectors, as :func:`icl_select.embed` does, with an encoder on each worker.

        Parameters
        ----------
        texts, encoder, centre, cache, progress
            As for :func:`icl_select.embed`. The cache is read and written on this machine only; batches are stored
            as they arrive, so that an interrupted run goes on from there.
        gpus : float, default=0
            GPUs of each actor, or a part of one.

        Returns
        -------
        Embeddings
            ``vectors`` of shape (n, d) float32, one row per text, in order. Texts are put into the same batches as by
            :func:`icl_select.embed`, so the vectors are the same where a batch gives the same on every machine. Other
            processors, GPUs and numbers of threads round a model's sums in another way: about 1e-7.

        Raises
        ------
        As :func:`icl_select.embed`, and IclSelectError if actors are lost for good.
        """
        actors = min(self._workers or self._cpus(), self._cpus())
        run = functools.partial(encode_on_ray, actors=actors, gpus=gpus)
        return embed(texts, encoder, centre=centre, cache=cache, progress=progress, run=run)

    def select(
        self,
        method: str | Spec,
        x: Any,
        budget: int,
        *,
        given: Iterable[int] = (),
        seed: int = 0,
        progress: bool | Progress = False,
    ) -> Selection:
        """Say which `budget` pool rows to label next: the picks of :func:`icl_select.select`, on many workers.

        Near-exact MaxHerding in two rounds: a random permutation splits the pool into parts, exact greedy in each
        part names candidates, and greedy among all candidates picks. Then medoid steps move the picks:
        :func:`icl_select.methods._near_exact.near_exact`, whose jobs become tasks here.

        Parameters
        ----------
        method : str or Spec
            ``max_herding`` with parameters that make it near-exact.
        x : path, or array-like of shape (n, d)
            A float32 .npy file that all machines see under the same path; each task maps it into memory and reads
            its rows. Or an array, which is put into the object store once and goes to every machine that works.
        budget, given, seed
            As for :func:`icl_select.select`.
        progress : bool or callable, default=False
            True shows bars; a function is called as ``progress(stage, done, total)`` after each part and each step.

        Returns
        -------
        Selection
            The same bytes as :func:`icl_select.select` with this method and seed, for any number of workers, on
            processors of one kind; ``info["engine"]`` is "ray".

        Raises
        ------
        ParameterError
            If the method does not run on Ray.
        BudgetError, GivenError, EmbeddingError
            As :func:`icl_select.select`.
        DataError
            If the file cannot be read.
        IclSelectError
            If a task is lost again and again.

        Notes
        -----
        Two-round greedy over a random partition reaches at least ``(1 - 1/e) / 2`` of the best coverage in
        expectation, if each part names `budget` candidates, gains are those on the whole pool, and the best answer
        of a single part is taken where it is better [1]_; [2]_ shows a constant fraction too, and calls such candidates
        a randomised composable core-set. Here parts name fewer candidates where they are many, candidates are
        compared on a sample of the rows, and answers of single parts are not looked at: neither bound is claimed.
        Medoid steps are taken only where they do not lower the coverage of another sample, so they cannot be promised
        to help. What to report is the coverage that was measured, ``info["coverage"]`` with its 95% interval,
        ``info["coverage_interval"]``.

        The time of the driver is that of lazy greedy among the candidates and of measuring the gains; its memory 500
        MB for the merge and 60 bytes a row. A task holds at most what a part needs, 200 MB, beyond the rows.

        References
        ----------
        .. [1] Barbosa, Ene, Nguyen and Ward, "The Power of Randomization: Distributed Submodular Maximization on
           Massive Datasets", ICML 2015.
        .. [2] Mirrokni and Zadimoghaddam, "Randomized Composable Core-sets for Distributed Submodular Maximization",
           STOC 2015.
        """
        ray = self._open()
        rows, path = (_mapped(Path(x)), Path(x)) if isinstance(x, (str, Path)) else (_in_memory(x), None)
        labelled = check_given(given, len(rows))
        budget = check_budget(budget, len(rows), len(labelled))
        spec, kernel = check_method(method, len(rows), budget)
        source = ray.put(rows) if path is None else path.resolve()
        # Twice the CPUs: no worker waits for the driver, and a cluster that can grow sees that work is queued.
        run = run_on_ray(ray, source, lambda: self._workers or 2 * self._cpus())
        with progress_of(progress) as told:
            picked = select_near(rows, budget, kernel, labelled, check_rng(seed), run=run, progress=told)
        return replace(picked, method=str(spec), seed=seed, info={**picked.info, "engine": "ray"})


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at ``host:port``: Ray itself goes on trying for many minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in address:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


def _in_memory(x: Any) -> FloatArray:
    rows = check_embeddings(x)
    if rows.dtype != np.float32:
        return unit_rows(rows)
    check_directions(rows)
    return rows


def _mapped(path: Path) -> FloatArray:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise DataError(f"cannot read {path} as a .npy file ({exc}). Write one with numpy.save.") from exc
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32:
        kind = getattr(rows, "dtype", type(rows).__name__)
        raise EmbeddingError(f"{path} holds {kind}; a file is read as it stands, so save float32 rows in it.")
    rows = check_embeddings(rows, name=str(path))
    check_directions(rows, name=str(path))
    return rows
