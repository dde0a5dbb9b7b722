"""Metrics of an engine: queue, waiting time and throughput. Without a dependency."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EngineMetrics:
    """A snapshot: the queue as it is now, and sums since the engine was made.

    Attributes:
        waiting_calls: calls that wait for one of the `max_queued` places.
        queued_calls: calls with a place that are not finished. One `embed` or `score` makes one for
            up to 512 texts.
        queued_prompts: prompts that no round has taken yet.
        queued_tokens: what these would add to batches.
        finished_calls, failed_calls, cancelled_calls: how calls ended.
        longest_wait_seconds: of all calls' times from asking for a place to their first round.
        wait_seconds: the sum of these times.
        rounds: how often a backend ran and gave values.
        failed_rounds: how often it raised instead; runs given up because nobody waited do not count.
        compute_seconds: how long both took, summed over devices.
        prompts: prompts computed.
        prompt_tokens: their tokens.
        computed_tokens: tokens that really passed through the model.
        budgeted_tokens: the sum of all rounds' token budgets.
    """

    waiting_calls: int = 0
    queued_calls: int = 0
    queued_prompts: int = 0
    queued_tokens: int = 0
    finished_calls: int = 0
    failed_calls: int = 0
    cancelled_calls: int = 0
    longest_wait_seconds: float = 0.0
    wait_seconds: float = 0.0
    rounds: int = 0
    failed_rounds: int = 0
    compute_seconds: float = 0.0
    prompts: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    budgeted_tokens: int = 0

    @property
    def batch_fill(self) -> float:
        """Computed tokens over token budgets, 0 to about 1: how full the batches were."""
        return _ratio(self.computed_tokens, self.budgeted_tokens)

    @property
    def prefix_reuse(self) -> float:
        """Share of prompt tokens, 0 to 1, that were not computed again."""
        return _ratio(self.prompt_tokens - self.computed_tokens, self.prompt_tokens)

    @property
    def tokens_per_second(self) -> float:
        """Prompt tokens per second of computing."""
        return _ratio(self.prompt_tokens, self.compute_seconds)


class Tally:
    """Adds up what `EngineMetrics` tells. Not for several threads at once."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, Any] = defaultdict(int)

    def add(self, **more: float) -> None:
        """Add to sums, by their names in `EngineMetrics`."""
        for name, value in more.items():
            self._sums[name] += value

    def add_wait(self, seconds: float) -> None:
        """Count a call that waited so long for its first round."""
        self.add(wait_seconds=seconds)
        self._sums["longest_wait_seconds"] = max(self._sums["longest_wait_seconds"], seconds)

    def snapshot(self, **queue: int) -> EngineMetrics:
        """Return the sums, and the queue as it is now."""
        return EngineMetrics(**self._sums, **queue)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
