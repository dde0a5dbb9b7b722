"""What the adapters of all frameworks share: the component behind one, its life, its copies.

The rules, which the guides tell users too:

- An adapter makes its component from its options, or works with a ready one that it was given.
- `close` gives the weights of its own component back, and the next use loads them again. A ready component
  stays its owner's, open. It is one component all the while, so that threads may close and use it at once.
- A copy (`copy.copy`, `model_copy`) works with the same ready component, unless it changes an option of the
  core: then it makes its own, of the ready one's options and the change. It may be given another ready one.
- What is deep or travels (`copy.deepcopy`, pickles, dicts, files) is the configuration alone, and makes a
  component of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.overriding import follow_overrides
from qwen3_rag.usage import Usage

Self = TypeVar("Self", bound="Adapter")


class Adapter:
    """A class to inherit, before the framework's own.

    The component in use is the attribute that `ready` names. A subclass's constructor keeps each argument
    under its own name, those of a ready component (`_options_of`) too, and then calls `_connect`.
    """

    core_class: ClassVar[type[Component]]
    """`Embedder` or `Reranker`."""

    ready: ClassVar[str]
    """Name of the argument that takes a ready component, and of the attribute that holds the one in use."""

    twins: ClassVar[Mapping[str, str]] = {}
    """Names of sync methods -> names of their async twins. See `follow_overrides`."""

    _owns_component: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        follow_overrides(cls, cls.twins)

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
        """Give the weights back; the last user frees them, and the next use of this object loads them again.

        A component that was given ready stays its owner's, open. May be called from several threads, and
        while others use this object: a call that waits then gives its result or raises EngineClosedError.
        """
        if self._owns_component:
            self._component._unload()

    if not TYPE_CHECKING:  # type checkers would allow any name

        def __setattr__(self, name: str, value: Any) -> None:
            """Assign an attribute, unless it is an option that the component was made with.

            Raises:
                ConfigurationError: it is. The message does not show the value, which may hold a secret.
            """
            if name in _options(self.core_class) or name == self.ready:
                kind = type(self).__name__
                raise ConfigurationError(
                    f"{name} of a {kind} is fixed, since its model was made with it; make another {kind} "
                    f"with the {name} you want, which shares the weights wherever it can"
                )
            super().__setattr__(name, value)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _component(self) -> Component:
        component: Component = vars(self)[self.ready]
        return component

    @staticmethod
    def _to_core(option: str, value: Any) -> Any:  # noqa: ARG004
        """Return the value of an option as the core takes it."""
        return value

    @classmethod
    def _options_of(cls, given: object, beside: Mapping[str, Any]) -> dict[str, Any]:
        """Return a ready component's options; lists and dicts are the caller's own.

        Args:
            given: the component.
            beside: arguments that were given with it. One that equals the core's default contradicts nothing,
                since many a framework passes all of them.

        Raises:
            ConfigurationError: it is of another kind, or an argument says otherwise.
        """
        component = cls._checked_kind(given)
        options, defaults = component.arguments, _options(cls.core_class)
        in_core = {name: cls._to_core(name, beside[name]) for name in options if name in beside}
        clashes = [
            name
            for name, value in in_core.items()
            if not _are_same(value, defaults[name]) and not _are_same(value, options[name])
        ]
        if clashes:
            raise ConfigurationError(
                f"{cls.ready} is given together with {', '.join(clashes)}, and says otherwise; give options to "
                f"the {cls.core_class.__name__}, or leave {cls.ready} out"
            )
        return {name: copy.copy(v) if isinstance(v, list | dict) else v for name, v in options.items()}

    @classmethod
    def _checked_kind(cls, given: object) -> Component:
        """Return what was given as a ready component; raise ConfigurationError if it is of another kind."""
        if not isinstance(given, cls.core_class):
            raise ConfigurationError(
                f"{cls.ready} must be a qwen3_rag.{cls.core_class.__name__}, got {type(given).__name__}"
            )
        return given

    def _connect(self, given: Component | None) -> None:
        self._owns_component = given is None
        # Past the checks of frozen pydantic models.
        vars(self)[self.ready] = self._made() if given is None else given

    def _made(self) -> Component:
        options = {name: getattr(self, name) for name in _options(self.core_class)}
        return self.core_class(**{name: self._to_core(name, value) for name, value in options.items()})

    def _ready_of_copy(self, update: Mapping[str, Any]) -> Component | None:
        """Return the ready component that a copy works with, or None if it makes its own.

        Args:
            update: options in which the copy differs.
        """
        if self.ready in update:
            given: Component | None = update[self.ready]
            return given
        options = [name for name in _options(self.core_class) if name in update]
        is_changed = not all(_are_same(update[name], getattr(self, name)) for name in options)
        return None if self._owns_component or is_changed else self._component


def check_names(given: Iterable[str], known: Iterable[str], name: str) -> None:
    """Refuse arguments that do not exist.

    Args:
        given: names of the arguments; values are not asked for, since a misplaced one may be a secret.
        known: those there are.
        name: of the class, for the error.

    Raises:
        ConfigurationError: one is not known.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(f"{name} has no option {', '.join(unknown)}; there are: {', '.join(known)}")


def _options(kind: type[Component]) -> dict[str, Any]:
    """Return the core's options and their defaults."""
    return {name: parameter.default for name, parameter in signature(kind).parameters.items()}


def _are_same(value: Any, other: Any) -> bool:
    """Whether two values of an option mean the same: several devices are a list or a tuple."""
    if isinstance(value, tuple | list) and isinstance(other, tuple | list):
        return list(value) == list(other)
    return bool(value == other)
