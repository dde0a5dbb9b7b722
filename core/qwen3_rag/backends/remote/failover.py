"""Which of several base URLs gets the next request. No I/O and no clock of its own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_FIRST_REST: Final = 2.0
_LONGEST_REST: Final = 60.0
_NOBODY: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass
class Host:
    """One base URL and how it has been doing.

    Attributes:
        base_url: as configured.
        under_way: requests that it is working on.
        failures: failures in a row; those during a rest are not counted.
        rests_until: time until which others are preferred.
        closed_until: time until which it asked to be left alone (`Retry-After`), a minute at most: one
            wrong header must not shut it for a day.
        is_busy: whether it failed last because it had too much to do, and so is there all the same.
        last_turn: number of the choice that fell on it last.
    """

    base_url: str
    under_way: int = 0
    failures: int = 0
    rests_until: float = 0.0
    closed_until: float = 0.0
    is_busy: bool = False
    last_turn: int = 0

    def rests(self, now: float) -> bool:
        """Whether others are preferred; one that failed last time is tried by one request at a time."""
        return now < self.rests_until or (self.failures > 0 and self.under_way > 0)


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

    def has_other(self, now: float, without: Container[str]) -> bool:
        """Whether a host beside some is well, or no more than busy."""
        return any(
            (host.is_busy or not host.rests(now)) for host in self._hosts if host.base_url not in without
        )

    def choose(
        self,
        now: float,
        failed: Mapping[str, int],
        asked_until: Mapping[str, float] = _NOBODY,
        without: Container[str] = (),
    ) -> Host:
        """Return the host for a request.

        Open before closed, awake before resting, then the one that failed this request least, then
        the least busy, then taking turns. When all rest, one is chosen all the same.

        Args:
            now: current time.
            failed: base URL -> how often it failed this very request.
            asked_until: base URL -> time until which it asked this very request to wait, however long.
            without: base URLs of which none is chosen; not all.
        """
        chosen = min(
            (host for host in self._hosts if host.base_url not in without),
            key=lambda host: (
                max(0.0, max(host.closed_until, asked_until.get(host.base_url, 0.0)) - now),
                host.rests(now),
                failed.get(host.base_url, 0),
                host.under_way,
                host.last_turn,
            ),
        )
        self._turns += 1
        chosen.last_turn = self._turns
        return chosen

    def note_success(self, host: Host) -> None:
        """The host answered, if only to refuse: it is neither down nor in need of quiet."""
        host.failures, host.rests_until, host.closed_until = 0, 0.0, 0.0

    def note_failure(self, host: Host, now: float, *, asked: float | None, is_busy: bool = False) -> None:
        """The host failed; let it rest, twice as long each time in a row.

        Requests that were under way together fail together: while it rests, they count no further.

        Args:
            host: which.
            now: current time.
            asked: seconds for which it asked to be left alone, None for none.
            is_busy: whether it had too much to do.
        """
        host.is_busy = is_busy
        if now >= host.rests_until:
            host.failures += 1
            host.rests_until = now + min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(host.failures - 1, 16))
        if asked is not None:
            host.closed_until = max(host.closed_until, now + min(asked, _LONGEST_REST))
