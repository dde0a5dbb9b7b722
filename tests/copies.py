"""Every way to copy a pydantic adapter."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest


def older_copy(adapter: Any, **options: Any) -> Any:
    """By pydantic's deprecated method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return adapter.copy(**options)


COPIES: dict[str, Any] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda a: a.model_copy(),
    "deep model_copy": lambda a: a.model_copy(deep=True),
    "update": lambda a: a.model_copy(update={"timeout": None}),
    "copy()": older_copy,
    "pickle": lambda a: pickle.loads(pickle.dumps(a)),
}
every_copy = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES.keys())
