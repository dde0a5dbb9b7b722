"""HTTP clients, made in one place: httpx reads proxies and certificates from the environment, often wrong.

Of a variable only the name is ever told: its value may hold a password.
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

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def made(make: Callable[[], C]) -> C:
    """Return the HTTP client that `make` makes.

    Raises:
        ConfigurationError: the environment names a proxy or certificates that httpx cannot use. It names the
            variables, and has no other exception in its chain: httpx's quote values.
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
    """Return the name of the environment variable whose proxy a request to `url` goes by, None for none."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return next(_set((f"{parts.scheme.upper()}_PROXY", "ALL_PROXY")), None)


def _set(names: Iterable[str]) -> Iterator[str]:
    """Yield those variables that are set; of a name in both cases the small letters count, as for httpx."""
    yield from (found for name in names for found in (name.lower(), name) if os.environ.get(found))


def _fault(variables: Iterable[str], advice: str) -> str:
    found = ", ".join(_set(variables)) or "the system's proxy settings"
    return f"no HTTP client can be made as the environment says ({found}): {advice}; correct or unset it"
