"""One round: what a backend computes of several calls at once, and what becomes of a round that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from qwen3_rag.backends.base import Backend, BackendOutput, RunAbandonedError, StoppableBackend
from qwen3_rag.call_queue import CallQueue, closed_error
from qwen3_rag.calls import Portion, calls_of, prompts_of
from qwen3_rag.errors import BackendError, concerns_every_prompt
from qwen3_rag.tokens import Prompt


def run_round(
    backend: Backend, portions: Sequence[Portion], queue: CallQueue, is_closing: Callable[[], bool]
) -> None:
    """Compute portions, store their values and end the calls that are complete.

    After a failure that may be one prompt's, the halves are computed apart until those at fault are alone.

    Args:
        backend: computes them.
        portions: may be empty. Those of calls that are cancelled are left out.
        queue: holds their calls.
        is_closing: whether the engine is being closed; then nothing that failed is tried again.
    """
    for call in [call for call in calls_of(portions) if call.future.done()]:
        queue.end(call)  # cancelled, or failed on another device
        portions = [portion for portion in portions if portion.call is not call]
    if not portions:
        return
    error = _compute(backend, portions, queue, is_closing)
    calls = calls_of(portions)
    if error is None:
        for call in calls:
            if call.is_complete:
                queue.end(call)
    elif isinstance(error, RunAbandonedError):
        queue.fail(calls, closed_error())  # those that are done already keep what they got
    elif len(calls) == 1 or concerns_every_prompt(error):
        queue.fail(calls, error)
    elif is_closing():
        queue.fail(calls, closed_error())
    else:
        first = {id(call) for call in calls[: len(calls) // 2]}
        run_round(backend, [p for p in portions if id(p.call) in first], queue, is_closing)
        run_round(backend, [p for p in portions if id(p.call) not in first], queue, is_closing)


def _compute(
    backend: Backend, portions: Sequence[Portion], queue: CallQueue, is_closing: Callable[[], bool]
) -> BaseException | None:
    """Compute and store the values of portions; returns what went wrong, in which case none is stored."""
    prompts, calls = prompts_of(portions), calls_of(portions)
    started = time.monotonic()

    def is_wanted() -> bool:
        return not is_closing() and not all(call.future.done() for call in calls)

    try:
        token_budget = backend.token_budget
        output = _output_of(backend, prompts, is_wanted)
    except RunAbandonedError as error:
        return error
    except BaseException as error:
        queue.count_failed_round(time.monotonic() - started)
        return error
    seconds = time.monotonic() - started
    queue.store(portions, prompts, output, token_budget=token_budget, seconds=seconds)
    return None


def _output_of(backend: Backend, prompts: Sequence[Prompt], is_wanted: Callable[[], bool]) -> BackendOutput:
    """Return what a backend gives for prompts; one that can give up asks `is_wanted` meanwhile.

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
