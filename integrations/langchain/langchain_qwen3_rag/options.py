"""The core's constructor arguments as pydantic fields, and the component that is made of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import DEFAULT_RERANKING_MODEL
from qwen3_rag.ready import options_of_ready
from qwen3_rag.reranker import Reranker
from qwen3_rag.settings import DType, Hub
from qwen3_rag.usage import Usage
from typing_extensions import Self


class ComponentOptions(BaseModel):
    """Base of the adapters: a frozen pydantic model that holds an `Embedder` or a `Reranker`.

    Creating one loads nothing; weights are loaded on first use or by `load()`, once per process for
    equal settings. Pickles and copies carry the configuration, never weights. Fields cannot be
    assigned; `model_copy(update={...})` gives another object that shares the weights.

    Raises:
        ConfigurationError: an option is unknown or out of range, or clashes with a ready component.
        pydantic.ValidationError: an option is of a wrong type.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, protected_namespaces=()
    )

    core_class: ClassVar[type[Component]]
    """What the adapter wraps."""

    ready: ClassVar[str]
    """Name of the field that takes a ready component."""

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

    _component: Component = PrivateAttr()

    # Hidden from type checkers, which derive the arguments from the fields. It is not a pydantic
    # validator because pydantic would turn a ConfigurationError, being a ValueError, into its own.
    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            cls = type(self)
            unknown = sorted(options.keys() - cls.model_fields.keys())
            if unknown:
                # Names only: a misplaced option may hold a secret.
                known = ", ".join(cls.model_fields)
                raise ConfigurationError(
                    f"{cls.__name__} has no option {', '.join(unknown)}; there are: {known}"
                )
            component = options.get(cls.ready)
            if isinstance(component, cls.core_class):
                arguments = options_of_ready(component, cls.core_class, cls.ready, options)
                options |= {name: value for name, value in arguments.items() if name in cls.model_fields}
            super().__init__(**options)
            if component is None:
                names = inspect.signature(cls.core_class).parameters
                component = cls.core_class(**{name: getattr(self, name) for name in names})
            self._component = component

    @property
    def usage(self) -> Usage:
        """Texts and tokens of all finished calls of the component."""
        return self._component.usage

    def load(self) -> Self:
        """Load tokenizer and weights now instead of on first use.

        Raises:
            CheckpointError, ConfigurationError, MissingExtraError: what is wrong with the settings.
        """
        self._component.load()
        return self

    def close(self) -> None:
        """Give the weights back; the last user frees them. A ready component stays its owner's, open."""
        if getattr(self, self.ready) is None:
            self._component.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return a new object with the same options, some of them replaced; weights are shared.

        Args:
            update: options to replace. Unlike pydantic's own method this one validates them.
            deep: of no effect, since nothing mutable is shared but the weights.

        Raises:
            ConfigurationError, pydantic.ValidationError: as the constructor.
        """
        options = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**options, **(update if update is not None else {})})


class RerankerOptions(ComponentOptions):
    """Options of the adapters that wrap a `Reranker`."""

    core_class = Reranker
    ready = "reranker"

    model: str = DEFAULT_RERANKING_MODEL
    """Hub repository or local folder."""

    reranker: Reranker | None = Field(default=None, exclude=True, repr=False)
    """A ready `Reranker` to use instead; excludes the core's options and is never closed by the adapter."""

    _component: Reranker = PrivateAttr()
