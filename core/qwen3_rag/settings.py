"""Everything that makes two engines the same engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from qwen3_rag.backend_traits import BackendTraits, traits_of
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind

Hub = Literal["huggingface", "modelscope"]
_LONGEST_WAIT_MS: Final = 1000
"""A batch that waits longer than a second for company is a mistake in units."""

HUB_OPTIONS: Final = ("token", "cache_dir", "local_files_only")
"""In `model_kwargs`: for whoever downloads, not for the backend's loader. The names are huggingface-hub's."""

_OPTIONS_OF_THEIR_OWN: Final = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "device": "device",
    "revision": "revision",
}
"""Argument of Hugging Face's loaders -> the option here that says the same, which it would overrule."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class EngineSettings:
    """What a backend needs to know to load a model and run it.

    Attributes:
        kind: "embedding" (last-token hidden states) or "reranking" (yes/no log-odds).
        model: hub repository or local folder.
        backend: name in the entry-point group `qwen3_rag.backends`.
        device: torch device such as "cuda:1", "mps" or "cpu", or several of them; None takes the
            best there is.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: branch, tag or commit of the hub repository; None for its default.
        hub: "huggingface" or "modelscope".
        token_budget: most tokens of one round of the model; None derives it from free memory.
        share_prefixes: compute the common prefixes of prompts once.
        max_wait_ms: how long a batch that is not full waits for more calls, in milliseconds.
        max_queued: pieces of work (up to 512 texts each) that may wait or run; more calls wait in front.
        model_kwargs: `HUB_OPTIONS`, and what the backend's own loader gets as it is; none of the names of
            options above. Never shown: they may hold a key.
    """

    kind: ModelKind
    model: str
    backend: str = "transformers"
    device: str | Sequence[str] | None = None
    dtype: DType = "auto"
    revision: str | None = None
    hub: Hub = "huggingface"
    token_budget: int | None = None
    share_prefixes: bool = True
    max_wait_ms: float = 0.0
    max_queued: int = 1024
    model_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(
                "model must be the name of a hub repository or of a local folder, a str or a path, "
                f"got {self.model!r}"
            )
        if self.dtype not in get_args(DType):
            raise ConfigurationError(f"dtype must be one of {get_args(DType)}, got {self.dtype!r}")
        if self.hub not in get_args(Hub):
            raise ConfigurationError(f"hub must be one of {get_args(Hub)}, got {self.hub!r}")
        if self.token_budget is not None and self.token_budget < 1:
            raise ConfigurationError(f"token_budget must be 1 or more, or None, got {self.token_budget}")
        if not 0 <= self.max_wait_ms <= _LONGEST_WAIT_MS:
            raise ConfigurationError(f"max_wait_ms must be 0 to {_LONGEST_WAIT_MS}, got {self.max_wait_ms}")
        if self.max_queued < 1:
            raise ConfigurationError(f"max_queued must be 1 or more, got {self.max_queued}")
        for name, option in _OPTIONS_OF_THEIR_OWN.items():
            if name in (self.model_kwargs or {}):
                raise ConfigurationError(
                    f"model_kwargs holds {name!r}, which is an option of its own: move it out, as {option}=..."
                )
        if self.device is not None and not isinstance(self.device, str):
            self._check_devices(self.device)

    def _check_devices(self, devices: Sequence[str]) -> None:
        if len(devices) == 0:
            raise ConfigurationError("device must name at least one device, or be None; got an empty list")
        if not self.traits.runs_here:
            raise ConfigurationError(
                f'backend="{self.backend}" runs on no device of this machine, got device={list(devices)!r}; '
                "leave device out, and spread the work over several servers with "
                'model_kwargs={"base_url": ["http://one:8000", "http://two:8000"], ...}'
            )

    @property
    def traits(self) -> BackendTraits:
        """What is known of the backend by its name."""
        return traits_of(self.backend)

    @property
    def one_device(self) -> str | None:
        """The device, for a backend that runs on one; each of several has a backend of its own."""
        assert self.device is None or isinstance(self.device, str), "the engine deals out several devices"
        return self.device

    @property
    def per_device(self) -> list[EngineSettings]:
        """These settings for each of their devices."""
        if self.device is None or isinstance(self.device, str):
            return [self]
        return [replace(self, device=device) for device in self.device]

    @property
    def hub_options(self) -> dict[str, Any]:
        """What `model_kwargs` holds for the hub."""
        return {name: value for name, value in (self.model_kwargs or {}).items() if name in HUB_OPTIONS}

    @property
    def loader_options(self) -> dict[str, Any]:
        """What `model_kwargs` holds for the backend's loader. A new dict."""
        return {name: value for name, value in (self.model_kwargs or {}).items() if name not in HUB_OPTIONS}

    @property
    def shares_prefixes(self) -> bool:
        """Whether a prefix that prompts of a batch have in common is likely to be computed once."""
        return self.share_prefixes and self.traits.shares_prefixes

    @property
    def breaks_special_strings(self) -> bool:
        """Whether strings of user text that read as special tokens are broken before prompts are encoded."""
        return self.traits.breaks_special_strings(self.loader_options)

    @property
    def key(self) -> str:
        """Equal for settings whose components may share one engine."""
        fields = {
            **self.__dict__,
            "device": [one.device for one in self.per_device],
            "max_wait_ms": float(self.max_wait_ms),
            "model_kwargs": dict(self.model_kwargs or {}),
        }
        return _canonical(fields)


def _canonical(value: Any) -> str:
    """Equal for equal values: mappings in any order, whatever their keys are, lists and tuples."""
    if isinstance(value, Mapping):
        items = sorted(f"{_canonical(name)}: {_canonical(one)}" for name, one in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_canonical, value))}]"
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value)
    return _identity(value)


def _identity(value: Any) -> str:
    """Equal for equal objects that can be hashed, else only for the same object."""
    try:
        number = hash(value)
    except TypeError:
        number = id(value)
    return f"{type(value).__qualname__} {number}"
