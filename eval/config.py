"""The campaign file: one YAML, validated, with a published JSON Schema.

A value is taken from the command line, else from the environment (``ICS_SEED``, ``ICS_DRAWS``, ...), else from
the file, else from the default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from icl_select import registry
from icl_select.errors import ConfigError, IclSelectError, suggest

from ._yaml import read_yaml
from .tasks import CustomTask, task_names

__all__ = ["ENV_PREFIX", "Campaign", "Retrieval", "json_schema", "load_campaign", "split_list"]

ENV_PREFIX = "ICS_"

_LISTS = ("tasks", "methods", "budgets")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _kind(entry: Any) -> str:
    return "own" if isinstance(entry, (Mapping, CustomTask)) else "name"


# A tag, so that a broken entry is complained about as what it is, and once.
TaskEntry = Annotated[Annotated[str, Tag("name")] | Annotated[CustomTask, Tag("own")], Discriminator(_kind)]


class Retrieval(_Model):
    """How the demonstrations of a query are found among the labelled examples."""

    k: int = Field(default=8, ge=1, description="Demonstrations per query; fewer where the budget is smaller.")
    order: Literal["nearest_last", "nearest_first", "shuffled", "shared_first"] = Field(
        default="nearest_last",
        description="Order in the prompt; the published order puts the nearest next to the query. shared_first puts "
        "demonstrations that many queries share first, so that an engine reads their beginning once.",
    )
    mmr: float | None = Field(
        default=None, ge=0, le=1, description="Trade-off of maximal marginal relevance; null: plain kNN."
    )
    balance: bool = Field(default=False, description="Take demonstrations in turn from every class.")
    min_similarity: float | None = Field(
        default=None, ge=-1, le=1, description="Drop demonstrations below this cosine."
    )


class PromptSettings(_Model):
    """How prompts are packed; only scorers that read prompts use it."""

    tokenizer: str | None = Field(
        default=None,
        description="What counts tokens: utf8 (bytes), words, or a hub id or path; null: the tokenizer of the model.",
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Token budget; null: the task's published limit.")
    chat: bool = Field(default=False, description="Send chat messages instead of one text.")


class Campaign(_Model):
    """Task x method x budget x draw: what is compared, on what, and how it is tested."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$", description="Name of the campaign, shown in reports.")
    tasks: list[TaskEntry] = Field(min_length=1, description="Benchmarks by name, or your own files.")
    methods: list[str] = Field(min_length=1, description="Methods with parameters: max_herding(bandwidth=0.8).")
    budgets: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="Numbers of labels.")
    baseline: str = Field("random", description="Method that every other one is compared with.")
    draws: int = Field(10, ge=1, description="Independent draws of pool subsample and test subset.")
    random_repeats: int = Field(5, ge=1, description="Selections of the baseline per draw.")
    seed: int = Field(0, ge=0, description="Seed of every draw and of every method.")
    encoder: str = Field("minilm", description="Encoder: a shipped name, or a hub id or path, with @revision.")
    centre: bool = Field(True, description="Subtract the mean of the pool subsample from pool and queries.")
    pool_size: int = Field(3000, ge=1, description="Pool rows per draw at most.")
    pool_fraction: float | None = Field(
        0.5, gt=0, le=1, description="Share of the pool per draw at most, so that draws differ; null: no such limit."
    )
    test_size: int = Field(256, ge=1, description="Test items per draw at most.")
    retrieval: Retrieval = Field(default=Retrieval(), description="How demonstrations are found.")
    prompt: PromptSettings = Field(default=PromptSettings(), description="How prompts are packed.")
    scorer: str = Field(
        "knn", description="Scorer with parameters: knn, knn(k=1), vllm(model='EleutherAI/gpt-j-6b', dtype='float16')."
    )
    protocol: Literal["sound", "published"] = Field(
        "sound", description="Prompts and reading of answers: as they should be, or with the errors of published code."
    )
    published: str | None = Field(
        None, description="Published figures that the report shows beside these: the name of a shipped file, or a path."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the tests; 1 - alpha is that of the intervals.")
    power: float = Field(0.8, gt=0, lt=1, description="Power that detectable differences are stated for.")
    family: Literal["campaign", "task"] = Field(
        "campaign", description="Comparisons that Holm adjusts together: all of them, or those of one task."
    )
    delta: float = Field(0.02, gt=0, description="Loss that is still 'not worse' for the smallest sufficient budget.")
    n_resamples: int = Field(2000, ge=100, description="Bootstrap resamples of each interval.")
    leak_threshold: float = Field(0.95, gt=0, le=1, description="Cosine from which texts count as near-duplicates.")
    data_dir: Path | None = Field(None, description="Folder with one folder per benchmark; null: the hub.")
    output: Path | None = Field(None, description="Run folder; default runs/<name>.")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    @field_validator("budgets")
    @classmethod
    def _distinct_budgets(cls, budgets: list[int]) -> list[int]:
        if len(set(budgets)) != len(budgets):
            raise ValueError("a budget stands twice. List each once.")
        return sorted(budgets)

    @field_validator("baseline")
    @classmethod
    def _known_baseline(cls, baseline: str) -> str:
        return _canonical_method(baseline)

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, methods: list[str]) -> list[str]:
        names = [_canonical_method(method) for method in methods]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} stands twice. List each method once.")
        return names

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, tasks: list[str | CustomTask]) -> list[str | CustomTask]:
        names = [task if isinstance(task, str) else task.name for task in tasks]
        for task in tasks:
            if isinstance(task, str) and task not in task_names():
                raise ValueError(f"unknown task {task!r}.{suggest(task, task_names())}")
            if isinstance(task, CustomTask) and task.name in task_names():
                raise ValueError(f"{task.name!r} is the name of a benchmark. Give your task another one.")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"task {name} stands twice. List each once.")
        return tasks

    @model_validator(mode="after")
    def _has_baseline(self) -> Campaign:
        if self.baseline not in self.methods:
            object.__setattr__(self, "methods", [self.baseline, *self.methods])
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.output if self.output is not None else Path("runs") / self.name

    @property
    def task_list(self) -> list[str]:
        """Names of the tasks, in the order of the file."""
        return [task if isinstance(task, str) else task.name for task in self.tasks]

    def shown(self) -> dict[str, Any]:
        """The configuration as results carry it: everything but the paths of this machine."""
        shown = self.model_dump(mode="json", exclude={"data_dir", "output"})
        if self.published is not None:
            shown["published"] = Path(self.published).name
        for key in ("scorer", "encoder"):
            shown[key] = _without_folders(shown[key])
        if self.prompt.tokenizer is not None:
            shown["prompt"]["tokenizer"] = _without_folders(self.prompt.tokenizer)
        for task in shown["tasks"]:
            if isinstance(task, dict):
                task.update(pool=Path(task["pool"]).name, test=Path(task["test"]).name)
        return shown


def _without_folders(text: str) -> str:
    """A name with parameters in which a folder stands by its own name."""
    try:
        spec = registry.parse(text)
    except IclSelectError:  # a hub id or a path as it is
        return Path(text).name if Path(text).is_absolute() else text
    kept = {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in spec.params.items()
    }
    return str(registry.Spec(spec.name, kept))


def _canonical_method(text: str) -> str:
    try:
        return str(registry.resolve(text)[0])
    except IclSelectError as exc:
        raise ValueError(str(exc)) from exc


def load_campaign(
    path: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
) -> Campaign:
    """Read and validate a campaign file.

    Parameters
    ----------
    path : Path
        YAML file; relative ``data_dir``, ``pool`` and ``test`` paths in it are relative to its folder.
    overrides : mapping, optional
        Values from the command line; None values are left out.
    environment : mapping, optional
        Environment variables; those named ``ICS_<KEY>`` override the file.
    only : sequence of str, optional
        Names of tasks: those of the file, its own ones included, or other benchmarks.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds an unknown key or a bad value; the message names the key.
    """
    content = read_yaml(path)
    _resolve_paths(content, path.parent)
    content.setdefault("name", path.stem)
    own = {task["name"]: task for task in _listed(content) if isinstance(task, dict) and "name" in task}
    surroundings = _from_environment(environment or {})
    content.update(surroundings)
    if only is not None:
        content["tasks"] = list(only)
    if _listed(content):
        content["tasks"] = [own.get(task, task) if isinstance(task, str) else task for task in _listed(content)]
    content.update({key: value for key, value in (overrides or {}).items() if value is not None})
    return validate(content, " with ".join([str(path), *(ENV_PREFIX + key.upper() for key in surroundings)]))


def validate(content: Mapping[str, Any], source: str) -> Campaign:
    """Check the values of a campaign; `source` names where they stand."""
    try:
        return Campaign.model_validate(content)
    except ValidationError as exc:
        lines = [_explain(error) for error in exc.errors()]
        raise ConfigError(f"{source}: " + "\n".join(lines)) from exc


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a campaign file, as published in ``campaign.schema.json``."""
    schema = Campaign.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "icl-select campaign"}


def schema_text() -> str:
    """The text of the published schema file."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


def _listed(content: Mapping[str, Any]) -> list[Any]:
    tasks = content.get("tasks")
    return tasks if isinstance(tasks, list) else []


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    if isinstance(content.get("data_dir"), str):
        content["data_dir"] = str(folder / content["data_dir"])
    if isinstance(content.get("published"), str) and Path(content["published"]).suffix:
        content["published"] = str(folder / content["published"])
    for task in _listed(content):
        if isinstance(task, dict):
            for key in ("pool", "test"):
                if isinstance(task.get(key), str):
                    task[key] = str(folder / task[key])


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in Campaign.model_fields:
        text = environment.get(ENV_PREFIX + key.upper())
        if text is None or key in ("retrieval", "prompt"):
            continue
        if key in _LISTS:
            found[key] = [yaml.safe_load(part) if key == "budgets" else part for part in split_list(text)]
        else:
            found[key] = None if text.strip().lower() == "null" else text
    return found


def split_list(text: str) -> list[str]:
    """Split at commas that stand outside parentheses: method parameters keep theirs.

    Examples
    --------
    >>> split_list("random, vote_k(k=50, stage='graph')")
    ['random', "vote_k(k=50, stage='graph')"]
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _explain(error: Any) -> str:
    location = list(error["loc"])
    if location[:1] == ["tasks"] and len(location) > 2:
        del location[2]  # the tag
    place = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {place!r}.{suggest(str(location[-1]), _known_keys(location))}"
    if error["type"] == "missing":
        return f"{place} is missing. Add it."
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"{place or 'campaign'}: {message}{shown}"


def _known_keys(location: list[Any]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"retrieval": Retrieval, "prompt": PromptSettings, "tasks": CustomTask}
    model = models.get(str(location[0]), Campaign) if len(location) > 1 else Campaign
    return list(model.model_fields)
