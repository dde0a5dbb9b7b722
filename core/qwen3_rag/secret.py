"""Secrets in options: what holds one must not be written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_no_secret(options: Mapping[str, Any] | None) -> None:
    """Refuse to pickle options that hold a secret's value; an environment variable's name is none.

    Known are objects with `get_secret_value` (pydantic's SecretStr) and with `resolve_value`
    (Haystack's Secret, which refuses `to_dict` when it holds the value itself).

    Raises:
        TypeError: an option holds a secret. The message names the option and never the value.
    """
    for name, value in (options if options is not None else {}).items():
        if _holds_secret(value) or (name == "api_key" and isinstance(value, str | bytes)):
            raise TypeError(
                f"model_kwargs[{name!r}] holds a secret, which a pickle would write down; name its environment "
                "variable instead, for example with api_key_env"
            )


def _holds_secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_secret, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_secret, value))
    if hasattr(value, "get_secret_value"):
        return True
    if not hasattr(value, "resolve_value"):
        return False
    try:
        value.to_dict()
    except (AttributeError, ValueError):
        return True
    return False
