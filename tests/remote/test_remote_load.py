"""How much a client lets go at once, and who waits. Without sockets."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from qwen3_rag.backends.remote import (
    RemoteSetupError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    client,
)
from wire import RIGHT, Outcome, Wire, Wired, after, sent_by

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_a_request_larger_than_what_is_answered_in_time_is_divided_unsent(wired: Wired) -> None:
    async def scene() -> list[str]:
        wire = Wire(a=[httpx.ReadTimeout(""), RIGHT])
        opened = wired(wire)
        for tokens in (800, 401):
            with pytest.raises(client.TooMuchAtOnceError):
                await sent_by(opened, divisible=True, tokens=tokens)
        assert wire.sent == ["a"]
        assert await sent_by(opened, divisible=True, tokens=400) == [7.0]
        assert await sent_by(opened, tokens=999) == [7.0], "one text cannot be divided"
        assert await sent_by(opened, divisible=True, tokens=999) == [7.0], "as the last answer was quick"
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a"] * 4


def test_a_host_gets_no_more_while_it_works_and_another_is_idle(wired: Wired) -> None:
    async def scene() -> list[str]:
        ends = asyncio.Event()

        wire = Wire(a=[after(ends), RIGHT], b=[RIGHT])
        opened = wired(wire)
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0)
        for _ in range(3):
            assert await sent_by(opened) == [7.0]
        ends.set()
        assert await first == [7.0]
        assert await sent_by(opened) == [7.0]
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a", "b", "b", "b", "a"]


def test_an_error_within_leaves_the_turn_to_the_next_request(wired: Wired) -> None:
    async def scene() -> None:
        opened = wired(Wire(a=[httpx.Response(401), httpx.ReadTimeout(""), httpx.Response(200), RIGHT]))
        for divisible in (False, True, False):
            with pytest.raises((RemoteSetupError, client.TooMuchAtOnceError, RuntimeError)):
                await sent_by(opened, divisible=divisible)
        assert await asyncio.wait_for(sent_by(opened), 2.0) == [7.0]
        await opened.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("fault", "limits"),
    [
        (httpx.Response(500), (5, 999)),
        (httpx.ConnectError("refused"), (5, 999)),
        (httpx.Response(429), (1, 999)),
        (httpx.ReadTimeout(""), (2, 4)),
    ],
    ids=["500", "broken", "429", "timeout"],
)
def test_fewer_requests_go_after_a_429_and_smaller_ones_too_after_a_timeout(
    fault: Outcome, limits: tuple[int, int], wired: Wired
) -> None:
    async def scene() -> tuple[int, int]:
        opened = wired(Wire(a=[*[RIGHT] * 4, fault]))
        for _ in range(4):
            await sent_by(opened)
        with pytest.raises(RemoteUnavailableError):
            await sent_by(opened, max_attempts=1)
        await opened.close()
        return opened._limiter.request_limit, opened._limiter.token_limit

    assert asyncio.run(scene()) == limits


def test_a_429_is_no_try_while_an_earlier_request_is_under_way_or_if_one_was_answered_since(
    wired: Wired,
) -> None:
    async def scene() -> list[str]:
        ends = asyncio.Event()

        wire = Wire(a=[RIGHT, after(ends), httpx.Response(429)])
        opened = wired(wire)
        await sent_by(opened)  # so that two may be under way
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0.01)
        refused = asyncio.ensure_future(sent_by(opened, max_attempts=1))
        while len(wire.sent) < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert wire.sent == ["a"] * 3, "it waits for a turn"
        ends.set()
        assert await first == [7.0]
        with pytest.raises(RemoteUnavailableError, match="gave up after 3 tries"):
            await refused
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a"] * 5


def test_who_waits_for_a_turn_waits_on_while_others_are_answered(wired: Wired) -> None:
    async def scene() -> None:
        first_ends, second_ends = asyncio.Event(), asyncio.Event()
        opened = wired(Wire(a=[after(first_ends), after(second_ends), RIGHT]), max_connections=1)
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0)
        last = asyncio.ensure_future(sent_by(opened, started=time.monotonic() - 4.5))
        first_ends.set()
        assert await first == [7.0]
        await asyncio.sleep(0.55)
        assert not last.done(), "its time began anew when the first was answered"
        second_ends.set()
        assert await second == await last == [7.0]
        await opened.close()

    asyncio.run(scene())


def test_who_gets_no_turn_in_its_time_says_so(wired: Wired) -> None:
    async def scene() -> None:
        ends = asyncio.Event()
        opened = wired(Wire(a=[after(ends)]), max_connections=1)
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0)
        with pytest.raises(RemoteTimeoutError, match=r"no connection became free, .* the deadline of 5 s"):
            await sent_by(opened, started=time.monotonic() - 4.95)
        ends.set()
        assert await first == [7.0]
        await opened.close()

    asyncio.run(scene())


def test_a_failure_is_a_try_whatever_else_is_under_way(wired: Wired) -> None:
    async def scene() -> None:
        ends = asyncio.Event()
        opened = wired(Wire(a=[RIGHT, after(ends), httpx.Response(500)]))
        await sent_by(opened)  # so that two may be under way
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0.01)
        with pytest.raises(RemoteUnavailableError, match="after 1 try"):
            await sent_by(opened, max_attempts=1)
        ends.set()
        assert await first == [7.0]
        await opened.close()

    asyncio.run(scene())


def test_a_host_that_asked_for_quiet_is_not_asked_by_other_requests_either(wired: Wired) -> None:
    async def scene() -> list[str]:
        wire = Wire(a=[httpx.Response(429, headers={"Retry-After": "99"}), RIGHT])
        opened = wired(wire)
        with pytest.raises(RemoteTimeoutError, match=r"try 1: status 429.* the next try would be (98|99)"):
            await sent_by(opened)
        with pytest.raises(RemoteTimeoutError, match=r"no try yet; the next try would be (59|60)"):
            await sent_by(opened)
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a"]
