"""The threads that own a model and merge concurrent calls into full batches.

One thread per device loads the model there and runs it, round by round. A cancelled call is dropped
before its next round; a failing round fails only the calls whose own prompts fail; no future is
ever left unresolved.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from qwen3_rag.backends.base import Backend, BackendOutput
from qwen3_rag.calls import Call, Portion, calls_of, pick_portions
from qwen3_rag.errors import BackendError, EngineClosedError, ForkedProcessError
from qwen3_rag.gate import Gate
from qwen3_rag.metrics import EngineMetrics
from qwen3_rag.tokenization import Prompt

_MIN_SPREAD_TOKENS: Final = 1024
"""Idle devices divide what waits among them, but not into rounds smaller than this: a prefix that
two of them need is computed twice."""


@dataclass
class _Seat:
    """One device: how its model is loaded, and the threads that run it."""

    number: int
    load: Callable[[], Backend]
    backend: Backend | None = None
    threads: list[threading.Thread] = field(default_factory=list)


class Engine:
    """A model on one or more devices, loaded on first use, and the threads that run it.

    Args:
        loads: one function per device; each loads a backend, in its own thread, again after a failure.
        max_wait_ms: how long a round waits for more calls when it is not full.
        max_queued: places of the gate in front of the queue.
    """

    def __init__(self, *loads: Callable[[], Backend], max_wait_ms: float = 0.0, max_queued: int = 1024) -> None:
        self._gate = Gate(max_queued)
        self._seats = [_Seat(number, load) for number, load in enumerate(loads)]
        self._max_wait = max_wait_ms / 1000
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._idle = 0
        self._closing = False
        self._process = os.getpid()
        self._sums: defaultdict[str, float] = defaultdict(int)
        self._longest_wait = 0.0

    @property
    def backend(self) -> Backend | None:
        """The backend of the first device, or None before its first use."""
        return self._seats[0].backend

    @property
    def metrics(self) -> EngineMetrics:
        """A snapshot of queue, work and waiting."""
        with self._changed:
            sums: dict[str, Any] = self._sums
            return EngineMetrics(
                **sums,
                longest_wait_seconds=self._longest_wait,
                queued_calls=len(self._calls),
                queued_prompts=sum(call.waiting_prompts for call in self._calls),
                queued_tokens=sum(call.waiting_tokens for call in self._calls),
            )

    def load(self) -> None:
        """Load the model on every device now and wait for it.

        Raises:
            Whatever loading raises, and EngineClosedError, ForkedProcessError.
        """
        for future in [self._submit(Call([], seat.number)) for seat in self._seats]:
            future.result()

    def enter(self) -> Future[None]:
        """Ask for one of the `max_queued` places; `submit` needs one.

        Returns:
            A future, done once the place is given. The work submitted with it gives it back;
            whoever stops waiting, or submits nothing, gives it up with `give_up`.

        Raises:
            ForkedProcessError: this process was forked from the one that made the engine.
        """
        self._check_process()
        return self._gate.enter()

    def give_up(self, place: Future[None]) -> None:
        """Give back a place that nothing was submitted with, whether it has been given yet or not."""
        self._gate.give_up(place)

    def submit(self, prompts: Sequence[Prompt]) -> Future[BackendOutput]:
        """Queue prompts, from a place got by `enter`; safe from any thread.

        Returns:
            A future of their values and costs, in the given order. Cancelling it drops the work.

        Raises:
            EngineClosedError: the engine is closed.
            ForkedProcessError: this process was forked from the one that made the engine.
        """
        future = self._submit(Call(prompts))
        future.add_done_callback(lambda _: self._gate.leave())
        return future

    def close(self) -> None:
        """Let running rounds end, fail what waits with EngineClosedError, and free the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._gate.close(_closed())
        if os.getpid() != self._process:
            return
        for seat in self._seats:
            # A garbage collection inside a worker may get here; it cannot wait for itself.
            for thread in seat.threads[:1]:
                if threading.current_thread() not in seat.threads:
                    thread.join()

    def _submit(self, call: Call) -> Future[BackendOutput]:
        self._check_process()
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is closed; create a new Embedder or Reranker")
            self._calls.append(call)
            for seat in self._seats:
                if not seat.threads:
                    self._start(seat, self._own)
            self._changed.notify_all()
        return call.future

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkedProcessError(
                "this model was loaded before the process forked, and its worker thread did not come along; "
                'create the Embedder or Reranker in the child, or start workers with the "spawn" method'
            )

    def _start(self, seat: _Seat, work: Callable[[_Seat], None]) -> None:
        name = f"qwen3-rag-engine-{seat.number}"
        seat.threads.append(threading.Thread(target=work, args=(seat,), name=name, daemon=True))
        seat.threads[-1].start()

    def _own(self, seat: _Seat) -> None:
        """Life of a seat's first thread: it loads the backend, works, and closes the backend."""
        self._work(seat)
        for helper in seat.threads[1:]:
            helper.join()
        self._fail_all(_closed())
        if seat.backend is not None:
            seat.backend.close()
            seat.backend = None

    def _work(self, seat: _Seat) -> None:
        while True:
            try:
                if not self._wait(seat):
                    return
                if seat.backend is not None or self._loaded(seat):
                    assert seat.backend is not None
                    self._run(seat.backend, self._pick(seat.backend, seat.number))
            except BaseException as error:  # a defect here must not leave callers waiting for ever
                self._fail_all(error)

    def _wait(self, seat: _Seat) -> bool:
        """Wait for calls that this seat may take; False when closing."""
        with self._changed:
            self._idle += 1
            try:
                while not self._closing:
                    waiting = self._waiting(seat.number)
                    patience = self._patience(waiting, seat.backend)
                    if waiting and patience <= 0:
                        return True
                    self._changed.wait(patience if waiting else None)
                return False
            finally:
                self._idle -= 1

    def _waiting(self, seat: int) -> list[Call]:
        return [call for call in self._calls if call.waits and call.seat in (None, seat)]

    def _patience(self, waiting: Sequence[Call], backend: Backend | None) -> float:
        """Return the seconds that a round may still wait for company."""
        if not self._max_wait or not waiting or backend is None:
            return 0.0
        if sum(call.waiting_tokens for call in waiting) >= backend.token_budget:
            return 0.0
        return min(call.submitted for call in waiting) + self._max_wait - time.monotonic()

    def _loaded(self, seat: _Seat) -> bool:
        """Load a seat's backend. A failure goes to every waiting call, and the next call tries again."""
        try:
            seat.backend = seat.load()
        except BaseException as error:
            self._fail_all(error)
            return False
        for _ in range(seat.backend.concurrency - 1):
            self._start(seat, self._work)
        return True

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            calls = list(self._calls)
        for call in calls:
            self._end(call, error)

    def _pick(self, backend: Backend, seat: int) -> list[Portion]:
        with self._changed:
            for call in [call for call in self._calls if call.future.cancelled()]:
                self._calls.remove(call)
                self._count(cancelled_calls=1)
            waiting = self._waiting(seat)
            fresh = [call for call in waiting if call.started is None]
            tokens = sum(call.waiting_tokens for call in waiting)
            spread = max(_MIN_SPREAD_TOKENS, -(-tokens // (self._idle + 1)))
            portions = pick_portions(waiting, min(backend.token_budget, spread))
            # Calls served now go behind those that are not, so that many calls take turns.
            served = {id(call) for call in calls_of(portions)}
            self._calls.sort(key=lambda call: id(call) in served)
            for call in fresh:
                if call.started is not None:
                    self._count_wait(call.started - call.submitted)
            return portions

    def _run(self, backend: Backend, portions: list[Portion]) -> None:
        """Compute portions. After a failure, halve until the calls at fault are alone."""
        for call in [call for call in calls_of(portions) if call.future.done()]:
            self._end(call, None)  # cancelled, or failed on another device
            portions = [portion for portion in portions if portion.call is not call]
        try:
            self._compute(backend, portions)
        except BaseException as error:
            calls = calls_of(portions)
            if len(calls) == 1:
                self._end(calls[0], error)
                return
            first = {id(call) for call in calls[: len(calls) // 2]}
            self._run(backend, [p for p in portions if id(p.call) in first])
            self._run(backend, [p for p in portions if id(p.call) not in first])

    def _compute(self, backend: Backend, portions: list[Portion]) -> None:
        prompts = [prompt for portion in portions for prompt in portion.call.prompts_of(portion)]
        if prompts:
            budget, started = backend.token_budget, time.monotonic()
            output = backend.run(prompts)
            if len(output.values) != len(prompts):
                raise BackendError(
                    f"{type(backend).__name__} gave {len(output.values)} values for {len(prompts)}"
                )
            with self._changed:
                self._count(
                    rounds=1,
                    compute_seconds=time.monotonic() - started,
                    budgeted_tokens=budget,
                    prompts=len(prompts),
                    prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
                    computed_tokens=int(output.computed.sum()),
                )
                start = 0
                for portion in portions:
                    stop = start + len(portion.indices)
                    values, computed = output.values[start:stop], output.computed[start:stop]
                    portion.call.store(portion, BackendOutput(values, computed))
                    start = stop
        for call in calls_of(portions):
            if call.is_complete:
                self._end(call, None)

    def _end(self, call: Call, error: BaseException | None) -> None:
        """Take a call out and resolve its future, once."""
        with self._changed:
            if call not in self._calls:
                return
            self._calls.remove(call)
            if call.future.cancelled():
                self._count(cancelled_calls=1)
            elif error is None:
                self._count(finished_calls=1)
            else:
                self._count(failed_calls=1)
        if error is None:
            call.finish()
        else:
            call.fail(error)

    def _count(self, **more: float) -> None:
        for name, value in more.items():
            self._sums[name] += value

    def _count_wait(self, seconds: float) -> None:
        self._count(wait_seconds=seconds)
        self._longest_wait = max(self._longest_wait, seconds)


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine was closed before this call was computed")
