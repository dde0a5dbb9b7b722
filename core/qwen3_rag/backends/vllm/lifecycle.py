"""Starting and stopping vLLM engines so that no process is left behind and none breaks another.

vLLM runs an engine either in processes of its own or, with `VLLM_ENABLE_V1_MULTIPROCESSING=0`, in this
one. Engines in this process share PyTorch's process groups, and the first to be shut down destroys
them for all: such engines are shut down together, when the last of them is stopped. They share
global variables too, so their calls run one at a time.
"""

from __future__ import annotations

import gc
import inspect
import multiprocessing
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Final, TypeVar

import numpy as np
import torch

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.workers import resolve

Result = TypeVar("Result")

_POLL_SECONDS: Final = 1
"""How often a waiting call checks that the engine's processes live. Results are not delayed by it. Chosen, not
tuned."""
_GRACE_SECONDS: Final = 2
"""How long an answer that a process sent before it died may take to arrive. Chosen, not tuned."""
_SECONDS_TO_STOP: Final = 20
"""A process of an engine that has not ended by then is terminated, and after as long again killed. Chosen, not
tuned."""

_NAMES: Final = ("EngineCore", "VLLM_DP_Coordinator", "VllmWorker-")
"""How the names of vLLM's processes begin (0.32: v1/engine/utils.py, v1/engine/coordinator.py,
v1/executor/multiproc_executor.py). Other threads may start other processes while an engine starts."""

# Engines start one after the other, because each measures the memory that the ones before it left; those in
# this process also run one at a time. The lock is held while an engine starts, stops or answers, so garbage
# collection must not wait for it. It does not: the finaliser of a component only signals the engine's own
# thread to stop vLLM.
_lock = threading.Lock()


class EngineDeadError(Exception):
    """A process of the engine died. vLLM has an error of the same name, in a private module."""


@dataclass(eq=False)
class Running:
    """A started engine.

    Attributes:
        engine: vLLM's object; None once it is shut down.
        processes: those that it started, and no other child of this process.
        in_process: whether it runs in this process, and so shares its process groups and globals.
    """

    engine: Any
    processes: list[BaseProcess]
    in_process: bool

    def result_of(self, call: Callable[[], Result]) -> Result:
        """Call the engine.

        An engine in this process is called while no other one runs, starts or stops: vLLM keeps its forward
        context in a global variable, so concurrent calls would read each other's (0.32). An engine in another
        process is called from a thread that can be abandoned, because `LLM` waits forever for a killed
        process.

        Raises:
            EngineDeadError: a process ended before the answer came. Otherwise whatever `call` raises.
        """
        if self.in_process:
            with _lock:
                return call()
        future: Future[Result] = Future()
        threading.Thread(target=resolve, args=(future, call), name="qwen3-rag-vllm", daemon=True).start()
        while not wait([future], _POLL_SECONDS).done:
            dead = self._dead()
            # It may have answered before it died, and the answer may still be on its way.
            if dead is not None and not wait([future], _GRACE_SECONDS).done:
                raise dead
        # A call that meets vLLM closing its sockets raises whatever those raise.
        if (error := future.exception()) is not None and (dead := self._dead()) is not None:
            raise dead from error
        return future.result()

    def _dead(self) -> EngineDeadError | None:
        ended = [process for process in self.processes if not process.is_alive()]
        return EngineDeadError(f"{ended[0].name} ended with exit code {ended[0].exitcode}") if ended else None


@dataclass
class _InProcess:
    """Engines that live in this process.

    Attributes:
        needed: those in use.
        done: stopped ones, shut down together once `needed` is empty.
        ever: whether there was one; from then on vLLM ignores VLLM_ENABLE_V1_MULTIPROCESSING.
    """

    needed: list[Running]
    done: list[Running]
    ever: bool = False


_here = _InProcess([], [])


def refuse_script_without_guard() -> None:
    """Refuse to start an engine in an engine's process that is importing the main script.

    While a spawned process imports the script, it is in `sys.modules` as `__mp_main__`, not yet as `__main__`.

    Raises:
        ConfigurationError: this is such a process.
    """
    script = sys.modules.get("__mp_main__")
    if script is None or script is sys.modules.get("__main__"):
        return
    raise ConfigurationError(
        "vLLM starts a process that imports this script again, and the script starts vLLM while it is "
        'imported; put what it runs under `if __name__ == "__main__":`, or set '
        "VLLM_ENABLE_V1_MULTIPROCESSING=0 to run the engine without a process of its own"
    )


def start(make: Callable[[], Any], *, always_apart: bool = False) -> Running:
    """Start an engine.

    Args:
        make: constructs vLLM's object.
        always_apart: the object runs its engine in other processes, whatever the environment says.

    Raises:
        Whatever `make` raises.
    """
    with _lock:
        _set_environment()
        before = set(multiprocessing.active_children())
        with _random_states_kept():
            engine = make()
        processes = [
            child
            for child in multiprocessing.active_children()
            if child not in before and child.name.startswith(_NAMES)
        ]
        apart = always_apart or (bool(processes) and not _here.ever and runs_apart())
        running = Running(engine, processes, in_process=not apart)
        if running.in_process:
            _here.needed.append(running)
            _here.ever = True
        return running


def stop(running: Running) -> None:
    """Stop an engine and wait until its processes have ended.

    An engine in this process frees its memory only when all engines in this process are stopped.
    """
    with _lock:
        if not running.in_process:
            _shut_down(running)
            return
        _here.needed.remove(running)
        _here.done.append(running)
        if not _here.needed:
            done, _here.done = _here.done, []
            with ExitStack() as stack:  # an error of one does not keep the others from being shut down
                for each in done:
                    stack.callback(_shut_down, each)


def runs_apart() -> bool:
    """Whether VLLM_ENABLE_V1_MULTIPROCESSING lets vLLM run engines in other processes; it does by default."""
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"


def _shut_down(running: Running) -> None:
    engine, running.engine = running.engine, None
    try:
        _ask_to_shut_down(engine)
    finally:
        del engine
        gc.collect()
        for process in running.processes:
            _end(process)
        torch.cuda.empty_cache()  # does nothing where this process has not used a GPU


def _ask_to_shut_down(engine: Any) -> None:
    """Call the engine's `shutdown`, if there is one.

    `AsyncLLM` has it as a public method. `LLM` has none (up to 0.32), so this is the one place that uses
    private attributes of vLLM; without them, its finalizers do the same once nothing refers to the engine.
    """
    for owner in (engine, getattr(getattr(engine, "llm_engine", None), "engine_core", None)):
        shutdown = getattr(owner, "shutdown", None)
        if callable(shutdown):
            takes_time = "timeout" in inspect.signature(shutdown).parameters
            shutdown(**({"timeout": _SECONDS_TO_STOP} if takes_time else {}))
            return


def _end(process: BaseProcess) -> None:
    process.join(_SECONDS_TO_STOP)
    if process.is_alive():
        process.terminate()
        process.join(_SECONDS_TO_STOP)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore the global random generators: an engine in this process seeds all of them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _set_environment() -> None:
    # No fork: this process has threads, and a forked engine would inherit the locks that they hold.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # By default vLLM sends usage statistics to its developers. Users who want that set the variable to 0.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
