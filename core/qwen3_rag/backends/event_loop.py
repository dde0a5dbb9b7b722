"""An event loop in a thread of its own, for code that is called from threads but must await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Any, Final, TypeVar

from qwen3_rag.backends.base import RunAbandonedError

_POLL_SECONDS: Final = 0.1
"""How often `is_wanted` is asked. Results are not delayed by it. Chosen, not tuned."""
_SECONDS_TO_CANCEL: Final = 5.0
"""How long `close` lets cancelled tasks clean up. Chosen, not tuned."""

T = TypeVar("T")


class LoopThread:
    """An event loop that runs until `close`.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: an interpreter that exits without closing the backend must not hang.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result_of(self, work: Coroutine[Any, Any, T], *, is_wanted: Callable[[], bool] = lambda: True) -> T:
        """Run a coroutine in the loop and wait for its result. Safe from any other thread.

        Args:
            work: is cancelled if this call is interrupted.
            is_wanted: asked now and then in the calling thread, until there is a result.

        Raises:
            RunAbandonedError: `is_wanted` returned False; the coroutine is cancelled. Otherwise whatever
                `work` raises.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not futures.wait([future], timeout=_POLL_SECONDS).done:
                if not is_wanted():
                    raise RunAbandonedError("nobody waits for this run any more")
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs, stop the loop, and join its thread.

        Call it from another thread. Garbage collection in the loop's own thread does not get here: the
        finaliser of a component only signals the engine's thread to close, and does not wait.
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
                self._loop.run_until_complete(asyncio.wait(remaining, timeout=_SECONDS_TO_CANCEL))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
