"""Results become a framework's own values without holding up an event loop."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import numpy as np
import pytest
from qwen3_rag.conversion import as_lists, convert_off_loop
from qwen3_rag.testing.event_loop import Gate, run_while_held


def test_rows_become_lists_of_floats() -> None:
    vectors = np.array([[0.5, 0.25], [1, 0]], np.float32)
    lists = as_lists(vectors)
    assert lists == vectors.tolist()
    assert {type(number) for row in lists for number in row} == {float}
    assert as_lists(np.zeros((0, 3), np.float32)) == []


@pytest.mark.parametrize(("numbers", "in_thread"), [(1000, False), (200_000, False), (200_001, True)])
def test_only_many_numbers_are_worth_a_thread(numbers: int, in_thread: bool) -> None:
    thread = asyncio.run(convert_off_loop(threading.current_thread, numbers))
    assert (thread is not threading.current_thread()) == in_thread


def test_a_large_conversion_leaves_the_event_loop_free() -> None:
    vectors = np.ones((500, 1000), np.float32)
    gate = Gate()

    def convert() -> list[list[float]]:
        gate.wait()
        return as_lists(vectors)

    async def run() -> list[list[float]]:
        (lists,) = await run_while_held([convert_off_loop(convert, vectors.size)], gate)
        return lists

    assert len(asyncio.run(run())) == 500


def test_errors_come_through() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(convert_off_loop(partial(divmod, 1, 0), 10**6))
