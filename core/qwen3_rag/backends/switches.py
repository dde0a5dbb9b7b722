"""Options in `model_kwargs` that are on or off, for all backends that have some."""

from __future__ import annotations

from qwen3_rag.errors import ConfigurationError


def check_switch(name: str, value: object) -> None:
    """Raise ConfigurationError unless an option is True or False: "false" from a file would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")
