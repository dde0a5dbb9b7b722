"""One description of a call's work, driven by a thread that blocks or by an event loop that does not.

A generator yields what it waits for and is sent the result: a `Task` to run, or a future of the
engine. So the order of things is written once for sync and async callers. What a step raises ends the
steps: the generator is closed, nothing is thrown into it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from qwen3_rag.errors import ConfigurationError, DeadlineExceededError, copy_for_caller
from qwen3_rag.pool import in_pool

Result = TypeVar("Result")

_WAIT_SLICE: Final = 0.5
"""Longest single wait, in seconds. Python handles a signal (Ctrl-C) that arrives just before a thread begins to
wait only when that wait ends, so long waits are split."""


@dataclass(frozen=True)
class Task:
    """Work for the calling thread.

    Attributes:
        run: does it.
        is_short: True if an event loop may run it itself (some milliseconds), False for a thread.
    """

    run: Callable[[], Any]
    is_short: bool


Steps = Generator["Task | Future[Any]", Any, Result]


def drive(steps: Steps[Result], timeout: float | None) -> Result:
    """Run steps to their end in this thread.

    Raises:
        DeadlineExceededError: they took longer than `timeout` seconds. Also whatever a step raises.
    """
    deadline = _Deadline(timeout)
    with closing(steps):
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            if isinstance(step, Task):
                if step.is_short or timeout is None:
                    answer = step.run()
                    continue
                step = in_pool(step.run)  # so that the caller can leave it behind
            deadline.wait(step)
            answer = result_of(step)


async def drive_async(steps: Steps[Result], timeout: float | None) -> Result:
    """`drive` without blocking the event loop. Cancelling it closes the steps.

    Raises:
        ConfigurationError: no event loop of asyncio runs in this thread. Also as `drive`.
    """
    deadline = _Deadline(timeout)
    with closing(steps):
        _check_loop()
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: Result = end.value
                return result
            if isinstance(step, Task) and step.is_short:
                answer = step.run()
                continue
            if isinstance(step, Future) and step.done():
                answer = result_of(step)
                continue
            waiting = asyncio.ensure_future(
                asyncio.wrap_future(in_pool(step.run) if isinstance(step, Task) else step)
            )
            try:
                await asyncio.wait([waiting], timeout=deadline.remaining())
                deadline.check(waiting.done())
            except BaseException:
                with suppress(RuntimeError):  # the loop was closed before this ended
                    waiting.cancel()
                raise
            answer = result_of(waiting)


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "async methods need an event loop of asyncio, and none runs in this thread; under another one "
            "(Trio's), call the sync method in a thread (trio.to_thread.run_sync, anyio.to_thread.run_sync)"
        ) from None


def result_of(future: Future[Result] | asyncio.Future[Result]) -> Result:
    """Return a future's result, or raise a copy of its error: others may wait for the same future."""
    error = future.exception()
    if error is not None:
        raise copy_for_caller(error)
    return future.result()


class _Deadline:
    """A moment that a call must not outlast."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._started = time.monotonic()

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0, or None without a limit."""
        if self._timeout is None:
            return None
        # Threads wait no longer at once, and infinity would be an error.
        return min(max(0.0, self._started + self._timeout - time.monotonic()), threading.TIMEOUT_MAX)

    def wait(self, future: Future[Any]) -> None:
        """Wait in this thread until a future is done.

        Raises:
            DeadlineExceededError: it is not done in time.
        """
        while not future.done():
            left = self.remaining()
            if left == 0:
                break
            concurrent.futures.wait([future], _WAIT_SLICE if left is None else min(left, _WAIT_SLICE))
        self.check(future.done())

    def check(self, done: bool) -> None:
        """Raise DeadlineExceededError unless what was waited for is done."""
        if not done:
            raise DeadlineExceededError(
                f"the call took longer than its timeout of {self._timeout} s; raise it, send less at once, "
                "or load() the model before the first call"
            )
