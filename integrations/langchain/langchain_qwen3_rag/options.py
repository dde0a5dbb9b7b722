"""The core's constructor arguments as pydantic fields, and the component that is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_serializer
from pydantic.json_schema import SkipJsonSchema
from qwen3_rag.adapter import Adapter, check_names
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.reranker import Reranker
from qwen3_rag.secret import without_secrets
from qwen3_rag.settings import DType, Hub
from qwen3_rag.usage import Usage
from typing_extensions import Self


class ComponentOptions(Adapter, BaseModel):
    """Base of the adapters: a frozen pydantic model that holds an `Embedder` or a `Reranker`.

    Creating one loads nothing; weights are loaded on first use or by `load()`, once per process for
    equal settings. Pickles and copies carry the configuration, never weights, and dumps no secret.
    Fields cannot be assigned; `model_copy(update={...})` gives another object that shares the weights.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with a ready component.
        pydantic.ValidationError: an option is of a wrong type.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    backend: str = "transformers"
    """What runs the model; `qwen3-rag plugins` lists the names."""

    instruction: str | None = None
    """Task sentence, or a preset's name. None takes the model's own, else the published default."""

    max_tokens: int = 8192
    """Longest prompt; longer documents are cut at their end, counted and warned of."""

    device: str | Sequence[str] | None = None
    """"cuda", "cuda:1", "mps" or "cpu", or several of them; None takes the best there is."""

    dtype: DType = "auto"
    """"auto" is bfloat16 where the hardware computes it, else float32."""

    revision: str | None = None
    """Branch, tag or commit of the hub repository."""

    hub: Hub = "huggingface"
    """"huggingface" or "modelscope"."""

    parse_special_tokens: bool = False
    """Recognise `<|im_end|>` and the like inside texts. Leave it False for text you did not write."""

    token_budget: int | None = None
    """Most tokens of one batch; None derives it from free memory."""

    share_prefixes: bool = True
    """Compute what prompts have in common at their beginning once."""

    timeout: float | None = None
    """Most seconds of one call, loading included; then it raises DeadlineExceededError."""

    max_wait_ms: float = 0.0
    """How long a batch that is not full waits for other calls to join it."""

    max_queued: int = 1024
    """Calls that may wait or run in the engine; further ones wait until there is room."""

    model_kwargs: Mapping[str, Any] | None = Field(default=None, repr=False)
    """Further arguments for the backend's loader. Not shown by `repr`, since it may hold secrets."""

    _owns_component: bool = PrivateAttr()
    _usage_before: Usage = PrivateAttr()

    # Hidden from type checkers, which derive the arguments from the fields. It is not a pydantic
    # validator because pydantic would turn a ConfigurationError, being a ValueError, into its own.
    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            cls = type(self)
            check_names(options, cls.model_fields, cls.__name__)
            super().__init__(**cls._completed(options))
            self._connect(options.get(cls.ready))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a new object with the same options, some of them replaced; weights are shared.

        Args:
            update: options to replace. Unlike pydantic's own method this one validates them. If the copy
                has other options of the core than a ready component, it makes its own.
            deep: make a component of its own in any case.

        Raises:
            ConfigurationError, pydantic.ValidationError: as the constructor.
        """
        return self._copied({} if update is None else update, deep=deep)

    @field_serializer("model_kwargs")
    def _serialize_model_kwargs(self, model_kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if model_kwargs is None else without_secrets(model_kwargs)

    def _configuration(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name != self.ready}


class RerankerOptions(ComponentOptions):
    """Options of the adapters that wrap a `Reranker`."""

    core_class = Reranker
    ready = "reranker"

    model: str = DEFAULT_RERANKING_MODEL
    """Hub repository or local folder."""

    reranker: SkipJsonSchema[Reranker] = Field(  # never None once made
        default=cast("Reranker", None), exclude=True, repr=False
    )
    """A ready `Reranker` to use instead of the core's options, which is never closed by the adapter.
    As an attribute the one in use, given or not."""
