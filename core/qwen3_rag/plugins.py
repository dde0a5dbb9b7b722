"""Backends and adapters by name, through entry points. Listing loads nothing; asking loads one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Final

from qwen3_rag.backends.base import Backend, BackendFactory
from qwen3_rag.errors import ConfigurationError, MissingExtraError
from qwen3_rag.settings import EngineSettings

BACKENDS: Final = "qwen3_rag.backends"
ADAPTERS: Final = "qwen3_rag.adapters"

_REQUIREMENTS: Final[dict[str, tuple[str, str]]] = {
    "langchain": ("langchain_core", "langchain"),
    "llama-index": ("llama_index.core", "llama-index"),
    "haystack": ("haystack", "haystack"),
    "vllm": ("vllm", "vllm"),
    "sentence-transformers": ("sentence_transformers", "sentence-transformers"),
    "remote": ("httpx", "remote"),
}
"""Start of a plugin's name -> module it needs, and the extra that brings it."""


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        group: `qwen3_rag.backends` or `qwen3_rag.adapters`.
        name: what users call it.
        target: `module:attribute` that it loads.
        distribution: package that declares it.
        installed: whether the optional dependency that we know it to need is there.
    """

    group: str
    name: str
    target: str
    distribution: str
    installed: bool

    @property
    def kind(self) -> str:
        """What its group holds: "backend" or "adapter"."""
        return _kind(self.group)


def list_plugins(group: str) -> list[Plugin]:
    """Return all plugins of a group, by name, without importing any."""
    found = sorted(entry_points(group=group), key=lambda entry: entry.name)
    return [
        Plugin(group, e.name, e.value, e.dist.name if e.dist else "", _missing_extra(e) is None) for e in found
    ]


def all_plugins() -> list[Plugin]:
    """Return all backends, then all adapters, without importing any."""
    return [*list_plugins(BACKENDS), *list_plugins(ADAPTERS)]


def load_plugin(group: str, name: str) -> Any:
    """Import one plugin and return what its entry point names.

    Raises:
        ConfigurationError: no plugin has that name.
        MissingExtraError: it needs an extra that is not installed.
    """
    return _usable(group, name).load()


def check_backend(name: str) -> None:
    """Check that a backend could be loaded, without importing it.

    Raises:
        ConfigurationError, MissingExtraError: as `load_plugin`.
    """
    _usable(BACKENDS, name)


def load_backend(settings: EngineSettings) -> Backend:
    """Import the backend that the settings name and load its model.

    Raises:
        ConfigurationError, MissingExtraError: as `load_plugin`. Otherwise what the backend's factory raises.
    """
    create: BackendFactory = load_plugin(BACKENDS, settings.backend)
    return create(settings)


def _usable(group: str, name: str) -> EntryPoint:
    by_name = {entry.name: entry for entry in entry_points(group=group)}
    if name not in by_name:
        names = ", ".join(sorted(by_name)) or "none"
        raise ConfigurationError(f"unknown {_kind(group)} {name!r}; there are: {names}")
    extra = _missing_extra(by_name[name])
    if extra is not None:
        raise MissingExtraError(name, extra)
    return by_name[name]


def _kind(group: str) -> str:
    return group.rsplit(".", 1)[-1].removesuffix("s")


def _missing_extra(entry: EntryPoint) -> str | None:
    if entry.dist is None or entry.dist.name != "qwen3-rag":
        return None
    for start, (module, extra) in _REQUIREMENTS.items():
        if entry.name == start or entry.name.startswith(start + "-"):
            return None if _is_there(module) else extra
    return None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
