"""An engine's metrics as OpenTelemetry instruments. Needs the package opentelemetry-api."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from qwen3_rag.component import Component
from qwen3_rag.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

_NOW: Final = {
    "queued_calls": ("{call}", "Calls that are not finished"),
    "queued_prompts": ("{prompt}", "Prompts that no round has taken yet"),
    "queued_tokens": ("{token}", "What these would add to batches"),
    "longest_wait_seconds": ("s", "Longest time from a call's submission to its first round"),
}
"""Field of `EngineMetrics` that goes up and down -> unit and description."""

_SUMS: Final = {
    "finished_calls": ("{call}", "Calls that got their values"),
    "failed_calls": ("{call}", "Calls that got an error"),
    "cancelled_calls": ("{call}", "Calls that were cancelled"),
    "wait_seconds": ("s", "Time from calls' submission to their first round"),
    "rounds": ("{round}", "Runs of the model"),
    "compute_seconds": ("s", "Time that the model ran"),
    "prompts": ("{prompt}", "Prompts computed"),
    "prompt_tokens": ("{token}", "Their tokens"),
    "computed_tokens": ("{token}", "Tokens that passed through the model"),
    "budgeted_tokens": ("{token}", "Token budgets of all rounds"),
}
"""Field that only grows -> unit and description."""


def observe(component: Component, meter: Meter | None = None) -> None:
    """Report a component's engine through OpenTelemetry, as `qwen3_rag.<field of EngineMetrics>`.

    Observations carry the attributes `model` and `component`. They end when the component is
    garbage collected. Components that share an engine report the same numbers: observe one of them.

    Args:
        component: an `Embedder` or `Reranker`.
        meter: where instruments are made; None takes the global meter provider's.

    Raises:
        MissingExtraError: opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise MissingExtraError("observe()", "opentelemetry") from error
    if meter is None:
        meter = metrics.get_meter("qwen3_rag")
    observed = weakref.ref(component)
    attributes = {"model": component.model, "component": type(component).__name__}

    def reader(field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            alive = observed()
            if alive is not None:
                yield metrics.Observation(getattr(alive.metrics, field), attributes)

        return read

    for field, (unit, description) in _NOW.items():
        meter.create_observable_gauge(f"qwen3_rag.{field}", [reader(field)], unit, description)
    for field, (unit, description) in _SUMS.items():
        meter.create_observable_counter(f"qwen3_rag.{field}", [reader(field)], unit, description)
