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

from qwen3_rag.backends.remote.attempts import Answer, Attempts, Failure
from qwen3_rag.backends.remote.connections import CONNECT_TIMEOUT, build_client, through_proxy
from qwen3_rag.backends.remote.error_text import cause, chain, hidden, quoted, said_by
from qwen3_rag.backends.remote.failover import Host, Hosts
from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.limiter import AdaptiveLimiter
from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.outcomes import never_sent, out_of_time, parse_answer, refusal, unavailable
from qwen3_rag.backends.remote.retry import parse_retry_after, pause
from qwen3_rag.backends.remote.servers import Dialect, Request, Values

_KEEP_ALIVE: Final = 30.0
"""Seconds for which an idle connection is kept; httpx's default is 5. Chosen, not tuned."""


class TooMuchAtOnceError(Exception):
    """The servers do not answer a request of this size in time; they may answer its halves."""


class Client:
    """A pool of connections to the configured servers. Create and use it within one event loop.

    Args:
        options: base URLs, times and limits.
        dialect: what the servers speak.
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
        self._limiter = AdaptiveLimiter(
            hosts=len(self._hosts),
            connections=options.max_connections,
            tokens=max_tokens,
            timeout=options.timeout,
        )
        self._last_answer = 0.0
        """When the last right answer came."""
        self._in_flight: list[float] = []
        """When each request was sent that no server has responded to yet."""
        self._http = build_client(
            lambda: httpx.AsyncClient(
                auth=Bearer(key) if key is not None else None,
                headers={"User-Agent": "qwen3-rag"},
                timeout=httpx.Timeout(options.timeout, connect=min(CONNECT_TIMEOUT, options.timeout)),
                limits=httpx.Limits(
                    max_connections=options.max_connections,
                    max_keepalive_connections=options.max_connections,
                    keepalive_expiry=_KEEP_ALIVE,
                ),
                # A redirect would carry texts, and maybe the key, to where nobody configured them.
                follow_redirects=False,
            )
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(
        self,
        request: Request,
        *,
        started: float,
        tokens: int,
        divisible: bool,
        max_attempts: int | None = None,
    ) -> Values:
        """Send a request, and a further one if its answer requires it, and return the values.

        Args:
            request: what is sent.
            started: `time.monotonic()` when its run began.
            tokens: size of the request.
            divisible: whether it holds several texts, and so may be sent in parts.
            max_attempts: how often it is sent at most; None for `max_retries` + 1, and at least once to each
                host.

        Raises:
            TooMuchAtOnceError: it is divisible, and the servers are too slow for it.
            RemoteError: see the classes in `errors`; `position` counts within the request.
        """
        if max_attempts is None:
            max_attempts = max(self._options.max_retries + 1, len(self._hosts))
        while True:
            while not await self._limiter.acquire(self._left(started)):
                if self._left(started) <= 0:
                    raise never_sent(self._options)
            try:
                if divisible and tokens > self._limiter.token_limit:
                    raise TooMuchAtOnceError
                url, answer = await self._answer(request, started, tokens, max_attempts, divisible=divisible)
            finally:
                self._limiter.release()
            result = parse_answer(answer, request, url, self._key)
            if not isinstance(result, Request):
                return result
            assert result.tokens is not None, "a further request tells its own size"
            request, tokens, divisible = result, result.tokens, False  # it is about one of the texts

    def _left(self, started: float) -> float:
        """Return the seconds for which a run may still wait for a right answer to any request."""
        return max(started, self._last_answer) + self._options.deadline - time.monotonic()

    async def _answer(
        self, request: Request, started: float, tokens: int, max_attempts: int, *, divisible: bool
    ) -> tuple[str, Answer]:
        """Return an answer and its URL. Retries go to another host at once, to the same one after a pause.

        A refusal that may concern one text counts only if another host agrees (all of them for a single text)
        or none is healthy: a misconfigured server must not put the blame on texts.
        """
        content = json.dumps(request.body, ensure_ascii=False, separators=(",", ":")).encode()
        attempts = Attempts(max_attempts, hosts=len(self._hosts), now=time.monotonic())
        gives_way = False
        while True:
            host, url = await self._turn(attempts, started, gives_way=gives_way)
            sent = time.monotonic()
            outcome = await self._attempt(host, url, content, tokens, self._left(started))
            if isinstance(outcome, Answer):
                return url, outcome
            if not outcome.is_worth_retrying:
                self._note_refusal_or_raise(attempts, host, outcome, divisible=divisible)
                gives_way = False
                continue
            self._adapt(outcome, sent, tokens)
            gives_way = outcome.status == 429 and self._is_overload(attempts, sent)
            counts = not (gives_way or outcome.is_loading)
            self._note_failure_or_raise(attempts, host, outcome, started, counts=counts, divisible=divisible)

    async def _turn(self, attempts: Attempts, started: float, *, gives_way: bool) -> tuple[Host, str]:
        """Wait until the next attempt is due; return its host and URL.

        Args:
            attempts: those so far.
            started: `time.monotonic()` when the run began.
            gives_way: release the turn meanwhile, so that requests waiting to be retried do not block ones the
                server would answer.

        Raises:
            RemoteRefusalError, RemoteAnswerError: it was refused, and no other healthy host is left to ask.
            RemoteTimeoutError: the attempt would come after the deadline.
        """
        if attempts.refusals and not self._hosts.has_other(time.monotonic(), attempts.spent):
            base_url, failure = next(reversed(attempts.refusals.items()))
            raise refusal(failure, self._dialect.endpoint(base_url))
        host, wait = self._next(attempts)
        url = self._dialect.endpoint(host.base_url)
        if wait >= self._left(started):
            raise out_of_time(attempts.last, url, wait, self._options)
        if gives_way:
            await self._limiter.release_for(wait, at_most=self._left(started))
        else:
            await asyncio.sleep(wait)
        if self._left(started) <= 0:
            raise out_of_time(attempts.last, url, 0.0, self._options)
        return host, url

    def _note_refusal_or_raise(
        self, attempts: Attempts, host: Host, failure: Failure, *, divisible: bool
    ) -> None:
        """Record a refusal, and raise its error if no other host need be asked."""
        attempts.note_refusal(host.base_url, failure, time.monotonic())
        if not failure.may_be_one_input or (divisible and len(attempts.refusals) > 1):
            raise refusal(failure, self._dialect.endpoint(host.base_url))

    def _note_failure_or_raise(
        self,
        attempts: Attempts,
        host: Host,
        failure: Failure,
        started: float,
        *,
        counts: bool,
        divisible: bool,
    ) -> None:
        """Record a failure, and raise an error if the request is not to be sent again.

        Raises:
            RemoteUnavailableError: there were enough attempts.
            TooMuchAtOnceError: it took too long, and its halves may not.
            RemoteTimeoutError: the deadline cut it off.
        """
        url = self._dialect.endpoint(host.base_url)
        before = f"{attempts.last}; " if attempts.failures else ""
        attempts.note(host.base_url, failure, time.monotonic(), counts=counts)
        if attempts.are_exhausted:
            raise unavailable(failure, url, attempts.failures.total(), self._options)
        if failure.is_slow and divisible:
            raise TooMuchAtOnceError
        if failure.is_cut and self._left(started) <= 0:
            # This attempt may have had no time at all, so the one before it is told too.
            raise out_of_time(before + attempts.last, url, 0.0, self._options)

    def _adapt(self, failure: Failure, sent: float, tokens: int) -> None:
        """Adapt the limits to a failure that tells of the servers' capacity."""
        if failure.status == 429:
            self._limiter.note_refusal(sent=sent, now=time.monotonic())
        if failure.is_slow:
            self._limiter.note_timeout(tokens)

    def _is_overload(self, attempts: Attempts, sent: float) -> bool:
        """Whether a 429 shows overload: another request was answered since, or one sent earlier is in flight.

        Some servers answer 429 to what they will never do, so this holds for one deadline at most.
        """
        if time.monotonic() - attempts.began >= self._options.deadline:
            return False
        return self._last_answer > attempts.last_failed or min(self._in_flight, default=sent) < sent

    def _next(self, attempts: Attempts) -> tuple[Host, float]:
        """Return the host of the next attempt, and the seconds until it: 0 where this request has not failed.

        A random pause is added to a `Retry-After` too: clients that were told the same time must not all come
        back at once.
        """
        now = time.monotonic()
        excluded = attempts.spent if attempts.refusals else ()
        host = self._hosts.choose(now, attempts.failures, attempts.retry_after_until, excluded)
        failures = attempts.failures[host.base_url]
        until = max(host.retry_after_until, attempts.retry_after_until.get(host.base_url, 0.0))
        asked = max(0.0, until - now)
        return host, asked + (pause(max(1, failures), chance=random.random()) if failures or asked else 0.0)

    async def _attempt(
        self, host: Host, url: str, content: bytes, tokens: int, left: float
    ) -> Answer | Failure:
        """Post once, and record what the outcome says of the host."""
        sent = time.monotonic()
        host.in_flight += 1
        self._in_flight.append(sent)
        try:
            outcome = await self._post(url, content, left)
        finally:
            host.in_flight -= 1
            self._in_flight.remove(sent)
        now = time.monotonic()
        if isinstance(outcome, Answer):
            self._last_answer = now
            self._limiter.note_answer(now - sent, tokens)
        if isinstance(outcome, Failure) and outcome.is_worth_retrying:
            if not outcome.is_cut:
                self._hosts.note_failure(host, now, retry_after=outcome.retry_after, is_busy=outcome.is_busy)
        else:
            self._hosts.note_success(host)
        return outcome

    async def _post(self, url: str, content: bytes, left: float) -> Answer | Failure:
        """Post once. httpx's exceptions end here: they hold the request, and with it the key."""
        limit = min(self._options.timeout, left)
        try:
            response = await asyncio.wait_for(
                self._http.post(url, content=content, headers={"Content-Type": "application/json"}), limit
            )
        except (httpx.TimeoutException, asyncio.TimeoutError) as error:
            if isinstance(error, httpx.ConnectTimeout):
                return Failure(f"no connection within {min(CONNECT_TIMEOUT, limit):.3g} s{through_proxy(url)}")
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
            parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(timezone.utc)),
            is_loading=response.status_code == 503
            and ("Retry-After" in response.headers or "loading" in said.lower()),
        )
