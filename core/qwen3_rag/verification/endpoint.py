"""Raw answers of servers: what any other client would get, with nothing corrected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from qwen3_rag.backends.remote.error_text import error_within
from qwen3_rag.backends.remote.keys import ApiKey, is_vendors
from qwen3_rag.backends.remote.options import check_base_url
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError, numbers
from qwen3_rag.backends.remote.servers.base import root
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.server_names import ServerName
from qwen3_rag.verification.connection import AnswerError, Connection
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.routes import Route
from qwen3_rag.verification.subject import Input

_PER_REQUEST: Final = 8
"""Texts of one request; DashScope takes 10 at most."""

_NAMES_SHOWN: Final = 8
"""Models of a server that an error lists. Chosen, not tuned."""

_KNOWN_BY: Final[tuple[tuple[ServerName, str, Callable[[dict[str, Any]], bool]], ...]] = (
    # LocalAI answers there too, with a letter before its numbers.
    ("vllm", "/version", lambda answer: str(answer.get("version"))[:1].isdigit()),
    ("tei", "/info", lambda answer: "model_type" in answer),
)
"""Servers, a path that they answer, and whether an answer there is theirs."""


class Endpoint:
    """A server to be verified.

    Args:
        url: base URL.
        key: sent as a bearer token; None for none.
        timeout: as `Connection`.

    Attributes:
        url: the base URL without slashes at its end.

    Raises:
        ConfigurationError: `url` is not an http(s) URL, or holds a user name, a password or a query; or the
            environment's proxies or certificates cannot be used.
    """

    def __init__(self, url: str, *, key: ApiKey | None, timeout: float) -> None:
        self.url = check_base_url(url, "url")
        self._connection = Connection(key, timeout=timeout)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_reachable(self) -> None:
        """Raise OSError if no connection is accepted at the URL."""
        self._connection.check_reachable(self.url)

    def detect(self, kind: ModelKind) -> ServerName:
        """Find out what the server speaks, from what only one kind of server answers.

        Raises:
            OSError: it does not answer.
        """
        if is_vendors(self.url, "dashscope"):
            return "dashscope"
        base = root(self.url)
        for server, path, is_theirs in _KNOWN_BY:
            answer = self._connection.get(base + path)
            if isinstance(answer, dict) and is_theirs(answer):
                return server
        if kind == "embedding":
            return "openai"
        is_llama_cpp = any(one.get("owned_by") == "llamacpp" for one in self._listed_models())
        return "jina" if is_llama_cpp else "cohere"

    def model_name(self, model: str) -> str:
        """Return the name by which the server knows a checkpoint.

        Args:
            model: the checkpoint's name, which is returned if the server lists none.

        Raises:
            ConfigurationError: the server lists several, and which one is meant is not clear.
            OSError: it does not answer.
        """
        return chosen_name(model, [str(one["id"]) for one in self._listed_models() if "id" in one])

    def ask(self, route: Route, inputs: Sequence[Input], *, at_once: int = _PER_REQUEST) -> list[Any]:
        """Return the raw values of all inputs, in order; their form is not checked.

        Args:
            route: how to ask.
            inputs: what to ask for.
            at_once: most inputs of one request.

        Raises:
            AnswerError: the server refused, or its answer cannot be read.
            OSError: it does not answer, or stays busy.
            ConfigurationError: it requires another key, or redirects to another URL.
        """
        values: dict[int, Any] = {}
        for indices in _requests(route, inputs, at_once):
            answer = self._connection.post(route.url, route.body([inputs[i] for i in indices]))
            try:
                found = route.read_answer(answer, len(indices))
            except UnusableAnswerError as error:
                raise self._unreadable(route, answer, error) from error
            values.update(zip(indices, found, strict=True))
        return [values[i] for i in range(len(inputs))]

    def _listed_models(self) -> list[dict[str, Any]]:
        """Return what the server says of its models; nothing if it does not list them as OpenAI does."""
        answer = self._connection.get(root(self.url) + "/v1/models")
        listed = answer.get("data") if isinstance(answer, dict) else None
        return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []

    def _unreadable(self, route: Route, answer: Any, error: UnusableAnswerError) -> AnswerError:
        message = error_within(answer)
        if message is None:
            return AnswerError("malformed", self._connection.hidden(str(error)))
        quoted = self._connection.quoted(message)
        return AnswerError("refused", f"HTTP 200 from {route.url}, but an error within: {quoted}")


def as_floats(values: Sequence[Any], kind: ModelKind) -> Floats:
    """Return raw values as float32: vectors of one length, (n, d), or scores, (n,).

    Args:
        values: of one or several answers.
        kind: of the model: whether they should be vectors or scores.

    Raises:
        AnswerError: they have another form, or vectors of several lengths.
    """
    try:
        if kind == "reranking":
            return numbers(list(values))
        rows = [numbers(row) for row in values]
    except NotFiniteError as error:
        raise AnswerError("not-finite", "it writes null in place of a number") from error
    except UnusableAnswerError as error:
        raise AnswerError("malformed", str(error)) from error
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or not lengths[0]:
        raise AnswerError("malformed", f"vectors must have one length, above 0, theirs are {lengths}")
    return np.stack(rows)


def chosen_name(model: str, listed: Sequence[str]) -> str:
    """Return the name by which a server knows a checkpoint.

    Args:
        model: the checkpoint's name or folder.
        listed: names of the server's models.

    Raises:
        ConfigurationError: there are several, and which one is meant is not clear.
    """
    if not listed or model in listed:
        return model
    alike = [name for name in listed if _last_part(name) == _last_part(model)]
    if len(alike) == 1 or len(listed) == 1:
        return (alike or list(listed))[0]
    shown = ", ".join(f"{name!r:.80}" for name in listed[:_NAMES_SHOWN])
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    raise ConfigurationError(
        f"the server lists {len(listed)} models, {shown}{more}; say with --served-model which of them "
        f"is {model!r}"
    )


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _requests(route: Route, inputs: Sequence[Input], at_once: int) -> list[list[int]]:
    """Return the indices of each request's inputs."""
    groups: dict[object, list[int]] = {}
    for index, one in enumerate(inputs):
        groups.setdefault(route.group(one), []).append(index)
    return [
        indices[start : start + at_once]
        for indices in groups.values()
        for start in range(0, len(indices), at_once)
    ]
