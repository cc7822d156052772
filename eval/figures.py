"""Files of published figures: what a table says, word for word, and what its words stand for here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from icl_select import registry
from icl_select.errors import ConfigError, IclSelectError, StatisticsError, suggest
from icl_select.metrics import METRICS
from icl_select.stats import Summary, spread_of_three

from ._yaml import read_yaml

__all__ = ["Figure", "Figures", "figure_names", "find_figures", "load_figures"]

_RANGE_RUNS = 3


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Model):
    """Where the figures were read; without it a file is refused."""

    paper: str = Field(min_length=1)
    arxiv: str | None = None
    tables: str | None = None
    read: str | None = Field(None, description="Which text was read and when; null where none could be read.")


class Missing(_Model):
    """What could not be found, and why."""

    what: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class TaskName(_Model):
    """What a column of the table is here: a task (null: none of ours) and its metric."""

    task: str | None
    metric: str

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}.{suggest(metric, METRICS)}")
        return metric


class Figure(_Model):
    """One printed cell, in the words and units of the table."""

    task: str
    budget: int = Field(ge=1)
    method: str
    mean: float
    sd: float | None = Field(None, ge=0, description="Standard deviation over runs, where printed.")
    max: float | None = Field(None, description="Best run, where printed.")
    min: float | None = Field(None, description="Worst run, where printed.")
    runs: int | None = Field(None, ge=1, description="Runs; null: those of the file.")
    model: str | None = None
    embedding: str | None = None


class Figures(_Model):
    """A published table.

    Cells use the words of the paper; ``tasks``, ``methods``, ``models`` and ``embeddings`` say what these are here.
    A method that is null, and a model or embedding with an empty list, is known not to be ours.
    """

    title: str = Field(min_length=1)
    source: Source
    units: Literal["percent", "fraction"] = "percent"
    decimals: int = Field(1, ge=0, le=6, description="Printed decimals of means, maxima and minima.")
    sd_decimals: int | None = Field(None, ge=0, le=6, description="Printed decimals of standard deviations.")
    sd_divisor: Literal["n-1", "n", "unknown"] = "unknown"
    runs: int | None = Field(None, ge=1)
    baseline: str | None = Field(None, description="The table's word for random selection.")
    tasks: dict[str, TaskName] = {}
    methods: dict[str, str | None] = {}
    models: dict[str, list[str]] = {}
    embeddings: dict[str, list[str]] = {}
    model: str | None = None
    embedding: str | None = None
    notes: list[str] = []
    missing: list[Missing] = []
    cells: list[Figure] = []

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: dict[str, str | None]) -> dict[str, str | None]:
        for name in methods.values():
            if name is not None:
                try:
                    registry.resolve(name)
                except IclSelectError as exc:
                    raise ValueError(str(exc)) from exc
        return methods

    @model_validator(mode="after")
    def _complete(self) -> Figures:
        if not self.cells and not self.missing:
            raise ValueError("neither cells nor missing are given. Add the figures, or say why there are none.")
        if not self.cells:
            return self
        if self.source.read is None:
            raise ValueError("source.read is null, but there are cells. Say which text the figures were read in.")
        if self.baseline not in self.methods:
            raise ValueError(f"baseline: {self.baseline!r} is none of the methods {list(self.methods)}.")
        self._check_units()
        seen = set()
        for cell in self.cells:
            self._check_cell(cell)
            if self.place(cell) in seen:
                raise ValueError(f"{self.name(cell)} stands twice. Keep one.")
            seen.add(self.place(cell))
        return self

    def _check_units(self) -> None:
        top = max(cell.mean for cell in self.cells)
        if self.units == "percent" and top <= 1:
            raise ValueError(f"units are percent, but the largest mean is {top:g}. Write units: fraction.")
        if self.units == "fraction" and top > 1:
            raise ValueError(f"units are fraction, but a mean is {top:g}. Write units: percent.")

    def _check_cell(self, cell: Figure) -> None:
        known: tuple[tuple[str, str | None, Mapping[str, Any]], ...] = (
            ("task", cell.task, self.tasks),
            ("method", cell.method, self.methods),
            ("model", cell.model or self.model, self.models),
            ("embedding", cell.embedding or self.embedding, self.embeddings),
        )
        for key, word, table in known:
            if word not in table:
                raise ValueError(
                    f"{self.name(cell)}: {key} {word!r} is not listed under {key}s. Add what it stands for."
                )
        if (cell.max is None) != (cell.min is None):
            raise ValueError(f"{self.name(cell)}: give max and min together.")
        top = 100 if self.units == "percent" else 1
        for key in ("mean", "max", "min", "sd"):
            value = getattr(cell, key)
            if value is not None and not 0 <= value <= top:
                raise ValueError(f"{self.name(cell)}: {key} {value:g} lies outside 0 to {top} ({self.units}).")
        if cell.max is not None and cell.min is not None and cell.min > cell.max:
            raise ValueError(f"{self.name(cell)}: min {cell.min:g} lies above max {cell.max:g}.")

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit of a mean, in the units of the file."""
        return 0.5 * 10.0**-self.decimals

    @property
    def scale(self) -> float:
        """What turns a printed figure into a fraction."""
        return 0.01 if self.units == "percent" else 1.0

    def place(self, cell: Figure) -> tuple[str, int, str, str, str]:
        """What tells a cell from others: task, budget, method, model, embedding, in the words of the table."""
        return (
            cell.task,
            cell.budget,
            cell.method,
            cell.model or self.model or "",
            cell.embedding or self.embedding or "",
        )

    def name(self, cell: Figure) -> str:
        """A cell in words."""
        return f"cell {cell.task}, {cell.budget}, {cell.method}, {cell.model or self.model}"

    def about(self) -> dict[str, Any]:
        """Where the table comes from, and what was noted and not found: JSON values for a report."""
        return self.model_dump(mode="json", include={"title", "source", "notes", "missing"})

    def runs_of(self, cell: Figure) -> int | None:
        """Runs behind a cell, None where the paper does not say."""
        return cell.runs if cell.runs is not None else self.runs

    def summary(self, cell: Figure) -> Summary | str:
        """Mean, spread and runs as fractions, or why the cell cannot be tested."""
        runs = self.runs_of(cell)
        if runs is None:
            return "the number of runs is not given"
        if runs < 2:
            return "a single run has no spread"
        if cell.sd is not None:
            half = 0.5 * 10.0 ** -(self.decimals if self.sd_decimals is None else self.sd_decimals)
            # Only a divisor known to be n is corrected; an unknown one is taken as n - 1.
            wider = (runs / (runs - 1)) ** 0.5 if self.sd_divisor == "n" else 1.0
            spread = tuple(wider * max(value, 0.0) for value in (cell.sd, cell.sd - half, cell.sd + half))
        elif cell.max is None or cell.min is None:
            return "no standard deviation is printed"
        elif runs != _RANGE_RUNS:
            return f"maximum and minimum of {runs} runs do not give their standard deviation (those of three do)"
        else:
            try:
                spread = spread_of_three(cell.mean, cell.max, cell.min, half_unit=self.half_unit)
            except StatisticsError:
                # A slip in the paper, not in the file: it is shown, and not tested.
                return f"no {runs} runs have mean {cell.mean:g}, maximum {cell.max:g} and minimum {cell.min:g}"
        sd, low, high = (value * self.scale for value in spread)
        return Summary(cell.mean * self.scale, sd, runs, low, high, self.half_unit * self.scale)


def _folder() -> Path:
    return Path(str(files("icl_select.configs"))) / "published" / "figures"


def figure_names() -> list[str]:
    """Names of the shipped files of figures."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_figures(name: str) -> Path:
    """Return the file `name`: a path, or the name of shipped figures where no such path exists.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    path = Path(name)
    if path.is_file() or path.name != name:
        return path
    stem = name.removesuffix(".yaml")
    if stem in figure_names():
        return _folder() / f"{stem}.yaml"
    raise ConfigError(
        f"there is no file of published figures {name}, and none of that name is shipped."
        f"{suggest(stem, figure_names())} Pass the path of a YAML file; `icl-select eval published` lists the shipped "
        "ones."
    )


def load_figures(name: str | Path) -> Figures:
    """Read and check published figures.

    Parameters
    ----------
    name : str or Path
        Path of a YAML file, or the name of shipped figures.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds an unknown key, a word that stands for nothing, a cell that stands twice,
        or figures that cannot be (units, a mean outside its range). The message names the cell.
    """
    path = find_figures(str(name))
    content = read_yaml(path, kind="file of published figures")
    try:
        return Figures.model_validate(content)
    except ValidationError as exc:
        raise ConfigError(f"{path}: " + "\n".join(_explain(error) for error in exc.errors())) from exc


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {place!r}.{suggest(str(error['loc'][-1]), _known_keys(error['loc']))}"
    if error["type"] == "missing":
        return f"{place} is missing. Add it."
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"{place}: {message}{shown}" if place else message


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"source": Source, "missing": Missing, "tasks": TaskName, "cells": Figure}
    model = models.get(str(location[0]), Figures) if len(location) > 1 else Figures
    return list(model.model_fields)
