"""The contract between the core and whatever runs the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.errors import BackendError
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt


@dataclass(frozen=True)
class BackendOutput:
    """Result of one run, one row per prompt, in order.

    Attributes:
        values: float32. Embedding: final hidden state (after the last norm) of each prompt's last token, shape
            (n, hidden_size), not truncated; only its direction matters, so servers may have normalised it.
            Reranking: log-odds logit_yes - logit_no at the last token, shape (n,).
        computed: int64, shape (n,); tokens actually computed for each prompt. A shared or cached prefix counts
            for the prompt that computed it.
    """

    values: NDArray[np.float32]
    computed: NDArray[np.int64]


class Backend(Protocol):
    """A loaded model, or a connection to one.

    Attributes:
        token_budget: tokens that one call of `run` should have to keep the hardware busy.
        concurrency: how many calls of `run` may run at once, each in a thread of its own; 1 for a model on a
            device, more for servers.
    """

    @property
    def token_budget(self) -> int: ...

    @property
    def concurrency(self) -> int: ...

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts, each exactly as given: nothing added, nothing cut.

        Raises:
            OutOfMemoryError: one prompt alone does not fit.
        """
        ...

    def close(self) -> None:
        """Free the model. Called once, when no `run` is in progress, from the thread that loaded it."""
        ...


class RunAbandonedError(BackendError):
    """A run was abandoned because nobody waited for its result any more."""


@runtime_checkable
class StoppableBackend(Protocol):
    """A `Backend` that can abandon a run, because it waits for servers, which may never answer."""

    def run_while(self, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
        """Like `run`, but abandoned soon after `is_wanted`, called in the calling thread, returns False.

        Raises:
            RunAbandonedError: it was abandoned.
        """
        ...


BackendFactory = Callable[[EngineSettings], Backend]
"""What an entry point of the group `qwen3_rag.backends` refers to: loads a model according to settings."""
