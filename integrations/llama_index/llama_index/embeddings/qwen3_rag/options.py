"""The core's constructor options as pydantic fields, and the life of the core object they make.

`Qwen3Embedding` and `Qwen3Rerank` both inherit this; it is no part of the public interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.schema import BaseComponent

from qwen3_rag.adapter import Adapter, check_names
from qwen3_rag.secret import without_secrets
from qwen3_rag.settings import DType, Hub
from qwen3_rag.usage import Usage

Self = TypeVar("Self", bound="CoreOptions")


class CoreOptions(Adapter, BaseComponent):
    """Fields that `Embedder` and `Reranker` have in common.

    They are frozen: the core object behind them is made once, and an assignment that changed
    nothing would be worse than an error. `model_copy(update={...})` makes a changed adapter.
    A subclass adds one excluded field for the core object, under the name in `ready`.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        protected_namespaces=("pydantic_model_",),
        extra="forbid",
        validate_assignment=True,
    )

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

    _owns_component: bool = PrivateAttr()
    _usage_before: Usage = PrivateAttr()

    if not TYPE_CHECKING:  # type checkers and `inspect.signature` take the parameters from the fields

        def __init__(self, **fields: Any) -> None:
            cls = type(self)
            fields.pop("class_name", None)  # in serialised forms only
            check_names(fields, cls.model_fields, cls.__name__)
            super().__init__(**cls._completed(fields))
            # Outside pydantic's validation, which would turn our errors into its own.
            self._connect(fields.get(cls.ready))

    def model_copy(self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return an adapter of the same configuration, some of it changed; weights stay shared.

        Callbacks, cache and rate limiter are those of the original.

        Args:
            update: fields to change; validated like the constructor's. If the copy has other options of the
                core than a ready component, it makes its own.
            deep: make a component of its own in any case.
        """
        return self._copied({} if update is None else update, deep=deep)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the configuration as a dict that `from_dict` takes, without secrets.

        Args:
            **kwargs: as pydantic's `model_dump`.
        """
        data = super().to_dict(**kwargs)
        if data.get("model_kwargs") is not None:
            # As they are: pydantic would write a quantisation config as a dict of some of its fields.
            data["model_kwargs"] = without_secrets(self.model_kwargs)
        return data

    @field_serializer("model_kwargs")
    def _serialize_model_kwargs(self, model_kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if model_kwargs is None else without_secrets(model_kwargs)

    def _configuration(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, f in type(self).model_fields.items() if not f.exclude}

    def _collaborators(self) -> dict[str, Any]:
        configured = {*self._configuration(), self.ready}
        excluded = [name for name, field in type(self).model_fields.items() if field.exclude]
        return {name: getattr(self, name) for name in excluded if name not in configured}
