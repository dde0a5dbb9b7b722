"""Which of several base URLs gets the next request. No I/O, and no clock of its own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_FIRST_BACKOFF: Final = 2.0
"""Seconds; doubled with each further failure in a row. Chosen, not tuned."""

_LONGEST_BACKOFF: Final = 60.0
"""Seconds; also the most of a `Retry-After` that other requests respect. Chosen, not tuned."""

_MOST_DOUBLINGS: Final = 16
"""Keeps 2.0 ** failures finite; the longest backoff is reached far earlier."""

_NONE_ASKED: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass
class Host:
    """Health and load of one base URL. Times are those of the caller's clock, in seconds.

    Attributes:
        base_url: as configured.
        in_flight: requests sent and not answered yet.
        failures: failures in a row; those during a backoff do not count.
        backoff_until: time before which other hosts are preferred.
        retry_after_until: time before which it asked not to be used (`Retry-After`), at most a minute ahead:
            one wrong header must not shut it out for a day.
        is_busy: whether its last failure was overload, so that it is up nevertheless.
        last_turn: serial number of the last choice that fell on it.
    """

    base_url: str
    in_flight: int = 0
    failures: int = 0
    backoff_until: float = 0.0
    retry_after_until: float = 0.0
    is_busy: bool = False
    last_turn: int = 0

    def backs_off(self, now: float) -> bool:
        """Whether others are preferred. After a backoff one request at a time probes the host."""
        return now < self.backoff_until or (self.failures > 0 and self.in_flight > 0)


class Hosts:
    """Spreads requests over base URLs and avoids those that fail. For one thread.

    Args:
        base_urls: at least one.
    """

    def __init__(self, base_urls: Sequence[str]) -> None:
        self._hosts = [Host(url) for url in base_urls]
        self._turns = 0

    def __len__(self) -> int:
        return len(self._hosts)

    def has_other(self, now: float, excluded: Container[str]) -> bool:
        """Whether a host that is not excluded is healthy, or merely busy."""
        return any(
            (host.is_busy or not host.backs_off(now)) for host in self._hosts if host.base_url not in excluded
        )

    def choose(
        self,
        now: float,
        failures: Mapping[str, int],
        retry_after_until: Mapping[str, float] = _NONE_ASKED,
        excluded: Container[str] = (),
    ) -> Host:
        """Return the host for a request.

        In order of precedence: the shortest `Retry-After` left, hosts that do not back off, the fewest failures
        of this very request, the fewest requests in flight, round robin. If all back off, one is chosen all the
        same.

        Args:
            now: current time.
            failures: base URL -> how often this very request failed there.
            retry_after_until: base URL -> time before which it asked not to be sent this very request again,
                however far ahead.
            excluded: base URLs that are not chosen; not all of them.
        """
        chosen = min(
            (host for host in self._hosts if host.base_url not in excluded),
            key=lambda host: (
                max(0.0, max(host.retry_after_until, retry_after_until.get(host.base_url, 0.0)) - now),
                host.backs_off(now),
                failures.get(host.base_url, 0),
                host.in_flight,
                host.last_turn,
            ),
        )
        self._turns += 1
        chosen.last_turn = self._turns
        return chosen

    def note_success(self, host: Host) -> None:
        """Record an answer, a refusal included: the host is up."""
        host.failures, host.backoff_until, host.retry_after_until = 0, 0.0, 0.0

    def note_failure(self, host: Host, now: float, *, retry_after: float | None, is_busy: bool = False) -> None:
        """Record a failure. The host backs off, twice as long after each further failure in a row.

        Requests that were in flight together fail together, so failures during a backoff do not prolong it.

        Args:
            host: the one that failed.
            now: current time.
            retry_after: seconds that it asked clients to wait; None if it did not.
            is_busy: whether it was overloaded.
        """
        host.is_busy = is_busy
        if now >= host.backoff_until:
            host.failures += 1
            doublings = min(host.failures - 1, _MOST_DOUBLINGS)
            host.backoff_until = now + min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0**doublings)
        if retry_after is not None:
            host.retry_after_until = max(host.retry_after_until, now + min(retry_after, _LONGEST_BACKOFF))
