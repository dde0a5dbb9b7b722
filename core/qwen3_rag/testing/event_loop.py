"""Whether async calls leave their event loop to others.

No clock decides: the model is held back by a gate that opens only after the loop has turned many times.
A call that blocks the loop keeps the gate shut, on a fast machine as on a slow one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest

TURNS: Final = 20
"""Turns of the loop that another task must get while the model is held. Chosen, not tuned."""

PATIENCE_SECONDS: Final = 30.0
"""How long a test waits for another thread before it fails. Chosen, not tuned: slow machines need seconds."""


class Gate:
    """Holds a model back. The model's side calls `wait`, in place of computing or loading.

    Attributes:
        patience_seconds: a model that is held longer fails, so that a blocked event loop ends the test.
    """

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.patience_seconds = patience_seconds
        self._reached = threading.Event()
        self._open = threading.Event()

    @property
    def is_reached(self) -> bool:
        """Whether the model is waiting, or has waited."""
        return self._reached.is_set()

    def wait(self) -> None:
        """Wait until the gate opens.

        Raises:
            AssertionError: it did not open in time: the event loop that was to open it stood still.
        """
        self._reached.set()
        assert self._open.wait(self.patience_seconds), "the event loop stood still while the model was held"

    def open(self) -> None:
        """Let the model go on, now and later."""
        self._open.set()


class EventLoopContract:
    """What contracts of adapters have in common: the event loop turns while the model works."""

    def hold(self, adapter: Any) -> AbstractContextManager[Gate]:  # noqa: ARG002
        """Hold an adapter's model back; override it, or the tests that need it are skipped.

        Args:
            adapter: one that the contract made and that is about to be called. It may be cold: then its
                loading is to be held.

        Returns:
            A context manager that yields a `Gate`. Within it, what the adapter waits for first calls the gate's
            `wait`. For an `Embedder` or a `Reranker` that is `qwen3_rag.testing.recording.holding`; for a
            blocking client it may look like this::

                @contextmanager
                def hold(self, adapter):
                    gate, post = Gate(), adapter.client.post

                    def held(*args, **kwargs):
                        gate.wait()
                        return post(*args, **kwargs)

                    with patch.object(adapter.client, "post", held):
                        yield gate

            and an async client's method awaits `asyncio.to_thread(gate.wait)`.
        """
        pytest.skip("override `hold` to say how the model is held back")

    def check_loop_turns(self, adapter: Any, call: Callable[[], Awaitable[Any]], times: int = 1) -> list[Any]:
        """Call an adapter several times on one event loop, and fail if the calls keep the loop to themselves.

        Returns:
            The calls' results, in order.
        """

        async def run(gate: Gate) -> list[Any]:
            return await run_while_held([call() for _ in range(times)], gate)

        with self.hold(adapter) as gate:
            return asyncio.run(run(gate))


async def run_while_held(calls: Sequence[Awaitable[Any]], gate: Gate) -> list[Any]:
    """Await calls together, opening the gate only after the loop turned while the model was held.

    Args:
        calls: at least one of them makes the model reach the gate.
        gate: what the model waits at.

    Returns:
        The calls' results, in order.

    Raises:
        AssertionError: the calls ended without reaching the gate. Otherwise what a call raises, which is the
            gate's own error when the loop was blocked.
    """
    together = asyncio.ensure_future(asyncio.gather(*calls))
    turns = 0
    while turns < TURNS and not together.done():
        await asyncio.sleep(0.001)
        turns += gate.is_reached
    gate.open()
    results: list[Any] = await together
    assert turns == TURNS, "the calls ended without the model, which was to be held meanwhile"
    return results
