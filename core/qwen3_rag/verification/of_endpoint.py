"""Verification of a server."""

from __future__ import annotations

from typing import Literal

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.diagnosis import finding
from qwen3_rag.verification.endpoint import AnswerError, Endpoint
from qwen3_rag.verification.report import Check, Report
from qwen3_rag.verification.routes import Route, Server, TemplateSide, routes
from qwen3_rag.verification.subject import ASKED_ALONE, Subject

Send = Literal["ids", "text", "both"]


def verify_endpoint(
    subject: Subject,
    endpoint: Endpoint,
    url: str,
    *,
    server: Server | None,
    model: str,
    served_model: str | None,
    send: Send,
    template: TemplateSide,
    dimensions: int | None,
) -> Report:
    """Ask a server in every way that it understands, and compare.

    Args:
        subject: what is right.
        endpoint: the server.
        url: its base URL, for the report.
        server: what it speaks; None finds out.
        model: the checkpoint's name.
        served_model: its name at the server; None takes the first that the server lists.
        send: "ids" and "text" ask in those ways only.
        template: who renders rerank prompts that are sent as text.
        dimensions: as `open_subject`.

    Raises:
        OSError: the server cannot be reached.
        ConfigurationError: it wants another key, or `server` and `send` leave no way to ask.
    """
    spoken = endpoint.detect(subject.kind) if server is None else server
    name = endpoint.model_name(model) if served_model is None else served_model
    ways = routes(
        url.rstrip("/"),
        spoken,
        subject.kind,
        model=name,
        template=template,
        instruction=subject.instruction,
        dimensions=dimensions,
    )
    ways = [way for way in ways if send == "both" or way.name.endswith("ids") == (send == "ids")]
    if not ways:
        raise ConfigurationError(f"--send {send}: a server of kind {spoken} takes no {send}")
    checks = tuple(_ask(subject, endpoint, way) for way in ways)
    return Report(f"{url} ({spoken})", model, subject.kind, checks)


def _ask(subject: Subject, endpoint: Endpoint, way: Route) -> Check:
    try:
        answered = endpoint.ask(way, subject.inputs)
        alone = endpoint.ask(way, subject.inputs[:ASKED_ALONE], at_once=1)
    except AnswerError as error:
        found = finding(error.fault, error.detail)
        return Check(way.name, 0, None, subject.measure, subject.tolerance, (found,))
    return subject.check(way.name, answered, alone)
