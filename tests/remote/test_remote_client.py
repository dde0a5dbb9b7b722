"""One request: where it is sent, how often, and what is said in the end. httpx's fake stands in for servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from qwen3_rag.backends.remote import (
    RemoteOptions,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    client,
)
from qwen3_rag.backends.remote.servers import Dialect, Request, Values

pytestmark = pytest.mark.usefixtures("short_pauses")

RIGHT = httpx.Response(200, json=[7.0])
Outcome = httpx.Response | Exception | Callable[[], Awaitable[httpx.Response]]


def _read(answer: Any) -> Values:
    return np.array(answer, np.float32)


REQUEST = Request({"input": ["\u00e9", 1]}, _read)
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


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Callable[..., client.Client]:
    """Opens clients whose requests go to a `Wire`: options are keywords."""

    def opened(wire: Wire, *, max_tokens: int = 999, **options: Any) -> client.Client:
        def build(make: Callable[[], httpx.AsyncClient]) -> httpx.AsyncClient:
            made = make()
            made._transport = httpx.MockTransport(wire)
            return made

        monkeypatch.setattr(client, "build_client", build)
        given = RemoteOptions("openai", wire.urls, **{"timeout": 1.0, "deadline": 5.0, **options})
        return client.Client(given, DIALECT, None, max_tokens=max_tokens)

    return opened


Wired = Callable[..., client.Client]


async def sent_by(
    opened: client.Client, *, divisible: bool = False, request: Request = REQUEST, **how: Any
) -> list[float]:
    given = {"started": time.monotonic(), "tokens": 9, **how}
    values = await opened.send(request, divisible=divisible, **given)
    found: list[float] = values.tolist()
    return found


def send(
    wired: Wired,
    wire: Wire,
    *,
    divisible: bool = False,
    max_attempts: int | None = None,
    ago: float = 0.0,
    **options: Any,
) -> Any:
    """Send one request, of a run that began so many seconds ago, through a client of its own."""

    async def scene() -> list[float]:
        opened = wired(wire, **options)
        try:
            started = time.monotonic() - ago
            return await sent_by(opened, divisible=divisible, max_attempts=max_attempts, started=started)
        finally:
            await opened.close()

    return asyncio.run(scene())


def test_a_request_goes_out_as_json_that_says_who_sent_it(wired: Wired) -> None:
    wire = Wire(a=[RIGHT])
    assert send(wired, wire) == [7.0]
    (request,) = wire.requests
    assert (str(request.url), request.method) == ("http://a/endpoint", "POST")
    assert request.content == '{"input":["\u00e9",1]}'.encode()
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "qwen3-rag"


def test_each_host_is_tried_once_however_few_retries_there_are(wired: Wired) -> None:
    broken = httpx.ConnectError("refused")
    wire = Wire(a=[broken], b=[httpx.Response(500)], c=[RIGHT])
    assert send(wired, wire, max_retries=0) == [7.0]
    assert wire.sent == ["a", "b", "c"]
    wire = Wire(a=[broken], b=[broken], c=[httpx.Response(502)])
    with pytest.raises(RemoteUnavailableError, match="gave up after 3 tries") as caught:
        send(wired, wire, max_retries=0)
    assert wire.sent == ["a", "b", "c"]
    assert (caught.value.url, caught.value.status) == ("http://c/endpoint", 502)


def test_a_request_that_is_to_be_sent_once_is_sent_once(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(500)], b=[RIGHT])
    with pytest.raises(RemoteUnavailableError, match="gave up after 1 try"):
        send(wired, wire, max_attempts=1, max_retries=9)
    assert wire.sent == ["a"]


def test_a_refusal_is_no_try_and_who_refused_is_not_asked_again(wired: Wired) -> None:
    """Two tries are allowed: the busy host's both."""
    wire = Wire(a=[httpx.Response(400)], b=[httpx.Response(429), RIGHT])
    assert send(wired, wire, max_retries=0) == [7.0]
    assert wire.sent == ["a", "b", "b"]


@pytest.mark.parametrize(("divisible", "asked"), [(True, ["a", "b"]), (False, ["a", "b", "c"])])
def test_a_refusal_is_believed_where_another_host_agrees_and_of_one_text_where_all_do(
    divisible: bool, asked: list[str], wired: Wired
) -> None:
    refused: list[Outcome] = [httpx.Response(422, json={"error": "too long"})]
    wire = Wire(a=refused, b=refused, c=refused)
    with pytest.raises(RemoteRefusalError, match="status 422: too long") as caught:
        send(wired, wire, divisible=divisible)
    assert wire.sent == asked
    assert (caught.value.url, caught.value.status) == (f"http://{asked[-1]}/endpoint", 422)


def test_a_refusal_that_concerns_every_text_is_believed_at_once(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(401)], b=[RIGHT])
    with pytest.raises(RemoteSetupError, match="status 401"):
        send(wired, wire)
    assert wire.sent == ["a"]


@pytest.mark.parametrize("divisible", [True, False])
def test_a_host_that_takes_no_connection_is_not_taken_for_a_slow_one(divisible: bool, wired: Wired) -> None:
    wire = Wire(a=[httpx.ConnectTimeout("")])
    with pytest.raises(
        RemoteUnavailableError, match=r"no connection within 1 s; gave up after 2 tries"
    ) as caught:
        send(wired, wire, divisible=divisible, max_retries=1)
    assert "raise timeout" not in str(caught.value)
    assert len(wire.sent) == 2


@pytest.mark.parametrize("timeout", [httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout])
def test_a_request_that_takes_too_long_is_divided_or_sent_again(timeout: type[Exception], wired: Wired) -> None:
    wire = Wire(a=[timeout("")])
    with pytest.raises(client.TooMuchAtOnceError):
        send(wired, wire, divisible=True, max_retries=1)
    assert wire.sent == ["a"]
    with pytest.raises(RemoteUnavailableError, match=r"within 1 s; gave up after 2 tries.*raise timeout"):
        send(wired, wire, max_retries=1)


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

        async def works() -> httpx.Response:
            await ends.wait()
            return RIGHT

        wire = Wire(a=[works, RIGHT], b=[RIGHT])
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


def test_what_the_deadline_cut_off_is_told_with_the_try_before_it(wired: Wired) -> None:
    async def silent() -> httpx.Response:
        await asyncio.sleep(60.0)
        return RIGHT

    limits = {"timeout": 1.0, "deadline": 1.1, "ago": 0.9}
    cut_off = (
        r"no whole answer within 0\.\d+ s; the next try would be 0 s from now, after the deadline of 1\.1 s"
    )
    with pytest.raises(RemoteTimeoutError, match=f"^http://a/endpoint: try 1: {cut_off}"):
        send(wired, Wire(a=[silent]), **limits)
    wire = Wire(a=[httpx.Response(500, content=b"oops"), silent])
    with pytest.raises(
        RemoteTimeoutError, match=f"^http://a/endpoint: try 1: status 500: oops; try 2: {cut_off}"
    ):
        send(wired, wire, **limits)


def test_what_the_deadline_cut_off_goes_on_if_another_request_was_answered_meanwhile(wired: Wired) -> None:
    async def scene() -> list[str]:
        async def silent() -> httpx.Response:
            await asyncio.sleep(60.0)
            return RIGHT

        wire = Wire(a=[silent], b=[RIGHT])
        opened = wired(wire, timeout=2.0, deadline=4.0, max_retries=0)
        cut_off = asyncio.ensure_future(sent_by(opened, started=time.monotonic() - 3.9))
        await asyncio.sleep(0)
        assert await sent_by(opened) == [7.0]
        assert await cut_off == [7.0]
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a", "b", "b"]


def test_a_right_answer_to_any_request_gives_the_others_their_time_anew(wired: Wired) -> None:
    async def scene() -> None:
        opened = wired(Wire(a=[httpx.Response(400), RIGHT]))
        long_ago = time.monotonic() - 100
        with pytest.raises(RemoteTimeoutError, match="the deadline of 5 s"):
            await sent_by(opened, started=long_ago)
        with pytest.raises(RemoteRefusalError):
            await sent_by(opened)
        with pytest.raises(RemoteTimeoutError, match="the deadline of 5 s"):
            await sent_by(opened, started=long_ago)
        assert await sent_by(opened) == [7.0]
        assert await sent_by(opened, started=long_ago) == [7.0]
        await opened.close()

    asyncio.run(scene())


def test_a_further_request_that_an_answer_requires_is_sent_and_is_of_one_text(wired: Wired) -> None:
    second = Request({"second": True}, _read, tokens=3)
    first = Request({"first": True}, lambda _: second)

    async def scene() -> list[bytes]:
        wire = Wire(a=[httpx.Response(200, json=[1.0]), httpx.ReadTimeout(""), RIGHT])
        opened = wired(wire)
        assert await sent_by(opened, request=first, divisible=True) == [7.0]
        await opened.close()
        return [request.content for request in wire.requests]

    assert asyncio.run(scene()) == [b'{"first":true}', b'{"second":true}', b'{"second":true}']


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

        async def works() -> httpx.Response:
            await ends.wait()
            return RIGHT

        wire = Wire(a=[RIGHT, works, httpx.Response(429)])
        opened = wired(wire)
        await sent_by(opened)  # so that two may be under way
        first = asyncio.ensure_future(sent_by(opened))
        await asyncio.sleep(0.01)
        refused = asyncio.ensure_future(sent_by(opened, max_attempts=1))
        await asyncio.sleep(0.05)
        assert wire.sent == ["a"] * 3, "it waits for a turn"
        ends.set()
        assert await first == [7.0]
        with pytest.raises(RemoteUnavailableError, match="gave up after 3 tries"):
            await refused
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a"] * 5
