"""How many requests the servers get at once, and how large ones. For one event loop; no clock of its own.

What a GPU computes at once may take a CPU minutes. How long answers take tells them apart, so nobody has
to: few requests at first, more and larger ones while answers come quickly, fewer when they become slow, and
fewer and smaller ones when one does not come in time. A server that limits what it is asked says so by
refusing (429): then fewer are under way, and from then on more only after many answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Final

_QUICK: Final = 0.25
"""Share of the time limit within which an answer leaves room for more: twice as much at once, or a request
twice as large as the one that was answered, takes half of the limit at most."""
_SLOW: Final = 0.5
"""Share of it after which an answer shows that less is enough: the server is busy all the time."""
_KEPT: Final = 0.75
"""Share of the requests under way that stays after one was refused: near the server's limit, wherever it is."""
_EARNED_BY: Final = 8
"""After a refusal, so many quick answers for each request under way earn one more: most answers then come
below the limit, so that what was refused finds a place."""


class Pace:
    """Gives out turns, first come, first served, to as many requests as the servers answer in time.

    Args:
        hosts: base URLs; so many requests may be under way at first.
        connections: most requests under way.
        tokens: most tokens of one request.
        timeout: most seconds of one request.

    Attributes:
        requests: how many may be under way now.
        tokens: how many tokens a request of several texts may have now.
    """

    def __init__(self, *, hosts: int, connections: int, tokens: int, timeout: float) -> None:
        self.requests = min(hosts, connections)
        self.tokens = tokens
        self._connections, self._most_tokens = connections, tokens
        self._quick, self._slow = _QUICK * timeout, _SLOW * timeout
        self._was_refused = False
        self._earned = 0
        self._lowered = -math.inf
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, seconds: float) -> bool:
        """Wait for a turn, and return whether one came in so many seconds; if so, `leave` afterwards."""
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

    def leave(self) -> None:
        """Give a turn back."""
        self._under_way -= 1
        self._admit()

    async def rest(self, seconds: float, *, at_most: float) -> None:
        """Leave a turn to others for so many seconds, then take the next one before all who wait.

        However this ends, the turn is the caller's again, who owes one `leave` as before.

        Args:
            seconds: of rest.
            at_most: seconds until the turn is taken back though it is one too many.
        """
        self.leave()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rest = min(seconds, at_most)
        try:
            await asyncio.sleep(rest)
            self._waiting.appendleft(turn)
            self._admit()
            await asyncio.wait([turn], timeout=at_most - rest)
        finally:
            if not turn.done():
                if turn in self._waiting:
                    self._waiting.remove(turn)
                self._under_way += 1

    def note_answer(self, seconds: float, tokens: int) -> None:
        """A right answer came after so many seconds to a request of so many tokens."""
        if seconds <= self._quick:
            self._earned += 1
            if not self._was_refused or self._earned >= _EARNED_BY * self.requests:
                self.requests = min(self._connections, self.requests + 1)
                self._earned = 0
            self.tokens = min(self._most_tokens, max(self.tokens, 2 * tokens))
            self._admit()
        elif seconds > self._slow:
            self.requests = max(1, self.requests - 1)

    def note_timeout(self, tokens: int) -> None:
        """No answer came in time for a request of so many tokens."""
        self.requests = max(1, self.requests // 2)
        self.tokens = max(1, min(self.tokens, tokens // 2))

    def note_refusal(self, *, sent: float, now: float) -> None:
        """The server would not do so much at once. What was sent before the last lowering tells nothing new."""
        if sent < self._lowered:
            return
        self.requests = max(1, int(_KEPT * min(self.requests, self._under_way)))
        self._was_refused, self._earned, self._lowered = True, 0, now

    def _admit(self) -> None:
        while self._waiting and self._under_way < self.requests:
            self._under_way += 1
            self._waiting.popleft().set_result(None)

    def _withdraw(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.leave()
        else:
            self._waiting.remove(turn)
