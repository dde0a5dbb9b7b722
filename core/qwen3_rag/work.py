"""What a call does with its inputs before and after the model, and how its chunks become one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.errors import NonFiniteOutputError
from qwen3_rag.opening import Source
from qwen3_rag.tokens import Prompts
from qwen3_rag.usage import Usage

Item = TypeVar("Item")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Work(Generic[Item]):
    """What a call does with its inputs before and after the model. Made once its checkpoint is open.

    Attributes:
        encode: (chunk, index of its first input) -> token ids.
        per_chunk: turns the backend's values of a chunk, which may be empty, into results.
        on_all: turns the results of all chunks together into what the caller gets.
    """

    encode: Callable[[Sequence[Item], int], Prompts]
    per_chunk: Callable[[Floats], Floats]
    on_all: Callable[[Floats], NDArray[Any]]


Bind = Callable[[Source], Work[Item]]
"""From an opened checkpoint to a call's work. Raises ConfigurationError for what only the checkpoint can tell,
such as a vector length beyond its own."""


@dataclass(frozen=True)
class Outcome:
    """Results of all prompts of a call, in order, and what they cost."""

    values: NDArray[Any]
    usage: Usage


@dataclass(frozen=True)
class Pending:
    """A chunk whose values are awaited; `start` is the index of its first input."""

    start: int
    prompts: Prompts
    future: Future[BackendOutput]


class Collector:
    """Gathers the chunks of a call and checks their numbers.

    Args:
        per_chunk: as in `Work`.
    """

    def __init__(self, per_chunk: Callable[[Floats], Floats]) -> None:
        self._per_chunk = per_chunk
        self._results: list[Floats] = []
        self._usage = Usage()

    @property
    def numbers(self) -> int:
        """How many numbers the results have."""
        return sum(result.size for result in self._results)

    def add(self, chunk: Pending, output: BackendOutput) -> int:
        """Take a chunk's output and return how many inputs it had.

        Raises:
            NonFiniteOutputError: naming the first text whose value is NaN or infinite.
        """
        finite = np.isfinite(output.values.reshape(len(output.values), -1)).all(axis=1)
        if not finite.all():
            raise NonFiniteOutputError(
                f"the model returned NaN or infinity for text {chunk.start + int(finite.argmin())}; "
                "its weights may be damaged, or float16 overflows (use bfloat16 or float32)"
            )
        self._results.append(self._per_chunk(output.values))
        prompts = chunk.prompts.prompts
        given = sum(len(prompt.token_ids) for prompt in prompts)
        self._usage += Usage(len(prompts), given, int(output.computed.sum()), chunk.prompts.truncated)
        return len(prompts)

    def outcome(self, on_all: Callable[[Floats], NDArray[Any]]) -> Outcome:
        """Return what `on_all` makes of all results, and what they cost."""
        results = self._results if self._results else [self._per_chunk(np.zeros(0, np.float32))]
        return Outcome(on_all(np.concatenate(results)), self._usage)
