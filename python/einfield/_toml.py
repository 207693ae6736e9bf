"""Keyword arguments as the TOML of a configuration, so that both have the same keys, checks and messages."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import as_array
from .errors import InvalidInput

Arrays = dict[str, NDArray[np.float64]]


def write_value(name: str, value: Any, arrays: Arrays | None = None) -> str:
    """One value as TOML. An array of two dimensions is put into `arrays`; its text is the name."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, (str, os.PathLike)):
        # JSON escapes like TOML, except DEL.
        return json.dumps(os.fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"{name}: found the key {key!r}, expected names")
        items = [f"{_key(k)} = {write_value(f'{name}.{k}', v, arrays)}" for k, v in value.items() if v is not None]
        return "{ " + ", ".join(items) + " }"
    if _dimensions(value) >= 2 and arrays is not None:
        arrays[name] = as_array(name, value)
        return json.dumps(name)
    if isinstance(value, (Sequence, np.ndarray)) and _dimensions(value) <= 1:
        return "[" + ", ".join(write_value(name, v, arrays) for v in value) + "]"
    raise InvalidInput(f"{name}: found {type(value).__name__}, expected a number, a text, a list or a dictionary")


def _dimensions(value: Any) -> int:
    """Of an array, or of lists of numbers in lists."""
    if isinstance(value, str):
        return 0
    shape = getattr(value, "shape", None)
    if shape is not None:
        return len(shape)
    if isinstance(value, Sequence):
        return 1 + (_dimensions(value[0]) if len(value) > 0 else 0)
    return 0


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


class Document:
    """The TOML of a configuration, written block by block, and the arrays that its image keys stand for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrays: Arrays = {}

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def put(self, key: str, value: Any) -> None:
        """A key of the root."""
        if value is not None:
            self.lines.append(f"{key} = {write_value(key, value)}")

    def table(self, block: str, values: Mapping[str, Any] | None, names: Mapping[str, str] | None = None) -> None:
        """A table. `names` gives other names to arrays than block.key."""
        if values is None:
            return
        _require_mapping(block, values)
        self.lines.append(f"[{block}]")
        self._keys(block, values, names or {})

    def components(self, block: str, components: Any, profiles: Mapping[str, list[tuple[str, str, bool]]]) -> None:
        """An array of tables of profiles; fit="all" stands for the names of all parameters that can be free."""
        if components is None:
            return
        if isinstance(components, Mapping) or isinstance(components, str) or not isinstance(components, Sequence):
            raise InvalidInput(f"{block}: found {type(components).__name__}, expected a list of dictionaries")
        for i, component in enumerate(components):
            path = f"{block}.{i}"
            _require_mapping(path, component)
            values = dict(component)
            if isinstance(values.get("fit"), str) and values["fit"] == "all":
                values["fit"] = _all_free(values, profiles)
            self.lines.append(f"[[{block}]]")
            self._keys(path, values, {})

    def _keys(self, block: str, values: Mapping[str, Any], names: Mapping[str, str]) -> None:
        for key, value in values.items():
            if value is None:
                continue
            if not isinstance(key, str):
                raise InvalidInput(f"{block}: found the key {key!r}, expected names")
            name = names.get(key, f"{block}.{key}")
            self.lines.append(f"{_key(key)} = {write_value(name, value, self.arrays)}")


def _require_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name}: found {type(value).__name__}, expected a dictionary")


def _all_free(values: Mapping[str, Any], profiles: Mapping[str, list[tuple[str, str, bool]]]) -> list[str]:
    profile = values.get("profile")
    if profile == "PIXELATED":
        return ["pixels"]
    fixed = {name for name, value in values.items() if isinstance(value, str)}  # it follows another parameter
    if profile == "MULTI_GAUSSIAN_ELLIPSE":
        profile = "GAUSSIAN_ELLIPSE"
        fixed.add("sigma")
    free = [name for name, _, can_be_free in profiles.get(str(profile), []) if can_be_free and name not in fixed]
    return [*free, "network"] if profile == "NETWORK" else free


def settings(values: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Keys of a configuration and their new values, as `--set` takes them."""
    if values is None:
        return []
    _require_mapping("set", values)
    for key in values:
        if not isinstance(key, str):
            raise InvalidInput(f"set: found the key {key!r}, expected names such as lens.0.theta_E")
    return [(key, write_value(key, value)) for key, value in values.items()]
