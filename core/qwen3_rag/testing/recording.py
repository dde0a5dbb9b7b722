"""What really reaches the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from unittest.mock import patch

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.component import Component
from qwen3_rag.tokenization import Prompt

_PATIENCE_SECONDS: Final = 30.0


@dataclass
class Recording:
    """Calls of a backend.

    Attributes:
        rounds: for each call of `Backend.run` the token ids of each prompt, in the order given to it.
    """

    rounds: list[list[list[int]]] = field(default_factory=list)

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of all prompts, over all rounds."""
        return [prompt for prompts in self.rounds for prompt in prompts]


@contextmanager
def recording(component: Component, calls: int = 0) -> Iterator[Recording]:
    """Load an `Embedder` or `Reranker` and record every prompt that reaches its backend meanwhile.

    Args:
        component: what is recorded.
        calls: the model holds its first round until so many calls are in its queue, the running ones
            included: concurrent calls can then show, however slow the machine, that they are merged.
            A round that waits for 30 s fails with AssertionError.
    """
    backend = component.load().backend
    assert backend is not None
    run = backend.run
    record = Recording()

    def recorded(prompts: Sequence[Prompt]) -> BackendOutput:
        if not record.rounds:
            _wait_for(component, calls)
        record.rounds.append([prompt.token_ids.tolist() for prompt in prompts])
        return run(prompts)

    with patch.object(backend, "run", recorded):
        yield record


def _wait_for(component: Component, calls: int) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while component.metrics.queued_calls < calls:
        assert time.monotonic() < end, f"{component.metrics.queued_calls} of {calls} calls came"
        time.sleep(0.001)
