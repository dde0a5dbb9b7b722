"""An engine's metrics as OpenTelemetry instruments. Needs the package opentelemetry-api."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Final

from qwen3_rag.component import Component
from qwen3_rag.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

_NOW: Final = {
    "waiting_calls": ("{call}", "Calls that wait for a place in the queue"),
    "queued_calls": ("{call}", "Calls with a place that are not finished"),
    "queued_prompts": ("{prompt}", "Prompts that no round has taken yet"),
    "queued_tokens": ("{token}", "What these would add to batches"),
    "longest_wait_seconds": ("s", "Longest time from asking for a place to a call's first round"),
}
"""Field of `EngineMetrics` that goes up and down -> unit and description."""

_SUMS: Final = {
    "finished_calls": ("{call}", "Calls that got their values"),
    "failed_calls": ("{call}", "Calls that got an error"),
    "cancelled_calls": ("{call}", "Calls that were cancelled"),
    "wait_seconds": ("s", "Time from asking for a place to calls' first rounds"),
    "rounds": ("{round}", "Runs of the model"),
    "failed_rounds": ("{round}", "Runs of the model that raised"),
    "compute_seconds": ("s", "Time that the model ran"),
    "prompts": ("{prompt}", "Prompts computed"),
    "prompt_tokens": ("{token}", "Their tokens"),
    "computed_tokens": ("{token}", "Tokens that passed through the model"),
    "budgeted_tokens": ("{token}", "Token budgets of all rounds"),
}
"""Field that only grows -> unit and description."""


_observed: weakref.WeakKeyDictionary[Meter, weakref.WeakSet[Component]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


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
        meter = _global_meter()
    with _lock:
        observed = _observed.get(meter)
        if observed is not None:
            observed.add(component)
            return
        # An instrument keeps the callbacks it was made with, so all components of a meter share them.
        observed = _observed[meter] = weakref.WeakSet([component])

    def reader(field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            for one in list(observed):
                attributes = {"model": one.model, "component": type(one).__name__}
                yield metrics.Observation(getattr(one.metrics, field), attributes)

        return read

    for field, (unit, description) in _NOW.items():
        meter.create_observable_gauge(f"qwen3_rag.{field}", [reader(field)], unit, description)
    for field, (unit, description) in _SUMS.items():
        meter.create_observable_counter(f"qwen3_rag.{field}", [reader(field)], unit, description)


@cache
def _global_meter() -> Meter:
    """One meter for the process: a provider may make a new object of the same instruments each time."""
    from opentelemetry import metrics

    return metrics.get_meter("qwen3_rag")
