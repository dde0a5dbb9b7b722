"""The engines of this process: components with equal settings share one, and so one set of weights."""

from __future__ import annotations

import atexit
import multiprocessing.util  # noqa: F401 - see `_close_all`
import threading
import weakref
from dataclasses import dataclass
from functools import partial

from qwen3_rag.backends.process import ProcessBackend
from qwen3_rag.engine import Engine
from qwen3_rag.forking import after_fork_in_child
from qwen3_rag.plugins import load_backend
from qwen3_rag.settings import EngineSettings


@dataclass
class _Shared:
    engine: Engine
    users: int = 0


_engines: dict[str, _Shared] = {}
_ending: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Released engines whose threads may still run; joined at exit."""

# Reentrant: a garbage collection while it is held may release an engine in the same thread.
_lock = threading.RLock()


def acquire(settings: EngineSettings, version: object) -> Engine:
    """Return the engine for these settings, made on first request. Pair it with `release`.

    Nothing is read, loaded or imported here: the engine's own threads do that, so that nobody waits for
    a model but their own.

    Args:
        settings, version: what `resolve_local_model` returned.
    """
    key = f"{settings.key} {version}"
    with _lock:
        if key not in _engines:
            _engines[key] = _Shared(_new_engine(settings))
        # No function is called in between: its return may let a handler close the engine that was just found.
        shared = _engines[key]
        shared.users += 1
        return shared.engine


def release(engine: Engine, *, wait: bool = True) -> None:
    """Give an engine back; the last user's release closes it and frees the weights.

    Args:
        engine: what `acquire` returned. One from before a fork is not the child's to close.
        wait: see `Engine.close`.
    """
    if _drop_user(engine):
        engine.close(wait=wait)


def _drop_user(engine: Engine) -> bool:
    """Count one user less of an engine, and return whether that was the last."""
    with _lock:
        for key, shared in _engines.copy().items():  # of which a garbage collection may drop others meanwhile
            if shared.engine is engine:
                shared.users -= 1
                if shared.users:
                    return False
                del _engines[key]
                _ending.add(engine)
                return True
    return False


def _new_engine(settings: EngineSettings) -> Engine:
    devices = settings.per_device
    load = load_backend if len(devices) == 1 else ProcessBackend
    return Engine(
        *(partial(load, one) for one in devices),
        max_wait_ms=settings.max_wait_ms,
        max_queued=settings.max_queued,
    )


@atexit.register
def _close_all() -> None:
    """At the interpreter's exit, end every running round and child process in order.

    What is registered last runs first: this before `multiprocessing` joins all processes that were started by
    it, vLLM's among them, which end when their engine is closed.
    """
    with _lock:
        engines = [*(shared.engine for shared in _engines.values()), *_ending]
        _engines.clear()
    for engine in engines:
        engine.close()


@after_fork_in_child
def _forget_engines() -> None:
    """A forked child starts without engines: their threads and locks stayed in the parent."""
    global _lock
    _lock = threading.RLock()
    _engines.clear()
    _ending.clear()
