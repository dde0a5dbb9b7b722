"""HTTP to a server: retries while it is busy, and tells a missing answer from a bad one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

import httpx

from qwen3_rag.backends.event_loop import LoopThread
from qwen3_rag.backends.remote.connections import CONNECT_TIMEOUT, build_client, through_proxy
from qwen3_rag.backends.remote.error_text import cause, hidden, parsed_json, quoted
from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.retry import is_worth_retrying, parse_retry_after
from qwen3_rag.errors import ConfigurationError

_GET_TRIES: Final = 3
"""Tries of a request that finds out what the server is. Many servers do not have such a path. Chosen, not
tuned."""

_POST_TRIES: Final = 5
"""Tries of a request for vectors or scores. Chosen, not tuned."""

_FIRST_PAUSE: Final = 1.0
"""Seconds; doubled after each try, so five tries wait for 15 s in all. Chosen, not tuned."""


class AnswerError(Exception):
    """A server's answer holds nothing to compare.

    Args:
        fault: "refused", "malformed" or "not-finite".
        detail: what was seen.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


@dataclass(frozen=True)
class _Silence:
    """No answer, or an incomplete one.

    Attributes:
        why: description for errors.
        was_connected: whether the connection was accepted before it failed.
    """

    why: str
    was_connected: bool


class Connection:
    """A pool of connections to a server.

    Args:
        key: sent as a bearer token; None for none.
        timeout: most seconds of one request, from connecting to the answer's last byte, and of all pauses
            between its tries.
        sleep: waits for that many seconds.

    Raises:
        ConfigurationError: the environment's proxies or certificates cannot be used.
    """

    def __init__(
        self, key: ApiKey | None, *, timeout: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._key, self._timeout, self._sleep = key, timeout, sleep
        # `_sent` enforces `timeout`: httpx's would apply to each single read.
        self._connect = min(CONNECT_TIMEOUT, timeout)
        limits = httpx.Timeout(None, connect=self._connect)
        self._client = build_client(
            lambda: httpx.AsyncClient(timeout=limits, auth=None if key is None else Bearer(key))
        )
        self._loop = LoopThread("qwen3-rag-verify")

    def close(self) -> None:
        """Close all connections, and end the event loop's thread."""
        self._loop.result_of(self._client.aclose())
        self._loop.close()

    def check_reachable(self, url: str) -> None:
        """Raise OSError if no connection is accepted there. The response does not matter."""
        outcome = self._loop.result_of(self._sent("HEAD", url, None))
        if isinstance(outcome, _Silence) and not outcome.was_connected:
            raise OSError(f"{url} cannot be reached: {outcome.why}")

    def get(self, url: str) -> Any:
        """Return the JSON at a URL; None if the response is an error or not JSON.

        Raises:
            OSError: it does not answer, or stays busy.
        """
        response = self._patiently("GET", url, None, _GET_TRIES)
        return parsed_json(response.content) if response.is_success else None

    def post(self, url: str, body: dict[str, Any]) -> Any:
        """Return the JSON answered to a POST.

        Raises:
            AnswerError: it refuses, or its answer is not JSON.
            OSError: it does not answer, or stays busy.
            ConfigurationError: it requires another key, or redirects to another URL.
        """
        response = self._patiently("POST", url, body, _POST_TRIES)
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
            raise AnswerError("refused", f"HTTP {status} from {url}: {self.quoted(response.text)}")
        answer = parsed_json(response.content)
        if answer is None:
            raise AnswerError("malformed", f"{url} answered something that is no JSON object or list")
        return answer

    def hidden(self, text: str) -> str:
        """Return `text`, which may be the server's, without the key."""
        return hidden(text, self._key)

    def quoted(self, text: str) -> str:
        """Return the part of a server's message that errors and findings quote: one line, without the key."""
        return quoted(" ".join(text.split()), self._key)

    def _patiently(self, method: str, url: str, body: dict[str, Any] | None, tries: int) -> httpx.Response:
        """Send a request, and again while the server is busy.

        Raises:
            OSError: it stays busy, or does not answer.
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
            asked = parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(timezone.utc))
            seconds = pause if asked is None else asked
            waited, pause = waited + seconds, 2 * pause
            if not tries or waited > self._timeout:
                seen = f"HTTP {response.status_code} at every try; it says: {self.quoted(response.text)}"
                raise OSError(f"{url} could not be asked: {seen}{spared}")
            self._sleep(seconds)

    async def _sent(self, method: str, url: str, body: dict[str, Any] | None) -> httpx.Response | _Silence:
        """Send once. Failures are returned: httpx's exceptions hold the request, and with it the key.

        An exception of ours raised instead would keep them as its context.
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
    """Whether a status says that the server is busy. 500 does not: these inputs may have caused it."""
    return is_worth_retrying(status) and status != 500
