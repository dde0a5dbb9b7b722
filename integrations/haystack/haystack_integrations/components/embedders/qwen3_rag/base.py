"""What the three Haystack components have in common: options, life cycle, saving and loading."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from haystack import default_from_dict, default_to_dict
from haystack.core.errors import SerializationError
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.qwen3_rag.serialization import (
    check_saveable,
    from_plain,
    to_plain,
)

from qwen3_rag.adapter import Adapter
from qwen3_rag.arguments import model_name
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.secret import check_no_secret
from qwen3_rag.settings import DType, Hub

Device = str | Sequence[str] | ComponentDevice | None
Self = TypeVar("Self", bound="CoreComponent")


class CoreComponent(Adapter):
    """Base of the Haystack components: holds an `Embedder` or a `Reranker`, made or given.

    A subclass names both kinds of argument in its constructor and calls `_start` with all of them.
    Each argument is kept as an attribute of its own name. Files, pickles and copies carry the
    configuration, never weights; a file carries a component that was given ready as its configuration too.

    A user's subclass may have a constructor of its own. Its parameters are configuration as Haystack has it:
    the attributes of their names. What it takes as `**options` and passes on belongs to it as well.
    """

    twins = MappingProxyType({"run": "run_async"})

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

    _given: set[str]
    """Names of the arguments that the constructor was called with, and of attributes assigned since."""

    def __new__(cls: type[Self], *_: Any, **given: Any) -> Self:
        # Before any constructor passes on something else.
        made = super().__new__(cls)
        vars(made)["_given"] = set(given)
        return made

    if not TYPE_CHECKING:  # type checkers would allow any name

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            self._given.add(name)

    def __reduce__(self) -> tuple[Callable[[], CoreComponent], tuple[()]]:
        configuration = self._configuration()
        check_no_secret(configuration.get("model_kwargs"))
        return partial(type(self), **configuration), ()

    def __copy__(self: Self) -> Self:
        ready = self._ready_of_copy({})
        return type(self)(**self._configuration(), **({} if ready is None else {self.ready: ready}))

    def __deepcopy__(self: Self, _: object = None) -> Self:
        return type(self)(**self._configuration())

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
        configuration = self._configuration()
        check_saveable(configuration.get("model_kwargs"))
        return default_to_dict(self, **{name: to_plain(name, value) for name, value in configuration.items()})

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

    def _start(self, arguments: Mapping[str, Any]) -> None:
        """Keep all arguments of the constructor, and make the core's component if none was given.

        Args:
            arguments: by name; "self" is ignored. Lists and mappings are copied: what the caller does to its
                own later must not reach files.

        Raises:
            ConfigurationError: one is out of range, or stands beside a ready component.
            TypeError: one is of a wrong type.
        """
        kept = {name: value for name, value in arguments.items() if name not in ("self", self.ready)}
        kept["model"] = model_name(kept["model"])
        given = arguments[self.ready]
        if given is not None:
            kept.update(self._options_of(given, kept))
        vars(self).update({name: _own(value) for name, value in kept.items()})
        self._connect(given)

    @staticmethod
    def _to_core(option: str, value: Any) -> Any:
        return core_device(value) if option == "device" else value

    def _configuration(self) -> dict[str, Any]:
        """Return the arguments that make this component again, but for a ready one of the core's."""
        arguments = {}
        for name, parameter in self._accepted().items():
            arguments[name] = getattr(self, name, parameter.default)  # Haystack's own rule
            if arguments[name] is parameter.empty:
                raise SerializationError(
                    f"a {type(self).__name__} cannot be saved or copied: its constructor needs {name}, and it "
                    f"has no attribute of that name; assign self.{name} = {name} there"
                )
        return arguments

    def _accepted(self) -> dict[str, inspect.Parameter]:
        """Return the parameters by which the constructor makes this component again.

        Of what a subclass's constructor takes as `**options`, those that were given or assigned since: it may
        itself give others to its parent, and would then get them twice.
        """
        constructor, *parents = [vars(cls)["__init__"] for cls in type(self).__mro__ if "__init__" in vars(cls)]
        accepted, takes_more = _parameters(constructor)
        passed_on = self._given | (self._component.arguments.keys() if self.ready in self._given else set())
        while takes_more:
            parameters, takes_more = _parameters(parents.pop(0))
            accepted = {**{name: p for name, p in parameters.items() if name in passed_on}, **accepted}
        return {name: parameter for name, parameter in accepted.items() if name != self.ready}


def core_device(device: Device) -> str | Sequence[str] | None:
    """Return a device as the core takes it.

    Args:
        device: a torch device's name, several of them, or Haystack's `ComponentDevice`. Of one with a device
            map only the devices count: each gets the whole model.

    Raises:
        ConfigurationError: a device map has no device or has the disk, where no model can run.
    """
    if not isinstance(device, ComponentDevice):
        return device
    if not device.has_multiple_devices:
        return device.to_torch_str()
    names = list(dict.fromkeys(device.to_dict()["device_map"].values()))
    if not names or "disk" in names:
        raise ConfigurationError(f"device must name devices that can run a whole model, got {names}")
    return names


def _parameters(constructor: Callable[..., None]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return a constructor's parameters that have a name, and whether it takes others as well."""
    _, *parameters = inspect.signature(constructor).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _own(value: Any) -> Any:
    """Return a value that nobody else can change: a copy of a list or mapping, anything else as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, MutableSequence) else value
