"""Daemon worker threads, their results, and a single-thread executor that several models share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from qwen3_rag.errors import future_safe

Result = TypeVar("Result")


class WorkerThread(threading.Thread):
    """A daemon thread: it does not keep the interpreter alive.

    Work in it must not join another worker thread, which may be waiting for this one.

    Args:
        work: the thread's target.
        name: of the thread.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)


def resolve(future: Future[Result], work: Callable[[], Result]) -> None:
    """Give a future the result of work, or whatever it raises: those who wait have to learn of it."""
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(future_safe(error))


class SharedThread:
    """An executor with one thread, counted by its users.

    The thread starts with the first work. It exits when no work is queued and nobody retains it. After an
    exception, which may have left thread-local state broken, a new thread takes over.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._users = 0
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._thread: WorkerThread | None = None
        self._replace_next = False

    def retain(self) -> None:
        """Keep the thread alive between work, until `release` is called as often as this."""
        with self._changed:
            self._users += 1

    def release(self) -> None:
        """Undo one `retain`."""
        with self._changed:
            self._users -= 1
            self._changed.notify()

    def replace_thread(self) -> None:
        """Have a new thread take over after the current work, as after an exception."""
        self._replace_next = True

    def run(self, work: Callable[[], Result]) -> Result:
        """Run work in the thread, after all that was queued before, and return its result.

        Runs in the caller's thread where that is this one, or where no thread can be started, as during
        interpreter shutdown.

        Raises:
            Whatever `work` raises.
        """
        future: Future[Result] = Future()
        if not self._enqueue(future, work):
            return work()
        try:
            return future.result()
        finally:
            # Breaks a reference cycle: an error's traceback holds this frame, and the future the error.
            del future

    def _enqueue(self, future: Future[Any], work: Callable[[], Any]) -> bool:
        with self._changed:
            if threading.current_thread() is self._thread or (
                self._thread is None and not self._start_thread()
            ):
                return False
            self._queue.append((future, work))
            self._changed.notify()
            return True

    def _start_thread(self) -> bool:
        thread = WorkerThread(self._serve, self._name)
        try:
            thread.start()
        except Exception:  # RuntimeError, and MemoryError where that is why a new thread is needed
            return False
        self._thread, self._replace_next = thread, False
        return True

    def _serve(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for work and run it; return whether this thread goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or not self._users)
            if not self._queue:
                self._thread = None
                return False
            future, work = self._queue.popleft()
        try:
            future.set_result(work())
        except BaseException as error:
            self._replace_next = True
            future.set_exception(error)
        finally:
            # An idle thread must not keep results alive, nor an error its own frame.
            del future, work
        return not self._replace_next or not self._hand_over()

    def _hand_over(self) -> bool:
        """Leave the queue to a new thread; return False if none can be started."""
        with self._changed:
            own, self._thread = self._thread, None
            if self._queue and not self._start_thread():
                self._thread = own
            return self._thread is not own
