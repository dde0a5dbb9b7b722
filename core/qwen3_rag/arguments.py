"""The arguments that a component was made with: of the right types, and its own from then on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from qwen3_rag.inputs import as_bool, as_float, as_int
from qwen3_rag.models import ModelKind
from qwen3_rag.settings import EngineSettings

_WHOLE: Final = ("dimensions", "max_tokens", "token_budget", "max_queued")
_NUMBERS: Final = ("timeout", "max_wait_ms")
_NAMES: Final = ("backend", "revision")
_FLAGS: Final = ("parse_special_tokens", "share_prefixes")
_MAY_BE_NONE: Final = ("dimensions", "token_budget", "timeout", "revision")
_SETTINGS: Final = {field.name for field in fields(EngineSettings)}


def own_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor as the component keeps them.

    What the caller does to its own dicts and lists later must not reach pickles or the engine's identity: they
    are copied, those inside of them too. Numpy's numbers and truth values become Python's.

    Args:
        given: `locals()` at the constructor's beginning.

    Raises:
        TypeError: one is of a wrong type. Ranges are checked by whoever knows them.
    """
    kept = {name: value for name, value in given.items() if name not in ("self", "__class__")}
    for name in _WHOLE:
        if not _is_unset(name, kept):
            kept[name] = as_int(name, kept[name], _meaning("a whole number", name))
    for name in _NUMBERS:
        if not _is_unset(name, kept):
            kept[name] = as_float(name, kept[name], _meaning("a number", name))
    for name in _NAMES:
        if not _is_unset(name, kept) and not isinstance(kept[name], str):
            raise TypeError(f"{name} must be {_meaning('a str', name)}, got {kept[name]!r:.80}")
    for name in _FLAGS:
        kept[name] = as_bool(name, kept[name])
    kept["model"] = model_name(kept["model"])
    kept["device"] = _own_device(kept["device"])
    kept["model_kwargs"] = _own_model_kwargs(kept["model_kwargs"])
    return kept


def model_name(model: Any) -> Any:
    """Return a path as the string that names this folder; anything else as it is.

    A path never names a repository on a hub, so a relative one keeps its `./`, which `pathlib` drops.
    """
    if not isinstance(model, os.PathLike):
        return model
    name = os.fspath(model)
    if not isinstance(name, str) or name.startswith("~") or name.split(os.sep)[0] in (os.curdir, os.pardir):
        return name
    return os.path.join(os.curdir, name)  # an absolute one stays as it is


def engine_settings(kind: ModelKind, arguments: Mapping[str, Any]) -> EngineSettings:
    """Return what the engine needs to know of a component's arguments.

    Raises:
        ConfigurationError: one is out of range.
    """
    shared = {name: value for name, value in arguments.items() if name in _SETTINGS}
    device = arguments["device"]
    return EngineSettings(kind, **{**shared, "device": tuple(device) if isinstance(device, list) else device})


def _is_unset(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether there is no such argument, or it is None and may be."""
    return name not in arguments or (name in _MAY_BE_NONE and arguments[name] is None)


def _meaning(what: str, name: str) -> str:
    return f"{what} or None" if name in _MAY_BE_NONE else what


def _own_device(device: Any) -> str | list[str] | None:
    if device is None or isinstance(device, str):
        return device
    if not isinstance(device, Sequence) or not all(isinstance(one, str) for one in device):
        raise TypeError(
            f'device must be a torch device\'s name such as "cuda:1", a list of such names, or None, '
            f"got {device!r:.80}"
        )
    return list(device)


def own_copy(value: Any) -> Any:
    """Return dicts and lists copied, at every depth; anything else is the same object."""
    if type(value) is dict:
        return {name: own_copy(one) for name, one in value.items()}
    if type(value) is list:
        return [own_copy(one) for one in value]
    return value


def _own_model_kwargs(model_kwargs: Any) -> dict[str, Any] | None:
    if model_kwargs is None:
        return None
    if not isinstance(model_kwargs, Mapping):  # whose value may be a secret
        raise TypeError(f"model_kwargs must be a mapping or None, got {type(model_kwargs).__name__}")
    for name in model_kwargs:
        if not isinstance(name, str):
            raise TypeError(f"model_kwargs must have a str for each key, got {name!r:.80}")
    return {name: own_copy(value) for name, value in model_kwargs.items()}
