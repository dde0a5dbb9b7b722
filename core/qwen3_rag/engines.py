"""The engines of this process: components with equal settings share one, and so one set of weights."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from qwen3_rag.engine import Engine
from qwen3_rag.plugins import BACKENDS, load_plugin
from qwen3_rag.settings import EngineSettings


@dataclass
class _Shared:
    engine: Engine
    users: int = 0


_engines: dict[str, _Shared] = {}
# Reentrant: a garbage collection while it is held may release an engine in the same thread.
_lock = threading.RLock()


def acquire(settings: EngineSettings) -> Engine:
    """Return the engine for these settings, made on first request. Pair it with `release`.

    Raises:
        ConfigurationError, MissingExtraError: the backend's name is unknown or not installed.
    """
    with _lock:
        shared = _engines.get(settings.key)
        if shared is None:
            factory = load_plugin(BACKENDS, settings.backend)
            shared = _engines[settings.key] = _Shared(Engine(lambda: factory(settings)))
        shared.users += 1
        return shared.engine


def release(settings: EngineSettings) -> None:
    """Give an engine back; the last user's release closes it and frees the weights."""
    with _lock:
        shared = _engines.get(settings.key)
        if shared is None:  # made before this process was forked
            return
        shared.users -= 1
        if shared.users:
            return
        del _engines[settings.key]
    shared.engine.close()


def _forget_after_fork() -> None:
    """A forked child starts without engines: their threads and locks stayed in the parent."""
    global _lock
    _lock = threading.RLock()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
