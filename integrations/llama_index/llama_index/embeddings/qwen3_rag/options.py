"""The core's constructor options as pydantic fields, and the life of the core object they make.

`Qwen3Embedding` and `Qwen3Rerank` both inherit this; it is no part of the public interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.schema import BaseComponent

from qwen3_rag.component import Component
from qwen3_rag.ready import options_of_ready
from qwen3_rag.secret import check_no_secret
from qwen3_rag.settings import DType, Hub
from qwen3_rag.usage import Usage

Self = TypeVar("Self", bound="CoreOptions")


class CoreOptions(BaseComponent):
    """Fields that `Embedder` and `Reranker` have in common.

    They are frozen: the core object behind them is made once, and an assignment that changed
    nothing would be worse than an error. `model_copy(update={...})` makes a changed adapter.

    A subclass adds one excluded field named `component_field` that holds the core object, and
    names its class in `component_type`.
    """

    # Forbidden extras: a misspelt option is an error, not a default.
    model_config = ConfigDict(
        arbitrary_types_allowed=True, protected_namespaces=("pydantic_model_",), extra="forbid"
    )

    component_type: ClassVar[type[Component]]
    component_field: ClassVar[str]

    model: str = Field(frozen=True)
    backend: str = Field(default="transformers", frozen=True)
    instruction: str | None = Field(default=None, frozen=True)
    max_tokens: int = Field(default=8192, frozen=True)
    device: str | Sequence[str] | None = Field(default=None, frozen=True)
    dtype: DType = Field(default="auto", frozen=True)
    revision: str | None = Field(default=None, frozen=True)
    hub: Hub = Field(default="huggingface", frozen=True)
    parse_special_tokens: bool = Field(default=False, frozen=True)
    token_budget: int | None = Field(default=None, frozen=True)
    share_prefixes: bool = Field(default=True, frozen=True)
    timeout: float | None = Field(default=None, frozen=True)
    max_wait_ms: float = Field(default=0.0, frozen=True)
    max_queued: int = Field(default=1024, frozen=True)
    model_kwargs: Mapping[str, Any] | None = Field(default=None, frozen=True, repr=False)

    _owns_component: bool = PrivateAttr(default=True)

    if not TYPE_CHECKING:  # type checkers and `inspect.signature` take the parameters from the fields

        def __init__(self, **fields: Any) -> None:
            fields.pop("class_name", None)  # in serialised forms only
            given = fields.get(self.component_field)
            if given is not None:
                options = options_of_ready(given, self.component_type, self.component_field, fields)
                fields = {**fields, **options}
            super().__init__(**fields)
            # Outside pydantic's validation, which would turn our errors into its own.
            if given is None:
                self.__dict__[self.component_field] = self.component_type(**self._core_options())
            self._owns_component = given is None

    @property
    def usage(self) -> Usage:
        """What all calls of the component cost together: texts, tokens, documents cut."""
        return self._component.usage

    def load(self: Self) -> Self:
        """Load tokenizer and weights now instead of on first use.

        Raises:
            CheckpointError, ConfigurationError, MissingExtraError: what is wrong with the options.
        """
        self._component.load()
        return self

    def close(self) -> None:
        """Give the engine back. A component that was given to the constructor stays open."""
        if self._owns_component:
            self._component.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        check_no_secret(self.model_kwargs)
        return _rebuild, (type(self), self._configuration())

    def __copy__(self: Self) -> Self:
        return self.model_copy()

    def __deepcopy__(self: Self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()

    def model_copy(self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return an adapter of the same configuration with its own component; weights stay shared.

        Args:
            update: fields to change; validated like the constructor's.
            deep: makes no difference. Collaborators (callbacks, cache, rate limiter) are shared.
        """
        names = [name for name, field in type(self).model_fields.items() if field.exclude]
        collaborators = {name: getattr(self, name) for name in names if name != self.component_field}
        return type(self)(**{**self._configuration(), **collaborators, **(update or {})})

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the configuration as a dict that `from_dict` takes, without secrets.

        Args:
            **kwargs: as pydantic's `model_dump`.
        """
        data = super().to_dict(**kwargs)
        if data.get("model_kwargs") is not None:
            # As they are: pydantic would write a quantisation config as a dict of some of its fields.
            data["model_kwargs"] = _without_secrets(self.model_kwargs)
        return data

    @field_serializer("model_kwargs")
    def _serialize_model_kwargs(self, model_kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if model_kwargs is None else _without_secrets(model_kwargs)

    @property
    def _component(self) -> Component:
        component: Component = self.__dict__[self.component_field]
        return component

    def _configuration(self) -> dict[str, Any]:
        """All that makes this adapter again, but for the objects it works with."""
        return {name: getattr(self, name) for name, f in type(self).model_fields.items() if not f.exclude}

    def _core_options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in signature(self.component_type).parameters}


def _without_secrets(value: Any) -> Any:
    """Return `value` with objects that wrap a secret left out of its mappings and lists."""
    if isinstance(value, Mapping):
        return {k: _without_secrets(v) for k, v in value.items() if not _is_secret(v)}
    if isinstance(value, list | tuple):
        return [_without_secrets(v) for v in value if not _is_secret(v)]
    return value


def _is_secret(value: object) -> bool:
    """Whether it is pydantic's SecretStr, Haystack's Secret, or alike."""
    return hasattr(value, "get_secret_value") or hasattr(value, "resolve_value")


def _rebuild(cls: type[CoreOptions], configuration: dict[str, Any]) -> CoreOptions:
    return cls(**configuration)
