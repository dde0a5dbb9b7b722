"""What servers answer, raw: as a user's other clients would get it, mended by nobody."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final

import httpx
import numpy as np

from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError, numbers
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.routes import Route, Server, root
from qwen3_rag.verification.subject import Input

_PER_REQUEST: Final = 8
"""Texts of one request; DashScope takes 10."""


class AnswerError(Exception):
    """A server gave nothing to compare.

    Args:
        fault: "refused", "malformed" or "not-finite".
        detail: what it said.
    """

    def __init__(self, fault: str, detail: str) -> None:
        super().__init__(detail)
        self.fault, self.detail = fault, detail


def key_from_environment(variable: str) -> ApiKey:
    """Read an API key.

    Raises:
        ConfigurationError: there is no such variable, or it holds no key.
    """
    value = os.environ.get(variable)
    if value is None:
        raise ConfigurationError(f"the environment variable {variable!r:.40} is not set")
    return ApiKey(value, source=f"environment variable {variable}")


class Endpoint:
    """A server that is asked.

    Args:
        url: base URL.
        key: sent as a bearer token, if any.
        timeout: most seconds of one request.
    """

    def __init__(self, url: str, *, key: ApiKey | None, timeout: float) -> None:
        if not re.match(r"https?://[^/@]+", url) or "?" in url or "#" in url:
            raise ConfigurationError(
                'url must look like "http://host:8000" or "https://host/v1", without user name and query'
            )
        self._url = url.rstrip("/")
        self._key = key
        headers = {} if key is None else {"Authorization": key.bearer}
        self._client = httpx.Client(timeout=timeout, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def detect(self, kind: ModelKind) -> Server:
        """Find out what the server speaks by what only one kind of server answers."""
        if ".aliyuncs.com" in self._url:
            return "dashscope"
        base = root(self._url)
        for server, path, name in (("vllm", "/version", "version"), ("tei", "/info", "model_type")):
            answer = self._get(base + path)
            if isinstance(answer, dict) and name in answer:
                return "vllm" if server == "vllm" else "tei"
        return "openai" if kind == "embedding" else "cohere"

    def model_name(self, otherwise: str) -> str:
        """Return the first model that the server lists, or `otherwise`."""
        answer = self._get(root(self._url) + "/v1/models")
        try:
            return str(answer["data"][0]["id"])
        except (TypeError, KeyError, IndexError):
            return otherwise

    def ask(self, route: Route, inputs: Sequence[Input], *, at_once: int = _PER_REQUEST) -> Floats:
        """Return the raw values of all inputs, in order.

        Raises:
            AnswerError: it refused, or answered what cannot be read.
            OSError: it cannot be reached.
        """
        values: dict[int, Any] = {}
        for positions in _requests(route, inputs, at_once):
            answer = self._post(route.url, route.body([inputs[i] for i in positions]))
            try:
                found = route.read(answer, len(positions))
            except UnusableAnswerError as error:
                raise AnswerError("malformed", str(error)) from error
            values.update(zip(positions, found, strict=True))
        return _as_array([values[i] for i in range(len(inputs))])

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        try:
            response = self._client.post(url, json=body)
        except httpx.HTTPError as error:
            # Not `from`: the exception carries the request, and the request the key.
            raise OSError(f"{url} cannot be reached: {type(error).__name__}: {error}") from None
        if response.status_code in (401, 403):
            raise ConfigurationError(
                f"{url} wants another API key (HTTP {response.status_code}); name the environment variable "
                "that holds it with --api-key-env"
            )
        if response.is_error:
            said = " ".join(response.text.split())[:300]
            shown = said if self._key is None else self._key.hide_in(said)
            raise AnswerError("refused", f"HTTP {response.status_code} from {url}: {shown}")
        try:
            return response.json()
        except ValueError:
            raise AnswerError("malformed", f"{url} answered something that is no JSON") from None

    def _get(self, url: str) -> Any:
        try:
            response = self._client.get(url)
            return response.json() if response.is_success else None
        except (httpx.HTTPError, ValueError):
            return None


def _requests(route: Route, inputs: Sequence[Input], at_once: int) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for position, one in enumerate(inputs):
        groups.setdefault(route.groups(one), []).append(position)
    return [
        positions[start : start + at_once]
        for positions in groups.values()
        for start in range(0, len(positions), at_once)
    ]


def _as_array(values: list[Any]) -> Floats:
    try:
        if not values or not isinstance(values[0], list):
            return numbers(values)
        rows = [numbers(row, position) for position, row in enumerate(values)]
    except NotFiniteError as error:
        raise AnswerError("not-finite", str(error)) from error
    except UnusableAnswerError as error:
        raise AnswerError("malformed", str(error)) from error
    if len({len(row) for row in rows}) != 1:
        raise AnswerError("malformed", f"vectors of several lengths: {sorted({len(row) for row in rows})}")
    return np.stack(rows)
