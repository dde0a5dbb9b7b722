"""Between arguments of a component and the plain values that a pipeline file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from haystack.core.errors import SerializationError
from haystack.utils import ComponentDevice, Secret

_KEYS: Final = ("api_key", "token", "authorization")
"""Names, in small letters, whose strings are keys and never go into a file."""


def to_plain(name: str, value: Any) -> Any:
    """Return a copy of an argument made of what YAML can hold.

    Args:
        name: what the argument is called, for the error.
        value: strings, numbers, booleans, None, `Secret`, `ComponentDevice`, and lists and mappings of them.

    Raises:
        SerializationError: a part of it is anything else, or is a string called `api_key`, `token` or
            `authorization`. The message names its type, never its value.
        ValueError: a `Secret` holds a token itself, which Haystack never writes down.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (Secret, ComponentDevice)):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _entry_to_plain(name, key, part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(f"{name}[{i}]", part) for i, part in enumerate(value)]
    raise SerializationError(
        f"{name} is of type {type(value).__name__}, which a pipeline file cannot hold; use plain values, "
        'and Secret.from_env_var("NAME") for a key'
    )


def from_plain(value: Any) -> Any:
    """Undo `to_plain`: revive each `Secret` and `ComponentDevice`, at any depth. Returns a copy."""
    if isinstance(value, Mapping):
        if value.get("type") == "env_var" and "env_vars" in value:
            return Secret.from_dict(dict(value))
        if value.get("type") in ("single", "multiple") and ("device" in value or "device_map" in value):
            return ComponentDevice.from_dict(dict(value))
        return {key: from_plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    return value


def _entry_to_plain(name: str, key: Any, value: Any) -> Any:
    if not isinstance(key, str):
        raise SerializationError(f"keys of {name} must be strings, got {key!r}")
    if key.lower() in _KEYS and isinstance(value, str):
        raise SerializationError(
            f"{name}[{key!r}] is a plain string, which would show in the file; use "
            'Secret.from_env_var("NAME"), or leave it out and set the variable that the backend reads by itself'
        )
    return to_plain(f"{name}[{key!r}]", value)
