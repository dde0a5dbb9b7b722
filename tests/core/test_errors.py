"""What becomes of an error that several callers get, or that comes from another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from qwen3_rag import CheckpointError, MissingExtraError
from qwen3_rag.backends.process.messages import Failure
from qwen3_rag.errors import copy_for_caller


class CountingError(Exception):
    """Its constructor makes another text of its text."""

    def __init__(self, count: Any) -> None:
        super().__init__(f"there are {count}")


class WantingError(Exception):
    """Its constructor wants more than its text."""

    def __init__(self, *, found: str) -> None:
        super().__init__(f"found {found}")


@dataclass(frozen=True)
class FrozenError(Exception):
    """Nothing of it can be set once it is made."""


def raised(error: Exception) -> Exception:
    try:
        try:
            raise KeyError("before")
        except KeyError as before:
            raise error from before
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error", [CheckpointError("gone"), MissingExtraError("that", "vllm"), OSError(2, "gone", "here")], ids=repr
)
def test_a_copy_says_the_same_and_keeps_where_it_came_from(error: Exception) -> None:
    original = raised(error)
    twin = copy_for_caller(original)
    assert twin is not original
    assert (type(twin), str(twin), twin.args) == (type(original), str(original), original.args)
    assert (twin.__cause__, twin.__traceback__) == (original.__cause__, original.__traceback__)
    with pytest.raises(type(error)) as caught:
        raise twin
    assert caught.value.__traceback__ is not original.__traceback__


def test_an_error_of_which_nothing_can_be_set_is_handed_on_itself() -> None:
    error = FrozenError()
    assert copy_for_caller(error) is error


@pytest.mark.parametrize("error", [CountingError(3), WantingError(found="nothing")], ids=repr)
def test_an_error_whose_copy_would_say_something_else_is_handed_on_itself(error: Exception) -> None:
    assert copy_for_caller(error) is error


@pytest.mark.parametrize("error", [CountingError(3), WantingError(found="nothing")], ids=repr)
def test_an_error_that_cannot_travel_is_one_of_the_same_text(error: Exception) -> None:
    assert str(Failure.of(error).error) == f"{type(error).__name__}: {error}"
