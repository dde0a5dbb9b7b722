"""One request's tries: what came of each, and whether there is another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from qwen3_rag.backends.remote.retry import is_worth_retrying, may_be_one_input


@dataclass(frozen=True)
class Answer:
    """A response of status 200. Its repr hides the content, in which servers may echo what they got."""

    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """Anything else: what was seen, in words that hold no key.

    Attributes:
        text: for errors.
        status: HTTP status, None when no answer came.
        asked: seconds that the server asked to be left alone.
        is_slow: whether a connection was there, and the whole time of a request too short.
        is_cut: whether the deadline ended it, earlier than that time, which may be no fault of the server.
        is_untrusted: whether the server's certificate is not trusted, now and later.
        is_loading: whether the server says that it will work later (503): its model is still loading.
    """

    text: str
    status: int | None = None
    asked: float | None = None
    is_slow: bool = False
    is_cut: bool = False
    is_untrusted: bool = False
    is_loading: bool = False

    @property
    def is_worth_retrying(self) -> bool:
        return self.status is None or is_worth_retrying(self.status)

    @property
    def is_busy(self) -> bool:
        """Whether the server says that it will do it later."""
        return self.status == 429 or self.is_loading

    @property
    def may_be_one_input(self) -> bool:
        return self.status is not None and may_be_one_input(self.status)


class Tries:
    """Where and how often a request failed.

    Args:
        most: how many failures that count end it.
        hosts: how many base URLs it may go to.
        now: current time.

    Attributes:
        failed: base URL -> how often it failed there.
        refusals: base URL -> how it refused; it would refuse again.
        spent: base URLs that refused it, or failed on it otherwise than by being busy.
        asked_until: base URL -> time until which that one asked to be left alone.
        last: the last failure in words, for errors.
        since: when that was noted; when the request began if there was none.
        began: when the request began.
    """

    def __init__(self, most: int, *, hosts: int, now: float) -> None:
        self.failed: Counter[str] = Counter()
        self.refusals: dict[str, Failure] = {}
        self.spent: set[str] = set()
        self.asked_until: dict[str, float] = {}
        self.last = "no try yet"
        self.since = self.began = now
        self._most, self._hosts = most, hosts
        self._counted = 0
        self._untrusted: set[str] = set()

    def note(self, base_url: str, failure: Failure, now: float, *, counts: bool) -> None:
        """It failed at a host; `counts` says whether that is one of the tries that are limited."""
        self.failed[base_url] += 1
        self.since = now
        self.last = f"try {self.failed.total()}: {failure.text}"
        self._counted += counts
        if not failure.is_busy:
            self.spent.add(base_url)
        if failure.asked is not None:
            self.asked_until[base_url] = now + failure.asked
        if failure.is_untrusted:
            self._untrusted.add(base_url)

    def note_refusal(self, base_url: str, failure: Failure, now: float) -> None:
        """A host refused it, which is none of the tries that are limited."""
        self.refusals[base_url] = failure
        self.note(base_url, failure, now, counts=False)

    @property
    def are_over(self) -> bool:
        """Whether there is no other: enough failed, or no host's certificate is trusted."""
        return self._counted >= self._most or len(self._untrusted) == self._hosts
