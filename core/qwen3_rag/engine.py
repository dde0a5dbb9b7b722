"""The threads that own a model and merge concurrent calls into full batches.

One thread per device loads the model there and runs it, round by round. A cancelled call is dropped
before its next round; a failing round fails only the calls whose own prompts fail; no future is
ever left unresolved.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from qwen3_rag.backends.base import Backend, BackendOutput, RunAbandonedError
from qwen3_rag.calls import Call, Portion, calls_of, pick_portions
from qwen3_rag.errors import EngineClosedError, ForkedProcessError, concerns_every_prompt
from qwen3_rag.gate import Gate, Place
from qwen3_rag.interruption import is_interrupted
from qwen3_rag.metrics import EngineMetrics, Tally
from qwen3_rag.rounds import compute, hand_out, prompts_of
from qwen3_rag.workers import WorkerThread

_MIN_SPREAD_TOKENS: Final = 1024
"""Idle devices divide what waits among them, but not into rounds smaller than this: a prefix that
two of them need is computed twice."""


@dataclass
class _Seat:
    """One device: how its model is loaded, and the threads that run it."""

    number: int
    load: Callable[[], Backend]
    backend: Backend | None = None
    is_loading: bool = False
    threads: list[WorkerThread] = field(default_factory=list)


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
        self._idle: set[int] = set()  # threads that have no round
        self._closing = False
        self._process = os.getpid()
        self._tally = Tally()

    @property
    def backend(self) -> Backend | None:
        """The backend of the first device, or None before its first use."""
        return self._seats[0].backend

    @property
    def metrics(self) -> EngineMetrics:
        """A snapshot of queue, work and waiting; zeros in a forked child."""
        if self._is_forked():
            return EngineMetrics()
        with self._changed:
            calls = [call for call in self._calls if call.seat is None]
            return self._tally.snapshot(
                waiting_calls=self._gate.waiting,
                queued_calls=len(calls),
                queued_prompts=sum(call.waiting_prompts for call in calls),
                queued_tokens=sum(call.waiting_tokens for call in calls),
            )

    def load(self) -> None:
        """Load the model on every device now and wait for it.

        Raises:
            Whatever loading raises, and EngineClosedError, ForkedProcessError.
        """
        for future in [self._submit(Call([], seat=seat.number)) for seat in self._seats]:
            future.result()

    def enter(self) -> Place:
        """Ask for one of the `max_queued` places; `submit` needs one.

        Returns:
            A future, done once the place is given. `submit` takes it over, also when it raises;
            whoever stops waiting, or submits nothing, gives it up with `give_up`.

        Raises:
            ForkedProcessError: this process was forked from the one that made the engine.
        """
        self._check_process()
        return self._gate.enter()

    def give_up(self, place: Place) -> None:
        """Give back a place that nothing was submitted with, whether it has been given yet or not."""
        self._gate.give_up(place)

    def submit(self, call: Call) -> Future[BackendOutput]:
        """Queue a call, from a place got by `enter`; safe from any thread.

        Returns:
            A future of its prompts' values and costs, in the given order. Cancelling it drops the work.

        Raises:
            EngineClosedError: the engine is closed.
            ForkedProcessError: this process was forked from the one that made the engine.
        """
        # First, so that no interrupt comes between a call that is queued and what gives its place back.
        call.future.add_done_callback(lambda _: self._gate.leave())
        try:
            return self._submit(call)
        except BaseException:
            call.future.cancel()
            raise

    def close(self, *, wait: bool = True) -> None:
        """Let running rounds end, or stop where the backend can, fail what waits, and free the model.

        Args:
            wait: return when the model is freed. A device that is still loading is not waited for: it
                drops its model as soon as it has it. Nor does a signal's handler wait that interrupted a call
                of an engine: another thread closes this one.
        """
        if self._is_forked():
            return
        if wait and is_interrupted():
            WorkerThread(self.close, "qwen3-rag-close").start()
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._gate.close(_closed)
        self._fail(self._resting(), _closed())
        if not wait:
            return
        for seat in self._seats:
            # A garbage collection inside a worker may get here; it cannot wait for itself or for another.
            if not isinstance(threading.current_thread(), WorkerThread) and not seat.is_loading:
                for thread in seat.threads[:1]:
                    thread.join()

    def _submit(self, call: Call) -> Future[BackendOutput]:
        self._check_process()
        with self._changed:
            if self._closing:
                raise EngineClosedError("the engine is closed; create a new Embedder or Reranker")
            for seat in self._seats:
                if not seat.threads:
                    self._start(seat, self._own)
            self._calls.append(call)
            self._changed.notify_all()
        return call.future

    def _is_forked(self) -> bool:
        """Whether this is a child process. Then no lock may be touched: its holder stayed in the parent."""
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._is_forked():
            raise ForkedProcessError(
                "this model was loaded before the process forked, and its worker thread did not come along; "
                'create the Embedder or Reranker in the child, or start workers with the "spawn" method'
            )

    def _start(self, seat: _Seat, work: Callable[[_Seat], None]) -> None:
        thread = WorkerThread(partial(self._live, seat, work), f"qwen3-rag-engine-{seat.number}")
        with self._changed:  # the thread lives on only if it finds itself here
            thread.start()
            seat.threads.append(thread)

    def _live(self, seat: _Seat, work: Callable[[_Seat], None]) -> None:
        """Life of a thread. It ends at once if Ctrl-C came while it was started: nobody would know of it."""
        with self._changed:
            is_known = threading.current_thread() in seat.threads
        if is_known:
            work(seat)

    def _own(self, seat: _Seat) -> None:
        """Life of a seat's first thread: it loads the backend, works, and closes the backend."""
        self._work(seat)
        for helper in seat.threads[1:]:
            helper.join()
        # Calls that another device is computing are failed by that one, if they are not done then.
        self._fail(self._resting(), _closed())
        backend, seat.backend = seat.backend, None
        if backend is not None:
            backend.close()

    def _work(self, seat: _Seat) -> None:
        while True:
            try:
                if not self._wait(seat):
                    return
                if seat.backend is not None or self._loaded(seat):
                    assert seat.backend is not None
                    self._run(seat.backend, self._pick(seat.backend, seat.number))
            except BaseException as error:  # a defect here must not leave callers waiting for ever
                self._fail(list(self._calls), error)

    def _wait(self, seat: _Seat) -> bool:
        """Wait for calls that this seat may take; False when closing."""
        with self._changed:
            self._idle.add(threading.get_ident())
            while not self._closing:
                waiting = self._waiting(seat.number)
                patience = self._patience(waiting, seat.backend)
                if waiting and patience <= 0:
                    return True
                self._changed.wait(patience if waiting else None)
            return False

    def _waiting(self, seat: int) -> list[Call]:
        return [call for call in self._calls if call.waits and call.seat in (None, seat)]

    def _resting(self) -> list[Call]:
        """Calls of which no round is computing anything."""
        with self._changed:
            return [call for call in self._calls if not call.running]

    def _patience(self, waiting: Sequence[Call], backend: Backend | None) -> float:
        """Return the seconds that a round may still wait for company."""
        if not self._max_wait or not waiting or backend is None:
            return 0.0
        if sum(call.waiting_tokens for call in waiting) >= backend.token_budget:
            return 0.0
        return min(call.asked for call in waiting) + self._max_wait - time.monotonic()

    def _loaded(self, seat: _Seat) -> bool:
        """Load a seat's backend. A failure goes to the calls that wait, and the next call tries again."""
        self._drop_cancelled()
        with self._changed:  # in one step, so that `close` never waits for a load
            seat.is_loading = not self._closing and bool(self._waiting(seat.number))
        if not seat.is_loading:
            return False
        try:
            seat.backend = seat.load()
        except BaseException as error:
            calls = [call for call in self._resting() if call.seat in (None, seat.number)]
            self._fail(calls, error)
            return False
        finally:
            seat.is_loading = False
        if self._closing:
            return False
        for _ in range(seat.backend.concurrency - 1):
            self._start(seat, self._work)
        return True

    def _fail(self, calls: Iterable[Call], error: BaseException) -> None:
        for call in calls:
            self._end(call, error)

    def _drop_cancelled(self) -> None:
        with self._changed:
            cancelled = [call for call in self._calls if call.future.cancelled()]
        for call in cancelled:
            self._end(call, None)

    def _pick(self, backend: Backend, seat: int) -> list[Portion]:
        self._drop_cancelled()
        with self._changed:
            waiting = [] if self._closing else self._waiting(seat)
            fresh = [call for call in waiting if call.started is None]
            tokens = sum(call.waiting_tokens for call in waiting)
            # Idle threads that were woken too have not picked yet: they get their part.
            self._idle.add(threading.get_ident())
            spread = max(_MIN_SPREAD_TOKENS, -(-tokens // len(self._idle)))
            self._idle.remove(threading.get_ident())
            portions = pick_portions(waiting, min(backend.token_budget, spread)) if waiting else []
            for call in fresh:
                if call.started is not None and call.seat is None:
                    self._tally.add_wait(call.started - call.asked)
            return portions

    def _run(self, backend: Backend, portions: list[Portion]) -> None:
        """Compute portions. After a failure that may be one prompt's, halve until those at fault are alone."""
        for call in [call for call in calls_of(portions) if call.future.done()]:
            self._end(call, None)  # cancelled, or failed on another device
            portions = [portion for portion in portions if portion.call is not call]
        error = self._compute(backend, portions)
        calls = calls_of(portions)
        if error is None:
            for call in calls:
                if call.is_complete:
                    self._end(call, None)
        elif isinstance(error, RunAbandonedError):
            self._fail(calls, _closed())  # those that are done already keep what they got
        elif len(calls) == 1 or concerns_every_prompt(error):
            self._fail(calls, error)
        elif self._closing:
            self._fail(calls, _closed())
        else:
            first = {id(call) for call in calls[: len(calls) // 2]}
            self._run(backend, [p for p in portions if id(p.call) in first])
            self._run(backend, [p for p in portions if id(p.call) not in first])

    def _compute(self, backend: Backend, portions: list[Portion]) -> BaseException | None:
        """Compute and store the values of portions; returns what went wrong, in which case none is stored."""
        prompts, calls = prompts_of(portions), calls_of(portions)
        budget, started = backend.token_budget, time.monotonic()
        output: BackendOutput | None = None  # of a call without prompts
        try:
            if prompts:
                output = compute(
                    backend,
                    prompts,
                    lambda: not self._closing and not all(call.future.done() for call in calls),
                )
        except RunAbandonedError as error:
            return error
        except BaseException as error:
            with self._changed:
                self._tally.add(failed_rounds=1, compute_seconds=time.monotonic() - started)
            return error
        with self._changed:
            for portion in portions:
                portion.call.running -= 1
            if output is not None:
                hand_out(output, portions)
                self._tally.add(
                    rounds=1,
                    compute_seconds=time.monotonic() - started,
                    budgeted_tokens=budget,
                    prompts=len(prompts),
                    prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
                    computed_tokens=int(output.computed.sum()),
                )
        return None

    def _end(self, call: Call, error: BaseException | None) -> None:
        """Take a call out and resolve its future, once."""
        with self._changed:
            if call not in self._calls:
                return
            self._calls.remove(call)
            if call.seat is not None:
                pass  # `load` computes nothing
            elif call.future.cancelled():
                self._tally.add(cancelled_calls=1)
            elif error is None:
                self._tally.add(finished_calls=1)
            else:
                self._tally.add(failed_calls=1)
        if error is None:
            call.finish()
        else:
            call.fail(error)


def _closed() -> EngineClosedError:
    return EngineClosedError("the engine was closed before this call was computed")
