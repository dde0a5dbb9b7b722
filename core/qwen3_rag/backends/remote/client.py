"""Sends one request until it is answered, refused, or out of time. Lives in one event loop."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from datetime import datetime, timezone
from typing import Final

import httpx

from qwen3_rag.backends.remote.connections import made
from qwen3_rag.backends.remote.failover import Host, Hosts
from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.messages import cause, chain, said_by
from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.pace import Pace
from qwen3_rag.backends.remote.retry import asked_pause, pause
from qwen3_rag.backends.remote.servers import Call, Dialect, Values
from qwen3_rag.backends.remote.tries import Answer, Failure, Tries
from qwen3_rag.backends.remote.wording import (
    hidden,
    never_sent,
    out_of_time,
    quoted,
    read,
    refusal,
    through_proxy,
    unavailable,
)

_LONGEST_CONNECT: Final = 10.0
"""Seconds; a host that is down often swallows connections instead of refusing them."""


class TooMuchAtOnceError(Exception):
    """The servers do not answer a request of this size in time; its halves may be."""


class Client:
    """A pool of connections to the servers of the options. Create and use it within one event loop.

    Args:
        options: base URLs, times and limits.
        dialect: how the servers are asked.
        key: sent with every request; None for none.
        max_tokens: most tokens of one request.

    Raises:
        ConfigurationError: proxies or certificates of the environment cannot be used.
    """

    def __init__(
        self, options: RemoteOptions, dialect: Dialect, key: ApiKey | None, *, max_tokens: int
    ) -> None:
        self._options = options
        self._dialect = dialect
        self._key = key
        self._hosts = Hosts(options.base_url)
        self._pace = Pace(
            hosts=len(self._hosts),
            connections=options.max_connections,
            tokens=max_tokens,
            timeout=options.timeout,
        )
        self._answered = 0.0
        """When the last right answer came."""
        self._sent: list[float] = []
        """When each request was sent that no server has replied to yet."""
        self._http = made(
            lambda: httpx.AsyncClient(
                auth=Bearer(key) if key is not None else None,
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
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(
        self, call: Call, *, started: float, tokens: int, divisible: bool, tries: int | None = None
    ) -> Values:
        """Send a request, and what its answer asks for, and return the values.

        Args:
            call: the request.
            started: `time.monotonic()` when its run began.
            tokens: size of the request.
            divisible: whether it holds several texts, and so may be sent in parts.
            tries: how often it is sent at most; None for `max_retries` more than once, and to each host.

        Raises:
            TooMuchAtOnceError: it is divisible, and the servers are too slow for it.
            RemoteError: see the classes in `errors`; `position` counts within the request.
        """
        if tries is None:
            tries = max(self._options.max_retries + 1, len(self._hosts))
        while True:
            while not await self._pace.enter(self._left(started)):
                if self._left(started) <= 0:
                    raise never_sent(self._options)
            try:
                if divisible and tokens > self._pace.tokens:
                    raise TooMuchAtOnceError
                url, answer = await self._answer(call, started, tokens, tries, divisible=divisible)
            finally:
                self._pace.leave()
            result = read(answer, call, url, self._key)
            if not isinstance(result, Call):
                return result
            assert result.tokens is not None, "a further call tells its own size"
            call, tokens, divisible = result, result.tokens, False  # it is about one of the texts

    def _left(self, started: float) -> float:
        """Return the seconds for which a run may still wait for a right answer to any request."""
        return max(started, self._answered) + self._options.deadline - time.monotonic()

    async def _answer(
        self, call: Call, started: float, tokens: int, most: int, *, divisible: bool
    ) -> tuple[str, Answer]:
        """Try until there is an answer: at once at another host, after a pause at the same one.

        A refusal that may be about a text counts when another host agrees, all of them where it is of one
        text, or when no other is well: one that was started wrongly must not put the blame on texts.
        """
        content = json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode()
        tries = Tries(most, hosts=len(self._hosts), now=time.monotonic())
        others_work = False
        while True:
            if tries.refusals and not self._hosts.has_other(time.monotonic(), tries.spent):
                by, failure = next(reversed(tries.refusals.items()))
                raise refusal(failure, self._dialect.endpoint(by))
            host, wait = self._next(tries)
            url = self._dialect.endpoint(host.base_url)
            if wait >= self._left(started):
                raise out_of_time(tries.last, url, wait, self._options)
            if others_work:  # they make way for it then, instead of finding all places taken by what waits
                await self._pace.rest(wait, at_most=self._left(started))
            else:
                await asyncio.sleep(wait)
            if self._left(started) <= 0:
                raise out_of_time(tries.last, url, 0.0, self._options)
            sent = time.monotonic()
            outcome = await self._attempt(host, url, content, tokens, self._left(started))
            if isinstance(outcome, Answer):
                return url, outcome
            if not outcome.is_worth_retrying:
                tries.note_refusal(host.base_url, outcome, time.monotonic())
                if not outcome.may_be_one_input or (divisible and len(tries.refusals) > 1):
                    raise refusal(outcome, url)
                others_work = False
                continue
            self._note(outcome, sent, tokens)
            others_work = outcome.status == 429 and self._others_work(tries, sent)
            counts = not (others_work or outcome.is_loading)
            before = f"{tries.last}; " if tries.failed else ""
            tries.note(host.base_url, outcome, time.monotonic(), counts=counts)
            if tries.are_over:
                raise unavailable(outcome, url, tries.failed.total(), self._options)
            if outcome.is_slow and divisible:
                raise TooMuchAtOnceError
            if outcome.is_cut and self._left(started) <= 0:  # it may have got no time at all
                raise out_of_time(before + tries.last, url, 0.0, self._options)

    def _note(self, failure: Failure, sent: float, tokens: int) -> None:
        """Take from a failure how much the servers can do."""
        if failure.status == 429:
            self._pace.note_refusal(sent=sent, now=time.monotonic())
        if failure.is_slow:
            self._pace.note_timeout(tokens)

    def _others_work(self, tries: Tries, sent: float) -> bool:
        """Whether a server refused a request while it answered another, or works on one that it got before.

        Some refuse by 429 what they will never do, so this is asked for one deadline at most.
        """
        if time.monotonic() - tries.began >= self._options.deadline:
            return False
        return self._answered > tries.since or min(self._sent, default=sent) < sent

    def _next(self, tries: Tries) -> tuple[Host, float]:
        """Return where to try again, and after how long: at once where this request has not failed yet.

        A pause that a server asked for is made longer by chance, as every other: all those who were told
        the same must not come back together.
        """
        now = time.monotonic()
        without = tries.spent if tries.refusals else ()
        host = self._hosts.choose(now, tries.failed, tries.asked_until, without)
        failures = tries.failed[host.base_url]
        closed = max(0.0, max(host.closed_until, tries.asked_until.get(host.base_url, 0.0)) - now)
        return host, closed + (pause(max(1, failures), chance=random.random()) if failures or closed else 0.0)

    async def _attempt(
        self, host: Host, url: str, content: bytes, tokens: int, left: float
    ) -> Answer | Failure:
        sent = time.monotonic()
        host.under_way += 1
        self._sent.append(sent)
        try:
            outcome = await self._post(url, content, left)
        finally:
            host.under_way -= 1
            self._sent.remove(sent)
        now = time.monotonic()
        if isinstance(outcome, Answer):
            self._answered = now
            self._pace.note_answer(now - sent, tokens)
        if isinstance(outcome, Failure) and outcome.is_worth_retrying:
            if not outcome.is_cut:
                is_busy = outcome.is_busy or outcome.is_slow
                self._hosts.note_failure(host, now, asked=outcome.asked, is_busy=is_busy)
        else:
            self._hosts.note_success(host)
        return outcome

    async def _post(self, url: str, content: bytes, left: float) -> Answer | Failure:
        """Post once. HTTP exceptions end here: they hold the request, and with it the key."""
        limit = min(self._options.timeout, left)
        try:
            response = await asyncio.wait_for(
                self._http.post(url, content=content, headers={"Content-Type": "application/json"}), limit
            )
        except (httpx.TimeoutException, asyncio.TimeoutError) as error:
            if isinstance(error, httpx.ConnectTimeout):
                return Failure(f"no connection within {min(_LONGEST_CONNECT, limit):.3g} s{through_proxy(url)}")
            is_slow = limit == self._options.timeout
            return Failure(f"no whole answer within {limit:.3g} s", is_slow=is_slow, is_cut=not is_slow)
        except httpx.DecodingError:
            return Failure("the answer's compression is broken", status=200)
        except httpx.TransportError as error:
            is_untrusted = any(isinstance(one, ssl.SSLCertVerificationError) for one in chain(error))
            text = hidden(f"{cause(error)} ({type(error).__name__}){through_proxy(url)}", self._key)
            return Failure(text, is_untrusted=is_untrusted)
        if response.status_code == 200:
            return Answer(response.content)
        said = quoted(said_by(response), self._key)
        return Failure(
            f"status {response.status_code}: {said}",
            response.status_code,
            asked_pause(response.headers.get("Retry-After"), now=datetime.now(timezone.utc)),
            is_loading=response.status_code == 503
            and ("Retry-After" in response.headers or "loading" in said.lower()),
        )
