"""The calls that an engine has not finished: which wait, what the next round takes of them, how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.calls import Call, Portion, pick_portions
from qwen3_rag.errors import EngineClosedError
from qwen3_rag.metrics import EngineMetrics, Tally
from qwen3_rag.tokens import Prompt

_MIN_SPREAD_TOKENS: Final = 1024
"""Idle threads divide what waits among them, but not into rounds smaller than this: a prefix that
two of them need is computed twice."""


class CallQueue:
    """Calls, oldest first, from `add` until `end` resolves their futures. Thread-safe.

    Args:
        changed: guards the queue, with a reentrant lock; notified when a call is added.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._calls: list[Call] = []
        self._tally = Tally()

    def add(self, call: Call) -> None:
        """Queue a call of one or more prompts."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def unfinished(self) -> list[Call]:
        """Return all calls that have not ended."""
        with self._changed:
            return list(self._calls)

    def waiting(self) -> list[Call]:
        """Return the calls with prompts that no round has taken yet."""
        with self._changed:
            return [call for call in self._calls if call.waiting_prompts]

    def resting(self) -> list[Call]:
        """Return the calls of which no round is computing anything."""
        with self._changed:
            return [call for call in self._calls if not call.running]

    def patience(self, token_budget: int, max_wait: float) -> float | None:
        """Return the seconds that a round may still wait for more calls.

        Returns:
            0 or less if it is to begin now, None if no call waits.
        """
        waiting = self.waiting()
        if not waiting:
            return None
        if not max_wait or sum(call.waiting_tokens for call in waiting) >= token_budget:
            return 0.0
        return min(call.asked for call in waiting) + max_wait - time.monotonic()

    def pick(self, token_budget: int, idle_threads: int) -> list[Portion]:
        """Take the next round's work.

        Args:
            token_budget: about how many tokens to take at most; see `pick_portions`.
            idle_threads: threads without a round, the asking one included. They have been woken too, and
                each gets its part.
        """
        with self._changed:
            waiting = self.waiting()
            if not waiting:
                return []
            fresh = [call for call in waiting if call.started is None]
            tokens = sum(call.waiting_tokens for call in waiting)
            spread = max(_MIN_SPREAD_TOKENS, -(-tokens // idle_threads))
            portions = pick_portions(waiting, min(token_budget, spread))
            for call in fresh:
                if call.started is not None:
                    self._tally.add_wait(call.started - call.asked)
            return portions

    def store(
        self,
        portions: Sequence[Portion],
        prompts: Sequence[Prompt],
        output: BackendOutput,
        *,
        token_budget: int,
        seconds: float,
    ) -> None:
        """Give a round's values to its calls.

        Args:
            portions: what the round took.
            prompts: theirs, as `prompts_of` gives them.
            output: values and costs, one for each of `prompts`.
            token_budget: of the backend that computed them.
            seconds: how long that took.
        """
        with self._changed:
            start = 0
            for portion in portions:
                stop = start + len(portion.indices)
                portion.call.running -= 1
                portion.call.store(
                    portion, BackendOutput(output.values[start:stop], output.computed[start:stop])
                )
                start = stop
            self._tally.add(
                rounds=1,
                compute_seconds=seconds,
                budgeted_tokens=token_budget,
                prompts=len(prompts),
                prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
                computed_tokens=int(output.computed.sum()),
            )

    def count_failed_round(self, seconds: float) -> None:
        """Count a round that raised after so many seconds."""
        with self._changed:
            self._tally.add(failed_rounds=1, compute_seconds=seconds)

    def end(self, call: Call, error: BaseException | None = None) -> None:
        """Take a call out and resolve its future, once."""
        with self._changed:
            if call not in self._calls:
                return
            self._calls.remove(call)
            if call.future.cancelled():
                self._tally.add(cancelled_calls=1)
            elif error is None:
                self._tally.add(finished_calls=1)
            else:
                self._tally.add(failed_calls=1)
        if error is None:
            call.finish()
        else:
            call.fail(error)

    def fail(self, calls: Iterable[Call], error: BaseException) -> None:
        """End calls, each with a copy of an error."""
        for call in calls:
            self.end(call, error)

    def drop_cancelled(self) -> None:
        """End the calls that nobody waits for."""
        for call in self.unfinished():
            if call.future.cancelled():
                self.end(call)

    def metrics(self, waiting_calls: int) -> EngineMetrics:
        """Return a snapshot.

        Args:
            waiting_calls: that are not in this queue yet.
        """
        with self._changed:
            return self._tally.snapshot(
                waiting_calls=waiting_calls,
                queued_calls=len(self._calls),
                queued_prompts=sum(call.waiting_prompts for call in self._calls),
                queued_tokens=sum(call.waiting_tokens for call in self._calls),
            )


def closed_error() -> EngineClosedError:
    """Return what a call gets that no round computed before the engine was closed."""
    return EngineClosedError("the engine was closed before this call was computed")
