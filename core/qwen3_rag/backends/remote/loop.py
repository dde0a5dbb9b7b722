"""An event loop in a thread of its own, for async work on behalf of threads that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Any, Final, TypeVar

from qwen3_rag.backends.base import RunAbandonedError

_LOOK_EVERY: Final = 0.1
"""Seconds after which work is found to be wanted no more. Results are not held up by it."""

T = TypeVar("T")


class LoopThread:
    """An event loop that runs until `close`.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: an interpreter that ends without closing the backend must not hang.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result_of(self, work: Coroutine[Any, Any, T], *, is_wanted: Callable[[], bool] = lambda: True) -> T:
        """Run a coroutine in the loop and wait for its result. Safe from any other thread.

        Raises:
            RunAbandonedError: `is_wanted` said no; the coroutine is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not futures.wait([future], timeout=_LOOK_EVERY).done:
                if not is_wanted():
                    raise RunAbandonedError("nobody waits for this run any more")
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs, stop the loop, and wait until its thread has ended.

        Called from another thread. A garbage collection in the loop's own thread does not lead here: the
        finaliser of a component tells the engine's thread to close and waits for nothing.
        """
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            remaining = asyncio.all_tasks(self._loop)
            for task in remaining:
                task.cancel()
            if remaining:
                self._loop.run_until_complete(asyncio.wait(remaining, timeout=5.0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
