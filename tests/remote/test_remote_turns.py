"""Turns of the limiter: who gets the next one, and that none is lost or given twice. Without sockets."""

from __future__ import annotations

import asyncio

import pytest
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter


def limiter_of(requests: int, connections: int = 16) -> AdaptiveLimiter:
    """A limiter that lets so many requests be in flight at first."""
    return AdaptiveLimiter(hosts=requests, connections=connections, tokens=1000, timeout=60.0)


async def free_turns(limiter: AdaptiveLimiter) -> int:
    """Take all turns that are to be had now, and return how many there were."""
    taken = 0
    while await limiter.acquire(0.0):
        taken += 1
    for _ in range(taken):
        limiter.release()
    return taken


async def settled() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_there_are_as_many_turns_as_requests_may_be_in_flight_and_each_comes_back_once() -> None:
    async def scene() -> list[int]:
        limiter = limiter_of(3)
        free = [await free_turns(limiter)]
        for _ in range(2):
            assert await limiter.acquire(0.0)
            free.append(await free_turns(limiter))
        for _ in range(2):
            limiter.release()
            free.append(await free_turns(limiter))
        return free

    assert asyncio.run(scene()) == [3, 2, 1, 2, 3]


def test_who_waits_for_a_turn_waits_as_long_as_it_said() -> None:
    async def scene() -> None:
        limiter = limiter_of(1)
        assert await limiter.acquire(0.0)
        waits = asyncio.ensure_future(limiter.acquire(60.0))
        await asyncio.sleep(0.02)
        assert not waits.done()
        limiter.release()
        assert await waits

    asyncio.run(scene())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_who_gives_up_waiting_neither_takes_a_turn_nor_gives_one(is_cancelled: bool) -> None:
    async def scene() -> None:
        limiter = limiter_of(1)
        assert await limiter.acquire(0.0)
        waits = asyncio.ensure_future(limiter.acquire(60.0))
        await settled()
        gives_up = asyncio.ensure_future(limiter.acquire(60.0 if is_cancelled else 0.0))
        await settled()
        gives_up.cancel()
        await asyncio.wait([gives_up], timeout=5.0)
        assert gives_up.cancelled() == is_cancelled
        await settled()
        assert not waits.done(), "the one turn is still taken"
        limiter.release()
        assert await waits
        limiter.release()
        assert await free_turns(limiter) == 1

    asyncio.run(scene())


def test_a_turn_given_back_for_a_while_serves_another_and_comes_back_before_those_who_wait() -> None:
    async def scene() -> list[str]:
        limiter = limiter_of(1)
        came: list[str] = []

        async def ask(name: str) -> None:
            assert await limiter.acquire(60.0)
            came.append(name)

        assert await limiter.acquire(0.0)
        first = asyncio.ensure_future(ask("who waited"))
        pauses = asyncio.ensure_future(limiter.release_for(0.02, at_most=60.0))
        await first
        later = asyncio.ensure_future(ask("who waits still"))
        await asyncio.sleep(0.05)
        assert not pauses.done(), "no turn is free"
        limiter.release()
        await pauses
        came.append("who paused")
        await settled()
        limiter.release()
        await later
        limiter.release()
        assert await free_turns(limiter) == 1
        return came

    assert asyncio.run(scene()) == ["who waited", "who paused", "who waits still"]


def test_a_turn_given_back_for_a_while_stays_free_that_long() -> None:
    async def scene() -> None:
        limiter = limiter_of(1)
        assert await limiter.acquire(0.0)
        pauses = asyncio.ensure_future(limiter.release_for(0.3, at_most=60.0))
        await settled()
        assert await free_turns(limiter) == 1
        await pauses
        assert await free_turns(limiter) == 0
        limiter.release()
        assert await free_turns(limiter) == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    "ends", ["by its time, in the pause", "by its time, waiting", "cancelled", "cancelled, waiting"]
)
def test_however_a_pause_ends_who_paused_has_a_turn_again(ends: str) -> None:
    """Without one it would give back what it does not have, and more would be in flight than may be."""

    async def scene() -> None:
        limiter = limiter_of(1)
        assert await limiter.acquire(0.0)
        seconds, at_most = {
            "by its time, in the pause": (60.0, 0.3),
            "by its time, waiting": (0.0, 0.02),
            "cancelled": (60.0, 60.0),
            "cancelled, waiting": (0.0, 60.0),
        }[ends]
        pauses = asyncio.ensure_future(limiter.release_for(seconds, at_most=at_most))
        await asyncio.sleep(0)
        assert await limiter.acquire(0.0), "another got the turn"
        await settled()
        if ends.startswith("cancelled"):
            pauses.cancel()
        await asyncio.wait([pauses], timeout=5.0)
        assert pauses.done()
        assert await free_turns(limiter) == 0
        limiter.release()
        assert await free_turns(limiter) == 0, "two had turns, where there is one"
        limiter.release()
        assert await free_turns(limiter) == 1

    asyncio.run(scene())


def test_a_quick_answer_lets_one_more_go_at_once() -> None:
    async def scene() -> None:
        limiter = limiter_of(1)
        assert await limiter.acquire(0.0)
        waits = asyncio.ensure_future(limiter.acquire(60.0))
        await settled()
        limiter.note_answer(1.0, 10)
        assert await asyncio.wait_for(waits, 5.0)

    asyncio.run(scene())


def test_slow_answers_and_timeouts_leave_one_request_at_least() -> None:
    limiter = limiter_of(9)
    limiter.note_timeout(800)
    assert limiter.request_limit == 4
    for _ in range(9):
        limiter.note_answer(40.0, 10)
    assert limiter.request_limit == 1


def test_after_a_refusal_each_further_request_is_earned_by_as_many_answers_again() -> None:
    limiter = limiter_of(1)
    limiter.note_refusal(sent=1.0, now=2.0)
    grown = []
    for answers in range(1, 8 + 16 + 24 + 1):
        before = limiter.request_limit
        limiter.note_answer(1.0, 10)
        if limiter.request_limit > before:
            grown.append(answers)
    assert grown == [8, 8 + 16, 8 + 16 + 24]


def test_quick_answers_bring_more_and_larger_requests_and_slow_ones_fewer() -> None:
    limiter = AdaptiveLimiter(hosts=2, connections=4, tokens=1000, timeout=60.0)
    assert limiter.request_limit == 2
    for _ in range(5):
        limiter.note_answer(1.0, 1000)
    assert (limiter.request_limit, limiter.token_limit) == (4, 1000)
    limiter.note_answer(20.0, 1000)
    assert limiter.request_limit == 4, "neither quick nor slow: as it is"
    limiter.note_answer(40.0, 1000)
    assert limiter.request_limit == 3
    limiter.note_timeout(800)
    assert (limiter.request_limit, limiter.token_limit) == (1, 400)
    limiter.note_answer(1.0, 30)
    assert (limiter.request_limit, limiter.token_limit) == (2, 400), "it tells nothing of larger ones"
    limiter.note_answer(1.0, 300)
    assert (limiter.request_limit, limiter.token_limit) == (3, 600)
    limiter.note_answer(1.0, 5000)
    assert (limiter.request_limit, limiter.token_limit) == (4, 1000)
    for _ in range(20):
        limiter.note_timeout(1)
    assert (limiter.request_limit, limiter.token_limit) == (1, 1)


def test_turns_are_given_in_order_and_none_is_lost() -> None:
    async def scene() -> list[int]:
        limiter = AdaptiveLimiter(hosts=1, connections=2, tokens=1, timeout=60.0)
        came: list[int] = []

        async def ask(number: int) -> None:
            assert await limiter.acquire(60.0)
            came.append(number)
            limiter.release()

        assert await limiter.acquire(60.0)
        assert not await limiter.acquire(0.01), "there is one turn at first"
        cancelled = asyncio.ensure_future(ask(0))
        asked = [asyncio.ensure_future(ask(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        limiter.release()  # gives the turn to the one that is cancelled before it can take it
        cancelled.cancel()
        await asyncio.gather(*asked)
        return came

    assert asyncio.run(scene()) == [1, 2, 3]
