"""HTTP clients, built in one place: httpx takes proxies and certificates from the environment, often wrong.

Errors name a variable and never quote its value, which may hold a password.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import httpx

from qwen3_rag.errors import ConfigurationError

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

CONNECT_TIMEOUT: Final = 10.0
"""Seconds; a host that is down often drops connection attempts instead of refusing them. Chosen, not tuned."""

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def build_client(make: Callable[[], C]) -> C:
    """Return `make()`, an HTTP client.

    Raises:
        ConfigurationError: the environment names a proxy or certificates that httpx cannot use. The message
            names the variables. No exception of httpx is chained: those quote values.
    """
    try:
        return make()
    except ImportError:
        fault = _fault(_PROXIES, "a SOCKS proxy needs one more package: pip install socksio")
    except OSError:  # ssl.SSLError too; before ValueError, of which ssl.SSLCertVerificationError is one
        # httpx reads the first of the two that is set.
        fault = _fault([*_set(_CERTIFICATES)][:1], "it names no readable certificates in PEM form")
    except (httpx.InvalidURL, ValueError):
        fault = _fault(
            _PROXIES,
            'httpx takes proxies that begin with "http://", "https://", "socks5://" or "socks5h://", and in '
            "NO_PROXY host names and single addresses, but no networks in IPv6 form (such as fd00::/8)",
        )
    raise ConfigurationError(fault)


def proxy_variable(url: str) -> str | None:
    """Return the name of the environment variable that sets the proxy for `url`; None without one."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return next(_set((f"{parts.scheme.upper()}_PROXY", "ALL_PROXY")), None)


def through_proxy(url: str) -> str:
    """Return a phrase for errors that names the proxy's variable; "" if requests to `url` go directly."""
    variable = proxy_variable(url)
    return f" through the proxy set in {variable}" if variable is not None else ""


def _set(names: Iterable[str]) -> Iterator[str]:
    """Yield the variables that are set, lower case before upper case, which is httpx's precedence."""
    yield from (found for name in names for found in (name.lower(), name) if os.environ.get(found))


def _fault(variables: Iterable[str], advice: str) -> str:
    found = ", ".join(_set(variables)) or "the system's proxy settings"
    return f"no HTTP client can be made as the environment says ({found}): {advice}; correct or unset it"
