"""What adapters share whose frameworks' classes are pydantic models: the core's options as fields.

Imported by such adapters only: the core does not need pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer

from qwen3_rag.adapter import Adapter, check_names
from qwen3_rag.secret import without_secrets
from qwen3_rag.settings import DType, Hub
from qwen3_rag.usage import Usage

Self = TypeVar("Self", bound="PydanticAdapter")


class PydanticAdapter(Adapter, BaseModel):
    """A pydantic model that holds an `Embedder` or a `Reranker`, with what both have in common as fields.

    Creating one loads nothing. The fields are frozen: the component behind them is made once, and an
    assignment that changed nothing would be worse than an error. `model_copy(update={...})` gives another
    object that shares the weights. Dumps hold no secret.

    A subclass gives `model` a default, and adds one excluded field for the component, under the name in
    `ready`.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with a ready component.
        pydantic.ValidationError: an option is of a wrong type.
    """

    # Inputs may hold a key, and pydantic's errors would quote them.
    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )

    model: str = Field(frozen=True)
    """Hub repository or local folder."""

    backend: str = Field(default="transformers", frozen=True)
    """What runs the model; `qwen3-rag plugins` lists the names."""

    instruction: str | None = Field(default=None, frozen=True)
    """Task sentence, or a preset's name. None takes the model's own, else the published default."""

    max_tokens: int = Field(default=8192, frozen=True)
    """Longest prompt; longer documents are cut at their end, counted and warned of."""

    device: str | Sequence[str] | None = Field(default=None, frozen=True)
    """"cuda", "cuda:1", "mps" or "cpu", or several of them; None takes the best there is."""

    dtype: DType = Field(default="auto", frozen=True)
    """"auto" is bfloat16 where the hardware computes it, else float32."""

    revision: str | None = Field(default=None, frozen=True)
    """Branch, tag or commit of the hub repository."""

    hub: Hub = Field(default="huggingface", frozen=True)
    """"huggingface" or "modelscope"."""

    parse_special_tokens: bool = Field(default=False, frozen=True)
    """Recognise `<|im_end|>` and the like inside texts. Leave it False for text you did not write."""

    token_budget: int | None = Field(default=None, frozen=True)
    """Most tokens of one batch; None derives it from free memory."""

    share_prefixes: bool = Field(default=True, frozen=True)
    """Compute the common prefixes of prompts once."""

    timeout: float | None = Field(default=None, frozen=True)
    """Most seconds of one call, loading included; then it raises DeadlineExceededError."""

    max_wait_ms: float = Field(default=0.0, frozen=True)
    """How long a batch that is not full waits for other calls to join it."""

    max_queued: int = Field(default=1024, frozen=True)
    """Calls that may wait or run in the engine; further ones wait until there is room."""

    model_kwargs: Mapping[str, Any] | None = Field(default=None, frozen=True, repr=False)
    """Further arguments for the backend's loader. Not shown by `repr`, since it may hold secrets."""

    _owns_component: bool = PrivateAttr()
    _usage_before: Usage = PrivateAttr()

    # Type checkers and `inspect.signature` take the arguments from the fields. It is not a pydantic
    # validator because pydantic would turn a ConfigurationError, being a ValueError, into its own.
    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            cls = type(self)
            check_names(options, cls.model_fields, cls.__name__)
            super().__init__(**cls._completed(options))
            self._connect(options.get(cls.ready))

    def model_copy(self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a new object with the same options, some of them replaced; weights are shared.

        Callbacks, caches and the like are those of the original.

        Args:
            update: options to replace. Unlike pydantic's own method this one validates them. If the copy
                has other options of the core than a ready component, it makes its own.
            deep: make a component of its own in any case.

        Raises:
            ConfigurationError, pydantic.ValidationError: as the constructor.
        """
        return self._copied({} if update is None else update, deep=deep)

    def copy(  # type: ignore[override]
        self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """`model_copy` by its deprecated name; pydantic's own shares the component and ignores `update`."""
        return self.model_copy(update=update, deep=deep)

    @field_serializer("model_kwargs")
    def _serialize_model_kwargs(self, model_kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if model_kwargs is None else without_secrets(model_kwargs)

    def _configuration(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name != self.ready}
