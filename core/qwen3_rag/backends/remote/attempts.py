"""The attempts to send one request: how each failed, and whether there may be another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from qwen3_rag.backends.remote.retry import is_worth_retrying, may_be_one_input


@dataclass(frozen=True)
class Answer:
    """A response with status 200. Its repr hides the content, in which servers may echo the request."""

    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """Any other outcome of an attempt.

    Attributes:
        text: description for errors; holds no key.
        status: HTTP status; None when no response came. 200 for a response that could not be decoded.
        retry_after: seconds that the server asked clients to wait.
        is_slow: a connection was made, but the answer did not come within `timeout`.
        is_cut: the attempt was cut off by the deadline before `timeout`, so the server may not be at fault.
        is_untrusted: the server's certificate is not trusted; a retry cannot help.
        is_loading: the server says (503) that it is not ready yet: its model is still loading.
    """

    text: str
    status: int | None = None
    retry_after: float | None = None
    is_slow: bool = False
    is_cut: bool = False
    is_untrusted: bool = False
    is_loading: bool = False

    @property
    def is_worth_retrying(self) -> bool:
        return self.status is None or is_worth_retrying(self.status)

    @property
    def is_busy(self) -> bool:
        """Whether the host may merely have too much to do: it is up, and may answer the request later."""
        return self.status == 429 or self.is_loading or self.is_slow

    @property
    def may_be_one_input(self) -> bool:
        return self.status is not None and may_be_one_input(self.status)


class Attempts:
    """Where and how often a request failed.

    Args:
        most: number of counted failures after which the request is given up.
        hosts: number of base URLs that it may go to.
        now: current time, in seconds of a monotonic clock, as are all times here.

    Attributes:
        failures: base URL -> number of attempts that failed there.
        refusals: base URL -> its refusal, which a retry would only repeat.
        spent: base URLs that refused the request, or failed on it for a reason other than load.
        retry_after_until: base URL -> time before which it asked not to be sent this request again.
        last: description of the last failure, for errors.
        last_failed: time of the last failure; `began` if there was none.
        began: when the request began.
    """

    def __init__(self, most: int, *, hosts: int, now: float) -> None:
        self.failures: Counter[str] = Counter()
        self.refusals: dict[str, Failure] = {}
        self.spent: set[str] = set()
        self.retry_after_until: dict[str, float] = {}
        self.last = "no try yet"
        self.last_failed = self.began = now
        self._most, self._hosts = most, hosts
        self._counted = 0
        self._untrusted: set[str] = set()

    def note(self, base_url: str, failure: Failure, now: float, *, counts: bool) -> None:
        """Record a failed attempt; `counts` says whether it counts towards the limit."""
        self.failures[base_url] += 1
        self.last_failed = now
        self.last = f"try {self.failures.total()}: {failure.text}"
        self._counted += counts
        if not failure.is_busy:
            self.spent.add(base_url)
        if failure.retry_after is not None:
            self.retry_after_until[base_url] = now + failure.retry_after
        if failure.is_untrusted:
            self._untrusted.add(base_url)

    def note_refusal(self, base_url: str, failure: Failure, now: float) -> None:
        """Record a refusal, which does not count towards the limit."""
        self.refusals[base_url] = failure
        self.note(base_url, failure, now, counts=False)

    @property
    def are_exhausted(self) -> bool:
        """Whether there may be no further one: the limit is reached, or no host's certificate is trusted."""
        return self._counted >= self._most or len(self._untrusted) == self._hosts
