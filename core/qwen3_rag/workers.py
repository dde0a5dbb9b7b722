"""Threads that work for others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class WorkerThread(threading.Thread):
    """A thread that ends with the interpreter.

    What runs in one must not wait for the end of another, which may be waiting for this one.

    Args:
        work: what it does.
        name: of the thread.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)


class Worker:
    """Does what it is asked for in a thread of its own, one thing after another.

    The thread starts when there is something to do. It ends when nothing is left and nobody keeps it. After a
    failure, which may have left something behind in it, another one takes its place.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._users = 0
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._thread: WorkerThread | None = None
        self._worn = False

    def keep(self) -> None:
        """Have the thread wait for more to do, until as many calls of `leave` as of this."""
        with self._changed:
            self._users += 1

    def leave(self) -> None:
        """Take one `keep` back."""
        with self._changed:
            self._users -= 1
            self._changed.notify()

    def renew(self) -> None:
        """Have another thread take the place of this one after what it is doing, as after a failure."""
        self._worn = True

    def do(self, work: Callable[[], Result]) -> Result:
        """Have something done, wait for it and return its result.

        It is done in the caller's thread where that is the worker's own, or where none can be started, as at
        the interpreter's end.

        Raises:
            Whatever `work` raises.
        """
        future: Future[Result] = Future()
        if not self._takes(future, work):
            return work()
        try:
            return future.result()
        finally:
            del future  # an error's traceback would keep it, and it the error

    def _takes(self, future: Future[Any], work: Callable[[], Any]) -> bool:
        with self._changed:
            if threading.current_thread() is self._thread or (self._thread is None and not self._starts()):
                return False
            self._waiting.append((future, work))
            self._changed.notify()
            return True

    def _starts(self) -> bool:
        thread = WorkerThread(self._serve, self._name)
        try:
            thread.start()
        except Exception:  # RuntimeError, and MemoryError where that is what failed before
            return False
        self._thread, self._worn = thread, False
        return True

    def _serve(self) -> None:
        while self._does_next():
            pass

    def _does_next(self) -> bool:
        """Wait for something to do and do it; whether this thread goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._users)
            if not self._waiting:
                self._thread = None
                return False
            future, work = self._waiting.popleft()
        try:
            future.set_result(work())
        except BaseException as error:
            self._worn = True
            future.set_exception(error)
        finally:
            del future, work  # an idle thread keeps nothing, and an error not itself
        return not self._worn or self._stays()

    def _stays(self) -> bool:
        """Leave what waits to a new thread; whether none can be started."""
        with self._changed:
            own, self._thread = self._thread, None
            if self._waiting and not self._starts():
                self._thread = own
            return self._thread is own
