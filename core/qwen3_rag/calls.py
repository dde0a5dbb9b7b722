"""Calls that wait for the model, and who gets how much of its next round. No threads here.

A call is one submission: prompts and the future of their values. Each round takes an equal share of
the token budget from every waiting call first, so that a bulk job cannot hold up a single query for
more than the round that is running; what is left of the budget goes to the oldest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.plan import sort_sequences
from qwen3_rag.tokenization import Prompt


class Call:
    """Prompts in sharing order, how far they are computed, and the future of their values.

    Args:
        prompts: in the caller's order.
        seat: number of the only device that may take it; None for any.
    """

    def __init__(self, prompts: Sequence[Prompt], seat: int | None = None) -> None:
        self.future: Future[BackendOutput] = Future()
        self.seat = seat
        self.submitted = time.monotonic()
        self.started: float | None = None
        self._prompts = prompts
        ordered = sort_sequences([prompt.token_ids for prompt in prompts])
        self._order, self._cost = ordered.order, ordered.cost
        self._taken = 0
        self._missing = len(prompts)
        self._values: NDArray[np.float32] | None = None
        self._computed = np.zeros(len(prompts), dtype=np.int64)

    @property
    def waits(self) -> bool:
        """Whether a round has something to take; a call without prompts waits for its first."""
        return self.waiting_prompts > 0 or self.started is None

    @property
    def waiting_prompts(self) -> int:
        """Prompts not yet taken by a round."""
        return len(self._order) - self._taken

    @property
    def waiting_tokens(self) -> int:
        """Tokens that they would add to a batch, neighbours' common beginnings counted once."""
        return int(self._cost[self._taken :].sum())

    @property
    def is_complete(self) -> bool:
        """Whether every prompt has its value."""
        return self._missing == 0

    def take(self, tokens: int) -> Portion:
        """Take the next prompts worth about `tokens` tokens, at least one if any wait."""
        if self.started is None:
            self.started = time.monotonic()
        ends = np.cumsum(self._cost[self._taken :])
        count = max(1, int(np.searchsorted(ends, tokens, side="right")))
        taken = slice(self._taken, min(self._taken + count, len(self._order)))
        self._taken = taken.stop
        return Portion(self, self._order[taken], int(self._cost[taken].sum()))

    def prompts_of(self, portion: Portion) -> list[Prompt]:
        """Return the portion's prompts."""
        return [self._prompts[i] for i in portion.indices]

    def store(self, portion: Portion, output: BackendOutput) -> None:
        """Keep the values of a portion."""
        if self._values is None:
            self._values = np.empty((len(self._prompts), *output.values.shape[1:]), dtype=np.float32)
        self._values[portion.indices] = output.values
        self._computed[portion.indices] = output.computed
        self._missing -= len(portion.indices)

    def finish(self) -> None:
        """Give the caller all values; nothing happens if the call was cancelled in the meantime."""
        values = self._values if self._values is not None else np.zeros(0, dtype=np.float32)
        with suppress(InvalidStateError):
            self.future.set_result(BackendOutput(values, self._computed))

    def fail(self, error: BaseException) -> None:
        """Give the caller an error; nothing happens if the call was cancelled in the meantime."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class Portion:
    """What one round takes of one call.

    Attributes:
        call: whose prompts they are.
        indices: int64; the prompts' places in the call.
        tokens: what they add to a batch.
    """

    call: Call
    indices: NDArray[np.int64]
    tokens: int


def pick_portions(calls: Sequence[Call], token_budget: int) -> list[Portion]:
    """Take one round's work: an equal share from every waiting call, then what fits of the oldest.

    Args:
        calls: oldest first, all of them waiting.
        token_budget: about how many tokens to take; at least one prompt is taken of the first call.
    """
    share = max(1, token_budget // max(1, len(calls)))
    portions: list[Portion] = []
    for call in calls:
        portions.append(call.take(share))
        token_budget -= portions[-1].tokens
        if token_budget <= 0:
            return portions
    for call in calls:
        if call.waiting_prompts:
            portions.append(call.take(token_budget))
            token_budget -= portions[-1].tokens
            if token_budget <= 0:
                break
    return portions


def calls_of(portions: Iterable[Portion]) -> list[Call]:
    """Return the calls that portions belong to, each once, in order."""
    return list({id(portion.call): portion.call for portion in portions}.values())
