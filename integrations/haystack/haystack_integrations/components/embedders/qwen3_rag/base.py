"""What the three Haystack components have in common: options, life cycle, saving and loading."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from haystack import default_from_dict, default_to_dict
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.qwen3_rag.serialization import from_plain, to_plain

from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.ready import options_of_ready
from qwen3_rag.settings import DType, Hub

Device = str | Sequence[str] | ComponentDevice | None
Self = TypeVar("Self", bound="CoreComponent")


class CoreComponent:
    """Base of the Haystack components: holds an `Embedder` or a `Reranker`, made or given.

    A subclass names both kinds of argument in its constructor and calls `_start` with all of them.
    Each argument is kept as an attribute of its own name. Files, pickles and copies carry the
    configuration, never weights; a component that was given ready is carried as its configuration too.
    """

    core_class: ClassVar[type[Component]]
    """`Embedder` or `Reranker`."""

    ready: ClassVar[str]
    """Name of the argument that takes a ready one, and of the attribute that holds the one in use."""

    model: str
    backend: str
    instruction: str | None
    max_tokens: int
    device: Device
    dtype: DType
    revision: str | None
    hub: Hub
    parse_special_tokens: bool
    token_budget: int | None
    share_prefixes: bool
    timeout: float | None
    max_wait_ms: float
    max_queued: int
    model_kwargs: Mapping[str, Any] | None

    def warm_up(self) -> None:
        """Load tokenizer and weights now instead of on first use. Doing it again costs nothing.

        Raises:
            CheckpointError, ConfigurationError, MissingExtraError: what is wrong with the settings.
        """
        self._core.load()

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop. Haystack's async pipelines call it."""
        if self._core.backend is None:
            await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Give the weights back; the last component to do so frees them. The next run loads them again.

        An `Embedder` or `Reranker` that was given stays its owner's, open.
        """
        if not self._given:
            core = self._core
            setattr(self, self.ready, self._make())
            core.close()

    async def close_async(self) -> None:
        """`close` without blocking the event loop while a running batch ends."""
        await asyncio.to_thread(self.close)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, secrets by the names of their environment variables.

        Raises:
            SerializationError: an argument holds an object that a file cannot.
            ValueError: a `Secret` holds a token itself; use `Secret.from_env_var`.
        """
        return default_to_dict(self, **{name: to_plain(name, value) for name, value in self._kept().items()})

    @classmethod
    def from_dict(cls: type[Self], data: dict[str, Any]) -> Self:
        """Return a component with the configuration that `to_dict` gave.

        Args:
            data: never changed.

        Raises:
            DeserializationError: it is of another class.
            ConfigurationError: an argument is out of range.
        """
        return default_from_dict(cls, {**data, "init_parameters": from_plain(data.get("init_parameters", {}))})

    def __reduce__(self: Self) -> tuple[Any, tuple[type[Self], dict[str, Any]]]:
        # By way of to_dict, so that a pickle holds no more than a file does: no weights, no token.
        return _rebuild, (type(self), self.to_dict())

    def __deepcopy__(self: Self, _: object) -> Self:
        return type(self)(**self._kept())

    def _start(self, arguments: Mapping[str, Any]) -> None:
        """Keep all arguments of the constructor, and make the core's component if none was given.

        Args:
            arguments: by name; "self" is ignored.

        Raises:
            ConfigurationError: one is out of range, or stands beside a ready component.
        """
        kept = {name: arguments[name] for name in _parameters(type(self))}
        given = kept.pop(self.ready)
        if given is not None:
            kept.update(options_of_ready(given, self.core_class, self.ready, kept))
        vars(self).update(kept)
        self._given = given is not None
        setattr(self, self.ready, given if given is not None else self._make())

    def _make(self) -> Component:
        options = {name: getattr(self, name) for name in _parameters(self.core_class)}
        return self.core_class(**{**options, "device": core_device(self.device)})

    def _kept(self) -> dict[str, Any]:
        """Return the arguments that make an equal component; a ready one is among them as its options."""
        return {name: getattr(self, name) for name in _parameters(type(self)) if name != self.ready}

    @property
    def _core(self) -> Component:
        core: Component = getattr(self, self.ready)
        return core


def core_device(device: Device) -> str | list[str] | None:
    """Return a device as the core takes it.

    Args:
        device: a torch device's name, several of them, or Haystack's `ComponentDevice`. Of one with a device
            map only the devices count: each gets the whole model.

    Raises:
        ConfigurationError: a device map has no device or has the disk, where no model can run.
    """
    if device is None or isinstance(device, str):
        return device
    if not isinstance(device, ComponentDevice):
        return list(device)
    if not device.has_multiple_devices:
        return device.to_torch_str()
    names = list(dict.fromkeys(device.to_dict()["device_map"].values()))
    if not names or "disk" in names:
        raise ConfigurationError(f"device must name devices that can run a whole model, got {names}")
    return names


def _parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    # Of __init__, since the signature of a Haystack component's class is that of its metaclass.
    parameters = dict(inspect.signature(cls.__init__).parameters)
    del parameters["self"]
    return parameters


def _rebuild(cls: type[Self], data: dict[str, Any]) -> Self:
    return cls.from_dict(data)
