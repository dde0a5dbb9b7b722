"""What the adapters of all frameworks share: the component behind one, its life, its copies.

The rules, of which the guides tell users:

- An adapter makes its component from its options, or works with a ready one that it was given.
- `close` gives the weights of its own component back, and the next use loads them again. A ready component
  stays its owner's, open.
- A copy (`copy.copy`, `model_copy`) works with the same ready component, unless it changes an option of the
  core: then it makes its own, of the ready one's options and the change. It may be given another ready one.
- What is deep or travels (`copy.deepcopy`, pickles, dicts, files) is the configuration alone, and makes a
  component of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from qwen3_rag.component import Component
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.secret import check_no_secret
from qwen3_rag.usage import Usage

Self = TypeVar("Self", bound="Adapter")


class Adapter:
    """A class to inherit, before the framework's own.

    The component in use is the attribute that `ready` names. A subclass's constructor completes its
    arguments with `_completed`, keeps each under its own name, and then calls `_connect`.
    """

    core_class: ClassVar[type[Component]]
    """`Embedder` or `Reranker`."""

    ready: ClassVar[str]
    """Name of the argument that takes a ready component, and of the attribute that holds the one in use."""

    _owns_component: bool
    _usage_before: Usage
    """Of own components that were closed."""

    @property
    def usage(self) -> Usage:
        """What all calls of the component cost together: texts, tokens, documents cut."""
        return self._usage_before + self._component.usage

    def load(self: Self) -> Self:
        """Load tokenizer and weights now instead of on first use.

        Raises:
            CheckpointError, ConfigurationError, MissingExtraError: what is wrong with the options.
        """
        self._component.load()
        return self

    def close(self) -> None:
        """Give the weights back; the last user frees them, and the next use of this object loads them again.

        A component that was given ready stays its owner's, open.
        """
        if self._owns_component:
            closed = self._component
            vars(self)[self.ready] = self._made()
            closed.close()
            self._usage_before += closed.usage

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

    def __reduce__(self) -> tuple[Callable[[], Adapter], tuple[()]]:
        configuration = self._configuration()
        check_no_secret(configuration.get("model_kwargs"))
        return partial(type(self), **configuration), ()

    def __copy__(self: Self) -> Self:
        return self._copied({})

    def __deepcopy__(self: Self, _: object = None) -> Self:
        return self._copied({}, deep=True)

    @property
    def _component(self) -> Component:
        component: Component = vars(self)[self.ready]
        return component

    def _configuration(self) -> dict[str, Any]:
        """Return the arguments that make this adapter again, but for the objects it works with."""
        raise NotImplementedError

    def _collaborators(self) -> dict[str, Any]:
        """Return further arguments, of objects that copies in the same process share."""
        return {}

    @staticmethod
    def _to_core(option: str, value: Any) -> Any:  # noqa: ARG004
        """Return the value of an option as the core takes it."""
        return value

    @classmethod
    def _completed(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor's arguments with the options of the ready component, if one is given.

        Raises:
            ConfigurationError: the ready component is of another kind, or an argument says otherwise.
        """
        others = {name: value for name, value in arguments.items() if name != cls.ready}
        given = arguments.get(cls.ready)
        if given is None:
            return others
        beside = {name: cls._to_core(name, value) for name, value in others.items()}
        return {**others, **_options_of(given, cls.core_class, cls.ready, beside), cls.ready: given}

    def _connect(self, given: Component | None) -> None:
        self._owns_component = given is None
        self._usage_before = Usage()
        # Past the checks of frozen pydantic models.
        vars(self)[self.ready] = self._made() if given is None else given

    def _made(self) -> Component:
        options = {name: getattr(self, name) for name in _options(self.core_class)}
        return self.core_class(**{name: self._to_core(name, value) for name, value in options.items()})

    def _copied(self: Self, update: Mapping[str, Any], *, deep: bool = False) -> Self:
        kept = {**self._configuration(), **self._collaborators()}
        options = _options(self.core_class)
        changed = [name for name in options if name in update and not _are_same(update[name], kept[name])]
        if update.get(self.ready) is not None:
            kept = {name: value for name, value in kept.items() if name not in options}
        elif not (self._owns_component or changed or deep):
            kept[self.ready] = self._component
        return type(self)(**{**kept, **update})


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


def _options_of(
    component: object, kind: type[Component], name: str, beside: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a ready component's options, if those given beside it do not contradict it.

    One that equals the core's default contradicts nothing, since many a framework passes all of them.
    """
    if not isinstance(component, kind):
        raise ConfigurationError(f"{name} must be a qwen3_rag.{kind.__name__}, got {type(component).__name__}")
    options, defaults = component.arguments, _options(kind)
    clashes = [
        option
        for option, value in options.items()
        if option in beside and not any(_are_same(beside[option], v) for v in (defaults[option], value))
    ]
    if clashes:
        raise ConfigurationError(
            f"{name} is given together with {', '.join(clashes)}, and says otherwise; give options to the "
            f"{kind.__name__}, or leave {name} out"
        )
    return options


def _options(kind: type[Component]) -> dict[str, Any]:
    """Return the core's options and their defaults."""
    return {name: parameter.default for name, parameter in signature(kind).parameters.items()}


def _are_same(value: Any, other: Any) -> bool:
    """Whether two values of an option mean the same: several devices are a list or a tuple."""
    if isinstance(value, tuple | list) and isinstance(other, tuple | list):
        return list(value) == list(other)
    return bool(value == other)
