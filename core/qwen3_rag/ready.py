"""What an adapter does that is given a ready `Embedder` or `Reranker` in place of its options."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError


def options_of_ready(
    component: object, kind: type[Component], name: str, beside: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a ready component's options, if those given beside it do not contradict it.

    Args:
        component: what the adapter was given.
        kind: `Embedder` or `Reranker`.
        name: of the adapter's parameter that took it, for errors.
        beside: the adapter's other arguments. One that equals the core's default contradicts nothing,
            since many a framework passes all of them.

    Raises:
        ConfigurationError: it is not of that kind, or an option says something else.
    """
    if not isinstance(component, kind):
        raise ConfigurationError(f"{name} must be a qwen3_rag.{kind.__name__}, got {type(component).__name__}")
    options = component.arguments
    defaults = signature(kind).parameters
    clashes = [
        option
        for option, value in options.items()
        if option in beside and beside[option] not in (defaults[option].default, value)
    ]
    if clashes:
        raise ConfigurationError(
            f"{name} is given together with {', '.join(clashes)}, and says otherwise; give options to the "
            f"{kind.__name__}, or leave {name} out"
        )
    return options
