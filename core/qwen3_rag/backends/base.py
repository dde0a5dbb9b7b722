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
        values: float32. Embedding: final hidden state (after the last norm) of each prompt's
            last token, shape (n, hidden_size), not cut; only its direction counts, so servers may
            have normalised it. Reranking: log-odds logit_yes - logit_no at the last token, shape (n,).
        computed: int64, shape (n,); tokens computed for each prompt, less those that it shares with
            one before it, in this call or an earlier one.
    """

    values: NDArray[np.float32]
    computed: NDArray[np.int64]


class Backend(Protocol):
    """A loaded model, or a connection to one.

    Attributes:
        token_budget: tokens that one call of `run` should bring for the hardware to be busy.
        concurrency: calls of `run` that may be under way at once, each from a thread of its own;
            1 for a model on a device, more for servers.
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
        """Free the model. Called once, when no `run` is under way, from the thread that loaded it."""
        ...


class RunAbandonedError(BackendError):
    """A run was given up because nobody waited for it any more."""


@runtime_checkable
class StoppableBackend(Protocol):
    """What a `Backend` also has that can give up a run: one that waits for servers, which may never answer."""

    def run_while(self, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
        """`run`, given up soon after `is_wanted`, which may be asked from the calling thread, says no.

        Raises:
            RunAbandonedError: it was given up.
        """
        ...


BackendFactory = Callable[[EngineSettings], Backend]
"""What an entry point of the group `qwen3_rag.backends` names: loads a model as settings say."""
