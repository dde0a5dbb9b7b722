"""One worker thread that owns a model and merges concurrent calls into full batches.

A call is a list of token sequences and a future. Each round the worker takes work from every
waiting call, an equal share of the token budget first, so that a bulk job cannot hold up a single
query for more than the round that is running. A cancelled call is dropped before its next round;
a failing round fails only the calls whose own sequences fail.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.base import Backend, BackendOutput
from qwen3_rag.errors import EngineClosedError, ForkedProcessError
from qwen3_rag.plan import sort_sequences
from qwen3_rag.tokenization import TokenIds


class _Call:
    """One submitted call: its sequences in sharing order, and how far they are computed."""

    def __init__(self, sequences: Sequence[TokenIds]) -> None:
        self.future: Future[BackendOutput] = Future()
        self._sequences = sequences
        ordered = sort_sequences(sequences)
        self._order, self._cost = ordered.order, ordered.cost
        self._taken = 0
        self._values: NDArray[np.float32] | None = None
        self._computed = np.zeros(len(sequences), dtype=np.int64)

    @property
    def waiting(self) -> int:
        """Sequences not yet taken by a round."""
        return len(self._order) - self._taken

    def take(self, tokens: int) -> NDArray[np.int64]:
        """Take the next sequences worth about `tokens` tokens, at least one."""
        ends = np.cumsum(self._cost[self._taken :])
        count = max(1, int(np.searchsorted(ends, tokens, side="right")))
        taken = self._order[self._taken : self._taken + count]
        self._taken += len(taken)
        return taken

    def cost(self, taken: NDArray[np.int64]) -> int:
        """Return the tokens that the last `len(taken)` sequences bring."""
        return int(self._cost[self._taken - len(taken) : self._taken].sum())

    def sequences(self, taken: NDArray[np.int64]) -> list[TokenIds]:
        return [self._sequences[i] for i in taken]

    def store(self, taken: NDArray[np.int64], output: BackendOutput) -> None:
        if self._values is None:
            self._values = np.empty((len(self._sequences), *output.values.shape[1:]), dtype=np.float32)
        self._values[taken] = output.values
        self._computed[taken] = output.computed

    def finish(self) -> None:
        values = self._values if self._values is not None else np.zeros(0, dtype=np.float32)
        with suppress(InvalidStateError):  # cancelled in the meantime
            self.future.set_result(BackendOutput(values, self._computed))

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


_Pick = tuple[_Call, NDArray[np.int64]]


class Engine:
    """A model, loaded on first use, and the thread that runs it.

    Args:
        load: loads the backend; called in the worker thread, again after a failure.
    """

    def __init__(self, load: Callable[[], Backend]) -> None:
        self._load = load
        self._backend: Backend | None = None
        self._calls: list[_Call] = []
        self._changed = threading.Condition()
        self._closing = False
        self._process = os.getpid()
        self._worker = threading.Thread(target=self._work, name="qwen3-rag-engine", daemon=True)
        self._started = False

    @property
    def backend(self) -> Backend | None:
        """The loaded backend, or None before the first use."""
        return self._backend

    def load(self) -> None:
        """Load the model now and wait for it.

        Raises:
            Whatever loading raises, and EngineClosedError, ForkedProcessError.
        """
        self.submit([]).result()

    def submit(self, sequences: Sequence[TokenIds]) -> Future[BackendOutput]:
        """Queue token sequences; safe from any thread.

        Returns:
            A future of their values and costs, in the given order. Cancelling it drops the work.

        Raises:
            EngineClosedError: the engine is closed.
            ForkedProcessError: this process was forked from the one that made the engine.
        """
        if os.getpid() != self._process:
            raise ForkedProcessError(
                "this model was loaded before the process forked, and its worker thread did not come along; "
                'create the Embedder or Reranker in the child, or start workers with the "spawn" method'
            )
        call = _Call(sequences)
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is closed; create a new Embedder or Reranker")
            self._calls.append(call)
            if not self._started:
                self._started = True
                self._worker.start()
            self._changed.notify_all()
        return call.future

    def close(self) -> None:
        """Let the running round end, fail what waits with EngineClosedError, and free the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        # A garbage collection inside the worker may get here; it cannot wait for itself.
        if self._started and os.getpid() == self._process and threading.current_thread() is not self._worker:
            self._worker.join()

    def _work(self) -> None:
        while self._wait():
            if self._backend is not None or self._loaded():
                self._run(self._pick())
        error = EngineClosedError("the engine was closed before this call was computed")
        self._fail_all(error)
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def _wait(self) -> bool:
        """Wait for calls; False when closing."""
        with self._changed:
            while not self._closing and not self._calls:
                self._changed.wait()
            return not self._closing

    def _loaded(self) -> bool:
        """Load the backend. A failure goes to every waiting call, and the next call tries again."""
        try:
            self._backend = self._load()
        except BaseException as error:
            self._fail_all(error)
            return False
        return True

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            calls, self._calls = self._calls, []
        for call in calls:
            call.fail(error)

    def _pick(self) -> list[_Pick]:
        """Take the next round's work: an equal share from every call, then what fits of the oldest."""
        assert self._backend is not None
        with self._changed:
            self._calls = [call for call in self._calls if not call.future.cancelled()]
            budget = self._backend.token_budget
            share = max(1, budget // max(1, len(self._calls)))
            picks: list[_Pick] = []
            for call in self._calls:
                taken = call.take(share) if call.waiting else np.zeros(0, dtype=np.int64)
                budget -= call.cost(taken)
                picks.append((call, taken))
                if budget <= 0:
                    break
            for call, _ in list(picks):
                if call.waiting and budget > 0:
                    taken = call.take(budget)
                    budget -= call.cost(taken)
                    picks.append((call, taken))
            # Calls served now go behind those that are not, so that many calls take turns.
            served = {id(call) for call, _ in picks}
            self._calls.sort(key=lambda call: id(call) in served)
            return picks

    def _run(self, picks: list[_Pick]) -> None:
        try:
            self._compute(picks)
        except BaseException as error:
            calls = list({id(call): call for call, _ in picks}.values())
            if len(calls) == 1:
                self._end(calls[0], error)
            else:
                # Find the calls at fault by running each one's part alone.
                for call in calls:
                    self._run([pick for pick in picks if pick[0] is call])

    def _compute(self, picks: list[_Pick]) -> None:
        assert self._backend is not None
        sequences = [sequence for call, taken in picks for sequence in call.sequences(taken)]
        if sequences:
            output = self._backend.run(sequences)
            start = 0
            for call, taken in picks:
                stop = start + len(taken)
                call.store(taken, BackendOutput(output.values[start:stop], output.computed[start:stop]))
                start = stop
        for call, _ in picks:
            if not call.waiting:
                self._end(call, None)

    def _end(self, call: _Call, error: BaseException | None) -> None:
        with self._changed:
            if call in self._calls:
                self._calls.remove(call)
        if error is None:
            call.finish()
        else:
            call.fail(error)
