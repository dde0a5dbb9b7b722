"""What servers and broken connections say, as words for errors. Keys are hidden by whoever quotes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx


def parsed_json(content: bytes) -> Any:
    """Return parsed JSON, or None if it is not JSON. (`null` is no answer either.)"""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def said_by(response: httpx.Response) -> str:
    """Return what the server says of an error: OpenAI's, vLLM's, TEI's, DashScope's form, or raw text.

    Of a redirect, where it leads to, without a query, which may hold a key.
    """
    said = _innermost(parsed_json(response.content))
    told = (said if said is not None else response.content.decode(errors="replace")).strip() or "no message"
    target = response.headers.get("Location") if response.is_redirect else None
    return told if target is None else f"to {_bare(target)}: {told}"


def error_within(answer: Any) -> str | None:
    """Return the error of which an answer of status 200 tells in place of values, None if it tells of none."""
    if not isinstance(answer, dict):
        return None
    if not (answer.get("error") or answer.get("detail") or ("code" in answer and "message" in answer)):
        return None
    return _innermost(answer)


def cause(error: BaseException) -> str:
    """Return the innermost words of a transport error: the operating system's, if any."""
    words = [str(one) for one in chain(error)]
    return next((said for said in reversed(words) if said), "the connection broke")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _innermost(found: Any) -> str | None:
    while isinstance(found, dict):
        found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), None)
    return found if isinstance(found, str) else None


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
