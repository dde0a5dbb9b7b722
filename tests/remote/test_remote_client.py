"""One request: where it is sent, how often, and what is said in the end. Without sockets."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import httpx
import pytest
from qwen3_rag.backends.remote import (
    RemoteAnswerError,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    client,
)
from qwen3_rag.backends.remote.servers import Request
from wire import RIGHT, Outcome, Wire, Wired, read, sent_by

pytestmark = pytest.mark.usefixtures("short_pauses")


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


@pytest.mark.parametrize("busy", [httpx.ReadTimeout(""), httpx.Response(429)], ids=["slow", "429"])
def test_a_refusal_is_no_try_and_who_refused_is_not_asked_again(busy: Outcome, wired: Wired) -> None:
    """Two tries are allowed: the busy host's both."""
    wire = Wire(a=[httpx.Response(400)], b=[busy, RIGHT])
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


def test_what_the_deadline_cut_off_is_told_with_the_try_before_it(wired: Wired) -> None:
    async def silent() -> httpx.Response:
        await asyncio.sleep(60.0)
        return RIGHT

    limits: dict[str, Any] = {"timeout": 2.0, "deadline": 2.1, "ago": 1.4}
    cut_off = (
        r"no whole answer within 0\.\d+ s; the next try would be 0 s from now, after the deadline of 2\.1 s"
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

        wire = Wire(a=[silent, RIGHT], b=[RIGHT])
        opened = wired(wire, timeout=2.0, deadline=4.0, max_retries=0)
        cut_off = asyncio.ensure_future(sent_by(opened, started=time.monotonic() - 3.4))
        await asyncio.sleep(0)
        assert await sent_by(opened) == [7.0]
        assert await cut_off == [7.0]
        assert await sent_by(opened) == [7.0]
        await opened.close()
        return wire.sent

    assert asyncio.run(scene()) == ["a", "b", "b", "a"], "the host was not at fault"


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
    second = Request({"second": True}, read, tokens=3)
    first = Request({"first": True}, lambda _: second)

    async def scene() -> list[bytes]:
        wire = Wire(a=[httpx.Response(200, json=[1.0]), httpx.ReadTimeout(""), RIGHT])
        opened = wired(wire)
        assert await sent_by(opened, request=first, divisible=True) == [7.0]
        await opened.close()
        return [request.content for request in wire.requests]

    assert asyncio.run(scene()) == [b'{"first":true}', b'{"second":true}', b'{"second":true}']


def test_httpx_waits_no_shorter_than_a_request_may_take_and_follows_no_redirect(wired: Wired) -> None:
    """Its own limit of 5 s would end requests of slow servers."""

    async def scene(timeout: float) -> tuple[bool, httpx.Timeout]:
        opened = wired(Wire(a=[RIGHT]), timeout=timeout, deadline=99.0)
        await opened.close()
        return opened._http.follow_redirects, opened._http.timeout

    assert asyncio.run(scene(60.0)) == (False, httpx.Timeout(60.0, connect=10.0))
    assert asyncio.run(scene(2.0)) == (False, httpx.Timeout(2.0))


def requests(wired: Wired, wire: Wire, count: int, **options: Any) -> list[str]:
    """Send requests one after the other, each of which is answered, and return the hosts that got them."""

    async def scene() -> None:
        opened = wired(wire, **options)
        for _ in range(count):
            assert await sent_by(opened) == [7.0]
        await opened.close()

    asyncio.run(scene())
    return wire.sent


def test_a_host_that_failed_is_left_alone(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(500), RIGHT], b=[RIGHT])
    assert requests(wired, wire, 3) == ["a", "b", "b", "b"]


def test_a_host_that_answers_is_well_again(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(500), RIGHT], b=[httpx.Response(500)])
    assert requests(wired, wire, 3) == ["a", "b", "a", "a", "a"]


def test_a_host_that_refused_one_request_gets_the_next_one(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(400), RIGHT], b=[RIGHT])
    assert requests(wired, wire, 3) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("busy", [httpx.ReadTimeout(""), httpx.Response(429)], ids=["slow", "429"])
def test_a_refusal_is_not_believed_while_the_other_host_is_busy(busy: Outcome, wired: Wired) -> None:
    wire = Wire(a=[busy, RIGHT], b=[RIGHT, httpx.Response(400)])
    assert requests(wired, wire, 2) == ["a", "b", "b", "a"]


def test_a_refusal_is_believed_where_the_other_host_is_down(wired: Wired) -> None:
    wire = Wire(a=[httpx.Response(500)], b=[RIGHT, httpx.Response(400)])
    with pytest.raises(RemoteRefusalError, match="status 400"):
        requests(wired, wire, 2)
    assert wire.sent == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("reply", "is_loading"),
    [
        (httpx.Response(503, headers={"Retry-After": "0"}), True),
        (httpx.Response(503, json={"error": "Model is LOADING"}), True),
        (httpx.Response(503), False),
        (httpx.Response(502, headers={"Retry-After": "0"}), False),
        (httpx.Response(504, json={"error": "Model is loading"}), False),
    ],
)
def test_only_a_503_that_says_so_tells_of_a_model_that_loads(
    reply: httpx.Response, is_loading: bool, wired: Wired
) -> None:
    """One try is allowed, and waiting for a model is none."""
    wire = Wire(a=[reply, reply, RIGHT])
    if is_loading:
        assert send(wired, wire, max_attempts=1) == [7.0]
    else:
        with pytest.raises(RemoteUnavailableError, match=f"status {reply.status_code}.* after 1 try"):
            send(wired, wire, max_attempts=1)


def test_a_broken_compression_is_an_answer_that_cannot_be_right(wired: Wired) -> None:
    wire = Wire(a=[httpx.DecodingError("zlib")], b=[RIGHT])
    with pytest.raises(RemoteAnswerError, match=r"^http://a/endpoint: .*compression is broken$") as caught:
        send(wired, wire)
    assert (caught.value.url, caught.value.status) == ("http://a/endpoint", 200)
    assert wire.sent == ["a"]


def test_a_host_whose_certificate_is_not_trusted_is_not_tried_again(wired: Wired) -> None:
    untrusted = httpx.ConnectError("")
    untrusted.__context__ = ssl.SSLCertVerificationError("self-signed")
    with pytest.raises(RemoteUnavailableError, match=r"self-signed.* after 1 try .*SSL_CERT_FILE"):
        send(wired, Wire(a=[untrusted]))


def test_pauses_grow_with_a_requests_failures_and_there_is_none_before_another_host(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[int] = []

    def pause(failures: int, *, chance: float) -> float:
        assert 0.0 <= chance < 1.0
        pauses.append(failures)
        return 0.0

    monkeypatch.setattr(client, "pause", pause)
    failed = httpx.Response(500)
    assert requests(wired, Wire(a=[failed], b=[RIGHT]), 1) == ["a", "b"]
    assert pauses == []
    assert requests(wired, Wire(a=[failed, failed, RIGHT]), 2) == ["a"] * 4
    assert pauses == [1, 2]
    pauses.clear()

    async def scene() -> None:
        opened = wired(Wire(a=[httpx.Response(429, headers={"Retry-After": "99"}), RIGHT]))
        with pytest.raises(RemoteUnavailableError):
            await sent_by(opened, max_attempts=1)
        with pytest.raises(RemoteTimeoutError):
            await sent_by(opened)
        await opened.close()

    asyncio.run(scene())
    assert pauses == [1], "those who were told the same time must not come back together"
