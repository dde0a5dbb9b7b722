"""HTTP to a server: asks again while it is busy, and tells a missing answer from a bad one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

import httpx

from qwen3_rag.backends.event_loop import LoopThread
from qwen3_rag.backends.remote.connections import made
from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.messages import cause, parsed_json
from qwen3_rag.backends.remote.retry import asked_pause, is_worth_retrying
from qwen3_rag.backends.remote.wording import through_proxy
from qwen3_rag.errors import ConfigurationError

_QUESTION_TRIES: Final = 3
"""Of a request that finds out what the server is, which many servers do not know."""
_TRIES: Final = 5
QUOTED: Final = 300
"""Characters of a server's message that an error or finding quotes."""
_FIRST_PAUSE: Final = 1.0
"""Seconds; doubled after each try, so that five tries wait for 15 in all."""
_LONGEST_CONNECT: Final = 10.0
"""Seconds; a host that is down often swallows connections instead of refusing them."""


class AnswerError(Exception):
    """A server gave nothing to compare.

    Args:
        fault: "refused", "malformed" or "not-finite".
        detail: what it said.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


@dataclass(frozen=True)
class _Silence:
    """No answer, or no whole one.

    Attributes:
        why: in words.
        was_connected: whether somebody took the connection, and then broke it.
    """

    why: str
    was_connected: bool


class Connection:
    """Connections to a server.

    Args:
        key: sent as a bearer token, if any.
        timeout: most seconds of one request, from connecting to the answer's last byte, and of all pauses
            between its tries.
        sleep: waits for some seconds.

    Raises:
        ConfigurationError: the environment's proxies or certificates cannot be used.
    """

    def __init__(
        self, key: ApiKey | None, *, timeout: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._key, self._timeout, self._sleep = key, timeout, sleep
        # `timeout` is kept here: httpx's is that of each single read.
        self._connect = min(_LONGEST_CONNECT, timeout)
        limits = httpx.Timeout(None, connect=self._connect)
        self._client = made(
            lambda: httpx.AsyncClient(timeout=limits, auth=None if key is None else Bearer(key))
        )
        self._loop = LoopThread("qwen3-rag-verify")

    def close(self) -> None:
        """Close them."""
        self._loop.result_of(self._client.aclose())
        self._loop.close()

    def check_reachable(self, url: str) -> None:
        """Raise OSError if nobody takes connections there. What is answered does not matter."""
        outcome = self._loop.result_of(self._sent("HEAD", url, None))
        if isinstance(outcome, _Silence) and not outcome.was_connected:
            raise OSError(f"{url} cannot be reached: {outcome.why}")

    def get(self, url: str) -> Any:
        """Return the JSON at a URL, or None if what is answered is none.

        Raises:
            OSError: it does not answer, or stays busy.
        """
        response = self._patiently("GET", url, None, _QUESTION_TRIES)
        return parsed_json(response.content) if response.is_success else None

    def post(self, url: str, body: dict[str, Any]) -> Any:
        """Return the JSON that is answered.

        Raises:
            AnswerError: it refuses, or answers no JSON.
            OSError: it does not answer, or stays busy.
            ConfigurationError: it wants another key or another URL.
        """
        response = self._patiently("POST", url, body, _TRIES)
        status = response.status_code
        if response.next_request is not None:
            bare = response.next_request.url.copy_with(query=None, fragment=None, userinfo=b"")
            target = self.hidden(str(bare))
            raise ConfigurationError(
                f"{url} could not be asked: the server redirects (HTTP {status}) to {target}; "
                "give the URL that it leads to"
            )
        if status in (401, 403):
            raise ConfigurationError(
                f"{url} wants another API key (HTTP {status}); name the environment variable "
                "that holds it with --api-key-env"
            )
        if not response.is_success:
            raise AnswerError("refused", f"HTTP {status} from {url}: {self._said(response)}")
        answer = parsed_json(response.content)
        if answer is None:
            raise AnswerError("malformed", f"{url} answered something that is no JSON object or list")
        return answer

    def hidden(self, text: str) -> str:
        """Return `text`, which may be the server's, without the key."""
        return text if self._key is None else self._key.hide_in(text)

    def _patiently(self, method: str, url: str, body: dict[str, Any] | None, tries: int) -> httpx.Response:
        """Send, and again while the server says that it is busy.

        Raises:
            OSError: it says no more than that, or nothing.
        """
        spared = "; with --server and --served-model it is not asked" if method == "GET" else ""
        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            response = self._loop.result_of(self._sent(method, url, body))
            tries -= 1
            if isinstance(response, _Silence):
                raise OSError(f"{url} does not answer: {response.why}{spared}")
            if not _is_busy(response.status_code):
                return response
            asked = asked_pause(response.headers.get("Retry-After"), now=datetime.now(timezone.utc))
            seconds = pause if asked is None else asked
            waited, pause = waited + seconds, 2 * pause
            if not tries or waited > self._timeout:
                seen = f"HTTP {response.status_code} at every try; it says: {self._said(response)}"
                raise OSError(f"{url} could not be asked: {seen}{spared}")
            self._sleep(seconds)

    def _said(self, response: httpx.Response) -> str:
        """Return the beginning of what is answered."""
        return self.hidden(" ".join(response.text.split()))[:QUOTED]

    async def _sent(self, method: str, url: str, body: dict[str, Any] | None) -> httpx.Response | _Silence:
        """Send, and return what went wrong in words: HTTP exceptions hold the request, and it the key.

        Raising in their place would do no better, since they would stay in the new one's context.
        """
        try:
            return await asyncio.wait_for(self._client.request(method, url, json=body), self._timeout)
        except asyncio.TimeoutError:
            why, was_connected = f"no whole answer within {self._timeout:g} s", False
        except httpx.ConnectTimeout:
            why, was_connected = f"no connection within {self._connect:g} s", False
        except httpx.HTTPError as error:
            why = self.hidden(f"{cause(error)} ({type(error).__name__})")
            was_connected = not isinstance(error, (httpx.ConnectError, httpx.ProxyError))
        return _Silence(why + through_proxy(url), was_connected)


def _is_busy(status: int) -> bool:
    """Whether a status says "not now". 500 does not: servers answer it to inputs that they fail on."""
    return is_worth_retrying(status) and status != 500
