"""The events that an adapter sends, noted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent


class CallbackLog(BaseCallbackHandler):
    """Callback events of a `CallbackManager`.

    Attributes:
        started, ended: type and payload of each event, in order.
    """

    def __init__(self) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.started: list[tuple[CBEventType, dict[str, Any]]] = []
        self.ended: list[tuple[CBEventType, dict[str, Any]]] = []

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",  # noqa: ARG002
        **_: Any,
    ) -> str:
        """Note the start of an event."""
        self.started.append((event_type, {} if payload is None else payload))
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Note the end of an event."""
        self.ended.append((event_type, {} if payload is None else payload))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Traces are not noted."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Traces are not noted."""


class _EventLog(BaseEventHandler):
    _seen: list[BaseEvent] = PrivateAttr(default_factory=list)

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self._seen.append(event)


@contextmanager
def events() -> Iterator[list[BaseEvent]]:
    """Collect the instrumentation events of the process."""
    root = get_dispatcher()
    log = _EventLog()
    handlers = root.event_handlers
    root.event_handlers = [*handlers, log]
    try:
        yield log._seen
    finally:
        root.event_handlers = handlers
