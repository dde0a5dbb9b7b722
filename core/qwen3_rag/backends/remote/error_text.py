"""The text of servers' errors and of transport errors, and how our errors quote it: without keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from qwen3_rag.backends.remote.keys import ApiKey

_QUOTED: Final = 300
"""Characters of a server's message that an error quotes. Chosen, not tuned."""


def parsed_json(content: bytes) -> Any:
    """Return parsed JSON; None if it is not JSON, or `null`, which is no valid answer either."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def said_by(response: httpx.Response) -> str:
    """Return the message of an error response: in OpenAI's, vLLM's, TEI's or DashScope's form, or the raw body.

    For a redirect its target comes first, without the query, which may hold a key.
    """
    said = _innermost(parsed_json(response.content))
    told = (said if said is not None else response.content.decode(errors="replace")).strip() or "no message"
    target = response.headers.get("Location") if response.is_redirect else None
    return told if target is None else f"to {_bare(target)}: {told}"


def error_within(answer: Any) -> str | None:
    """Return the error message that a response of status 200 holds in place of values; None without one."""
    if not isinstance(answer, dict):
        return None
    if not (answer.get("error") or answer.get("detail") or ("code" in answer and "message" in answer)):
        return None
    return _innermost(answer)


def cause(error: BaseException) -> str:
    """Return the innermost message of a transport error: the operating system's, if any."""
    messages = [str(one) for one in chain(error)]
    return next((message for message in reversed(messages) if message), "the connection broke")


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, outermost first."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def hidden(text: str, key: ApiKey | None) -> str:
    """Return a text without the key, if there is one."""
    return key.hide_in(text) if key is not None else text


def quoted(text: str, key: ApiKey | None) -> str:
    """Return the part of a server's message that errors quote. The key goes first: no half of it may stay."""
    return hidden(text, key)[:_QUOTED]


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
