"""Which failures are worth another try, and when. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

_FIRST_PAUSE: Final = 0.5
"""Seconds, before the random factor; doubled after each further failure. Chosen, not tuned."""

_LONGEST_PAUSE: Final = 20.0
"""Seconds. Chosen, not tuned."""

_MOST_DOUBLINGS: Final = 16
"""Keeps 2.0 ** failures finite; the longest pause is reached far earlier."""

_DEFECTS: Final = frozenset({501, 505})
"""5xx that say what a server cannot do (501 Not Implemented, 505 HTTP Version), not that it failed."""


def is_worth_retrying(status: int) -> bool:
    """Whether the same request may succeed later: 429, 408 (a timeout at the server), and most of 5xx."""
    return status in (408, 429) or (status >= 500 and status not in _DEFECTS)


def may_be_one_input(status: int) -> bool:
    """Whether a refusal may concern one input or the size of the request, so that halves may pass.

    400 and 422 are for invalid inputs, 413 for a request too large; TEI answers 424 when the model failed on a
    batch.
    """
    return status in (400, 413, 422, 424)


def pause(failures: int, *, chance: float) -> float:
    """Return the seconds before the next try: exponential backoff with full jitter.

    Args:
        failures: failures so far, 1 or more.
        chance: uniformly random in [0, 1); clients that failed together must not come back together.
    """
    return chance * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))


def parse_retry_after(retry_after: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, 0 or more; None if it is absent or malformed.

    Args:
        retry_after: the header's value, seconds or an HTTP date.
        now: current time, with its time zone.
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a zone or a year of many digits
        return None
    if when.tzinfo is None:  # RFC 5322's "-0000": UTC, local zone unknown
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - now).total_seconds())
