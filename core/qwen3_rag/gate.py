"""Backpressure: a bounded number of places in front of an engine, given out in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future


class Gate:
    """Lets at most `places` pieces of work in; the others wait, first come, first served.

    Args:
        places: how many may be inside, 1 or more.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[Future[None]] = deque()
        self._closed: BaseException | None = None
        self._lock = threading.Lock()

    def enter(self) -> Future[None]:
        """Ask for a place.

        Returns:
            A future, done once the place is given. Whoever got one must `leave`; who gives up
            waiting calls `give_up`.
        """
        place: Future[None] = Future()
        with self._lock:
            if self._closed is not None:
                place.set_exception(self._closed)
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

    def give_up(self, place: Future[None]) -> None:
        """Stop waiting for a place, or leave if it has been given by now."""
        if not place.cancel() and place.exception() is None:
            self.leave()

    def close(self, error: BaseException) -> None:
        """Fail everyone who waits, and everyone who comes later, with an error."""
        with self._lock:
            self._closed = error
            waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if place.set_running_or_notify_cancel():
                place.set_exception(error)
