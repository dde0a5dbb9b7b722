"""A backend whose numbers can be worked out in the head, for tests of the engine itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.calls import Call, Flow
from qwen3_rag.engine import Engine
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokens import Prompt

POISON = 66_666


class SumBackend:
    """Answers with the sum of each prompt's ids; waits at a gate; fails on a poisonous id."""

    token_budget = 100
    concurrency = 1

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.rounds: list[list[int]] = []
        self.closed = False

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        sequences = [prompt.token_ids for prompt in prompts]
        self.running.set()
        assert self.gate.wait(30)
        self.rounds.append([int(ids[0]) for ids in sequences])
        if any(POISON in ids for ids in sequences):
            raise ArithmeticError("poison")
        values = np.array([ids.sum() for ids in sequences], dtype=np.float32)
        return BackendOutput(values, np.array([len(ids) for ids in sequences], dtype=np.int64))

    def close(self) -> None:
        self.closed = True


def ids(*tokens: int) -> Prompt:
    """A prompt of these token ids."""
    return Prompt(np.array(tokens, dtype=np.int32), EmbeddingWords("", "unused", is_query=False))


def submit(engine: Engine, prompts: Sequence[Prompt], flow: Flow | None = None) -> Future[BackendOutput]:
    """Queue prompts as one call, and without a place."""
    return engine._submit(Call(prompts, flow=flow))
