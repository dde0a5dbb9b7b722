"""State of pydantic models: copied, carried and restored without their constructors and validators.

A user's subclass may have a constructor of its own, which takes other arguments than its fields, and validators
that must not see a value twice.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, ValidationError, create_model

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class State:
    """What a pickle of a model holds.

    Attributes:
        fields: values by name.
        fields_set: names of those that were given.
        private: private attributes by name.
        others: what else is in the instance's `__dict__`.
    """

    fields: dict[str, Any]
    fields_set: set[str]
    private: dict[str, Any]
    others: dict[str, Any]


def state_of(model: BaseModel, *, without: set[str]) -> State:
    """Return a model's state to be pickled.

    A private attribute with a `default_factory` (a lock, a client) is left out where no pickle can hold it, and
    made anew.

    Args:
        model: never changed; the values are its own.
        without: names of fields to leave out.
    """
    private = model.__pydantic_private__ or {}
    declared = type(model).__private_attributes__
    return State(
        {name: vars(model)[name] for name in type(model).model_fields if name not in without},
        model.model_fields_set - without,
        {
            name: value
            for name, value in private.items()
            if declared[name].default_factory is None or _can_be_pickled(value)
        },
        _others(model),
    )


def restored(cls: type[Model], state: State) -> Model:
    """Return a model of a state; what it lacks has its default.

    Raises:
        pydantic.ValidationError: a field is missing, or not of the type that is declared. Validators that the
            class defines are not asked.
    """
    _types_of(cls).__pydantic_validator__.validate_python(state.fields)
    model = cls.model_construct(set(state.fields_set), **state.fields)
    vars(model).update(state.others)
    if model.__pydantic_private__ is not None:
        model.__pydantic_private__.update(state.private)
    return model


def bare_copy(model: Model) -> Model:
    """Return a shallow copy, without cached properties."""
    copied = BaseModel.__copy__(model)
    for name in vars(model).keys() - type(model).model_fields.keys() - _others(model).keys():
        del vars(copied)[name]
    return copied


def deepen(model: BaseModel, memo: dict[int, Any], *, shared: set[str]) -> None:
    """Replace what a model holds by deep copies. What cannot be copied stays.

    Args:
        model: a shallow copy.
        memo: of `copy.deepcopy`.
        shared: names of fields to leave as they are, lists and dicts only one level deep.
    """
    for name, value in vars(model).items():
        if name not in shared:
            vars(model)[name] = _deep(value, memo)
        elif isinstance(value, list | dict):
            vars(model)[name] = copy.copy(value)
    private = model.__pydantic_private__ or {}
    private.update({name: _deep(value, memo) for name, value in private.items()})


def set_fields(model: BaseModel, values: Mapping[str, Any]) -> None:
    """Set fields, frozen ones too, without validating them."""
    vars(model).update(values)
    model.__pydantic_fields_set__.update(values)


def validated(cls: type[BaseModel], values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some of a model's fields as it would keep them.

    Args:
        cls: of the model, whose constructor is not run.
        values: of all fields.
        names: of those to return.

    Raises:
        pydantic.ValidationError: a field is of a wrong type, or a validator refuses it.
    """
    scratch = cls.__new__(cls)
    cls.__pydantic_validator__.validate_python(dict(values), self_instance=scratch)
    return {name: vars(scratch)[name] for name in names}


def input_names(cls: type[BaseModel]) -> list[str]:
    """Return the names under which a constructor takes its fields: their own, and aliases."""
    return [name for field in cls.model_fields for name in (field, *_aliases(cls.model_fields[field]))]


def refused_names(error: ValidationError) -> set[str]:
    """Return the names of arguments for which a model has no use, if an error is about such."""
    return {
        str(one["loc"][0])
        for one in error.errors(include_url=False, include_context=False, include_input=False)
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1
    }


def _aliases(field: Any) -> list[str]:
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [] if alias is None else [alias]
    return [str(choice.path[0]) if isinstance(choice, AliasPath) else choice for choice in choices]


def _others(model: BaseModel) -> dict[str, Any]:
    """Return what is in a model's `__dict__` and is neither a field nor a cached property."""
    cls = type(model)
    return {
        name: value
        for name, value in vars(model).items()
        if name not in cls.model_fields and not isinstance(getattr(cls, name, None), cached_property)
    }


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # whatever the value's class raises
        return False
    return True


def _deep(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except TypeError:
        return value


@lru_cache(maxsize=64)
def _types_of(cls: type[BaseModel]) -> type[BaseModel]:
    """Return a model with the types and bounds of a class's fields, and nothing else of it."""
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation(), ... if field.is_required() else None)
        for name, field in cls.model_fields.items()
    }
    config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=(), hide_input_in_errors=True)
    return create_model(cls.__name__, __config__=config, **fields)
