"""Recording what reaches the model, and holding the model back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

from qwen3_rag.backends.base import Backend, BackendOutput, StoppableBackend
from qwen3_rag.component import Component
from qwen3_rag.opening import Opening, Source
from qwen3_rag.testing.event_loop import PATIENCE_SECONDS, Gate
from qwen3_rag.tokens import Prompt


@dataclass
class Recording:
    """Calls of a component's backends: one per device.

    Attributes:
        rounds: for each call of `Backend.run` the token ids of each prompt, in the order given to it. Rounds
            of several devices stand in the order in which they began.
    """

    rounds: list[list[list[int]]] = field(default_factory=list)

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of all prompts, over all rounds."""
        return [prompt for prompts in self.rounds for prompt in prompts]


@contextmanager
def recording(component: Component, calls: int = 0) -> Iterator[Recording]:
    """Load an `Embedder` or `Reranker` and record every prompt that reaches its backends meanwhile.

    Args:
        component: what is recorded.
        calls: the model holds its first round until so many calls are in its queue, the running ones
            included: concurrent calls can then show, however slow the machine, that they are merged.
            A round that waits for 30 s fails with AssertionError.
    """
    record, lock = Recording(), threading.Lock()

    def note(prompts: Sequence[Prompt]) -> None:
        with lock:  # several devices begin rounds at the same time
            if not record.rounds:
                _wait_for(component, calls)
            record.rounds.append([prompt.token_ids.tolist() for prompt in prompts])

    with _before_each_round(_backends(component.load()), note):
        yield record


@contextmanager
def holding(component: Component) -> Iterator[Gate]:
    """Hold an `Embedder` or `Reranker` back: each round if it is loaded, else its loading.

    Yields:
        The gate that it waits at; it opens at the latest when the context ends.
    """
    gate = Gate()
    opening = component._opening

    def held() -> Source:
        gate.wait()
        return opening.ask().result()

    is_loaded = component.backend is not None
    with (
        _before_each_round(_backends(component), lambda _: gate.wait())
        if is_loaded
        else patch.object(component, "_opening", Opening(held))
    ):
        try:
            yield gate
        finally:
            gate.open()


@contextmanager
def _before_each_round(
    backends: Sequence[Backend], act: Callable[[Sequence[Prompt]], object]
) -> Iterator[None]:
    def acting(run: Callable[..., BackendOutput], prompts: Sequence[Prompt], *more: Any) -> BackendOutput:
        act(prompts)
        return run(prompts, *more)

    with ExitStack() as stack:
        for backend in backends:
            called = "run_while" if isinstance(backend, StoppableBackend) else "run"  # by the engine
            stack.enter_context(patch.object(backend, called, partial(acting, getattr(backend, called))))
        yield


def _backends(component: Component) -> list[Backend]:
    """Return the backends of all devices of a loaded component."""
    assert component._engine is not None
    return component._engine.backends


def _wait_for(component: Component, calls: int) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while component.metrics.queued_calls < calls:
        assert time.monotonic() < end, f"{component.metrics.queued_calls} of {calls} calls came"
        time.sleep(0.001)
