"""Two halves of the pairs: what each half's vectors do not know, and a mean of what was learnt from both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from qwen3_rag.models import ModelKind

from training import checkpoints
from training.pairs import Pair

TECHNICAL: Final = ("debian", "docstring", "manual", "python-manual")
"""Kinds of pairs that have a source; those of dictionaries are general."""

_Result = TypeVar("_Result")


def halves(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Divide pairs by source; those of dictionaries, which have few sources, by query.

    Token vectors remember the pairs that they were trained on, which are then no task for a layer: it learns
    from one half how to use the vectors of the other.
    """
    first: list[Pair] = []
    second: list[Pair] = []
    for pair in pairs:
        name = pair.source if pair.kind in TECHNICAL else pair.query
        odd = hashlib.sha256(f"half {name}".encode()).digest()[0] % 2
        (second if odd else first).append(pair)
    return first, second


@dataclass(frozen=True)
class Mean:
    """How far a saved checkpoint is from its start to the mean of the trained ones.

    Attributes:
        layers: 0 is the start, 1 the mean of the trained layers.
        tables: 0 is the start's token table, 1 the mean of the trained ones'.
    """

    layers: float
    tables: float


def average(start: Path, trained: Sequence[Path], folder: Path, kind: ModelKind, mean: Mean) -> None:
    """Save a mean of checkpoints whose layers began as the start's, over token tables of their own.

    Args:
        start: checkpoint to go out from.
        trained: what training led to.
        folder: where to.
        kind: of all of them.
        mean: how much of each.
    """
    model = checkpoints.load_weights(start, kind)
    weights = model.state_dict()
    others = [checkpoints.load_weights(path, kind).state_dict() for path in trained]
    for name, weight in weights.items():
        end = torch.stack([other[name] for other in others]).mean(dim=0)
        share = mean.tables if "embed_tokens" in name or "lm_head" in name else mean.layers
        weights[name] = torch.lerp(weight, end, share)
    model.load_state_dict(weights)
    checkpoints.save(model, folder, like=start, kind=kind)


def add_changes(start: Path, changed: Sequence[tuple[Path, Path]], folder: Path, kind: ModelKind) -> None:
    """Save a checkpoint with the mean of what training changed in others of its sizes, but for token tables.

    Args:
        start: checkpoint to add to; its token table is kept.
        changed: checkpoints before training and after.
        folder: where to.
        kind: of all of them.
    """
    model = checkpoints.load_weights(start, kind)
    weights = model.state_dict()
    pairs = [[checkpoints.load_weights(path, kind).state_dict() for path in pair] for pair in changed]
    for name, weight in weights.items():
        if "embed_tokens" not in name and "lm_head" not in name:
            # Trained checkpoints are saved in bfloat16. Rounding is no change.
            changes = [after[name] - before[name].bfloat16().float() for before, after in pairs]
            weights[name] = weight + torch.stack(changes).mean(dim=0)
    model.load_state_dict(weights)
    checkpoints.save(model, folder, like=start, kind=kind)


def beside_each_other(job: Callable[..., _Result], arguments: Sequence[tuple[Any, ...]]) -> list[_Result]:
    """Call `job` with each of the arguments, two at a time, each in a process with half of the threads.

    That is a third faster than one after another with all threads: the matrices are small.

    Args:
        job: a function of a module, since it goes to another process.
        arguments: of each call.

    Returns:
        What the calls returned, in the order of the arguments. What one of them raised is raised.
    """
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=_use_half_of_the_threads) as processes:
        return [call.result() for call in [processes.submit(job, *given) for given in arguments]]


def _use_half_of_the_threads() -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
