"""Backpressure: a bounded number of places in front of an engine, given out in order of arrival."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future


class Place(Future[None]):
    """A place in the queue, done once it is given.

    Attributes:
        asked: `time.monotonic()` when it was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = time.monotonic()


class Gate:
    """Lets at most `places` pieces of work in; the others wait, first come, first served.

    Args:
        places: how many may be inside, 1 or more.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[Place] = deque()
        self._closed: Callable[[], BaseException] | None = None
        # Reentrant: a garbage collection while it is held may close the engine in the same thread.
        self._lock = threading.RLock()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def enter(self) -> Place:
        """Ask for a place. Whoever got one must `leave`; who gives up waiting calls `give_up`."""
        place = Place()
        with self._lock:
            if self._closed is not None:
                place.set_exception(self._closed())
            elif self._free:
                self._free -= 1
                place.set_result(None)
            else:
                self._waiting.append(place)
        return place

    def leave(self) -> None:
        """Give a place back, to the one who has waited longest."""
        with self._lock:
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._free += 1

    def give_up(self, place: Place) -> None:
        """Stop waiting for a place, or leave if it has been given by now."""
        if place.cancel():
            with self._lock:
                if place in self._waiting:
                    self._waiting.remove(place)
        elif place.exception() is None:
            self.leave()

    def close(self, error: Callable[[], BaseException]) -> None:
        """Fail everyone who waits, and everyone who comes later, each with an error of its own."""
        with self._lock:
            self._closed = error
            waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if place.set_running_or_notify_cancel():
                place.set_exception(error())
