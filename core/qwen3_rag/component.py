"""What `Embedder` and `Reranker` have in common: a lazily opened checkpoint, a share of an engine,
and one way to run prompts that serves sync and async callers."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from qwen3_rag import engines
from qwen3_rag.arguments import engine_settings, own_arguments, own_copy
from qwen3_rag.backends.base import Backend, BackendOutput
from qwen3_rag.calls import Call, Flow
from qwen3_rag.chunks import chunks, is_short
from qwen3_rag.engine import Engine
from qwen3_rag.errors import ConfigurationError, EngineClosedError, TruncationWarning
from qwen3_rag.forking import after_fork_in_child
from qwen3_rag.metrics import EngineMetrics
from qwen3_rag.models import ModelKind
from qwen3_rag.opening import Opening, Source, open_source
from qwen3_rag.progress import call_bar
from qwen3_rag.secret import check_no_secret
from qwen3_rag.stacklevel import caller_stacklevel
from qwen3_rag.steps import Steps, Task, drive, drive_async
from qwen3_rag.tokens import Prompts
from qwen3_rag.usage import Usage
from qwen3_rag.work import Bind, Collector, Item, Outcome, Pending, Work

Self = TypeVar("Self", bound="Component")

_CHUNKS_AHEAD: Final = 3
"""Chunks of one call that may be queued, so that a bulk job's token ids need bounded memory."""

_INLINE_NUMBERS: Final = 200_000
"""Results of up to this many numbers are post-processed on the event loop (about 1 ms), more in a thread."""


class Component:
    """Base of `Embedder` and `Reranker`. Thread-safe; copied and pickled as its configuration.

    A subclass with a constructor of other arguments needs its own `__reduce__`, `__copy__` and `__deepcopy__`.

    Args:
        kind: of the model.
        arguments: `locals()` of the subclass's constructor. They are kept, for pickling.

    Raises:
        ConfigurationError, TypeError: an argument is out of range, or of a wrong type.
    """

    def __init__(self, kind: ModelKind, arguments: Mapping[str, Any]) -> None:
        self._arguments = own_arguments(arguments)
        self._settings = engine_settings(kind, self._arguments)
        self._timeout: float | None = self._arguments["timeout"]
        self._max_tokens: int = self._arguments["max_tokens"]
        if self._timeout is not None and not self._timeout > 0:
            raise ConfigurationError(
                f"timeout must be a number of seconds above 0, or None, got {self._timeout}"
            )
        if self._max_tokens < 1:
            raise ConfigurationError(
                f"max_tokens must be 1 or more, and at most the model's context, got {self._max_tokens}"
            )
        self._opening = self._new_opening()
        # Reentrant, and never held while anything is read or loaded: a signal's handler may close this.
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._release: weakref.finalize[[Engine], Component] | None = None
        self._closed = False
        self._usage = Usage()
        _components.add(self)

    @property
    def model(self) -> str:
        """The model as it was named to the constructor."""
        return self._settings.model

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments by name, defaults included; dicts and lists are copies."""
        arguments: dict[str, Any] = own_copy(self._arguments)
        return arguments

    @property
    def usage(self) -> Usage:
        """What all finished calls of this object cost together."""
        return self._usage

    @property
    def backend(self) -> Backend | None:
        """The loaded backend (of the first device), or None before the first use. Others may share it."""
        engine = self._engine
        return engine.backend if engine is not None else None

    @property
    def metrics(self) -> EngineMetrics:
        """Queue, waiting and work of the engine, which may be shared; zeros before the first use."""
        engine = self._engine
        return engine.metrics if engine is not None else EngineMetrics()

    def load(self: Self) -> Self:
        """Load tokenizer and weights now instead of on first use, however long that takes: `timeout` is for
        calls that compute.

        Raises:
            CheckpointError, ConfigurationError, MissingExtraError: what is wrong with the settings.
        """
        self._acquire(self._open()).load()
        return self

    def close(self) -> None:
        """Give the engine back. The last component to do so frees the weights."""
        self._closed = True
        self._release_engine()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Component], tuple[()]]:
        check_no_secret(self._settings.model_kwargs)
        return partial(type(self), **self._arguments), ()

    def __copy__(self) -> Component:
        return type(self)(**self._arguments)

    def __deepcopy__(self, _: object) -> Component:
        return type(self)(**self._arguments)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{k}={v!r}" for k, v in self._arguments.items() if k not in ("model", "model_kwargs")
        )
        return f"{type(self).__name__}({self.model!r}, {shown})"

    def _new_opening(self) -> Opening:
        return Opening(
            partial(
                open_source,
                self._settings,
                max_tokens=self._max_tokens,
                parse_special_tokens=self._arguments["parse_special_tokens"],
            )
        )

    def _open(self, timeout: float | None = None) -> Source:
        def steps() -> Steps[Source]:
            source: Source = yield self._opening.ask()
            return source

        return drive(steps(), timeout)

    def _unload(self) -> None:
        """Give the engine back; the next call opens the checkpoint anew and loads it."""
        self._opening = self._new_opening()
        self._release_engine()

    def _release_engine(self) -> None:
        with self._lock:
            engine, self._engine = self._engine, None
            release, self._release = self._release, None
        if engine is not None and release is not None and release.detach():
            engines.release(engine)

    def _acquire(self, source: Source) -> Engine:
        with self._lock:
            if self._closed:
                raise EngineClosedError(f"this {type(self).__name__} is closed; create a new one")
            if self._engine is None:
                engine = engines.acquire(source.settings, source.version)
                # For an object that nobody closed. Garbage is collected in any thread: this must not wait.
                self._release = weakref.finalize(self, engines.release, engine, wait=False)
                self._release.atexit = False  # `engines` closes them all
                self._engine = engine
            return self._engine

    def _run(self, items: Sequence[Item], bind: Bind[Item], *, progress: bool) -> Outcome:
        """Encode and run items chunk by chunk, tokenising ahead of the model."""
        return self._count_and_warn(drive(self._steps(items, bind, progress), self._timeout))

    async def _arun(self, items: Sequence[Item], bind: Bind[Item], *, progress: bool) -> Outcome:
        """`_run` for an event loop: waits without blocking it, and cancels its work when cancelled."""
        return self._count_and_warn(await drive_async(self._steps(items, bind, progress), self._timeout))

    def _steps(self, items: Sequence[Item], bind: Bind[Item], progress: bool) -> Steps[Outcome]:
        source: Source = yield self._opening.ask()
        work = bind(source)
        engine, flow = self._acquire(source), Flow()
        collected = Collector(work.per_chunk)
        pending: deque[Pending] = deque()

        def oldest_done() -> Steps[int]:
            """Wait for the oldest chunk, take its values and return how many inputs it had."""
            output: BackendOutput = yield pending[0].future
            is_short = output.values.size <= _INLINE_NUMBERS
            count: int = yield Task(partial(collected.add, pending[0], output), is_short)
            pending.popleft()
            return count

        with call_bar(len(items), is_shown=progress) as bar, _cancelling(pending):
            for start, chunk in chunks(items, self._max_tokens):
                pending.append((yield from self._submitted(chunk, start, work, engine, flow)))
                while len(pending) > _CHUNKS_AHEAD:
                    bar.update((yield from oldest_done()))
            while pending:
                bar.update((yield from oldest_done()))
        outcome: Outcome = yield Task(
            partial(collected.outcome, work.on_all), collected.numbers <= _INLINE_NUMBERS
        )
        return outcome

    def _submitted(
        self, chunk: Sequence[Item], start: int, work: Work[Item], engine: Engine, flow: Flow
    ) -> Steps[Pending]:
        """Wait for a place in the engine, encode a chunk and queue it there."""

        def encode() -> tuple[Prompts, Call]:
            prompts = work.encode(chunk, start)
            shares = self._settings.shares_prefixes
            return prompts, Call(prompts.prompts, flow=flow, share_prefixes=shares, asked=place.asked)

        place = engine.enter()
        try:
            yield place
            prompts, call = yield Task(encode, is_short(chunk))
        except BaseException:
            engine.give_up(place)
            raise
        return Pending(start, prompts, engine.submit(call))

    def _count_and_warn(self, outcome: Outcome) -> Outcome:
        with self._lock:
            self._usage += outcome.usage
        if outcome.usage.truncated_texts:  # after that, since a warning may be made an error
            warnings.warn(
                f"{outcome.usage.truncated_texts} of {outcome.usage.texts} documents were cut to fit "
                f"max_tokens={self._max_tokens}; raise it or split them",
                TruncationWarning,
                stacklevel=caller_stacklevel(),
            )
        return outcome


@contextlib.contextmanager
def _cancelling(pending: deque[Pending]) -> Iterator[None]:
    """Drop the work that is still queued when a call ends early."""
    try:
        yield
    finally:
        for chunk in pending:
            chunk.future.cancel()


_components: weakref.WeakSet[Component] = weakref.WeakSet()


@after_fork_in_child
def _renew_locks() -> None:
    """Whoever held a lock when the process forked stayed in the parent."""
    for component in list(_components):
        component._lock = threading.RLock()
        component._opening.renew_after_fork()
