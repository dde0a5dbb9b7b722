"""Verification of a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from qwen3_rag.backends.remote.options import ServerName, TemplateSide
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.connection import AnswerError
from qwen3_rag.verification.diagnosis import finding
from qwen3_rag.verification.endpoint import Endpoint, as_floats
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.report import Check, Report
from qwen3_rag.verification.reranking_faults import are_symmetric
from qwen3_rag.verification.routes import Route, routes
from qwen3_rag.verification.subject import ASKED_ALONE, Input, Subject
from qwen3_rag.verification.texts import PAIRS

Send = Literal["auto", "ids", "text", "both"]


def verify_endpoint(
    subject: Subject,
    endpoint: Endpoint,
    *,
    server: ServerName | None,
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
        server: what it speaks; None finds out.
        model: the checkpoint's name.
        served_model: its name at the server; None finds it in the server's list.
        send: "ids" and "text" ask in those ways only. "auto" counts token ids where the server takes them,
            as this package sends them there, and notes what text gives.
        template: who renders rerank prompts that are sent as text.
        dimensions: as `make_subject`.

    Raises:
        OSError: the server cannot be reached, or keeps saying that it is busy.
        ConfigurationError: it wants another key or URL, lists several models of other names, or `server` and
            `send` leave no way to ask.
    """
    spoken = endpoint.detect(subject.kind) if server is None else server
    name = served_model
    if name is None and spoken != "tei":  # which serves one model, and is asked for none
        name = endpoint.model_name(model)
    ways = routes(
        endpoint.url,
        spoken,
        subject.kind,
        model=model if name is None else name,
        template=template,
        instruction=subject.instruction,
        dimensions=dimensions,
    )
    if send in ("ids", "text"):
        ways = [way for way in ways if way.takes_ids == (send == "ids")]
    if not ways:
        raise ConfigurationError(f"--send {send}: a server of kind {spoken} takes no {send}")
    notes_text = send == "auto" and any(way.takes_ids for way in ways)
    checks = tuple(
        replace(_ask(subject, endpoint, way), is_note=notes_text and not way.takes_ids) for way in ways
    )
    return Report(f"{endpoint.url} ({spoken})", model, subject.kind, checks, name)


def _ask(subject: Subject, endpoint: Endpoint, way: Route) -> Check:
    try:
        together = endpoint.ask(way, subject.inputs)
        alone = endpoint.ask(way, subject.inputs[:ASKED_ALONE], at_once=1)
        answered = as_floats([*together, *alone], subject.kind)
        check = subject.check(way.name, answered[: len(together)], answered[len(together) :])
        if [one.fault for one in check.findings] != ["unexplained"] or way.takes_ids:
            return check
        if subject.kind == "embedding" or not _answers_cosines(endpoint, way, answered[: len(PAIRS)]):
            return check
    except AnswerError as error:
        found = finding(error.fault, error.detail)
        return Check(way.name, 0, 0, None, subject.measure, subject.tolerance, (found,))
    found = finding("cosine", "they are the same when query and document are swapped, whichever the model is")
    return replace(check, findings=(found,))


def _answers_cosines(endpoint: Endpoint, way: Route, answered: Floats) -> bool:
    """Ask for the short pairs with query and document swapped: a reranker tells the two apart."""
    swapped = [Input((document, query), []) for query, document in PAIRS]
    return are_symmetric(answered, as_floats(endpoint.ask(way, swapped), "reranking"))
