"""Between arguments of a component and the plain values that a pipeline file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from haystack.core.errors import SerializationError
from haystack.utils import ComponentDevice, Secret

from qwen3_rag.secret import secrets_in


def check_saveable(model_kwargs: Mapping[str, Any] | None) -> None:
    """Refuse a secret that is a plain string; `to_plain` sees to those in objects.

    Raises:
        SerializationError: there is one. The message names its place, never its value.
    """
    for path, secret in secrets_in(model_kwargs, "model_kwargs"):
        if isinstance(secret, str | bytes | bytearray):
            raise SerializationError(
                f"{path} is a plain string, which would show in the file; leave it out and set the variable "
                'that the backend reads by itself, or use Secret.from_env_var("NAME") where it takes a Secret'
            )


def to_plain(name: str, value: Any) -> Any:
    """Return a copy of an argument made of what YAML can hold.

    Args:
        name: what the argument is called, for the error.
        value: strings, numbers (numpy's too), booleans, None, `Secret`, `ComponentDevice`, and lists and
            mappings of them.

    Raises:
        SerializationError: a part of it is anything else. The message names its type, never its value.
        ValueError: a `Secret` holds a token itself, which Haystack never writes down.
    """
    if isinstance(value, np.generic):  # of which some are floats too
        return value.item()
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
    return to_plain(f"{name}[{key!r}]", value)
