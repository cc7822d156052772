"""Reading a campaign file: strict YAML."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from icl_select.errors import ConfigError

__all__ = ["read_yaml"]

_LOGGER = logging.getLogger(__name__)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key standing twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError says what is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the campaign file {path}: {reason}. Check the path.") from exc
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds no mapping. A campaign file is a YAML mapping with tasks, methods and budgets."
        )
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
