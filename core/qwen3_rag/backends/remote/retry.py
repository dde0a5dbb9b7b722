"""Which failures are worth another try, and when. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 20.0
_DEFECTS: Final = frozenset({501, 505})
"""5xx that say what the server cannot do, not that it failed."""


def is_worth_retrying(status: int) -> bool:
    """Whether the same request may succeed later: 429 (and 408, a timeout), and 5xx."""
    return status in (408, 429) or (status >= 500 and status not in _DEFECTS)


def may_be_one_input(status: int) -> bool:
    """Whether a refusal may be about one input or the size of the request, so that halves may pass.

    400 and 422 are invalid inputs, 413 is a request too large; TEI answers 424 when the model itself
    failed on a batch.
    """
    return status in (400, 413, 422, 424)


def pause(failures: int, *, chance: float) -> float:
    """Return the seconds before the next try: exponential backoff with full jitter.

    Args:
        failures: failures so far, 1 or more.
        chance: uniformly random in [0, 1); clients that failed together must not come back together.
    """
    return chance * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 16))


def asked_pause(retry_after: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None when it says nothing usable.

    Args:
        retry_after: the header: seconds, or an HTTP date.
        now: current time, with its zone.
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a zone or a year of many digits
        return None
    if when.tzinfo is None:  # "-0000": universal time from a source that knows no zone
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - now).total_seconds())
