"""What servers answer, raw: as a user's other clients would get it, mended by nobody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import httpx
import numpy as np

from qwen3_rag.backends.remote.keys import ApiKey, Bearer
from qwen3_rag.backends.remote.options import check_base_url
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError, numbers
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.routes import Route, Server, root
from qwen3_rag.verification.subject import Input

_PER_REQUEST: Final = 8
"""Texts of one request; DashScope takes 10."""
_NO_JSON: Final = object()


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

    Attributes:
        url: the base URL without slashes at its end.

    Raises:
        ConfigurationError: `url` is none, or holds a user name, a password or a query.
    """

    def __init__(self, url: str, *, key: ApiKey | None, timeout: float) -> None:
        self.url = check_base_url(url, "url")
        self._key = key
        self._client = httpx.Client(timeout=timeout, auth=None if key is None else Bearer(key))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def detect(self, kind: ModelKind) -> Server:
        """Find out what the server speaks by what only one kind of server answers."""
        if ".aliyuncs.com" in self.url:
            return "dashscope"
        base = root(self.url)
        for server, path, name in (("vllm", "/version", "version"), ("tei", "/info", "model_type")):
            answer = self._get(base + path)
            if isinstance(answer, dict) and name in answer:
                return "vllm" if server == "vllm" else "tei"
        return "openai" if kind == "embedding" else "cohere"

    def model_name(self, otherwise: str) -> str:
        """Return the first model that the server lists, or `otherwise`."""
        answer = self._get(root(self.url) + "/v1/models")
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
                raise AnswerError("malformed", self._hidden(str(error))) from error
            values.update(zip(positions, found, strict=True))
        return _as_array([values[i] for i in range(len(inputs))])

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        response = self._sent(url, body)
        if isinstance(response, str):
            raise OSError(f"{url} cannot be reached: {response}")
        if response.status_code in (401, 403):
            raise ConfigurationError(
                f"{url} wants another API key (HTTP {response.status_code}); name the environment variable "
                "that holds it with --api-key-env"
            )
        if response.is_error:
            said = self._hidden(" ".join(response.text.split()))[:300]
            raise AnswerError("refused", f"HTTP {response.status_code} from {url}: {said}")
        answer = _parsed(response)
        if answer is _NO_JSON:
            raise AnswerError("malformed", f"{url} answered something that is no JSON")
        return answer

    def _sent(self, url: str, body: dict[str, Any]) -> httpx.Response | str:
        """Post, and return what went wrong in words: HTTP exceptions hold the request, and it the key.

        Raising in their place would do no better, since they would stay in the new one's context.
        """
        try:
            return self._client.post(url, json=body)
        except httpx.HTTPError as error:
            return self._hidden(f"{type(error).__name__}: {error}")

    def _get(self, url: str) -> Any:
        try:
            response = self._client.get(url)
        except httpx.HTTPError:
            return None
        return _parsed(response) if response.is_success else None

    def _hidden(self, text: str) -> str:
        return text if self._key is None else self._key.hide_in(text)


def _parsed(response: httpx.Response) -> Any:
    """Return the answer's JSON, `_NO_JSON` if it is none."""
    try:
        return response.json()
    except ValueError:
        return _NO_JSON


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
