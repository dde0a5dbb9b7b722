"""Whether async calls leave their event loop to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any


async def beats_while_running(calls: Sequence[Awaitable[Any]]) -> tuple[list[Any], int]:
    """Await calls together, and count how often another task gets its turn while one of them is under way.

    A call that blocks the event loop begins and ends within one turn of its own, so it leaves no beat.

    Returns:
        The calls' results, in order, and the number of beats.
    """
    running = beats = 0
    ended = False

    async def watched(call: Awaitable[Any]) -> Any:
        nonlocal running
        running += 1
        try:
            return await call
        finally:
            running -= 1

    async def heart() -> None:
        nonlocal beats
        while not ended:
            beats += running > 0
            await asyncio.sleep(0)

    heartbeat = asyncio.create_task(heart())
    try:
        results = await asyncio.gather(*map(watched, calls))
    finally:
        ended = True
        await heartbeat
    return results, beats
