"""What the three Haystack components have in common: options, life cycle, saving and loading."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from haystack import default_from_dict, default_to_dict
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.qwen3_rag.serialization import (
    check_saveable,
    from_plain,
    to_plain,
)

from qwen3_rag.adapter import Adapter
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.settings import DType, Hub

Device = str | Sequence[str] | ComponentDevice | None
Self = TypeVar("Self", bound="CoreComponent")


class CoreComponent(Adapter):
    """Base of the Haystack components: holds an `Embedder` or a `Reranker`, made or given.

    A subclass names both kinds of argument in its constructor and calls `_start` with all of them.
    Each argument is kept as an attribute of its own name. Files, pickles and copies carry the
    configuration, never weights; a file carries a component that was given ready as its configuration too.
    """

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
        self.load()

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop. Haystack's async pipelines call it."""
        if self._component.backend is None:
            await asyncio.to_thread(self.warm_up)

    async def close_async(self) -> None:
        """`close` without blocking the event loop while a running batch ends."""
        await asyncio.to_thread(self.close)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, secrets by the names of their environment variables.

        Raises:
            SerializationError: an argument holds an object that a file cannot, or a key as a plain string.
            ValueError: a `Secret` holds a token itself; use `Secret.from_env_var`.
        """
        check_saveable(self.model_kwargs)
        plain = {name: to_plain(name, value) for name, value in self._configuration().items()}
        return default_to_dict(self, **plain)

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

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an attribute, unless it is an option that the model was made with.

        Raises:
            ConfigurationError: it is. The message does not show the value, which may hold a secret.
        """
        if name in _parameters(self.core_class) or name == self.ready:
            kind = type(self).__name__
            raise ConfigurationError(
                f"{name} of a {kind} is fixed, since its model was made with it; make another {kind} "
                f"with the {name} you want, which shares the weights wherever it can"
            )
        super().__setattr__(name, value)

    def _start(self, arguments: Mapping[str, Any]) -> None:
        """Keep all arguments of the constructor, and make the core's component if none was given.

        Args:
            arguments: by name; "self" is ignored.

        Raises:
            ConfigurationError: one is out of range, or stands beside a ready component.
        """
        kept = self._completed({name: arguments[name] for name in _parameters(type(self))})
        given = kept.pop(self.ready, None)
        vars(self).update(kept)
        self._connect(given)

    @staticmethod
    def _to_core(option: str, value: Any) -> Any:
        return core_device(value) if option == "device" else value

    def _configuration(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _parameters(type(self)) if name != self.ready}


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
