"""API keys: read from the environment or a secret object, and shown nowhere."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Generator
from typing import Final, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit

import httpx

from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.errors import ConfigurationError

_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+\Z")

_VENDORS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "openai": ("OPENAI_API_KEY", ("api.openai.com",)),
    "cohere": ("CO_API_KEY", ("api.cohere.com", "api.cohere.ai")),
    "jina": ("JINA_API_KEY", ("api.jina.ai",)),
    "dashscope": (
        "DASHSCOPE_API_KEY",
        (
            "dashscope.aliyuncs.com",
            "dashscope-intl.aliyuncs.com",
            "dashscope-us.aliyuncs.com",
            "maas.aliyuncs.com",
        ),
    ),
}
"""Vendor -> environment variable that its tools read, and its API hosts. Unless an option names it, the
variable is read for these hosts only, whatever `server` says: a changed URL must not send the key to somebody
else's server."""


@runtime_checkable
class _PydanticSecret(Protocol):
    def get_secret_value(self) -> str: ...


@runtime_checkable
class _HaystackSecret(Protocol):
    def resolve_value(self) -> str | None: ...


class ApiKey:
    """A key that does not show in reprs, pickles or tracebacks with local variables.

    Args:
        value: the key; surrounding white space (a line break read from a file) is stripped.
        source: where it came from, for errors.

    Raises:
        ConfigurationError: it is empty, or not allowed in an HTTP header. HTTP libraries would raise an
            exception that quotes it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str, *, source: str) -> None:
        self._value = value.strip()
        if not self._value:
            raise ConfigurationError(f"the API key in {source} is empty")
        if not _HEADER_SAFE.match(self._value):
            raise ConfigurationError(
                f"the API key in {source} has a space, line break or non-ASCII character inside; copy it again"
            )

    def __repr__(self) -> str:
        return "ApiKey(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("an ApiKey is never pickled; name its environment variable with api_key_env instead")

    @property
    def bearer(self) -> str:
        """Value of the `Authorization` header."""
        return f"Bearer {self._value}"

    def hide_in(self, text: str) -> str:
        """Return `text`, which may be a server's, with the key replaced, as it is or as others escape it."""
        for form in sorted(self._forms(), key=len, reverse=True):
            text = text.replace(form, "[API key]")
        return text

    def _forms(self) -> set[str]:
        """The key, and how JSON, HTML and URLs write it; PHP's JSON and some HTML escape slashes too."""
        in_json, in_html = json.dumps(self._value)[1:-1], html.escape(self._value)
        return {
            self._value,
            in_json,
            in_json.replace("/", r"\/"),
            in_html,
            in_html.replace("/", "&#x2F;"),
            quote(self._value, safe=""),
        }


class Bearer(httpx.Auth):
    """Sets the `Authorization` header of requests, so that no other object of an HTTP client holds the key.

    Args:
        key: sent as bearer token.
    """

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        request.headers["Authorization"] = self._key.bearer
        yield request


def find_key(options: RemoteOptions) -> ApiKey | None:
    """Return the key that the options name; None for a server that needs none.

    Raises:
        ConfigurationError: the key is a plain string, or not where the options say. The message does not quote
            what was given.
    """
    if options.api_key is not None:
        return _from_secret(options.api_key)
    if options.api_key_env is not None:
        return key_from_environment(options.api_key_env)
    for vendor, (variable, _) in _VENDORS.items():
        if all(urlsplit(url).scheme == "https" and is_vendors(url, vendor) for url in options.base_url):
            return key_from_environment(variable)
    return None


def is_vendors(url: str, vendor: str) -> bool:
    """Whether a URL's host is one of a vendor's API hosts, or a subdomain of one.

    Args:
        url: a base URL, http or https.
        vendor: name in `_VENDORS`.
    """
    name = urlsplit(url).hostname or ""
    return any(name == host or name.endswith("." + host) for host in _VENDORS[vendor][1])


def key_from_environment(variable: str) -> ApiKey:
    """Return the key that an environment variable holds.

    Raises:
        ConfigurationError: there is no such variable, or it holds no key. `variable` is quoted only if it
            cannot be a key given by mistake: keys that are valid names (those of Jina and Cohere) have
            lower-case letters.
    """
    is_name = _ENVIRONMENT_NAME.match(variable)
    value = os.environ.get(variable) if is_name else None
    if value is not None:
        return ApiKey(value, source=f"environment variable {variable}")
    if is_name and variable.isupper():
        raise ConfigurationError(
            f"the environment variable {variable} is not set; put the server's API key into it, or name "
            "another one with api_key_env"
        )
    raise ConfigurationError(
        "api_key_env must be the name of an environment variable that is set, such as DASHSCOPE_API_KEY; what "
        "was given is not (is it the key itself?)"
    )


def _from_secret(secret: object) -> ApiKey:
    if isinstance(secret, _PydanticSecret):
        value: str | None = secret.get_secret_value()
    elif isinstance(secret, _HaystackSecret):
        value = secret.resolve_value()
    else:
        raise ConfigurationError(
            f"api_key must be a secret object (pydantic's SecretStr, Haystack's Secret), got a plain "
            f"{type(secret).__name__}, which would show in logs, reprs and pickles; put the key into an "
            "environment variable and name it with api_key_env"
        )
    if not isinstance(value, str):
        raise ConfigurationError(f"api_key, a {type(secret).__name__}, holds no value")
    return ApiKey(value, source="api_key")
