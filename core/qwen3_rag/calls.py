"""Calls that wait for the model, and who gets how much of its next round. No threads here.

A *flow* is one call of the public interface; a bulk job of many texts submits it piece by piece, each
piece a `Call`. Rounds are shared among flows, not among pieces, by deficit round robin: each round every
waiting flow is credited an equal share of the token budget and takes the prompts that it can pay for.
So neither many pieces nor long texts hold up a single query for more than the round that is running.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.errors import copy_for_caller, future_safe
from qwen3_rag.plan import MAX_OVERFILL, sort_sequences
from qwen3_rag.tokens import Prompt


@dataclass(eq=False)
class Flow:
    """One caller's work, in one or several calls.

    Attributes:
        credit: tokens that it may still take; below 0 when it took more than its share.
    """

    credit: float = 0.0


class Call:
    """Prompts in sharing order, how far they are computed, and the future of their values.

    Making one sorts the prompts: milliseconds for hundreds of long ones.

    Args:
        prompts: one or more, in the caller's order.
        flow: whose work it is; None makes it a flow of its own.
        share_prefixes: whether prefixes that neighbours have in common cost their tokens once.
        asked: `time.monotonic()` when its caller began to wait; None for now.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        flow: Flow | None = None,
        share_prefixes: bool = True,
        asked: float | None = None,
    ) -> None:
        self.future: Future[BackendOutput] = Future()
        self.flow = Flow() if flow is None else flow
        self.asked = time.monotonic() if asked is None else asked
        self.started: float | None = None
        self.running = 0
        """Portions that a round is computing."""
        self._prompts = prompts
        ordered = sort_sequences([prompt.token_ids for prompt in prompts], share_prefixes=share_prefixes)
        self._order, self._cost, self._lengths = ordered.order, ordered.cost, ordered.lengths
        self._taken = 0
        self._stored = np.zeros(len(prompts), dtype=np.bool_)
        self._values: NDArray[np.float32] | None = None
        self._computed = np.zeros(len(prompts), dtype=np.int64)

    @property
    def waiting_prompts(self) -> int:
        """Prompts not yet taken by a round."""
        return len(self._order) - self._taken

    @property
    def waiting_tokens(self) -> int:
        """Tokens that they would add to a batch, common prefixes of neighbours counted once if shared."""
        return int(self._cost[self._taken :].sum())

    @property
    def is_complete(self) -> bool:
        """Whether every prompt has its value."""
        return bool(self._stored.all())

    def take(self, tokens: float, *, at_least: int = 0) -> Portion | None:
        """Take the next prompts that add at most `tokens` tokens to a batch.

        Args:
            tokens: may be negative: then nothing is taken beyond `at_least`.
            at_least: take at least this many of the waiting prompts, even beyond `tokens`.

        Returns:
            None if nothing was taken.
        """
        if not self.waiting_prompts:
            return None
        ends = np.cumsum(self._cost[self._taken :])
        # A round starts without what the one before it computed: its first prompt counts in full.
        ends += self._lengths[self._taken] - self._cost[self._taken]
        count = max(min(at_least, len(ends)), int(np.searchsorted(ends, tokens, side="right")))
        if count == 0:
            return None
        if self.started is None:
            self.started = time.monotonic()
        taken = slice(self._taken, self._taken + count)
        self._taken = taken.stop
        self.running += 1
        return Portion(self, self._order[taken], int(ends[count - 1]))

    def prompts_of(self, portion: Portion) -> list[Prompt]:
        """Return the portion's prompts."""
        return [self._prompts[i] for i in portion.indices]

    def store(self, portion: Portion, output: BackendOutput) -> None:
        """Keep the values of a portion."""
        if self._values is None:
            self._values = np.empty((len(self._prompts), *output.values.shape[1:]), dtype=np.float32)
        self._values[portion.indices] = output.values
        self._computed[portion.indices] = output.computed
        self._stored[portion.indices] = True

    def finish(self) -> None:
        """Give the caller all values; nothing happens if the call was cancelled in the meantime."""
        if self._values is not None:  # else it was cancelled before its first round
            with suppress(InvalidStateError):
                self.future.set_result(BackendOutput(self._values, self._computed))

    def fail(self, error: BaseException) -> None:
        """Give the caller a copy of an error; nothing happens if the call was cancelled in the meantime."""
        with suppress(InvalidStateError):
            self.future.set_exception(future_safe(copy_for_caller(error)))


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
    """Take one round's work: what each flow can pay for, then as much again as the budget has room for.

    Flows that have saved nothing up come first. None of them can take more than its share, so there is room
    for all; so whoever comes and asks for little is in the next round, whatever else waits. A flow that got
    more than its share pays it back.

    Args:
        calls: oldest first, all of them waiting.
        token_budget: about how many tokens to take; at least one prompt is taken if any waits, and all that is
            left if it is too little for another round.
    """
    flows = {id(call.flow): call.flow for call in calls}
    share = token_budget / len(flows)
    for flow in flows.values():
        flow.credit += share
    left: float = token_budget
    portions: list[Portion] = []

    def take(call: Call, tokens: float, *, at_least: int = 0) -> None:
        nonlocal left
        portion = call.take(tokens, at_least=at_least)
        if portion is not None:
            portions.append(portion)
            call.flow.credit -= portion.tokens
            left -= portion.tokens

    for call in sorted(calls, key=lambda call: call.flow.credit > share):
        if left > 0:
            take(call, call.flow.credit)
    for call in sorted(calls, key=lambda call: -call.flow.credit):
        if left > 0:  # else nothing would be taken, after adding up all that waits
            take(call, left, at_least=0 if portions else 1)
    rest = sum(call.waiting_tokens for call in calls)
    if token_budget - left + rest <= token_budget * MAX_OVERFILL:
        for call in calls:
            take(call, math.inf)
    busy = {id(call.flow) for call in calls if call.waiting_prompts}
    for key, flow in flows.items():
        if key not in busy:
            flow.credit = min(flow.credit, 0.0)  # an idle flow accumulates no credit
    return portions


def calls_of(portions: Iterable[Portion]) -> list[Call]:
    """Return the calls that portions belong to, each once, in order."""
    return list({id(portion.call): portion.call for portion in portions}.values())


def prompts_of(portions: Iterable[Portion]) -> list[Prompt]:
    """Return the prompts of portions, one portion's after another's."""
    return [prompt for portion in portions for prompt in portion.call.prompts_of(portion)]
