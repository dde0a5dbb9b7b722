"""One round: what a backend computes of several calls at once. No threads and no lock here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen3_rag.backends.base import Backend, BackendOutput, StoppableBackend
from qwen3_rag.calls import Portion
from qwen3_rag.errors import BackendError
from qwen3_rag.tokens import Prompt


def prompts_of(portions: Sequence[Portion]) -> list[Prompt]:
    """Return the prompts of portions, one portion's after another's."""
    return [prompt for portion in portions for prompt in portion.call.prompts_of(portion)]


def compute(backend: Backend, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
    """Return what a backend gives for prompts.

    Args:
        backend: computes them.
        prompts: one or more.
        is_wanted: whether anybody still waits for it; asked by a backend that can give up.

    Raises:
        BackendError: it does not give a value and a cost for each prompt. Also whatever it raises.
    """
    if isinstance(backend, StoppableBackend):
        output = backend.run_while(prompts, is_wanted)
    else:
        output = backend.run(prompts)
    if len(output.values) != len(prompts) or len(output.computed) != len(prompts):
        raise BackendError(
            f"{type(backend).__name__} must give a value and a cost for each of {len(prompts)} prompts, "
            f"gave {len(output.values)} and {len(output.computed)}"
        )
    return output


def hand_out(output: BackendOutput, portions: Sequence[Portion]) -> None:
    """Give each portion's call the values of its prompts, which lie in the order of `prompts_of`."""
    start = 0
    for portion in portions:
        stop = start + len(portion.indices)
        portion.call.store(portion, BackendOutput(output.values[start:stop], output.computed[start:stop]))
        start = stop
