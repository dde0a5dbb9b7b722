"""The remote backend's options: what `model_kwargs` may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import httpx

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.server_names import ServerName, TemplateSide

ScoreScale = Literal["probability", "log_odds"]
SpecialTokens = Literal["break", "send"]


@dataclass(frozen=True)
class RemoteOptions:
    """Where the servers are, what they speak, and how persistently they are asked.

    Attributes:
        server: what the servers speak; docs/remote.md says for each who applies the template.
        base_url: one or more base URLs without credentials; requests are spread over them.
        served_model: the model's name at the server; None for the name given to `Embedder` or
            `Reranker`.
        api_key: an object with `get_secret_value()` or `resolve_value()`.
        api_key_env: environment variable that holds the key. Without either, the vendor's usual
            variable is read for the vendor's own API hosts, and no key is sent elsewhere.
        timeout: most seconds of one request, from connecting to the answer's last byte. A request that
            takes longer is divided.
        deadline: most seconds for which a run (all requests of a batch) waits for a right answer from any
            base URL, retries included. It starts anew with each right answer. More than `timeout`.
        max_retries: how often a request is sent again after 429, 5xx or a broken connection, or, if it is of
            one text, after a timeout. Each base URL is tried once in any case. With 0 and one base URL, a
            request that timed out is not divided either.
        max_inputs_per_request: most prompts of one request; None for the server's usual limit.
        max_tokens_per_request: most tokens of one request; a longer prompt goes alone. None for the
            server's usual limit.
        max_connections: most requests in flight, over all base URLs. There are fewer until answers come
            quickly.
        path: appended to the base URL instead of the server's usual path.
        template: text rerankers only: "client" if the server concatenates query and document as they are,
            "server" if it puts them into Qwen3's template itself.
        instruction_field: with `template="server"`, name of the request's field for the instruction;
            None if the server always uses the default instruction.
        scores: what "cohere" and "jina" servers answer: P(yes), or its log-odds.
        special_tokens: servers that take text read `<|im_end|>` or `</think>` in it as the real token. "break"
            puts a space into such strings, so that they stay text; "send" sends them unchanged.
    """

    server: ServerName
    base_url: tuple[str, ...]
    served_model: str | None = None
    api_key: object = field(default=None, repr=False)
    api_key_env: str | None = field(default=None, repr=False)  # may be the key itself, by mistake
    timeout: float = 60.0
    deadline: float = 300.0
    max_retries: int = 5
    max_inputs_per_request: int | None = None
    max_tokens_per_request: int | None = None
    max_connections: int = 16
    path: str | None = None
    template: TemplateSide | None = None
    instruction_field: str | None = None
    scores: ScoreScale = "probability"
    special_tokens: SpecialTokens = "break"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                _refuse(name, f"one of {[c for c in choices if c is not None]}", getattr(self, name))
        for name in ("timeout", "deadline"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                _refuse(name, "a number of seconds above 0", value)
        if self.deadline <= self.timeout:
            _refuse(
                "deadline",
                f"more than timeout, {self.timeout:g} s: a request that takes longer than that is divided, and "
                "its parts need time too (lower timeout or raise deadline)",
                self.deadline,
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name.endswith("_per_request"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                _refuse(name, f"a whole number, {least} or more", value)
        for name in ("served_model", "path", "instruction_field", "api_key_env"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                _refuse(name, "a string that is not empty", type(value).__name__)
        if self.path is not None:
            check_path(self.path, "path of the remote backend")


_CHOICES: Final[dict[str, tuple[object, ...]]] = {
    "server": get_args(ServerName),
    "template": (*get_args(TemplateSide), None),
    "scores": get_args(ScoreScale),
    "special_tokens": get_args(SpecialTokens),
}
"""Option -> allowed values."""

_LEAST: Final = {
    "max_retries": 0,
    "max_connections": 1,
    "max_inputs_per_request": 1,
    "max_tokens_per_request": 1,
}
"""Option -> smallest allowed value."""


def parse_options(model_kwargs: Mapping[str, Any] | None) -> RemoteOptions:
    """Check `model_kwargs` and return them as options.

    Raises:
        ConfigurationError: a name is unknown, `server` or `base_url` is absent, or a value is out of range. The
            message quotes no value that may be or contain a key.
    """
    given = dict(model_kwargs if model_kwargs is not None else {})
    known = [f.name for f in fields(RemoteOptions)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(
            f"model_kwargs of the remote backend has unknown names {', '.join(map(repr, unknown))}; "
            f"there are: {', '.join(known)}"
        )
    for name in ("server", "base_url"):
        if name not in given:
            raise ConfigurationError(
                f'model_kwargs of the remote backend needs {name!r}, for example {{"server": "vllm", '
                '"base_url": "http://localhost:8000"}'
            )
    return RemoteOptions(**{**given, "base_url": _base_urls(given["base_url"])})


def _base_urls(value: object) -> tuple[str, ...]:
    urls = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not urls:
        raise ConfigurationError(f"base_url must be a URL or a list of URLs, got {type(value).__name__}")
    return tuple(check_base_url(url, "base_url") for url in urls)


def check_base_url(url: object, name: str) -> str:
    """Return a base URL without slashes at its end.

    Args:
        url: as given.
        name: of the option or argument, for errors.

    Raises:
        ConfigurationError: it is not an http(s) URL, or holds a user name, a password or a query. The message
            does not quote it.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} must be a string, got {type(url).__name__}")
    if any(c.isspace() or not c.isprintable() for c in url):  # Python's parser drops some of these
        raise ConfigurationError(
            f"{name} must hold no space, line break or control character, got one at place "
            f"{next(i for i, c in enumerate(url) if c.isspace() or not c.isprintable())}; copy it again"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not `from`: the parser's message quotes the URL, password and all.
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not _names_a_host(url):
        raise ConfigurationError(
            f'{name} must look like "https://host:8000/v1": a scheme, a host, maybe a path'
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{name} of host {parts.hostname} holds a user name, a password or a query, which would show in "
            "errors and logs; give the bare URL, and name the key's environment variable"
        )
    return url.rstrip("/")


def check_path(path: str, name: str) -> None:
    """Raise ConfigurationError unless a path can be put after a base URL.

    Args:
        path: as given.
        name: of the option, for errors.
    """
    if not path.startswith("/"):
        raise ConfigurationError(f'{name} must be a string that starts with "/", got {path!r}')
    if not _names_a_host("http://localhost" + path):
        raise ConfigurationError(f"{name} must be free of control characters, got {path!r}")


def _names_a_host(url: str) -> bool:
    """Whether the host name is valid. httpx would tell at the first request, by errors of several types."""
    try:
        parsed = httpx.URL(url)
        looked_up = parsed.raw_host.decode().encode("idna")  # as sockets do: labels of 1 to 63 characters
        return bool(parsed.host and looked_up)
    except (httpx.InvalidURL, UnicodeError):
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(name: str, requirement: str, value: object) -> None:
    raise ConfigurationError(f"{name} of the remote backend must be {requirement}, got {value!r}")
