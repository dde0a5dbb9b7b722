"""What servers answer, raw: as a user's other clients would get it, mended by nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from qwen3_rag.backends.remote.keys import ApiKey, is_vendors
from qwen3_rag.backends.remote.messages import error_within
from qwen3_rag.backends.remote.options import check_base_url
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError, numbers
from qwen3_rag.backends.remote.servers.base import root
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.server_names import ServerName
from qwen3_rag.verification.connection import QUOTED, AnswerError, Connection
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.routes import Route
from qwen3_rag.verification.subject import Input

_PER_REQUEST: Final = 8
"""Texts of one request; DashScope takes 10."""
_NAMES_SHOWN: Final = 8


class Endpoint:
    """A server that is asked.

    Args:
        url: base URL.
        key: sent as a bearer token, if any.
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
        """Raise OSError if nobody takes connections at the URL."""
        self._connection.check_reachable(self.url)

    def detect(self, kind: ModelKind) -> ServerName:
        """Find out what the server speaks by what only one kind of server answers.

        Raises:
            OSError: it does not answer.
        """
        if is_vendors(self.url, "dashscope"):
            return "dashscope"
        base = root(self.url)
        for server, path, name in (("vllm", "/version", "version"), ("tei", "/info", "model_type")):
            answer = self._connection.get(base + path)
            if isinstance(answer, dict) and name in answer:
                return "vllm" if server == "vllm" else "tei"
        return "openai" if kind == "embedding" else "cohere"

    def model_name(self, model: str) -> str:
        """Return the name to ask for.

        Args:
            model: the checkpoint's name, which is asked for when the server lists none.

        Raises:
            ConfigurationError: the server lists several, and not one is the checkpoint's.
            OSError: it does not answer.
        """
        answer = self._connection.get(root(self.url) + "/v1/models")
        try:
            listed = [str(one["id"]) for one in answer["data"]]
        except (TypeError, KeyError):
            listed = []
        return chosen_name(model, listed)

    def ask(self, route: Route, inputs: Sequence[Input], *, at_once: int = _PER_REQUEST) -> list[Any]:
        """Return the raw values of all inputs, in order, of whatever form.

        Raises:
            AnswerError: it refused, or answered what cannot be read.
            OSError: it does not answer, or stays busy.
            ConfigurationError: it wants another key or another URL.
        """
        values: dict[int, Any] = {}
        for positions in _requests(route, inputs, at_once):
            answer = self._connection.post(route.url, route.body([inputs[i] for i in positions]))
            try:
                found = route.read(answer, len(positions))
            except UnusableAnswerError as error:
                raise self._unreadable(route, answer, error) from error
            values.update(zip(positions, found, strict=True))
        return [values[i] for i in range(len(inputs))]

    def _unreadable(self, route: Route, answer: Any, error: UnusableAnswerError) -> AnswerError:
        said = error_within(answer)
        if said is None:
            return AnswerError("malformed", self._connection.hidden(str(error)))
        told = self._connection.hidden(" ".join(said.split()))[:QUOTED]
        return AnswerError("refused", f"HTTP 200 from {route.url}, but an error within: {told}")


def as_floats(values: Sequence[Any], kind: ModelKind) -> Floats:
    """Return raw values in the form that their kind has: vectors of one length, or numbers.

    Args:
        values: all that is to be compared.
        kind: what was asked for.

    Raises:
        AnswerError: they have another form, or several.
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
        listed: the server's models.

    Raises:
        ConfigurationError: there are several, and not one is the checkpoint's.
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
    groups: dict[object, list[int]] = {}
    for position, one in enumerate(inputs):
        groups.setdefault(route.groups(one), []).append(position)
    return [
        positions[start : start + at_once]
        for positions in groups.values()
        for start in range(0, len(positions), at_once)
    ]
