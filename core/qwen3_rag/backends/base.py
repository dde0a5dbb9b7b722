"""The contract between the core and whatever runs the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokenization import TokenIds


@dataclass(frozen=True)
class BackendOutput:
    """What the model said of some token sequences, in their order.

    Attributes:
        values: float32. Embedding: final hidden state (after the last norm) of each sequence's
            last token, shape (n, hidden_size), neither cut nor normalised. Reranking: log-odds
            logit_yes - logit_no at the last token, shape (n,).
        computed: int64, shape (n,); tokens computed for each sequence, less those that it shares
            with one before it.
    """

    values: NDArray[np.float32]
    computed: NDArray[np.int64]


class Backend(Protocol):
    """A loaded model. One thread at a time calls it.

    Attributes:
        token_budget: tokens that one call of `run` should bring for the hardware to be busy.
    """

    token_budget: int

    def run(self, sequences: Sequence[TokenIds]) -> BackendOutput:
        """Run token sequences, each exactly as given: nothing added, nothing cut.

        Raises:
            OutOfMemoryError: one sequence alone does not fit.
        """
        ...

    def close(self) -> None:
        """Free the model. Called once, from the thread that called `run`."""
        ...


BackendFactory = Callable[[EngineSettings], Backend]
"""What an entry point of the group `qwen3_rag.backends` names: loads a model as settings say."""
