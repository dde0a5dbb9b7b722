"""How many requests may be in flight, and how large they may be. For one event loop; no clock of its own.

What a GPU computes at once may take a CPU minutes. The time that answers take tells them apart, so nothing
has to be configured. As in TCP's congestion control, increase is additive and decrease multiplicative (AIMD):
few requests at first, one more after each quick answer, one less after a slow one, and half as many, and
smaller ones, after a timeout. A server with a rate limit refuses (429): the number then drops by a quarter, and
grows back only after many answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Final

_QUICK: Final = 0.25
"""Share of the time limit within which an answer leaves room for more: with twice the load, or twice the size
of the answered request, it would take half of the limit at most."""

_SLOW: Final = 0.5
"""Share of the time limit beyond which an answer shows that the server is saturated: fewer requests at once
keep it as busy. Chosen, not tuned."""

_KEPT_AFTER_429: Final = 0.75
"""Share of the requests in flight that is kept after a refusal. Chosen, not tuned: it stays near the server's
limit, wherever that is."""

_ANSWERS_PER_INCREASE: Final = 8
"""After a first refusal, the quick answers per request in flight that allow one more. Chosen, not tuned: most
answers then come below the server's limit, and refused requests find room there."""


class AdaptiveLimiter:
    """Hands out turns, first come, first served, to as many requests as the servers answer in time.

    Args:
        hosts: number of base URLs; at first one request may be in flight for each.
        connections: upper bound of requests in flight.
        tokens: upper bound of a request's size.
        timeout: time limit of a request, in seconds.

    Attributes:
        request_limit: how many requests may be in flight now.
        token_limit: how many tokens a request of several texts may have now.
    """

    def __init__(self, *, hosts: int, connections: int, tokens: int, timeout: float) -> None:
        self.request_limit = min(hosts, connections)
        self.token_limit = tokens
        self._connections, self._most_tokens = connections, tokens
        self._quick, self._slow = _QUICK * timeout, _SLOW * timeout
        self._was_refused = False
        self._quick_answers = 0
        self._lowered = -math.inf
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, seconds: float) -> bool:
        """Wait so many seconds for a turn; return whether one came. If so, the caller owes one `release`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            # Not `wait_for`: up to Python 3.11 it can lose a cancellation, or a turn.
            await asyncio.wait([turn], timeout=max(0.0, seconds))
        except asyncio.CancelledError:
            self._withdraw(turn)
            raise
        if turn.done():
            return True
        self._withdraw(turn)
        return False

    def release(self) -> None:
        """Give a turn back."""
        self._in_flight -= 1
        self._admit()

    async def release_for(self, seconds: float, *, at_most: float) -> None:
        """Give a turn back for so many seconds, then take the next one, before all others that wait.

        However this ends, by cancellation too, the caller has a turn again, and still owes one `release`.

        Args:
            seconds: time without a turn.
            at_most: seconds after which the turn is taken back even if that exceeds `request_limit`.
        """
        self.release()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pause = min(seconds, at_most)
        try:
            await asyncio.sleep(pause)
            self._waiting.appendleft(turn)
            self._admit()
            await asyncio.wait([turn], timeout=at_most - pause)
        finally:
            if not turn.done():
                if turn in self._waiting:
                    self._waiting.remove(turn)
                self._in_flight += 1

    def note_answer(self, seconds: float, tokens: int) -> None:
        """Adapt to a right answer that took so many seconds, to a request of so many tokens."""
        if seconds <= self._quick:
            self._quick_answers += 1
            if not self._was_refused or self._quick_answers >= _ANSWERS_PER_INCREASE * self.request_limit:
                self.request_limit = min(self._connections, self.request_limit + 1)
                self._quick_answers = 0
            self.token_limit = min(self._most_tokens, max(self.token_limit, 2 * tokens))
            self._admit()
        elif seconds > self._slow:
            self.request_limit = max(1, self.request_limit - 1)

    def note_timeout(self, tokens: int) -> None:
        """Adapt to a request of so many tokens that was not answered in time."""
        self.request_limit = max(1, self.request_limit // 2)
        self.token_limit = max(1, min(self.token_limit, tokens // 2))

    def note_refusal(self, *, sent: float, now: float) -> None:
        """Adapt to a 429. One for a request sent before the limit was last lowered tells nothing new."""
        if sent < self._lowered:
            return
        self.request_limit = max(1, int(_KEPT_AFTER_429 * min(self.request_limit, self._in_flight)))
        self._was_refused, self._quick_answers, self._lowered = True, 0, now

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.request_limit:
            self._in_flight += 1
            self._waiting.popleft().set_result(None)

    def _withdraw(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.release()
        else:
            self._waiting.remove(turn)
