"""Sends one request until it is answered, refused, or out of time. Lives in one event loop."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

import httpx

from qwen3_rag.backends.remote.errors import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteRefusalError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.failover import Host, Hosts
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.retry import asked_pause, is_worth_retrying, pause
from qwen3_rag.backends.remote.servers import Call, Dialect, Values
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError

_LONGEST_CONNECT: Final = 10.0
"""Seconds; a host that is down often swallows connections instead of refusing them."""

_QUOTED: Final = 300
"""Characters of a server's message that an error quotes."""

_ADVICE: Final = {
    401: "the API key is absent or wrong: name its environment variable with api_key_env",
    403: "the API key does not allow this",
    404: "wrong base_url, path, served_model, or a server started for the other kind of model",
}


@dataclass(frozen=True)
class _Answer:
    """A response of status 200. Its repr hides the content, in which servers may echo what they got."""

    content: bytes = field(repr=False)


@dataclass(frozen=True)
class _Failure:
    """Anything else: what was seen, in words that hold no key.

    Attributes:
        text: for errors.
        status: HTTP status, None when no answer came.
        asked: seconds that the server asked to be left alone.
    """

    text: str
    status: int | None = None
    asked: float | None = None

    @property
    def is_worth_retrying(self) -> bool:
        return self.status is None or is_worth_retrying(self.status)


class Client:
    """A pool of connections to the servers of the options. Create and use it within one event loop.

    Args:
        options: base URLs, times and limits.
        dialect: how the servers are asked.
        key: sent with every request; None for none.
    """

    def __init__(self, options: RemoteOptions, dialect: Dialect, key: ApiKey | None) -> None:
        self._options = options
        self._dialect = dialect
        self._key = key
        self._hosts = Hosts(options.base_url)
        self._places = asyncio.Semaphore(options.max_connections)
        self._http = httpx.AsyncClient(
            auth=_Bearer(key) if key is not None else None,
            headers={"User-Agent": "qwen3-rag"},
            timeout=httpx.Timeout(options.timeout, connect=min(_LONGEST_CONNECT, options.timeout)),
            limits=httpx.Limits(
                max_connections=options.max_connections,
                max_keepalive_connections=options.max_connections,
                keepalive_expiry=30.0,
            ),
            # A redirect would carry texts, and maybe the key, to where nobody configured them.
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, call: Call, deadline: float) -> Values:
        """Send a request, and what its answer asks for, and return the values.

        Args:
            call: the request.
            deadline: `time.monotonic()` by which this ends, one way or the other.

        Raises:
            RemoteError: see the classes in `errors`; `position` counts within the request.
        """
        while True:
            try:
                await asyncio.wait_for(self._places.acquire(), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise RemoteTimeoutError(
                    f"no connection became free within the deadline of {self._options.deadline:g} s; raise "
                    f"max_connections ({self._options.max_connections}) or deadline"
                ) from None
            try:
                url, answer = await self._answer(call, deadline)
            finally:
                self._places.release()
            result = self._read(call, url, answer)
            if not isinstance(result, Call):
                return result
            call = result

    async def _answer(self, call: Call, deadline: float) -> tuple[str, _Answer]:
        """Try until there is an answer: at once at another host, after a pause at the same one."""
        content = json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode()
        failed: Counter[str] = Counter()
        tries = max(self._options.max_retries + 1, len(self._hosts))
        seen = "no try yet"
        while True:
            host, wait = self._next(failed)
            url = self._dialect.endpoint(host.base_url)
            if time.monotonic() + wait >= deadline:
                raise self._out_of_time(url, seen, wait)
            await asyncio.sleep(wait)
            outcome = await self._attempt(host, url, content, deadline)
            if isinstance(outcome, _Answer):
                return url, outcome
            if not outcome.is_worth_retrying:
                raise _refusal(outcome, url)
            failed[host.base_url] += 1
            seen = f"try {failed.total()}: {outcome.text}"
            if failed.total() == tries:
                raise self._unavailable(outcome, url, tries)

    def _next(self, failed: Counter[str]) -> tuple[Host, float]:
        """Return where to try again, and after how long: at once where this request has not failed yet."""
        now = time.monotonic()
        host = self._hosts.choose(now, failed)
        failures = failed[host.base_url]
        backoff = pause(failures, chance=random.random()) if failures else 0.0
        return host, max(backoff, host.closed_until - now)

    async def _attempt(self, host: Host, url: str, content: bytes, deadline: float) -> _Answer | _Failure:
        host.under_way += 1
        try:
            outcome = await self._post(url, content, deadline)
        finally:
            host.under_way -= 1
        if isinstance(outcome, _Failure) and outcome.is_worth_retrying:
            self._hosts.note_failure(host, time.monotonic(), asked=outcome.asked)
        else:
            self._hosts.note_success(host)
        return outcome

    async def _post(self, url: str, content: bytes, deadline: float) -> _Answer | _Failure:
        """Post once. HTTP exceptions end here: they hold the request, and with it the key."""
        limit = min(self._options.timeout, deadline - time.monotonic())
        try:
            response = await asyncio.wait_for(
                self._http.post(url, content=content, headers={"Content-Type": "application/json"}), limit
            )
        except (httpx.TimeoutException, asyncio.TimeoutError) as error:
            what = "no connection" if isinstance(error, httpx.ConnectTimeout) else "no whole answer"
            return _Failure(f"{what} within {limit:.3g} s")
        except httpx.DecodingError:
            return _Failure("the answer's compression is broken", status=200)
        except httpx.TransportError as error:
            return _Failure(self._hidden(f"{_cause(error)} ({type(error).__name__})"))
        if response.status_code == 200:
            return _Answer(response.content)
        return _Failure(
            f"status {response.status_code}: {self._hidden(_message(response))[:_QUOTED]}",
            response.status_code,
            asked_pause(response.headers.get("Retry-After"), now=datetime.now(timezone.utc)),
        )

    def _read(self, call: Call, url: str, answer: _Answer) -> Values | Call:
        """Read an answer's values.

        Raises:
            RemoteAnswerError: naming the URL and what was seen.
        """
        parsed = _parsed(answer.content)
        if parsed is None:
            begins = self._hidden(answer.content[:200].decode(errors="replace"))[:60]
            seen = f"the answer is not JSON: {len(answer.content)} bytes that begin with {begins!r}"
            raise RemoteAnswerError(f"{url}: {seen}", url=url, status=200)
        try:
            return call.read(parsed)
        except UnusableAnswerError as error:
            raise RemoteAnswerError(self._hidden(f"{url}: {error}"), url=url, status=200) from None
        except NotFiniteError as error:
            raise RemoteNonFiniteError(
                f"{url}: {error}; the server's weights may be damaged, or float16 overflows there (start it "
                "with bfloat16 or float32)",
                url=url,
                status=200,
                position=error.position,
            ) from None

    def _unavailable(self, failure: _Failure, url: str, tries: int) -> RemoteError:
        others = len(self._hosts) - 1
        return RemoteUnavailableError(
            f"{url}: {failure.text}; gave up after {tries} tries (max_retries={self._options.max_retries})"
            + (f", of which some went to the {others} other base URLs" if others else ""),
            url=url,
            status=failure.status,
        )

    def _out_of_time(self, url: str, seen: str, wait: float) -> RemoteError:
        return RemoteTimeoutError(
            f"{url}: {seen}; the next try would be {wait:.3g} s from now, after the deadline of "
            f"{self._options.deadline:g} s",
            url=url,
        )

    def _hidden(self, text: str) -> str:
        return self._key.hide_in(text) if self._key is not None else text


class _Bearer(httpx.Auth):
    """Puts the key into the one header, so that no other object of the client holds it."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._key.bearer
        yield request


def _parsed(content: bytes) -> Any:
    """Return parsed JSON, None when it is none. (`null` is no answer either.)"""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _refusal(failure: _Failure, url: str) -> RemoteError:
    if failure.status == 200:
        return RemoteAnswerError(f"{url}: {failure.text}", url=url, status=200)
    advice = _ADVICE.get(failure.status if failure.status is not None else 0)
    if failure.status is not None and 300 <= failure.status < 400:
        advice = "redirects are not followed: give the URL that it leads to"
    return RemoteRefusalError(
        f"{url}: {failure.text}" + (f" ({advice})" if advice else ""), url=url, status=failure.status
    )


def _message(response: httpx.Response) -> str:
    """Return what the server says of an error: OpenAI's, vLLM's, TEI's, DashScope's form, or raw text."""
    text = response.content[:10_000].decode(errors="replace")
    found = _parsed(response.content)
    while isinstance(found, dict):
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), None)
    said = found if isinstance(found, str) else text
    return said.strip() or "no message"


def _cause(error: BaseException) -> str:
    """Return the innermost words of a transport error: the operating system's, if any."""
    words = str(error)
    cause: BaseException | None = error
    while cause is not None:
        words = str(cause) or words
        cause = cause.__cause__ or cause.__context__
    return words or "the connection broke"
