"""The threads that own a model and merge concurrent calls into full batches.

One thread per device loads the model there and runs it, round by round. A cancelled call is dropped
before its next round; a failing round fails only the calls whose own prompts fail; no future is
ever left unresolved.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from qwen3_rag.backends.base import Backend, BackendOutput
from qwen3_rag.call_queue import CallQueue, closed_error
from qwen3_rag.calls import Call, Portion
from qwen3_rag.errors import EngineClosedError, ForkedProcessError, copy_for_caller, future_safe
from qwen3_rag.gate import Gate, Place
from qwen3_rag.interruption import is_interrupted
from qwen3_rag.metrics import EngineMetrics
from qwen3_rag.rounds import run_round
from qwen3_rag.workers import WorkerThread


@dataclass
class _Device:
    """One device: how its model is loaded, who waits for that, and the threads that run it."""

    number: int
    load: Callable[[], Backend]
    backend: Backend | None = None
    is_loading: bool = False
    load_futures: list[Future[None]] = field(default_factory=list)
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
        self._devices = [_Device(number, load) for number, load in enumerate(loads)]
        self._max_wait = max_wait_ms / 1000
        self._changed = threading.Condition()
        self._queue = CallQueue(self._changed)
        self._idle: set[int] = set()  # threads that have no round
        self._closing = False
        self._process = os.getpid()

    @property
    def backend(self) -> Backend | None:
        """The backend of the first device, or None before its first use."""
        return self._devices[0].backend

    @property
    def backends(self) -> list[Backend]:
        """The backends of all devices that are loaded, in the order of the devices."""
        return [device.backend for device in self._devices if device.backend is not None]

    @property
    def metrics(self) -> EngineMetrics:
        """A snapshot of queue, work and waiting; zeros in a forked child."""
        if self._is_forked():
            return EngineMetrics()
        return self._queue.metrics(waiting_calls=self._gate.waiting)

    def load(self) -> None:
        """Load the model on every device now and wait for it.

        Raises:
            Whatever loading raises, and EngineClosedError, ForkedProcessError.
        """
        for future in [self._ask_to_load(device) for device in self._devices]:
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
        # Before it is queued: an interrupt must not leave a queued call whose place is never given back.
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
        self._gate.close(closed_error)
        self._fail_waiting()
        if not wait:
            return
        if isinstance(threading.current_thread(), WorkerThread):
            return  # by a garbage collection in it; a worker can wait neither for itself nor for another
        for device in self._devices:
            if not device.is_loading:
                for thread in device.threads[:1]:
                    thread.join()

    def _submit(self, call: Call) -> Future[BackendOutput]:
        self._check_process()
        with self._changed:
            self._start_threads()
            self._queue.add(call)
        return call.future

    def _ask_to_load(self, device: _Device) -> Future[None]:
        self._check_process()
        future: Future[None] = Future()
        with self._changed:
            self._start_threads()
            if device.backend is not None:
                future.set_result(None)
            else:
                device.load_futures.append(future)
                self._changed.notify_all()
        return future

    def _is_forked(self) -> bool:
        """Whether this is a child process. Then no lock may be touched: its holder stayed in the parent."""
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._is_forked():
            raise ForkedProcessError(
                "this model was loaded before the process forked, and its worker thread did not come along; "
                'create the Embedder or Reranker in the child, or start workers with the "spawn" method'
            )

    def _start_threads(self) -> None:
        """Start the threads of devices that have none; the lock is held."""
        if self._closing:
            raise EngineClosedError("the engine is closed; create a new Embedder or Reranker")
        for device in self._devices:
            if not device.threads:
                self._start(device, self._run_first_thread)

    def _start(self, device: _Device, work: Callable[[_Device], None]) -> None:
        thread = WorkerThread(partial(self._run_thread, device, work), f"qwen3-rag-engine-{device.number}")
        with self._changed:  # the thread ends at once unless it finds itself in the list
            thread.start()
            device.threads.append(thread)

    def _run_thread(self, device: _Device, work: Callable[[_Device], None]) -> None:
        """Run `work`, unless Ctrl-C came while this thread was started: nobody would know of it."""
        with self._changed:
            is_known = threading.current_thread() in device.threads
        if is_known:
            work(device)

    def _run_first_thread(self, device: _Device) -> None:
        """Load the device's backend, work, and close the backend."""
        self._work(device)
        for helper in device.threads[1:]:
            helper.join()
        # Calls that another device is computing are failed by that one, if they are not done then.
        self._fail_waiting()
        backend, device.backend = device.backend, None
        if backend is not None:
            backend.close()

    def _work(self, device: _Device) -> None:
        while True:
            try:
                if not self._wait(device):
                    return
                if device.backend is None:
                    self._load(device)
                else:
                    run_round(device.backend, self._pick(device.backend), self._queue, lambda: self._closing)
            except BaseException as error:  # a defect here must not leave callers waiting for ever
                self._queue.fail(self._queue.unfinished(), error)
                self._answer_loads(device, error)

    def _wait(self, device: _Device) -> bool:
        """Wait for something to do; False when closing."""
        with self._changed:
            self._idle.add(threading.get_ident())
            while not self._closing:
                patience = self._patience(device)
                if patience is not None and patience <= 0:
                    return True
                self._changed.wait(patience)
            return False

    def _patience(self, device: _Device) -> float | None:
        """Return the seconds for which a round may still wait for more calls; None without anything to do.

        No round begins before every device is loaded. Else calls would succeed or fail with a device that
        cannot load, as it happens.
        """
        if device.backend is None:
            return 0.0 if self._is_wanted(device) else None
        # A backend is asked for its budget only when something waits: a broken device may raise.
        if not self._queue.waiting() or any(other.backend is None for other in self._devices):
            return None
        return self._queue.patience(device.backend.token_budget, self._max_wait)

    def _is_wanted(self, device: _Device) -> bool:
        return bool(device.load_futures or self._queue.waiting())

    def _load(self, device: _Device) -> None:
        """Load a device's backend. A failure goes to all that wait, and the next call tries again."""
        self._queue.drop_cancelled()
        with self._changed:  # in one step, so that `close` never waits for a load
            device.is_loading = not self._closing and self._is_wanted(device)
        if not device.is_loading:
            return
        try:
            device.backend = device.load()
        except BaseException as error:
            self._queue.fail(self._queue.resting(), error)
            self._answer_loads(device, error)
            return
        finally:
            device.is_loading = False
        if self._closing:
            return
        for _ in range(device.backend.concurrency - 1):
            self._start(device, self._work)
        self._answer_loads(device)
        with self._changed:
            self._changed.notify_all()  # other devices wait for this one

    def _answer_loads(self, device: _Device, error: BaseException | None = None) -> None:
        """Resolve the futures of those who wait until a device is loaded, each once."""
        with self._changed:
            futures, device.load_futures = device.load_futures, []
        for future in futures:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(future_safe(copy_for_caller(error)))

    def _fail_waiting(self) -> None:
        """Tell all whose work no round computes that the engine is closed."""
        self._queue.fail(self._queue.resting(), closed_error())
        for device in self._devices:
            self._answer_loads(device, closed_error())

    def _pick(self, backend: Backend) -> list[Portion]:
        self._queue.drop_cancelled()
        with self._changed:
            idle = len(self._idle)
            self._idle.discard(threading.get_ident())
            return [] if self._closing else self._queue.pick(backend.token_budget, idle)
