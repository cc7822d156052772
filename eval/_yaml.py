"""Finding and reading a campaign file: strict YAML."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from icl_select.errors import ConfigError, suggest

__all__ = ["find_config", "read_yaml"]

_LOGGER = logging.getLogger(__name__)

_HOLDS = {"campaign file": " with tasks, methods and budgets"}


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key standing twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_config(name: str) -> Path:
    """Return the campaign file `name`: a path, or the name of a shipped campaign where no such path exists."""
    path = Path(name)
    if path.exists() or path.name != name:
        return path
    stem = name.removesuffix(".yaml")
    root = files("icl_select.configs")
    entries = [*root.iterdir(), *(root / "published").iterdir()]
    shipped = {Path(entry.name).stem: entry for entry in entries if _is_yaml(entry.name)}
    if stem in shipped:
        return Path(str(shipped[stem]))
    raise ConfigError(
        f"there is no campaign file {name}, and no shipped campaign of that name.{suggest(stem, shipped)} "
        "Pass the path of a YAML file."
    )


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def read_yaml(path: Path, *, kind: str = "campaign file") -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError says what is wrong with the file, called by its `kind`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the {kind} {path}: {reason}. Check the path.") from exc
    try:
        loader = _Loader(text)
        loader.name = str(path)
        content = loader.get_single_data()
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping. A {kind} is a YAML mapping{_HOLDS.get(kind, '')}.")
    try:
        json.dumps(content, default=str, skipkeys=True)
    except ValueError as exc:
        raise ConfigError(f"{path}: an alias (*name) stands inside what it names. Write the value out.") from exc
    _warn_about_escapes(content, path)
    return content


def _warn_about_escapes(content: Any, path: Path) -> None:
    """'\\n' in single quotes is a backslash and an n: nearly always a mistake in a template."""
    if isinstance(content, dict):
        for value in content.values():
            _warn_about_escapes(value, path)
    elif isinstance(content, list):
        for value in content:
            _warn_about_escapes(value, path)
    elif isinstance(content, str) and "\\n" in content:
        _LOGGER.warning("%s: %r holds a backslash and an n. Use double quotes for a line break.", path, content)
