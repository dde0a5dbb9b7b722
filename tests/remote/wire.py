"""httpx's fake in place of servers: what becomes of each request is said beforehand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
from qwen3_rag.backends.remote import client
from qwen3_rag.backends.remote.servers import Dialect, Request, Values

RIGHT = httpx.Response(200, json=[7.0])
Outcome = httpx.Response | Exception | Callable[[], Awaitable[httpx.Response]]


def read(answer: Any) -> Values:
    return np.array(answer, np.float32)


REQUEST = Request({"input": ["\u00e9", 1]}, read)
DIALECT = Dialect(lambda base_url: base_url + "/endpoint", lambda _: REQUEST, 99, 999)


class Wire:
    """Hosts by name, each with what becomes of its requests one by one; the last for all further ones."""

    def __init__(self, **outcomes: list[Outcome]) -> None:
        self.sent: list[str] = []
        self.requests: list[httpx.Request] = []
        self._outcomes = outcomes

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.sent.append(host)
        self.requests.append(request)
        outcomes = self._outcomes[host]
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, httpx.Response):
            return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)
        return await outcome()

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"http://{host}" for host in self._outcomes)


def after(event: asyncio.Event) -> Outcome:
    """A right answer that comes when something happens."""

    async def works() -> httpx.Response:
        await event.wait()
        return RIGHT

    return works


Wired = Callable[..., client.Client]


async def sent_by(
    opened: client.Client, *, divisible: bool = False, request: Request = REQUEST, **how: Any
) -> list[float]:
    given = {"started": time.monotonic(), "tokens": 9, **how}
    values = await opened.send(request, divisible=divisible, **given)
    found: list[float] = values.tolist()
    return found
