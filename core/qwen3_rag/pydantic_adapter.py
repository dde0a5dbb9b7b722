"""What adapters share whose frameworks' classes are pydantic models: the core's options as fields.

Imported by such adapters only: the core does not need pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_serializer,
)

from qwen3_rag.adapter import Adapter, check_names
from qwen3_rag.arguments import model_name
from qwen3_rag.pydantic_state import (
    State,
    bare_copy,
    deepen,
    input_names,
    refused_names,
    restored,
    set_fields,
    state_of,
    validated,
)
from qwen3_rag.secret import check_no_secret, without_secrets
from qwen3_rag.settings import DType, Hub

Self = TypeVar("Self", bound="PydanticAdapter")

ModelName = Annotated[str, BeforeValidator(model_name)]
"""A hub repository or a local folder. A path is taken too, and kept as a string; type checkers know `str`."""


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

    # Inputs may hold a key, and pydantic's errors would quote them. A field to which a subclass gives an alias
    # is still called by its name in copies and in what dumps make again.
    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        protected_namespaces=(),
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    model: ModelName = Field(frozen=True)
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

    # Type checkers and `inspect.signature` take the arguments from the fields. It is not a pydantic
    # validator because pydantic would turn a ConfigurationError, being a ValueError, into its own.
    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            cls = type(self)
            if options.get(cls.ready) is None:
                options.pop(cls.ready, None)
            else:
                cls._checked_kind(options[cls.ready])
            refused: set[str] = set()
            try:
                super().__init__(**options)
            except ValidationError as error:
                refused = refused_names(error)
                if refused <= set(input_names(cls)):  # none, or what an alias means that was given as well
                    raise
            check_names(refused, input_names(cls), cls.__name__)
            given = vars(self)[cls.ready]
            if given is not None:
                beside = {name: vars(self)[name] for name in self.model_fields_set}
                set_fields(self, cls._options_of(given, beside))
            self._connect(given)

    def model_copy(self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a new object with the same options, some of them replaced; weights are shared.

        No constructor runs. Callbacks, caches and the like are those of the original.

        Args:
            update: options to replace, by the names of their fields. Unlike pydantic's own method this one
                validates them, together with the others. If the copy has other options of the core than a
                ready component, it makes its own.
            deep: make a component of its own in any case, and copy what subclasses have added. What cannot be
                copied, such as a lock, is shared.

        Raises:
            ConfigurationError, pydantic.ValidationError: as the constructor.
        """
        return self._copied({} if update is None else update, {} if deep else None)

    def copy(  # type: ignore[override]
        self: Self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """`model_copy` by its deprecated name; pydantic's own shares the component and ignores `update`."""
        return self.model_copy(update=update, deep=deep)

    def __copy__(self: Self) -> Self:
        return self._copied({}, None)

    def __deepcopy__(self: Self, memo: dict[int, Any] | None = None) -> Self:
        return self._copied({}, {} if memo is None else memo)

    def __reduce__(self) -> tuple[Callable[..., PydanticAdapter], tuple[Any, ...]]:
        state = state_of(self, without=self._left_behind)
        check_no_secret(state.fields["model_kwargs"])
        check_no_secret({**state.private, **state.others}, "attributes")
        return _unpickled, (type(self), state)

    @property
    def _left_behind(self) -> set[str]:
        """Names of fields that do not travel, and that deep copies share."""
        return {self.ready}

    def _copied(self: Self, update: Mapping[str, Any], memo: dict[int, Any] | None) -> Self:
        """Return a copy, deep if there is a memo for `copy.deepcopy`."""
        changes = self._checked(update) if update else {}
        is_shallow = memo is None or self.ready in changes
        ready = self._ready_of_copy(changes) if is_shallow else None
        copied = bare_copy(self)
        if memo is not None:
            memo[id(self)] = copied  # for what refers back to it
            deepen(copied, memo, shared={*self._left_behind, *self._component.arguments})
        set_fields(copied, changes)
        copied._connect(ready)
        return copied

    def _checked(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields in which a copy differs, validated, with those of another ready component."""
        check_names(update, type(self).model_fields, type(self).__name__)
        ready = {name: given for name, given in update.items() if name == self.ready}
        others = {name: value for name, value in update.items() if name != self.ready}
        kept = {name: vars(self)[name] for name in type(self).model_fields if name != self.ready}
        given = ready.get(self.ready)
        if given is not None:
            kept.update(self._checked_kind(given).arguments)
        changes = validated(type(self), {**kept, **others}, others)
        return {**changes, **ready, **({} if given is None else self._options_of(given, changes))}

    @field_serializer("model_kwargs")
    def _serialize_model_kwargs(self, model_kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if model_kwargs is None else dict(_written(without_secrets(model_kwargs)))


def _unpickled(cls: type[PydanticAdapter], state: State) -> PydanticAdapter:
    """Return an adapter of what `__reduce__` gave, with a component of its own.

    Raises:
        ConfigurationError, pydantic.ValidationError: the class has other options by now, or an option does not
            fit it.
    """
    check_names(state.fields, cls.model_fields, cls.__name__)
    adapter = restored(cls, state)
    adapter._connect(None)
    return adapter


def _written(value: Any) -> Any:
    """Return loader options as values that tell them apart.

    Transformers' quantisation configs, which are dataclasses without declared fields, would all be written
    alike; their loaders take such a dict too.
    """
    if isinstance(value, Mapping):
        return {name: _written(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_written(part) for part in value]
    to_dict = None if isinstance(value, type) else getattr(value, "to_dict", None)
    return without_secrets(to_dict()) if callable(to_dict) else value
