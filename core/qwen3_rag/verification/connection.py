"""HTTP to a server: asks again while it is busy, and tells a missing answer from a bad one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

import httpx

from qwen3_rag.backends.remote.connections import made
from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.messages import parsed_json
from qwen3_rag.backends.remote.retry import asked_pause, is_worth_retrying
from qwen3_rag.errors import ConfigurationError

_QUESTION_TRIES: Final = 3
"""Of a request that finds out what the server is, which many servers do not know."""
_TRIES: Final = 5
QUOTED: Final = 300
"""Characters of a server's message that an error or finding quotes."""
_FIRST_PAUSE: Final = 1.0
"""Seconds; doubled after each try, so that five tries wait for 15 in all."""


class AnswerError(Exception):
    """A server gave nothing to compare.

    Args:
        fault: "refused", "malformed" or "not-finite".
        detail: what it said.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


class Connection:
    """Connections to a server.

    Args:
        key: sent as a bearer token, if any.
        timeout: most seconds of one request, and of all pauses between its tries.
        sleep: waits for some seconds.

    Raises:
        ConfigurationError: the environment's proxies or certificates cannot be used.
    """

    def __init__(
        self, key: ApiKey | None, *, timeout: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._key, self._timeout, self._sleep = key, timeout, sleep
        self._client = made(lambda: httpx.Client(timeout=timeout, auth=None if key is None else Bearer(key)))

    def close(self) -> None:
        """Close them."""
        self._client.close()

    def check_reachable(self, url: str) -> None:
        """Raise OSError if nobody takes connections there. What is answered, if anything, does not matter."""
        try:
            self._client.head(url)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            said = self._in_words(error)
        except httpx.HTTPError:
            return
        else:
            return
        raise OSError(f"{url} cannot be reached: {said}")  # outside: see `_sent`

    def get(self, url: str) -> Any:
        """Return the JSON at a URL, or None if there is none."""
        response = self._patiently("GET", url, None, _QUESTION_TRIES)
        if isinstance(response, str) or not response.is_success:
            return None
        return parsed_json(response.content)

    def post(self, url: str, body: dict[str, Any]) -> Any:
        """Return the JSON that is answered.

        Raises:
            AnswerError: it refuses, or answers no JSON.
            OSError: it cannot be reached, or stays busy.
            ConfigurationError: it wants another key or another URL.
        """
        response = self._patiently("POST", url, body, _TRIES)
        if isinstance(response, str):
            raise OSError(f"{url} cannot be reached: {response}")
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
            said = self.hidden(" ".join(response.text.split()))[:QUOTED]
            if _is_busy(status):
                raise OSError(f"{url} could not be asked: HTTP {status} at every try; it says: {said}")
            raise AnswerError("refused", f"HTTP {status} from {url}: {said}")
        answer = parsed_json(response.content)
        if answer is None:
            raise AnswerError("malformed", f"{url} answered something that is no JSON object or list")
        return answer

    def hidden(self, text: str) -> str:
        """Return `text`, which may be the server's, without the key."""
        return text if self._key is None else self._key.hide_in(text)

    def _patiently(
        self, method: str, url: str, body: dict[str, Any] | None, tries: int
    ) -> httpx.Response | str:
        """Send, and again while the server says that it is busy."""
        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            response = self._sent(method, url, body)
            tries -= 1
            if isinstance(response, str) or not _is_busy(response.status_code) or not tries:
                return response
            asked = asked_pause(response.headers.get("Retry-After"), now=datetime.now(timezone.utc))
            seconds = pause if asked is None else asked
            waited, pause = waited + seconds, 2 * pause
            if waited > self._timeout:
                return response
            self._sleep(seconds)

    def _sent(self, method: str, url: str, body: dict[str, Any] | None) -> httpx.Response | str:
        """Send, and return what went wrong in words: HTTP exceptions hold the request, and it the key.

        Raising in their place would do no better, since they would stay in the new one's context.
        """
        try:
            return self._client.request(method, url, json=body)
        except httpx.HTTPError as error:
            return self._in_words(error)

    def _in_words(self, error: httpx.HTTPError) -> str:
        return self.hidden(f"{type(error).__name__}: {error}")


def _is_busy(status: int) -> bool:
    """Whether a status says "not now". 500 does not: servers answer it to inputs that they fail on."""
    return is_worth_retrying(status) and status != 500
